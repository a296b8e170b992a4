from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.chat.app import App, ModelSettings, Variable, features, settings
from domain.chat.conversation import (
    COPIED,
    HISTORY,
    Citation,
    Conversation,
    FilterVerdict,
    Truncation,
    Usage,
    question,
)
from domain.chat.file import File, file_id
from tests.domain.scenario import NOW, given, made, refold

APP, CALL = new_id(), new_id()
FIRST, SECOND = new_id(), new_id()
USAGE = Usage(prompt_tokens=100, completion_tokens=9, estimated=True)
CUT = Truncation(segments=1, messages=0)
CITATION = Citation(
    position=1,
    dataset=new_id(),
    document=new_id(),
    document_name="rules.md",
    segment=new_id(),
    segment_position=4,
    page=None,
    heading="Rules > Water",
    sentence="The sluice opens at dawn.",
    content="The sluice opens at dawn. It closes at dusk.",
    score=0.8,
)

Decision = Callable[[Conversation], None]


def conversation() -> Conversation:
    return Conversation.begin(Conversation.Started, FIRST, NOW, app=APP, user="ada", name="When does")


def ask(conversation: Conversation, **fields: Any) -> None:
    given: dict[str, Any] = {
        "message": FIRST,
        "app": APP,
        "configuration": 1,
        "query": "When does the sluice open?",
        "inputs": {"tone": "calm"},
        "user": "ada",
    }
    conversation.ask(NOW, **given | fields)


def answering(conversation: Conversation) -> None:
    conversation.answering(NOW, message=FIRST)


def answer(conversation: Conversation) -> None:
    conversation.answer(
        NOW,
        message=FIRST,
        answer="At dawn [1].",
        citations=[CITATION],
        usage=USAGE,
        cut=CUT,
        model_call=CALL,
        duration_ms=250.0,
        finish_reason="stop",
    )


def fail(conversation: Conversation) -> None:
    conversation.fail(NOW, message=FIRST, code="timeout", reason="The model is silent.", answer="At d")


def stop(conversation: Conversation) -> None:
    conversation.stop(NOW, message=FIRST)


def stopped(conversation: Conversation) -> None:
    conversation.stopped(NOW, message=FIRST, answer="At")


def retry(conversation: Conversation) -> None:
    conversation.retry(NOW, message=FIRST)


def like(conversation: Conversation) -> None:
    conversation.rate(NOW, message=FIRST, rating="like", content="Right")


def delete(conversation: Conversation) -> None:
    conversation.delete(NOW)


def test_is_started_by_a_user_of_an_app() -> None:
    made(conversation()).then(Conversation.Started).whole(app=APP, user="ada", name="When does")


def test_takes_a_question_once() -> None:
    scenario = given(conversation()).once(ask, Conversation.Asked)
    assert scenario.aggregate.messages[FIRST]["status"] == "asked"
    given(conversation()).when(ask).whole(
        message=FIRST,
        app=APP,
        parent=None,
        configuration=1,
        query="When does the sluice open?",
        inputs={"tone": "calm"},
        user="ada",
        files=None,
        repeats=None,
        tool_call=None,
    )


def test_a_question_follows_the_one_before() -> None:
    given(conversation(), ask).when(lambda it: ask(it, message=SECOND)).then(Conversation.Asked, parent=FIRST)


@pytest.mark.parametrize(("fields", "code"), [({"app": CALL}, "wrong_app"), ({"user": "bob"}, "wrong_user")])
def test_belongs_to_one_app_and_one_user(fields: dict[str, str], code: str) -> None:
    given(conversation()).when(lambda it: ask(it, **fields)).rejects(code, next(iter(fields)))


def test_every_worker_that_begins_is_an_attempt() -> None:
    scenario = given(conversation(), ask).when(answering).then(Conversation.Answering, message=FIRST, attempt=1)
    scenario.when(answering).then(Conversation.Answering, attempt=2)
    assert scenario.aggregate.messages[FIRST]["status"] == "answering"


