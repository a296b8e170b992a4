from __future__ import annotations

import pytest

from domain.access.end_user import EndUser
from domain.aggregate import new_id
from projections.conversations import conversations
from projections.dataset_retriever_resources import dataset_retriever_resources
from projections.end_users import end_user_id, end_users
from projections.message_feedbacks import message_feedbacks
from projections.message_moderations import message_moderations
from projections.messages import messages
from projections.pinned_conversations import pinned_conversations
from projections.saved_messages import saved_messages
from tests.projections.history import NOON, History, citation, verdict


def test_given_an_app_when_a_user_asks_twice_then_the_conversation_counts_and_the_messages_hang_together() -> None:
    history = History()
    app = history.app()
    conversation = history.conversation(app.id)
    first, second = history.ask(conversation), history.ask(conversation, "How wide?")
    (row,) = history.rows(conversations)
    assert row == {
        "tenant_id": "default",
        "id": conversation.id,
        "app_id": app.id,
        "name": "A talk",
        "from_end_user_id": end_user_id(app.id, "bo", None),
        "dialogue_count": 2,
        "forked_from_conversation_id": None,
        "forked_from_message_id": None,
        "person_id": None,
        "created_at": conversation.created_on,
        "updated_at": conversation.modified_on,
        "log_position": 4,
    }
    rows = {row["id"]: row for row in history.rows(messages)}
    assert rows.keys() == {first, second}
    assert rows[second]["parent_message_id"] == first
    assert rows[first] == messages.blank | {
        "tenant_id": "default",
        "id": first,
        "app_id": app.id,
        "conversation_id": conversation.id,
        "app_model_config_id": rows[second]["app_model_config_id"],
        "app_model_config_number": 1,
        "from_end_user_id": end_user_id(app.id, "bo", None),
        "end_user": "bo",
        "query": "How high?",
        "inputs": {"tone": "dry"},
        "trace_id": "the-correlation",
        "status": "asked",
        "attempt": 0,
        "answer": "",
        "created_at": rows[first]["created_at"],
        "updated_at": rows[first]["created_at"],
        "log_position": 3,
    }


def test_given_a_user_when_another_conversation_starts_then_the_user_has_one_row_from_the_first() -> None:
    history = History()
    app = history.app()
    first = history.conversation(app.id)
    history.conversation(app.id)
    history.conversation(app.id, "cy")
    rows = {row["session_id"]: row for row in history.rows(end_users)}
    assert rows.keys() == {"bo", "cy"}
    assert rows["bo"] == {
        "tenant_id": "default",
        "id": end_user_id(app.id, "bo", None),
        "app_id": app.id,
        "type": "service-api",
        "door": None,
        "session_id": "bo",
        "person_id": None,
        "created_at": first.created_on,
        "log_position": 2,
    }


def test_given_a_user_when_doors_differ_then_each_has_a_row_and_all_are_of_one_person() -> None:
    history = History()
    app, history.person = history.app(), "the-person"
    history.door = "bus"
    conversation = history.conversation(app.id)
    first = history.ask(conversation)
    history.door = "viewer"
    second = history.ask(conversation, "How wide?")
    rows = {row["door"]: row for row in history.rows(end_users)}
    assert {door: (row["type"], row["session_id"], row["person_id"]) for door, row in rows.items()} == {
        "bus": ("service-api", "bo", "the-person"),
        "viewer": ("debugger", "bo", "the-person"),
    }
    asked = {row["id"]: row["from_end_user_id"] for row in history.rows(messages)}
    assert asked == {first: rows["bus"]["id"], second: rows["viewer"]["id"]}
    (talk,) = history.rows(conversations)
    assert talk["from_end_user_id"] == rows["bus"]["id"]
    history.record(EndUser.begin(EndUser.Erased, "the-person", history.now, known=True))
    assert history.rows(end_users) == []


