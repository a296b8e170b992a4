"""Filters of questions and answers: what passes, what is shown, and what is recorded of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from domain.chat.conversation import Conversation, question
from domain.models.model_call import ModelCall
from handlers.chat.moderate import LONGEST, read
from handlers.models.recorded import read as recorded
from handlers.ports.models import ModelError
from tests.handlers.chat.test_answer import Counter
from tests.memory import Memory


def words(*words: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "words", "words": list(words), **fields}


GUARD = {"kind": "http", "provider": "guard"}
CHECKER = {"kind": "model", "model": {"provider": "lab", "name": "small"}}


@pytest.fixture
async def counter(memory: Memory, tenant: str) -> Counter:
    counter = Counter(memory, tenant, "At ", "six. ", "Not a bad hour. ", "Bye.")
    for name in ("guard", "lab"):
        await counter.desk.send("provider.register", name=name, base_url="https://guard.example.com/v1")
    return counter


async def answered(counter: Counter, *filters: dict[str, Any], query: str = "When?", **configuration: Any) -> None:
    commit = await counter.asked(query, features={"moderation": list(filters)}, **configuration)
    await counter.worker()(commit)


async def verdicts(counter: Counter) -> list[dict[str, Any]]:
    """Of the last attempt."""
    events = await counter.desk.events("conversation", counter.conversation)
    last = [event for event in events if isinstance(event, Conversation.Moderated)][-1]
    assert last.message == counter.message
    for verdict in last.verdicts:
        assert verdict["duration_ms"] >= 0
        assert verdict["started_at"]
    names = ("where", "kind", "verdict", "action", "checked", "flagged", "code")
    return [{name: dict(verdict)[name] for name in names} for verdict in last.verdicts]


def texts(counter: Counter) -> list[str]:
    return [frame["text"] for frame in counter.memory.frames if frame["type"] == "token"]


def verdict(where: str, kind: str, verdict: str, action: str = "none", **fields: Any) -> dict[str, Any]:
    plain = {"checked": 1, "flagged": [], "code": None}
    return {"where": where, "kind": kind, "verdict": verdict, "action": action, **plain, **fields}


async def test_what_passes_is_answered_as_ever_sentence_by_sentence(counter: Counter) -> None:
    await answered(counter, words("worse"))
    assert (await counter.state())["answer"] == "At six. Not a bad hour. Bye."
    assert texts(counter) == ["At six. ", "Not a bad hour. ", "Bye."]
    assert counter.frames() == ["retrieved", "token", "token", "token", "answered"]
    assert await verdicts(counter) == [
        verdict("input", "words", "passed"),
        verdict("output", "words", "passed", checked=3),
    ]


async def test_without_filters_nothing_is_held_back_and_nothing_is_recorded(counter: Counter) -> None:
    await answered(counter)
    assert texts(counter) == ["At ", "six. ", "Not a bad hour. ", "Bye."]
    assert "message.moderated.v1" not in await counter.desk.types("conversation", counter.conversation)


async def test_a_refused_question_reaches_no_model(counter: Counter) -> None:
    await answered(counter, words("when"), query="WHEN?")
    state = await counter.state()
    assert (state["status"], state["answer"]) == ("failed", "")
    assert (await counter.last())["code"] == "moderated"
    assert counter.frames() == ["failed"]
    assert counter.calls() == []
    assert await verdicts(counter) == [verdict("input", "words", "flagged", "refuse", flagged=["query"])]


async def test_a_preset_answer_takes_the_place_of_the_models_and_the_question_leaves_the_history(
    counter: Counter,
) -> None:
    await answered(counter, words("bomb", where="input", action="answer", text="Ask me about locks."), query="A bomb?")
    state, last = await counter.state(), await counter.last()
    assert (state["status"], state["answer"]) == ("answered", "Ask me about locks.")
    assert (last["model_call"], last["usage"]["prompt_tokens"]) == ("", 0)
    assert counter.frames() == ["token", "answered"]
    assert counter.calls() == []
    await follow_up(counter, "And now?")
    assert [message.content for message in counter.speaker.asked[-1].messages][1:] == ["And now?"]


async def follow_up(counter: Counter, query: str) -> None:
    talk = {"app": counter.app, "user": "ada", "conversation": counter.conversation}
    counter.message = (await counter.desk.send("message.send", query=query, **talk)).ids["message"]
    await counter.worker()(await counter.cause())


async def test_a_question_is_used_as_the_filters_left_it_and_the_record_is_what_was_sent(counter: Counter) -> None:
    filter = words("Eve", where="input", action="replace")
    inputs = {"variables": [{"name": "who", "default": "eve"}], "prompt": "You are {{who}}."}
    await answered(counter, filter, query="Does Eve know?", **inputs)
    sent = counter.speaker.asked[-1].messages
    assert [message.content for message in sent][-1] == "Does *** know?"
    assert sent[0].content.startswith("You are ***.")
    state = await counter.state()
    assert (state["query"], question(state)) == ("Does Eve know?", "Does *** know?")
    await follow_up(counter, "Sure?")
    sent = counter.speaker.asked[-1].messages
    assert [message.content for message in sent][1:] == ["Does *** know?", state["answer"], "Sure?"]
    for call in dict.fromkeys(subject.rpartition(".")[2] for subject in counter.subjects("model_call")):
        [requested, *_] = await counter.desk.events("model_call", call)
        assert isinstance(requested, ModelCall.Requested)
        prompt = await recorded(counter.desk.repository, counter.desk.tenant, requested.request["messages"])
        assert "Eve" not in str(prompt)
        assert "*** know?" in str(prompt)


async def test_the_inputs_of_a_completion_app_are_its_question_as_the_filters_left_them(counter: Counter) -> None:
    filters = [words("Eve", where="input", action="replace")]
    app = await counter.desk.done("app.create", name="Slogans", mode="completion")
    variables = [{"name": "topic", "required": True}]
    await counter.desk.done("app.configure", app=app, variables=variables, features={"moderation": filters})
    outcome = await counter.desk.send("message.send", app=app, inputs={"topic": "Praise Eve"}, user="ada")
    counter.conversation = counter.message = outcome.ids["message"]
    await counter.worker()(await counter.cause())
    [request] = counter.speaker.asked
    assert request.messages[-1].content == "Praise ***"
    assert question(await counter.state()) == "Praise ***"


async def test_passages_are_searched_by_the_question_as_the_filters_left_it(counter: Counter) -> None:
    dataset = await counter.desk.done("dataset.create", name="Rules")
    counter.shelf.searched[dataset] = "words"
    embed, embedded = counter.words.embed, list[Any]()

    def noted(token_ids: Any, **how: Any) -> Any:
        embedded.extend(token_ids)
        return embed(token_ids, **how)

    counter.words.embed = noted  # type: ignore[method-assign]
    await answered(counter, words("Eve", where="input", action="replace"), query="Is Eve in?", datasets=[dataset])
    assert embedded == [counter.words.tokenize("Is *** in?")]


async def test_flagged_sentences_are_replaced_before_they_are_shown(counter: Counter) -> None:
    await answered(counter, words("bad hour", where="output", action="replace", text="[…]"))
    assert texts(counter) == ["At six. ", "Not a […]. ", "Bye."]
    assert counter.memory.frames[-1]["answer"] == "At six. Not a […]. Bye."
    assert (await counter.state())["answer"] == "At six. Not a […]. Bye."
    expected = verdict("output", "words", "flagged", "replace", checked=3, flagged=["1"])
    assert await verdicts(counter) == [expected]


@pytest.mark.parametrize("action", ["refuse", "answer"])
async def test_a_flagged_answer_is_withdrawn_and_its_call_ends(counter: Counter, action: str) -> None:
    preset = {"text": "Sorry."} if action == "answer" else {}
    await answered(counter, words("bad", where="output", action=action, **preset))
    state = await counter.state()
    assert texts(counter) == ["At six. "]
    assert [frame for frame in counter.memory.frames if frame["type"] == "replaced"] == [
        {"type": "replaced", "answer": preset.get("text", "")}
    ]
    assert state["answer"] == preset.get("text", "")
    assert state["status"] == ("answered" if action == "answer" else "failed")
    assert counter.calls() == ["model_call.requested.v3", "model_call.cancelled.v2"]
    assert await verdicts(counter) == [verdict("output", "words", "flagged", action, checked=2, flagged=["1"])]


async def test_a_phrase_over_the_border_of_sentences_is_never_shown(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "It is six. ", "Go now. And ", "stay.")
    await answered(counter, words("now. and stay", where="output", action="replace"))
    assert "".join(texts(counter)) == "It is six. Go **** *** ****."
    assert all("now" not in text for text in texts(counter))


async def test_an_answer_without_sentences_is_held_back_in_parts(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, *(["word "] * 1000), *(["x" * 500] * 12), " end")
    await answered(counter, words("bad", where="output"))
    assert (await counter.state())["answer"] == "word " * 1000 + "x" * 6000 + " end"
    assert max(map(len, texts(counter))) <= 1.5 * LONGEST
    assert len(texts(counter)) > 4


async def test_a_stopped_answer_keeps_what_was_shown(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six. And ", asyncio.Event(), "bad.")
    commit = await counter.asked(features={"moderation": [words("bad", where="output")]})
    answering = asyncio.create_task(counter.worker()(commit))
    await counter.speaker.waits.wait()
    await counter.stop()
    await answering
    assert ((state := await counter.state())["status"], state["answer"]) == ("stopped", "At six. ")
    assert (await verdicts(counter))[0]["checked"] == 1


async def test_a_model_checks_by_recorded_calls_of_their_own_kind(counter: Counter) -> None:
    counter.checker.says = ['```json\n{"flagged": false}\n```']
    await answered(counter, CHECKER)
    assert (await counter.state())["status"] == "answered"
    asked = [request.messages[-1].content for request in counter.checker.asked]
    assert asked == ["When?", "At six. ", "Not a bad hour. ", "Bye."]
    kinds = []
    for call in dict.fromkeys(subject.rpartition(".")[2] for subject in counter.subjects("model_call")):
        [requested, completed] = await counter.desk.events("model_call", call)
        assert isinstance(requested, ModelCall.Requested)
        assert isinstance(completed, ModelCall.Completed)
        kinds.append(requested.kind)
    assert sorted(kinds) == ["chat", *["moderation"] * 4]


@pytest.mark.parametrize(
    ("said", "flagged"),
    [
        ('{"flagged": true}', True),
        ('<think>Hm, {"flagged": true}?</think> {"flagged": false}', False),
        ("unsafe\nS1", True),
        ("Safe.", False),
        ("**Yes**, it is.", True),
        ("", None),
        ('{"flagged": "maybe"}', None),
        ("I cannot say.", None),
        ("[" * 100_000, None),
    ],
)
def test_a_verdict_of_a_model_is_json_or_a_word(said: str, flagged: bool | None) -> None:
    if flagged is None:
        with pytest.raises(ModelError) as caught:
            read(said)
        assert caught.value.code == "invalid_verdict"
    else:
        assert read(said) == flagged


async def test_a_server_checks_by_recorded_calls_and_may_change_what_it_flags(counter: Counter) -> None:
    counter.filters.flags = lambda text: "bad" in text
    counter.filters.changes = lambda text: text.replace("bad", "good")
    await answered(counter, {**GUARD, "action": "replace"})
    assert (await counter.state())["answer"] == "At six. Not a good hour. Bye."
    first = counter.filters.asked[0]
    assert (first.app, first.where, first.texts) == (counter.app, "input", {"query": "When?"})
    [call] = {
        subject.rpartition(".")[2]
        for subject in counter.subjects("model_call")
        if (await kind_of(counter, subject)) == ("moderation", "input")
    }
    requested, completed = await counter.desk.events("model_call", call)
    assert isinstance(requested, ModelCall.Requested)
    assert (requested.provider, requested.server) == ("guard", "guard:443")
    assert requested.request == {"where": "input", "texts": {"query": "When?"}}
    assert isinstance(completed, ModelCall.Completed)
    assert completed.response == '{"flagged": false}'


async def kind_of(counter: Counter, subject: str) -> tuple[str, str]:
    [requested, *_] = await counter.desk.events("model_call", subject.rpartition(".")[2])
    assert isinstance(requested, ModelCall.Requested)
    return requested.kind, requested.request.get("where", "")


@pytest.mark.parametrize("fault", [ModelError("unreachable", "It is away."), TimeoutError()])
@pytest.mark.parametrize("filter", [GUARD, CHECKER])
async def test_a_check_that_fails_lets_nothing_pass_unless_it_is_open(
    memory: Memory, tenant: str, counter: Counter, filter: dict[str, Any], fault: Exception
) -> None:
    if isinstance(fault, TimeoutError):  # it is silent
        filter = {**filter, "deadline_s": 0.05}
        counter.checker.says = [asyncio.Event()]
        counter.filters.silent = True
    else:
        counter.checker.says, counter.filters.error = [fault], fault
    code = "timeout" if isinstance(fault, TimeoutError) else "unreachable"
    await answered(counter, {**filter, "where": "input"})
    assert (await counter.state())["status"] == "failed"
    assert (await counter.last())["code"] == "moderation_unavailable"
    kind = filter["kind"]
    assert await verdicts(counter) == [verdict("input", kind, "failed", "refuse", code=code)]
    assert counter.speaker.asked == []

    await answered(counter, {**filter, "where": "input", "fail": "open"})
    assert (await counter.state())["status"] == "answered"
    assert await verdicts(counter) == [verdict("input", kind, "failed", code=code)]


async def test_filters_take_turns_in_their_order(counter: Counter) -> None:
    counter.filters.flags = lambda text: True
    await answered(
        counter,
        words("eve", where="input", action="replace", text="mallory"),
        {**GUARD, "where": "input", "action": "replace", "text": "hidden"},
        words("hidden", where="input", action="replace"),
        query="Eve?",
    )
    assert counter.filters.asked[0].texts == {"query": "mallory?"}
    assert counter.speaker.asked[-1].messages[-1].content == "******"


async def test_calls_that_a_dead_worker_left_open_end_and_the_next_attempt_checks_again(counter: Counter) -> None:
    counter.checker.says = [asyncio.Event()]
    commit = await counter.asked(features={"moderation": [{**CHECKER, "where": "output"}]})
    dying = asyncio.create_task(counter.worker()(commit))
    await counter.checker.waits.wait()
    counter.memory.away = True  # so that it cannot record how it ends
    dying.cancel()
    with pytest.raises(BaseException):  # noqa: B017, PT011
        await dying
    counter.memory.away = False
    counter.checker.says = ["safe"]
    await counter.worker()(commit)
    state = await counter.state()
    assert (state["status"], state["attempt"]) == ("answered", 2)
    outcomes = []
    for call in dict.fromkeys(subject.rpartition(".")[2] for subject in counter.subjects("model_call")):
        requested, ended = await counter.desk.events("model_call", call)
        assert isinstance(requested, ModelCall.Requested)
        outcomes.append((requested.kind, requested.attempt, getattr(ended, "code", None)))
    assert ("moderation", 1, "lost") in outcomes
    assert ("moderation", 2, None) in outcomes