def test_is_answered_once() -> None:
    scenario = given(conversation(), ask, answering).once(answer, Conversation.Answered, answer="At dawn [1].")
    assert scenario.aggregate.messages[FIRST]["status"] == "answered"
    given(conversation(), ask, answering).when(answer).whole(
        message=FIRST,
        answer="At dawn [1].",
        citations=[CITATION],
        usage=USAGE,
        cut=CUT,
        model_call=CALL,
        duration_ms=250.0,
        finish_reason="stop",
        parts=None,
    )


def test_fails_once_and_keeps_what_arrived() -> None:
    scenario = given(conversation(), ask, answering).once(fail, Conversation.Failed, code="timeout", answer="At d")
    assert scenario.aggregate.messages[FIRST]["answer"] == "At d"


def test_stops_where_it_was_asked_to() -> None:
    scenario = given(conversation(), ask, answering).once(stop, Conversation.StopRequested, message=FIRST)
    assert scenario.aggregate.messages[FIRST]["status"] == "answering"
    scenario.once(stopped, Conversation.Stopped, answer="At").when(stop).nothing()
    assert scenario.aggregate.messages[FIRST]["status"] == "stopped"


@pytest.mark.parametrize("end", [answer, fail])
def test_an_answer_that_ended_cannot_be_stopped(end: Decision) -> None:
    given(conversation(), ask, end).when(stop).rejects("already_ended", "message")


@pytest.mark.parametrize("end", [answer, fail, stopped, delete])
@pytest.mark.parametrize("later", [answering, answer, fail, stopped])
def test_an_answer_ends_once(end: Decision, later: Decision) -> None:
    scenario = given(conversation(), ask, answering, end)
    assert scenario.aggregate.ended(FIRST)
    scenario.when(later).nothing()


@pytest.mark.parametrize("end", [answer, stopped])
def test_an_answer_is_rated(end: Decision) -> None:
    scenario = given(conversation(), ask, answering, end).once(like, Conversation.Rated)
    scenario.once(
        lambda it: it.rate(NOW, message=FIRST, rating=None, content=""), Conversation.Rated, rating=None, app=APP
    )


@pytest.mark.parametrize("before", [(ask,), (ask, answering), (ask, fail)])
def test_what_has_no_answer_cannot_be_rated(before: tuple[Decision, ...]) -> None:
    given(conversation(), *before).when(like).rejects("not_answered", "message")


@pytest.mark.parametrize("decision", [stop, like])
def test_knows_its_messages(decision: Decision) -> None:
    given(conversation()).when(decision).rejects("not_found", "message")


def test_is_renamed_once() -> None:
    given(conversation()).once(lambda it: it.rename(NOW, name="Sluice"), Conversation.Renamed, name="Sluice")


def test_is_deleted_once() -> None:
    given(conversation(), ask).once(delete, Conversation.Deleted)


def test_the_history_is_what_was_answered_before_newest_first() -> None:
    ids = [new_id() for _ in range(4)]
    it = given(conversation()).aggregate
    for number, id in enumerate(ids):
        ask(it, message=id, query=f"Question {number}")
        if number != 1:
            it.stopped(NOW, message=id, answer=f"Answer {number}")
    assert [message["query"] for message in it.history(ids[3]).values()] == ["Question 2", "Question 0"]
    assert list(it.history(ids[3])) == [ids[2], ids[0]]
    assert it.history(ids[0]) == {}


def test_the_texts_of_old_messages_are_let_go() -> None:
    it = given(conversation()).aggregate
    ids = [new_id() for _ in range(HISTORY + 5)]
    for id in ids:
        ask(it, message=id)
        it.stopped(NOW, message=id, answer="An answer")
    kept = [id for id in ids if it.messages[id]["query"]]
    assert kept == ids[-HISTORY:]
    assert all(it.messages[id]["answer"] == "" and it.messages[id]["inputs"] == {} for id in ids[:5])
    assert {message["status"] for message in it.messages.values()} == {"stopped"}
    assert len(it.history(ids[-1])) == HISTORY - 1


def test_a_failed_answer_can_be_tried_again() -> None:
    scenario = given(conversation(), ask, answering, fail).when(retry).then(Conversation.Retried)
    scenario.whole(message=FIRST, app=APP)
    message = scenario.aggregate.messages[FIRST]
    assert (message["status"], message["answer"], message["attempt"]) == ("asked", "", 1)
    scenario.when(answering).then(Conversation.Answering, attempt=2)
    scenario.when(answer).then(Conversation.Answered)