def test_given_a_question_when_it_is_answered_then_answer_usage_and_citations_are_there() -> None:
    history = History()
    conversation = history.conversation(history.app().id)
    message = history.ask(conversation)
    history.answer(conversation, message, [citation(1), citation(2)])
    (row,) = history.rows(messages)
    assert {name: row[name] for name in messages.blank if row[name] is not None} == {
        "tenant_id": "default",
        "id": message,
        "app_id": conversation.app,
        "conversation_id": conversation.id,
        "app_model_config_id": row["app_model_config_id"],
        "app_model_config_number": 1,
        "from_end_user_id": row["from_end_user_id"],
        "end_user": "bo",
        "query": "How high?",
        "inputs": {"tone": "dry"},
        "trace_id": "the-correlation",
        "status": "answered",
        "attempt": 1,
        "answer": "Four metres.",
        "message_tokens": 90,
        "answer_tokens": 12,
        "tokens_estimated": False,
        "segments_cut": 1,
        "messages_cut": 2,
        "model_call_id": "the-call",
        "provider_response_latency": 1.5,
        "created_at": row["created_at"],
        "updated_at": conversation.modified_on,
        "log_position": 4,
    }
    cited = sorted(history.rows(dataset_retriever_resources), key=lambda row: row["position"])
    assert [row["segment_id"] for row in cited] == ["segment-1", "segment-2"]
    assert {name: value for name, value in cited[0].items() if name != "id"} == {
        "tenant_id": "default",
        "app_id": conversation.app,
        "conversation_id": conversation.id,
        "message_id": message,
        "position": 1,
        "dataset_id": "the-dataset",
        "document_id": "the-document",
        "document_name": "gates.md",
        "upload_file_id": None,
        "segment_id": "segment-1",
        "segment_position": 7,
        "page": 3,
        "heading": "Gates",
        "sentence": "The gate is four metres high.",
        "content": "The gate is four metres high. It is green.",
        "score": 0.75,
        "person_id": None,
        "created_at": conversation.modified_on,
        "log_position": 4,
    }


def test_given_an_answer_on_its_way_when_it_fails_then_the_reason_and_what_had_come_are_kept() -> None:
    history = History()
    conversation = history.conversation(history.app().id)
    message = history.ask(conversation)
    conversation.answering(history.now, message=message)
    conversation.fail(history.now, message=message, code="timeout", reason="The model took too long.", answer="Fo")
    history.record(conversation)
    (row,) = history.rows(messages)
    assert [row[name] for name in ("status", "answer", "error_code", "error", "attempt")] == [
        "failed",
        "Fo",
        "timeout",
        "The model took too long.",
        1,
    ]


def test_given_an_answer_on_its_way_when_it_is_stopped_then_what_had_come_is_kept() -> None:
    history = History()
    conversation = history.conversation(history.app().id)
    message = history.ask(conversation)
    conversation.stop(asked := history.now, message=message)
    conversation.stopped(history.now, message=message, answer="Fo")
    history.record(conversation)
    (row,) = history.rows(messages)
    assert (row["status"], row["answer"], row["stop_requested_at"]) == ("stopped", "Fo", asked)


def test_given_an_answer_when_it_is_rated_then_the_newest_rating_counts_until_it_is_taken_back() -> None:
    history = History()
    conversation = history.conversation(history.app().id)
    message = history.ask(conversation)
    history.answer(conversation, message)
    ids = set()
    for rating, content in (("like", "Good."), ("dislike", "Wrong gate.")):
        conversation.rate(history.now, message=message, rating=rating, content=content)
        history.record(conversation)
        (row,) = history.rows(message_feedbacks)
        assert (row["message_id"], row["rating"], row["content"]) == (message, rating, content)
        assert (row["conversation_id"], row["app_id"]) == (conversation.id, conversation.app)
        assert (row["created_by"], row["created_at"]) == ("ada", conversation.modified_on)
        ids.add(row["id"])
    assert len(ids) == 1
    conversation.rate(history.now, message=message, rating=None, content="")
    history.record(conversation)
    assert history.rows(message_feedbacks) == []


def test_given_a_conversation_when_it_is_renamed_then_its_name_changes() -> None:
    history = History()
    conversation = history.conversation(history.app().id)
    conversation.rename(history.now, name="Gates")
    history.record(conversation)
    (row,) = history.rows(conversations)
    assert (row["name"], row["updated_at"]) == ("Gates", conversation.modified_on)