@pytest.mark.parametrize("before", [(ask,), (ask, answering), (ask, answer), (ask, stopped), (ask, fail, retry)])
def test_only_a_failed_answer_can_be_tried_again(before: tuple[Decision, ...]) -> None:
    given(conversation(), *before).when(retry).rejects("not_failed", "message")


def test_a_message_that_was_never_asked_cannot_be_tried_again() -> None:
    given(conversation()).when(retry).rejects("not_found", "message")


def test_a_stop_that_came_too_late_is_forgotten_by_a_retry() -> None:
    scenario = given(conversation(), ask, stop, fail).when(retry).then(Conversation.Retried)
    assert not scenario.aggregate.messages[FIRST]["stop_requested"]


def test_a_message_whose_words_are_gone_cannot_be_tried_again() -> None:
    scenario = given(conversation(), ask, fail)
    for _ in range(HISTORY):
        ask(scenario.aggregate, message=new_id())
    scenario.aggregate.pending()
    scenario.when(retry).rejects("too_old", "message")


# --- forks ---------------------------------------------------------------------------------------------------


def talked(turns: int, answer: str = "An answer") -> tuple[Conversation, list[str]]:
    """A conversation of `count` answered questions, and their ids."""
    it = given(conversation()).aggregate
    ids = [new_id() for _ in range(turns)]
    for number, id in enumerate(ids):
        ask(it, message=id, query=f"Question {number}")
        it.stopped(NOW, message=id, answer=answer)
    it.pending()
    return it, ids


def fork(source: Conversation, message: str, name: str | None = None) -> Conversation:
    return Conversation.fork(SECOND, NOW, source=source, message=message, name=name)


def test_a_fork_goes_on_after_a_message_with_what_went_before() -> None:
    source, ids = talked(3)
    source.rate(NOW, message=ids[0], rating="like", content="Right")
    forked = fork(source, ids[1])
    made(forked).then(Conversation.Started, Conversation.Forked).whole(
        conversation=source.id,
        message=ids[1],
        messages=[
            {
                "message": id,
                "configuration": 1,
                "query": f"Question {number}",
                "inputs": {"tone": "calm"},
                "answer": "An answer",
            }
            for number, id in enumerate(ids[:2])
        ],
    )
    assert (forked.app, forked.user, forked.name) == (APP, "ada", source.name)
    assert forked.messages[ids[0]]["rating"] is None
    ask(forked, message=SECOND)
    assert list(forked.history(SECOND)) == [ids[1], ids[0]]
    assert len(source.messages) == 3


def test_a_fork_may_have_a_name_and_be_forked() -> None:
    source, ids = talked(2)
    again = fork(fork(source, ids[1], "What if"), ids[0])
    assert (again.name, list(again.messages)) == ("What if", ids[:1])


def test_what_a_fork_took_over_takes_nothing_more() -> None:
    source, (message,) = talked(1)
    scenario = given(fork(source, message))
    assert scenario.aggregate.ended(message)
    scenario.when(lambda it: it.rate(NOW, message=message, rating="like", content="")).rejects(
        "not_answered", "message"
    )
    scenario.when(lambda it: it.retry(NOW, message=message)).rejects("not_failed", "message")
    scenario.when(lambda it: it.stop(NOW, message=message)).rejects("already_ended", "message")


@pytest.mark.parametrize("before", [(ask,), (ask, answering), (ask, fail)])
def test_only_an_answered_message_can_be_forked_after(before: tuple[Decision, ...]) -> None:
    given(conversation(), *before).when(lambda it: fork(it, FIRST)).rejects("not_answered", "message")


def test_a_message_that_was_stopped_before_it_said_anything_cannot_be_forked_after() -> None:
    source, (message,) = talked(1, answer="")
    given(source).when(lambda it: fork(it, message)).rejects("not_answered", "message")


def test_a_message_that_there_is_not_cannot_be_forked_after() -> None:
    given(conversation()).when(lambda it: fork(it, FIRST)).rejects("not_found", "message")


def test_a_message_whose_words_are_gone_cannot_be_forked_after() -> None:
    source, ids = talked(HISTORY + 1)
    given(source).when(lambda it: fork(it, ids[0])).rejects("too_old", "message")
    assert list(fork(source, ids[-1]).messages) == ids[1:]


def test_a_fork_takes_over_what_fits() -> None:
    source, ids = talked(3, answer="x" * (COPIED // 2 - 100))
    assert list(fork(source, ids[2]).messages) == ids[1:]
    source, ids = talked(1, answer="x" * COPIED)
    given(source).when(lambda it: fork(it, ids[0])).rejects("too_large", "message")


def test_a_fork_whose_history_was_erased_goes_on_without_it() -> None:
    source, (message,) = talked(1)
    started, forked = fork(source, message).pending()
    blank = Conversation.Forked(**vars(forked) | {"messages": []})
    it = refold(Conversation, [started, blank])
    it.record(
        Conversation.Asked,
        NOW,
        message=SECOND,
        app=APP,
        parent=message,
        configuration=1,
        query="?",
        inputs={},
        user="ada",
    )
    assert it.history(SECOND) == {}


# --- the tree of messages ------------------------------------------------------------------------------------


def configured(*variables: Variable) -> App:
    """The app, after its second configuration, which asks for these variables."""
    app = App.begin(App.Created, APP, NOW, name="Guide", description="")
    for prompt in ("Be brief.", "Be exact."):
        app.configure(
            NOW,
            model=ModelSettings(provider="lab", name="small", max_tokens=9, context_window=999, parameters={}),
            prompt=prompt,
            variables=list(variables),
            datasets=[],
            retrieval=settings({"mode": "hybrid", "top_k": 4, "score_threshold": None}),
            features=features({}),
        )
    return app


TONE = Variable(name="tone", required=False, default="dry")
PLACE = Variable(name="place", required=False, default="mill")


def test_a_question_continues_after_any_message() -> None:
    source, ids = talked(3)
    given(source).when(lambda it: ask(it, message=SECOND, after=ids[0])).then(Conversation.Asked, parent=ids[0])
    assert list(source.history(SECOND)) == ids[:1]


def test_a_question_cannot_continue_after_what_is_not_there_or_not_kept() -> None:
    source, ids = talked(HISTORY + 1)
    scenario = given(source).when(lambda it: ask(it, message=SECOND, after=new_id()))
    scenario.rejects("not_found", "parent_message")
    scenario.when(lambda it: ask(it, message=SECOND, after=ids[0])).rejects("too_old", "parent_message")


def test_a_question_is_asked_again_as_a_sibling_of_the_newest_configuration() -> None:
    source, ids = talked(3)

    def regenerate(it: Conversation) -> None:
        it.regenerate(NOW, message=SECOND, repeats=ids[1], app=configured(TONE, PLACE))

    given(source).once(regenerate, Conversation.Asked)
    given(talked(0)[0]).when(lambda it: ask(it, message=ids[1])).when(regenerate).whole(
        message=SECOND,
        app=APP,
        parent=None,
        configuration=2,
        query="When does the sluice open?",
        inputs={"tone": "calm", "place": "mill"},
        user="ada",
        files=None,
        repeats=ids[1],
        tool_call=None,
    )
    assert source.messages[SECOND]["parent"] == ids[0]
    assert list(source.history(SECOND)) == ids[:1]
    ask(source, message=FIRST)
    assert list(source.history(FIRST)) == ids[:1], "the newest message, which has no answer yet, is on another branch"


def test_what_is_not_there_or_not_kept_cannot_be_asked_again() -> None:
    source, ids = talked(HISTORY + 1)
    for message, code in ((new_id(), "not_found"), (ids[0], "too_old")):

        def regenerate(it: Conversation, of: str = message) -> None:
            it.regenerate(NOW, message=SECOND, repeats=of, app=configured())

        given(source).when(regenerate).rejects(code, "message")


def test_more_of_a_message_is_a_conversation_of_its_own_that_names_it() -> None:
    source, ids = talked(2)
    more = Conversation.more_like(SECOND, NOW, source=source, message=ids[1], app=configured(TONE))
    assert (more.user, more.name, list(more.messages)) == ("ada", source.name, [SECOND])
    made(more).then(
        Conversation.Started, Conversation.Asked, repeats=ids[1], parent=None, configuration=2, inputs={"tone": "calm"}
    )


def test_the_inputs_are_the_question_of_a_message_without_one() -> None:
    it = given(conversation()).aggregate
    ask(it, query="", inputs={"topic": "Sluices", "tone": "", "length": "short"})
    assert question(it.messages[FIRST]) == "Sluices\nshort"
    fail(it)
    given(it).when(retry).then(Conversation.Retried)
    for number in range(HISTORY):
        ask(it, message=new_id(), query=f"Question {number}")
    assert question(it.messages[FIRST]) == ""


# --- names, pins and saved messages --------------------------------------------------------------------------


def named_answer(it: Conversation, message: str) -> None:
    it.answer(
        NOW,
        message=message,
        answer="At dawn.",
        citations=[],
        usage=USAGE,
        cut=CUT,
        model_call=CALL,
        duration_ms=250.0,
        name=True,
    )


def test_the_first_answer_asks_for_a_name() -> None:
    scenario = given(conversation(), ask, lambda it: ask(it, message=SECOND))
    scenario.once(
        lambda it: named_answer(it, SECOND),
        Conversation.Answered,
        Conversation.NamingRequested,
        message=SECOND,
        attempt=1,
    )
    scenario.when(lambda it: named_answer(it, FIRST)).then(Conversation.Answered)


def test_a_name_that_a_person_gave_is_kept() -> None:
    named = given(conversation(), ask, lambda it: it.rename(NOW, name="Sluice"))
    named.when(lambda it: named_answer(it, FIRST)).then(Conversation.Answered)


def test_a_fork_keeps_its_name() -> None:
    source, ids = talked(1)
    scenario = given(fork(source, ids[0], "What if"), lambda it: ask(it, message=SECOND))
    scenario.when(lambda it: named_answer(it, SECOND)).then(Conversation.Answered)


def test_only_the_first_answer_asks_for_a_name() -> None:
    scenario = given(conversation(), ask, answer, lambda it: ask(it, message=SECOND))
    scenario.when(lambda it: named_answer(it, SECOND)).then(Conversation.Answered)


def test_a_name_is_asked_for_again_after_an_answer() -> None:
    scenario = given(conversation(), ask).when(lambda it: it.request_name(NOW)).rejects("not_answered", "conversation")
    named_answer(scenario.aggregate, FIRST)
    scenario.aggregate.pending()
    scenario.when(lambda it: it.request_name(NOW)).then(Conversation.NamingRequested, message=FIRST, attempt=2)


def test_is_pinned_and_unpinned_once() -> None:
    scenario = given(conversation()).once(lambda it: it.pin(NOW), Conversation.Pinned, app=APP)
    scenario.once(lambda it: it.unpin(NOW), Conversation.Unpinned)


def test_an_answer_is_saved_and_unsaved_once() -> None:
    scenario = (
        given(conversation(), ask).when(lambda it: it.save(NOW, message=FIRST)).rejects("not_answered", "message")
    )
    scenario.when(lambda it: it.unsave(NOW, message=FIRST)).nothing()
    answer(scenario.aggregate)
    scenario.aggregate.pending()
    scenario.once(lambda it: it.save(NOW, message=FIRST), Conversation.Saved, message=FIRST, app=APP)
    scenario.once(lambda it: it.unsave(NOW, message=FIRST), Conversation.Unsaved, message=FIRST)


def moderate(conversation: Conversation, message: str = FIRST, **fields: Any) -> None:
    verdict = FilterVerdict(
        where="input",
        position=0,
        kind="words",
        verdict="flagged",
        action=fields.pop("action", "replace"),
        checked=1,
        flagged=["query"],
        code=None,
        started_at=NOW.isoformat(),
        duration_ms=0.5,
    )
    conversation.moderate(
        NOW, message=message, **{"attempt": 1, "verdicts": [verdict], "query": None, "inputs": None, **fields}
    )


def test_verdicts_are_recorded_while_the_message_is_open_and_only_if_there_are_any() -> None:
    open = given(conversation(), ask)
    open.when(lambda it: moderate(it, verdicts=[])).nothing()
    open.when(moderate).then(Conversation.Moderated, message=FIRST, attempt=1, query=None)
    given(conversation(), ask, fail).when(moderate).nothing()


def test_a_question_that_a_filter_changed_is_asked_and_copied_as_the_filter_left_it() -> None:
    it = given(conversation(), ask, lambda it: moderate(it, query="When does the *** open?"), answer).aggregate
    assert question(it.messages[FIRST]) == "When does the *** open?"
    assert it.messages[FIRST]["query"] == "When does the sluice open?"
    fork = Conversation.fork(SECOND, NOW, source=it, message=FIRST, name=None)
    assert [each["query"] for each in fork.copied(FIRST)] == ["When does the *** open?"]
    again = given(conversation(), ask, lambda it: moderate(it, query="***"), moderate).aggregate
    assert question(again.messages[FIRST]) == "When does the sluice open?"


def test_a_question_with_a_preset_answer_is_in_no_history() -> None:
    def follow(it: Conversation) -> None:
        ask(it, message=SECOND)

    plain = given(conversation(), ask, moderate, answer, follow).aggregate
    preset = given(conversation(), ask, lambda it: moderate(it, action="answer"), answer, follow).aggregate
    assert list(plain.history(SECOND)) == [FIRST]
    assert list(preset.history(SECOND)) == []


def test_no_model_reads_a_question_with_a_preset_answer_for_a_name_or_suggestions() -> None:
    preset = given(conversation(), ask, lambda it: moderate(it, action="answer"))
    preset.when(lambda it: named_answer(it, FIRST)).then(Conversation.Answered)
    given(preset.aggregate).when(lambda it: it.request_name(NOW)).rejects("not_answered", "conversation")
    given(preset.aggregate).when(suggest).rejects("not_answered", "message")


def test_inputs_that_a_filter_changed_are_the_question_of_a_message_without_one() -> None:
    it = given(conversation()).aggregate
    ask(it, query="", inputs={"topic": "Eve", "tone": "calm"})
    moderate(it, inputs={"topic": "***"})
    assert question(it.messages[FIRST]) == "***\ncalm"


def suggest(conversation: Conversation) -> None:
    conversation.request_suggestions(NOW, message=FIRST, configuration=2)


def suggested(conversation: Conversation, **fields: Any) -> None:
    conversation.suggest(NOW, **{"message": FIRST, "questions": ["Why?"], "model_call": CALL, **fields})


def test_suggestions_are_requested_after_an_answer_until_there_are_some() -> None:
    given(conversation(), ask).when(suggest).rejects("not_answered", "message")
    given(conversation(), ask, answer).once(
        suggest, Conversation.SuggestionsRequested, message=FIRST, app=APP, configuration=2
    )
    it = given(conversation(), ask, answer, suggest).once(
        suggested, Conversation.Suggested, questions=["Why?"], code=None
    )
    it.when(suggest).nothing()

    def failed(it: Conversation) -> None:
        suggested(it, questions=[], code="timeout", reason="Silence.")

    given(conversation(), ask, answer, suggest, failed).when(suggest).then(Conversation.SuggestionsRequested)
    given(conversation(), ask, answer).when(suggested).nothing()


def test_a_match_is_recorded_while_the_message_is_open() -> None:
    def match(it: Conversation) -> None:
        it.match(NOW, message=FIRST, annotation=SECOND, score=0.95, embedding_model="a-model")

    given(conversation(), ask).when(match).then(Conversation.Matched, app=APP, annotation=SECOND, score=0.95)
    given(conversation(), ask, answer).when(match).nothing()


def file(number: int = 0, **fields: Any) -> File:
    known: Any = {
        "id": file_id(FIRST, number),
        "type": "document",
        "transfer_method": "remote_url",
        "name": "plan.pdf",
        "url": "https://host/plan.pdf",
        "digest": None,
        "media_type": None,
        "size": None,
    }
    return known | fields  # type: ignore[no-any-return]


FETCHED: dict[str, Any] = {
    "message": FIRST,
    "file": file_id(FIRST, 1),
    "digest": "d" * 64,
    "media_type": "application/pdf",
    "size": 7,
    "address": "https://host/plan.pdf",
    "duration_ms": 3.0,
}
READ: dict[str, Any] = {
    "message": FIRST,
    "file": file_id(FIRST, 1),
    "segments": "e" * 64,
    "count": 2,
    "pages": 1,
    "characters": 30,
    "warnings": [],
}


def with_files(conversation: Conversation) -> None:
    ask(conversation, files=[file(), file(1)])


def test_a_file_is_fetched_and_read_once() -> None:
    asked = given(conversation(), with_files)
    assert asked.aggregate.files(FIRST) == [file(), file(1)]
    asked.when(lambda it: it.fetched(NOW, **FETCHED)).then(Conversation.FileFetched)
    asked.when(lambda it: it.fetched(NOW, **FETCHED | {"digest": "f" * 64})).nothing()
    asked.when(lambda it: it.read(NOW, **READ)).then(Conversation.FileRead)
    asked.when(lambda it: it.read(NOW, **READ | {"segments": "f" * 64})).nothing()
    assert asked.aggregate.files(FIRST) == [
        file(),
        file(1, digest="d" * 64, media_type="application/pdf", size=7, segments="e" * 64),
    ]


def test_the_files_of_a_message_that_is_too_far_back_are_not_kept() -> None:
    talk = conversation()
    with_files(talk)
    for _ in range(HISTORY):
        ask(talk, message=new_id())
    assert talk.files(FIRST) == []
    given(talk).when(lambda it: it.fetched(NOW, **FETCHED)).nothing()


def test_a_question_that_is_asked_again_has_its_files() -> None:
    asked = given(conversation(), with_files).when(lambda it: it.fetched(NOW, **FETCHED)).aggregate
    asked.regenerate(NOW, message=SECOND, repeats=FIRST, app=configured())
    fetched = {name: FETCHED[name] for name in ("digest", "media_type", "size")}
    assert asked.files(SECOND) == [
        file(id=file_id(SECOND, 0), segments=None),
        file(id=file_id(SECOND, 1), segments=None, **fetched),
    ]


# --- calls of tools that wait -----------------------------------------------------------------------------------------

WAITS, OTHER = new_id(), new_id()


def held(conversation: Conversation) -> None:
    conversation.answering(NOW, message=FIRST)
    conversation.hold(NOW, message=FIRST, calls=[WAITS, OTHER])


def decide(conversation: Conversation) -> None:
    conversation.decide(NOW, message=FIRST, call=WAITS)


def test_an_answer_is_held_and_goes_on_when_a_call_is_decided() -> None:
    scenario = given(conversation(), ask, held)
    assert scenario.aggregate.is_held(FIRST)
    assert not scenario.aggregate.ended(FIRST)
    scenario.once(decide, Conversation.ToolDecided, Conversation.Resumed, app=scenario.aggregate.app)
    assert scenario.aggregate.messages[FIRST]["status"] == "asked"


def test_an_answer_is_not_held_for_a_call_that_was_decided_before() -> None:
    scenario = given(conversation(), ask, answering)
    scenario.when(decide).then(Conversation.ToolDecided, call=WAITS)
    scenario.when(lambda it: it.hold(NOW, message=FIRST, calls=[WAITS])).nothing()
    scenario.when(lambda it: it.hold(NOW, message=FIRST, calls=[OTHER])).then(Conversation.Held)


def test_a_stop_has_an_answer_that_is_held_go_on() -> None:
    scenario = given(conversation(), ask, held)
    scenario.when(lambda it: it.stop(NOW, message=FIRST)).then(Conversation.StopRequested, Conversation.Resumed)


def test_another_strategy_is_recorded_once() -> None:
    change: Any = {"round": 2, "before": "tools", "strategy": "schema", "reason": "No tools."}
    scenario = given(conversation(), ask, answering)
    scenario.once(lambda it: it.change_strategy(NOW, message=FIRST, **change), Conversation.StrategyChanged, **change)