@pytest.mark.parametrize("which", ["conversation", "app"])
def test_given_two_conversations_when_one_or_its_app_is_deleted_then_all_of_it_goes(which: str) -> None:
    history = History()
    app, other = history.app(), history.app()
    talks = [history.conversation(owner.id) for owner in (app, other)]
    for talk in talks:
        message = history.ask(talk)
        history.answer(talk, message, [citation(1)])
        talk.rate(history.now, message=message, rating="like", content="")
        talk.save(history.now, message=message)
        talk.pin(history.now)
        history.record(talk)
    aggregate = talks[0] if which == "conversation" else app
    aggregate.delete(history.now)
    history.record(aggregate)
    history.ask(talks[0])  # by someone who had not heard of it yet

    of_messages = (messages, message_feedbacks, saved_messages, dataset_retriever_resources)
    for model in (conversations, pinned_conversations, *of_messages):
        assert {row["app_id"] for row in history.rows(model)} == {other.id}, model
    users = {row["app_id"] for row in history.rows(end_users)}
    assert users == ({app.id, other.id} if which == "conversation" else {other.id})


def test_given_a_conversation_when_it_is_pinned_and_unpinned_then_its_row_comes_and_goes() -> None:
    history = History()
    app = history.app()
    conversation = history.conversation(app.id)
    conversation.pin(history.now)
    at = history.record(conversation)
    [row] = history.rows(pinned_conversations)
    assert row["id"]
    assert row | {"id": ""} == {
        "tenant_id": "default",
        "id": "",
        "app_id": app.id,
        "conversation_id": conversation.id,
        "created_by": "ada",
        "created_at": at,
        "log_position": 3,
    }
    conversation.unpin(history.now)
    history.record(conversation)
    assert history.rows(pinned_conversations) == []


def test_given_an_answer_when_it_is_saved_and_unsaved_then_its_row_comes_and_goes() -> None:
    history = History()
    app = history.app()
    conversation = history.conversation(app.id)
    message = history.ask(conversation)
    history.answer(conversation, message, [])
    conversation.save(history.now, message=message)
    at = history.record(conversation)
    [row] = history.rows(saved_messages)
    assert row["id"]
    assert row | {"id": ""} == {
        "tenant_id": "default",
        "id": "",
        "app_id": app.id,
        "conversation_id": conversation.id,
        "message_id": message,
        "created_by": "ada",
        "created_at": at,
        "log_position": 5,
    }
    conversation.unsave(history.now, message=message)
    history.record(conversation)
    assert history.rows(saved_messages) == []


def test_given_a_message_when_it_is_asked_again_then_its_row_names_it_and_the_same_parent() -> None:
    history = History()
    app = history.app()
    history.configure(app, "Be brief.")
    conversation = history.conversation(app.id)
    first, second = history.ask(conversation), history.ask(conversation)
    conversation.regenerate(history.now, message=new_id(), repeats=second, app=app)
    history.record(conversation)
    rows = {row["id"]: row for row in history.rows(messages)}
    [again] = rows.keys() - {first, second}
    assert [rows[id]["parent_message_id"] for id in (first, second, again)] == [None, first, first]
    assert [rows[id]["repeated_message_id"] for id in (first, second, again)] == [None, None, second]


def test_given_filters_when_they_check_a_message_then_each_verdict_has_a_row_until_the_conversation_goes() -> None:
    history = History()
    app = history.app()
    conversation = history.conversation(app.id)
    history.person = "the-person"
    message = history.ask(conversation)
    failed = {"kind": "http", "position": 1, "action": "refuse", "code": "timeout"}
    history.moderate(conversation, message, verdict("input"), verdict("input", "failed", **failed))
    first, second = sorted(history.rows(message_moderations), key=lambda row: row["position"])
    assert first | {"id": "", "created_at": None} == {
        "tenant_id": "default",
        "id": "",
        "app_id": app.id,
        "conversation_id": conversation.id,
        "message_id": message,
        "attempt": 1,
        "side": "input",
        "position": 0,
        "kind": "words",
        "verdict": "passed",
        "action": "none",
        "checked": 2,
        "flagged": [],
        "error_code": None,
        "duration": 0.25,
        "started_at": NOON,
        "created_at": None,
        "log_position": 4,
    }
    assert (second["kind"], second["verdict"], second["error_code"]) == ("http", "failed", "timeout")
    history.moderate(conversation, message, verdict("input"), attempt=2)
    assert len(history.rows(message_moderations)) == 3
    conversation.delete(history.now)
    history.record(conversation)
    assert history.rows(message_moderations) == []
