"""The trees of traces, and what is rolled up from them."""

from __future__ import annotations

from itertools import pairwise
from math import isclose
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.access.end_user import EndUser
from domain.chat.conversation import Conversation
from domain.knowledge.document import Document
from domain.knowledge.retrieval import Retrieval
from domain.log import Recorded, commit_id
from domain.models.model_call import ModelCall
from domain.models.replay import Replay
from handlers.work.work import PENDING
from projections.documents import documents
from projections.engine.read_model import Row
from projections.messages import messages
from projections.model_calls import model_calls
from projections.tool_calls import tool_calls
from projections.traces.spans import span_id, spans
from projections.traces.traces import traces
from tests.projections.history import HIT, RETRIEVAL, TOKENS, History, Tables, verdict
from tests.projections.wandering import wander

QUESTION = {"from": "query", "text": "Write to ada@example.com: how high are the gates?"}


def call(history: History, cause: str, id: str, kind: str = "chat", noun: str = "message", **fields: Any) -> ModelCall:
    texts = {"messages": [{"role": "user", "pieces": [QUESTION]}]}
    given = {
        "provider": "openai" if kind == "chat" else "builtin",
        "model": "gpt-4o-mini" if kind == "chat" else "tiny",
        "request": {**texts, "parameters": {"temperature": 0.5}} if kind == "chat" else {"texts": 1, "tokens": 4},
    }
    made = ModelCall.begin(
        ModelCall.Requested, id, history.now, kind=kind, cause_noun=noun, cause_id=cause, **given | fields
    )
    history.record(made)
    return made


def complete(history: History, made: ModelCall, response: str = "Four metres.") -> None:
    made.complete(
        history.now, response=response, finish_reason="stop", usage=TOKENS, first_token_ms=400.0, duration_ms=900.0
    )
    history.record(made)


def retrieval(history: History, message: str, attempt: int = 1, code: str | None = None) -> Retrieval:
    made = Retrieval.begin(
        Retrieval.Made,
        f"retrieval-{attempt}",
        history.now,
        query="How high?",
        datasets=["the-dataset"],
        retrieval=RETRIEVAL,
        cause_noun="message",
        cause_id=message,
        attempt=attempt,
        hits=[] if code else [HIT],
        duration_ms=500.0,
        code=code,
        reason=code and "The index is away.",
    )
    history.record(made)
    return made


def begin(history: History, conversation: Conversation, message: str) -> None:
    conversation.answering(history.now, message=message)
    history.record(conversation)


def asked(history: History) -> tuple[Conversation, str]:
    conversation = history.conversation(history.app().id)
    history.correlation = "the-question"
    message = history.ask(conversation)
    return conversation, message


def tree(history: History) -> dict[str, list[tuple[str, str]]]:
    """The kinds and states of the spans below each, by the kind of that."""
    rows = {row["id"]: row for row in history.rows(spans)}
    found: dict[str, list[tuple[str, str]]] = {}
    for row in sorted(rows.values(), key=lambda row: (row["sequence"], row["started_at"])):
        parent = rows[row["parent_id"]]["kind"] if row["parent_id"] else "trace"
        found.setdefault(parent, []).append((row["kind"], row["status"]))
    return found


def the_trace(history: History) -> Row:
    (row,) = [row for row in history.rows(traces) if row["id"] == history.correlation]
    return row


def test_given_a_question_when_no_worker_has_begun_then_its_trace_runs() -> None:
    history = History()
    _, message = asked(history)
    row = the_trace(history)
    assert (row["kind"], row["name"], row["status"], row["message_id"]) == (
        "message",
        "message.send",
        "running",
        message,
    )
    assert (row["question"], row["end_user"], row["actor"], row["sequence"]) == ("How high?", "bo", "ada", 3)
    assert (row["spans"], row["model_calls"], row["cost"], row["ended_at"]) == (1, 0, None, None)
    assert tree(history) == {"trace": [("handler", "running")]}


def test_given_a_question_when_it_is_embedded_for_annotations_then_no_try_of_that_is_part_of_a_search() -> None:
    history = History()
    conversation = history.conversation(history.app().id)
    message = history.ask(conversation)
    begin(history, conversation, message)
    for number in (1, 2):
        id = commit_id(message, "annotation:1" + (":2" if number == 2 else ""))
        route = {"name": "", "try": number, "after": None} if number == 2 else None
        call(history, message, id, "embedding", provider="lab", route=route)
    call(history, message, commit_id(message, "embed:1"), "embedding", provider="lab")
    rows = {row["id"]: row for row in history.rows(spans)}
    above = [rows[row["parent_id"]]["kind"] for row in rows.values() if row["kind"] == "embedding"]
    assert sorted(above) == ["handler", "handler", "retrieval"]


def test_given_filters_when_they_check_a_message_then_each_has_a_span_of_its_answer() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    checked = call(history, message, "call-1", "moderation", provider="guard", model="guard")
    complete(history, checked, '{"flagged": false}')
    failed = verdict("output", "failed", kind="http", code="timeout")
    history.moderate(conversation, message, verdict("input", "flagged", action="replace"), failed)
    assert sorted(tree(history)["handler"]) == [("moderation", "error"), ("moderation", "ok"), ("moderation", "ok")]
    rows = {row["name"]: row for row in history.rows(spans)}
    assert rows.keys() == {"answer", "moderation guard", "words of input: flagged", "http of output: failed"}
    flagged, broken = rows["words of input: flagged"], rows["http of output: failed"]
    assert (flagged["duration_ms"], flagged["model_call_id"], broken["error_code"]) == (250.0, None, "timeout")
    assert (flagged["ended_at"] - flagged["started_at"]).total_seconds() == 0.25
    trace = the_trace(history)
    assert (trace["model"], trace["first_token_ms"], trace["errors"]) == (None, None, 1)


def test_given_a_question_when_it_is_answered_then_the_tree_has_every_part() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    embedding = call(history, message, "call-1", "embedding")
    assert tree(history) == {
        "trace": [("handler", "running")],
        "handler": [("retrieval", "running")],
        "retrieval": [("embedding", "running")],
    }
    complete(history, embedding, "")
    chat = call(history, message, "call-2", server="api.openai.com:443")
    retrieval(history, message)
    assert the_trace(history)["open_calls"] == 1
    complete(history, chat)
    history.answer(conversation, message)
    assert tree(history) == {
        "trace": [("handler", "ok")],
        "handler": [("retrieval", "ok"), ("chat", "ok")],
        "retrieval": [("embedding", "ok")],
    }
    row, rows = the_trace(history), {row["kind"]: row for row in history.rows(spans)}
    assert (row["status"], row["spans"], row["model_calls"], row["open_calls"], row["errors"]) == ("ok", 4, 2, 0, 0)
    assert (row["provider"], row["model"], row["models"]) == ("openai", "gpt-4o-mini", ["tiny", "gpt-4o-mini"])
    assert (row["prompt_tokens"], row["completion_tokens"], row["unpriced_calls"]) == (180, 24, 0)
    assert row["cost"] == rows["chat"]["cost"] == 0.0000159
    assert rows["embedding"]["cost"] == 0.0
    assert row["answer"] == "Four metres."
    assert row["first_token_ms"] == 4000.0 + 400.0
    assert row["duration_ms"] == (row["ended_at"] - row["started_at"]).total_seconds() * 1000
    assert rows["retrieval"]["retrieval_id"] == "retrieval-1"
    assert rows["retrieval"]["duration_ms"] == 500.0
    assert rows["handler"]["attempt"] == 2
    assert rows["chat"]["conversation_id"] == conversation.id
    assert rows["chat"]["attributes"]["gen_ai.operation.name"] == "chat"
    assert rows["chat"]["attributes"]["gen_ai.request.temperature"] == 0.5
    assert rows["chat"]["attributes"]["server.port"] == 443
    assert rows["chat"]["attributes"]["gen_ai.usage.cache_read.input_tokens"] == 64


def test_what_helps_a_search_is_part_of_it() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    conditions = call(history, message, commit_id(message, "filter:1"))
    complete(history, conditions, '{"logical_operator": "and", "conditions": []}')
    request = {"query": "How high?", "segments": ["segment-2", "segment-1"]}
    rerank = call(history, message, "call-1", "rerank", request=request)
    assert tree(history) == {
        "trace": [("handler", "running")],
        "handler": [("retrieval", "running")],
        "retrieval": [("chat", "ok"), ("rerank", "running")],
    }
    complete(history, rerank, "[0.25, 0.75]")
    retrieval(history, message)
    assert the_trace(history)["first_token_ms"] is None
    complete(history, call(history, message, "call-2"))
    history.answer(conversation, message)
    assert tree(history) == {
        "trace": [("handler", "ok")],
        "handler": [("retrieval", "ok"), ("chat", "ok")],
        "retrieval": [("chat", "ok"), ("rerank", "ok")],
    }
    row = the_trace(history)
    assert (row["model_calls"], row["models"], row["answer"]) == (3, ["gpt-4o-mini", "tiny"], "Four metres.")
    assert not any(word.isdecimal() for word in row["words"])
    assert row["first_token_ms"] > 400.0
    [span] = [each for each in history.rows(spans) if each["kind"] == "rerank"]
    assert (span["name"], span["cost"], span["prompt_tokens"]) == ("rerank tiny", 0.0, 90)
    assert span["attributes"]["reranker.output_documents.0.document.id"] == "segment-1"


def test_words_can_be_searched_and_what_is_masked_cannot() -> None:
    history = History()
    _, message = asked(history)
    complete(history, call(history, message, "call-1"), "The gates of 水门 are tall.")
    words = the_trace(history)["words"]
    assert {"high", "gate", "水门", "tall", "email"} <= set(words)
    assert not {"ada", "exampl"} & set(words)
    assert len(words) == len(set(words))


def test_given_an_attempt_whose_worker_died_when_it_is_tried_again_then_the_trace_has_both_attempts() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    lost = call(history, message, "call-1")
    begin(history, conversation, message)
    lost.fail(history.now, code="lost", reason="The worker died.", response="", duration_ms=None)
    history.record(lost)
    complete(history, call(history, message, "call-2", attempt=2))
    history.answer(conversation, message)
    rows = {row["id"]: row for row in history.rows(spans)}
    assert (rows["call-1"]["status"], rows["call-2"]["status"], rows["call-2"]["attempt"]) == ("unknown", "ok", 2)
    row = the_trace(history)
    assert (row["status"], row["spans"], row["model_calls"]) == ("ok", 3, 2)
    assert (row["unknown_calls"], row["open_calls"], row["errors"]) == (1, 0, 0)


def test_given_a_failed_message_when_it_is_asked_again_by_a_command_then_that_is_another_trace() -> None:
    history = History()
    conversation, message = asked(history)
    conversation.fail(history.now, message=message, code="timeout", reason="No answer in 60 s.", answer="")
    history.record(conversation)
    failed = the_trace(history)
    assert (failed["status"], failed["error_code"], failed["errors"]) == ("error", "timeout", 1)
    assert failed["fingerprint"]
    history.correlation = "the-retry"
    conversation.retry(history.now, message=message)
    history.record(conversation)
    again = the_trace(history)
    assert (again["name"], again["status"], again["question"]) == ("message.retry", "running", "How high?")
    assert again["end_user"] == "bo"
    history.correlation = "the-question"  # a worker that had the first command in hand goes on with the second
    begin(history, conversation, message)
    history.answer(conversation, message)
    assert the_trace(history)["status"] == "error"
    history.correlation = "the-retry"
    assert the_trace(history)["status"] == "ok"


def test_given_a_failed_message_when_it_is_put_back_to_work_by_itself_then_its_trace_runs_again() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    call(history, message, "call-1", "embedding")
    PENDING["answer"].stall(conversation, message, history.now, "No worker has taken a step.")
    history.record(conversation)
    row = the_trace(history)
    assert (row["status"], row["ended_at"], row["error_code"]) == ("running", None, None)
    assert row["errors"] == 1, "the search broke off"
    assert tree(history)["trace"] == [("handler", "running")]
    call(history, message, "call-2", "embedding", attempt=2)
    assert the_trace(history)["errors"] == 0


def test_given_a_stopped_answer_then_the_trace_was_cancelled() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    made = call(history, message, "call-1")
    made.cancel(history.now, response="Fo", usage=TOKENS, duration_ms=30.0)
    history.record(made)
    conversation.stopped(history.now, message=message, answer="Fo")
    history.record(conversation)
    row = the_trace(history)
    assert (row["status"], row["answer"], row["errors"]) == ("cancelled", "Fo", 0)
    assert (row["prompt_tokens"], row["completion_tokens"], row["unpriced_calls"]) == (90, 12, 0)
    assert tree(history) == {"trace": [("handler", "cancelled")], "handler": [("chat", "cancelled")]}


def test_given_a_conversation_when_it_is_deleted_then_what_ran_was_given_up_and_calls_end_on_their_own() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    made = call(history, message, "call-1")
    history.correlation = "the-deletion"
    conversation.delete(history.now)
    at = history.record(conversation)
    history.correlation = "the-question"
    row = the_trace(history)
    assert (row["status"], row["ended_at"], row["ended_sequence"]) == ("cancelled", at, 6)
    assert tree(history) == {"trace": [("handler", "cancelled")], "handler": [("chat", "running")]}
    complete(history, made)
    assert (the_trace(history)["open_calls"], the_trace(history)["status"]) == (0, "cancelled")


def test_given_an_agent_then_its_trace_has_the_calls_of_its_tools() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    complete(history, call(history, message, commit_id(message, "agent:1:tools:1")))
    first = history.tool_call(message, "tool-1")
    second = history.tool_call(message, "tool-2", position=1, name="weather", kind="openapi", server="api.example:443")
    first.complete(history.now, text="5", parts=[], duration_ms=3.0)
    history.record(first)
    second.fail(history.now, code="lost", reason="The worker died.", duration_ms=None)
    history.record(second)
    complete(history, call(history, message, commit_id(message, "agent:2:tools:1")))
    history.answer(conversation, message)
    assert tree(history) == {
        "trace": [("handler", "ok")],
        "handler": [("chat", "ok"), ("tool", "ok"), ("tool", "unknown"), ("chat", "ok")],
    }
    rows = {row["id"]: row for row in history.rows(spans)}
    assert rows["tool-1"]["name"] == "execute_tool calculate"
    assert rows["tool-1"]["duration_ms"] == 3.0
    assert rows["tool-2"]["attributes"] == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "weather",
        "gen_ai.tool.call.id": "tool-2",
        "gen_ai.tool.type": "extension",
        "server.address": "api.example",
        "server.port": 443,
    }
    [handler] = [row for row in rows.values() if row["kind"] == "handler"]
    assert handler["attributes"] == {"gen_ai.operation.name": "invoke_agent"}
    trace = the_trace(history)
    assert (trace["tool_calls"], trace["unknown_calls"], trace["open_calls"], trace["errors"]) == (2, 1, 0, 0)


def test_the_calls_and_the_search_of_a_tool_are_part_of_it() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    calls = [history.tool_call(message, f"tool-{number}", name="search_knowledge") for number in (1, 2)]
    for number, each in enumerate(calls, 1):
        history.causation = each.id
        complete(history, call(history, message, f"embedding-{number}", "embedding"), "")
        retrieval(history, message, number)
        history.causation = None
    rows = {row["id"]: row for row in history.rows(spans)}
    assert [rows[f"embedding-{number}"]["parent_id"] for number in (1, 2)] == ["tool-1", "tool-2"]
    assert [rows[f"tool-{number}"]["retrieval_id"] for number in (1, 2)] == ["retrieval-1", "retrieval-2"]
    assert rows["tool-1"]["attributes"]["gen_ai.operation.name"] == "execute_tool"
    assert rows["tool-1"]["attributes"]["gen_ai.data_source.id"] == "the-dataset"
    assert not [row for row in rows.values() if row["kind"] == "retrieval"]


def test_what_waits_for_a_person_is_held_and_does_not_run() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    made = history.tool_call(message, "tool-1", held=True)
    conversation.hold(history.now, message=message, calls=["tool-1"])
    history.record(conversation)
    trace = the_trace(history)
    assert (trace["status"], trace["held_calls"], trace["open_calls"], trace["ended_at"]) == ("held", 1, 0, None)
    assert tree(history) == {"trace": [("handler", "held")], "handler": [("tool", "held")]}
    history.correlation = "the-release"
    made.release(history.now)
    released = history.record(made)
    history.correlation = "the-question"
    conversation.decide(history.now, message=message, call="tool-1")
    history.record(conversation)
    trace = the_trace(history)
    assert (trace["status"], trace["held_calls"], trace["open_calls"]) == ("running", 0, 1)
    [row] = [row for row in history.rows(spans) if row["kind"] == "tool"]
    assert row["started_at"] == released, "the time that it waited is not the tool's"


def test_a_refusal_is_no_error() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    made = history.tool_call(message, "tool-1", held=True)
    made.refuse(history.now, code="refused", reason="Paris stays.")
    history.record(made)
    [row] = [row for row in history.rows(spans) if row["kind"] == "tool"]
    assert (row["status"], row["error_code"], row["error"]) == ("cancelled", "refused", "Paris stays.")
    assert the_trace(history)["errors"] == 0


@pytest.mark.parametrize("end", ["stop", "delete"])
def test_an_answer_that_is_held_ends_by_another_command(end: str) -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    conversation.hold(history.now, message=message, calls=["tool-1"])
    history.record(conversation)
    history.correlation = "the-end"
    if end == "stop":
        conversation.stop(history.now, message=message)
        history.record(conversation)
        begin(history, conversation, message)
        conversation.stopped(history.now, message=message, answer="")
    else:
        conversation.delete(history.now)
    history.record(conversation)
    history.correlation = "the-question"
    assert the_trace(history)["status"] == "cancelled"
    assert tree(history) == {"trace": [("handler", "cancelled")]}
    assert [row["id"] for row in history.rows(traces)] == ["the-question"]


def test_given_a_document_when_it_is_indexed_then_its_trace_has_the_steps() -> None:
    history = History()
    dataset = history.dataset()
    history.correlation = "the-upload"
    document = history.document(dataset.id)
    history.split(document, ["One.", "Two."])
    complete(history, call(history, document.id, "call-1", "embedding", "document"), "")
    history.index(document, 2)
    assert tree(history) == {
        "trace": [("handler", "ok")],
        "handler": [("extract", "ok"), ("segment", "ok"), ("index", "ok")],
        "index": [("embedding", "ok")],
    }
    row = the_trace(history)
    assert (row["kind"], row["name"], row["status"], row["question"]) == (
        "document",
        "document.upload",
        "ok",
        "gates.md",
    )
    assert (row["document_id"], row["dataset_id"], row["spans"]) == (document.id, dataset.id, 5)
    extract = next(row for row in history.rows(spans) if row["kind"] == "extract")
    assert extract["duration_ms"] == 1000.0


def test_given_a_document_that_failed_when_it_is_tried_again_then_another_trace_goes_on_where_it_was() -> None:
    history = History()
    history.correlation = "the-upload"
    document = history.document(history.dataset().id)
    history.split(document, ["One.", "Two."])
    document.fail(history.now, stage="indexing", code="broken", reason="It broke.")
    history.record(document)
    assert tree(history)["handler"] == [("extract", "ok"), ("segment", "ok"), ("index", "error")]
    assert the_trace(history)["errors"] == 2
    history.correlation = "the-retry"
    document.retry(history.now)
    document.start(history.now, stage="indexing")
    history.record(document)
    assert the_trace(history)["question"] == "gates.md"
    history.index(document, 2)
    assert (the_trace(history)["name"], the_trace(history)["status"]) == ("document.retry", "ok")
    assert the_trace(history)["spans"] == 2


def test_given_a_document_when_it_is_deleted_at_work_then_its_trace_was_given_up() -> None:
    history = History()
    history.correlation = "the-upload"
    document = history.document(history.dataset().id)
    document.start(history.now, stage="parsing")
    history.record(document)
    history.correlation = "the-deletion"
    document.delete(history.now)
    history.record(document)
    history.correlation = "the-upload"
    assert the_trace(history)["status"] == "cancelled"
    assert {row["status"] for row in history.rows(spans)} == {"cancelled"}


def test_given_a_replay_then_it_has_a_trace_with_its_call() -> None:
    history = History()
    history.correlation = "the-replay"
    of: dict[str, Any] = {"call": "call-1", "provider": "lab", "model": "tiny", "max_tokens": 64, "parameters": {}}
    replay = Replay.begin(Replay.Requested, "replay-1", history.now, **of, app=None, configuration=None)
    history.record(replay)
    made = call(history, "replay-1", "call-2", noun="replay", provider="lab", model="tiny")
    assert tree(history) == {"trace": [("handler", "running")], "handler": [("chat", "running")]}
    complete(history, made)
    replay.complete(history.now, model_call="call-2")
    history.record(replay)
    row = the_trace(history)
    assert (row["kind"], row["status"], row["cost"], row["unpriced_calls"]) == ("replay", "ok", None, 1)
    assert (row["question"], row["answer"]) == ("Write to ‹email›: how high are the gates?", "Four metres.")


def test_given_calls_for_an_index_that_is_rebuilt_then_they_have_a_trace_that_ends_with_them() -> None:
    history = History()
    history.correlation = "the-build"
    made = call(history, "a-document", "call-1", "embedding", "document")
    assert (the_trace(history)["kind"], the_trace(history)["status"]) == ("index", "running")
    complete(history, made, "")
    assert the_trace(history)["status"] == "ok"
    assert tree(history) == {"trace": [("embedding", "ok")]}


def test_a_person_is_erased_from_traces_and_no_others() -> None:
    history = History()
    history.person = "the-person"
    conversation, message = asked(history)
    complete(history, call(history, message, "call-1"))
    history.person = "another"  # whose command came with the same correlation
    complete(history, call(history, message, "call-2"), "Zebras.")
    history.person = "the-person"
    assert "zebra" not in the_trace(history)["words"]
    history.answer(conversation, message)
    before = the_trace(history)
    history.person = None
    history.record(EndUser.begin(EndUser.Erased, "the-person", history.now, known=True))
    after = the_trace(history)
    gone = ("question", "answer", "words", "end_user")
    assert [after[name] for name in gone] == ["", "", [], None]
    assert {name: after[name] for name in ("cost", "spans", "models", "prompt_tokens")} == {
        name: before[name] for name in ("cost", "spans", "models", "prompt_tokens")
    }
    assert [row["attributes"] for row in history.rows(spans) if row["person_id"] == "the-person"] == [{}, {}]


def test_the_ids_of_spans_follow_from_the_command_and_what_it_is_about() -> None:
    history = History()
    _, message = asked(history)
    (row,) = history.rows(spans)
    assert row["id"] == span_id("the-question", message)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 150))
def test_what_is_rolled_up_agrees_with_a_recount_of_the_spans(random: Random, steps: int) -> None:
    history, tables = wander(random, steps), Tables()
    log = history.messages
    cuts = [0, *sorted(random.randrange(len(log) + 1) for _ in range(random.randint(0, 12))), len(log)]
    for start, end in pairwise(cuts):
        tables.apply(log[start:end], history.blobs)
    for trace in tables.rows(traces):
        _agrees(trace, [row for row in tables.rows(spans) if _belongs(row, trace)], tables)
    known = {(row["tenant_id"], row["id"]) for row in tables.rows(traces)}
    assert all((row["tenant_id"], row["trace_id"]) in known for row in tables.rows(spans))
    assert len([row for row in tables.rows(spans) if row["model_call_id"]]) == len(tables.rows(model_calls))


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 150), st.sampled_from([0.0, 0.5, 30.0]))
@example(Random(897188459), 110, 30.0)  # deleted by a clock that is behind, then erased
def test_no_span_begins_before_its_parent(random: Random, steps: int, skew_s: float) -> None:
    history, tables = wander(random, steps, skew_s=skew_s), Tables()
    tables.apply(history.messages, history.blobs)
    parents = {**tables.stored[traces], **tables.stored[spans]}
    for (tenant, _), row in tables.stored[spans].items():
        parent = parents[tenant, row["parent_id"] or row["trace_id"]]
        assert parent["started_at"] <= row["started_at"], (parent, row)
        if row["ended_at"] and row["status"] != "cancelled":  # a deletion has the time of the machine that decided it
            assert row["started_at"] <= row["ended_at"], row
    for row in [*tables.rows(spans), *tables.rows(traces)]:
        assert row["duration_ms"] is None or row["duration_ms"] >= 0


def test_a_search_begins_before_its_calls_though_it_was_recorded_late() -> None:
    """As a log may have it that was written before a retrieval was recorded with the time of its end."""
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    embedding = call(history, message, "call-1", "embedding")
    complete(history, embedding, "")
    retrieval(history, message)
    rows = {row["kind"]: row for row in history.rows(spans)}
    assert rows["retrieval"]["started_at"] == rows["embedding"]["started_at"]
    assert rows["retrieval"]["duration_ms"] == 500.0


def test_a_search_that_is_tried_again_begins_with_its_first_attempt() -> None:
    history = History()
    conversation, message = asked(history)
    begin(history, conversation, message)
    call(history, message, "call-1", "embedding")
    begin(history, conversation, message)
    call(history, message, "call-2", "embedding", attempt=2)
    retrieval(history, message, attempt=2)
    first, *_ = [row for row in history.rows(spans) if row["kind"] == "embedding"]
    [search] = [row for row in history.rows(spans) if row["kind"] == "retrieval"]
    assert (search["started_at"], search["attempt"]) == (first["started_at"], 2)


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 150))
def test_where_steps_are_fenced_by_attempt_none_is_redirected(random: Random, steps: int) -> None:
    history, tables, plain = wander(random, steps, late=False), Tables(), Tables()
    plain.fold.links.redirects.clear()
    tables.apply(history.messages, history.blobs)
    plain.apply(history.messages, history.blobs)
    assert plain.stored == tables.stored


def test_a_late_step_counts_in_the_trace_of_the_newest_attempt() -> None:
    """As a log may have it that was written before steps were fenced."""
    history = History()
    conversation, message = asked(history)
    conversation.fail(history.now, message=message, code="timeout", reason="No answer.", answer="")
    history.record(conversation)
    first, history.correlation = history.correlation, "the-retry"
    conversation.retry(history.now, message=message)
    history.record(conversation)
    history.correlation = first
    history.answer(conversation, message)
    assert {row["id"]: row["status"] for row in history.rows(traces)} == {first: "error", "the-retry": "ok"}


def _belongs(row: Row, trace: Row) -> bool:
    return (row["tenant_id"], row["trace_id"]) == (trace["tenant_id"], trace["id"])


def _agrees(trace: Row, parts: list[Row], tables: Tables) -> None:
    mine = [row for row in tables.rows(model_calls) if (row["tenant_id"], row["correlation_id"]) == _key(trace)]
    status = [row["status"] for row in mine]
    lost = [row for row in mine if row["error_code"] == "lost"]
    assert trace["spans"] == len(parts)
    assert trace["model_calls"] == len(mine) == len([row for row in parts if row["model_call_id"]])
    tools = [row for row in tables.rows(tool_calls) if (row["tenant_id"], row["correlation_id"]) == _key(trace)]
    states = [row["status"] for row in tools]
    assert trace["tool_calls"] == len(tools) == len([row for row in parts if row["tool_call_id"]])
    assert trace["held_calls"] == states.count("held")
    assert trace["open_calls"] == status.count("requested") + states.count("requested") + states.count("released")
    assert trace["unknown_calls"] == len(lost) + len([row for row in tools if row["error_code"] == "lost"])
    assert trace["errors"] == len([row for row in parts if row["status"] == "error"])
    assert trace["prompt_tokens"] == sum(row["prompt_tokens"] or 0 for row in mine)
    assert trace["completion_tokens"] == sum(row["completion_tokens"] or 0 for row in mine)
    assert trace["unpriced_calls"] == len(
        [row for row in mine if row["prompt_tokens"] is not None and row["cost"] is None]
    )
    costs = [row["cost"] for row in mine if row["cost"] is not None]
    assert (trace["cost"] is None) == (not costs)
    assert isclose(trace["cost"] or 0.0, sum(costs), abs_tol=1e-12)
    assert sorted(trace["models"]) == sorted({row["model"] for row in mine})
    handlers = [row for row in parts if row["kind"] == "handler"]
    if len(handlers) == 1:
        assert (trace["status"], trace["ended_at"]) == (handlers[0]["status"], handlers[0]["ended_at"])


def _key(trace: Row) -> tuple[str, str]:
    return trace["tenant_id"], trace["id"]


def test_every_part_that_runs_is_of_something_that_has_not_ended() -> None:
    """Whatever happens, nothing is shown at work that no worker has; where the app was deleted, if its events came in
    the trace that they belong to."""
    for seed in range(30):
        history, tables = wander(Random(seed), 200), Tables()
        tables.apply(history.messages, history.blobs)
        waiting = _waiting(history.messages)
        there = tables.stored[messages].keys() | tables.stored[documents].keys()
        for row in tables.rows(spans):
            known = (row["tenant_id"], row["noun_id"]) in there
            of_handler = row["model_call_id"] is None and row["tool_call_id"] is None
            if row["status"] in ("running", "held") and of_handler and known:
                assert (row["tenant_id"], row["noun_id"]) in waiting, (seed, row)


def _waiting(messages: list[Recorded]) -> set[tuple[str, str]]:
    """The messages and documents that have begun and not ended."""
    found: dict[tuple[str, str], str] = {}
    for message in messages:
        tenant = message.subject.tenant
        for event in message.events:
            match event:
                case Conversation.Asked() | Conversation.Retried():
                    found[tenant, event.message] = message.subject.id
                case Conversation.Answered() | Conversation.Failed() | Conversation.Stopped():
                    found.pop((tenant, event.message), None)
                case Document.Uploaded() | Document.Retried() | Document.Reprocessed():
                    found[tenant, message.subject.id] = message.subject.id
                case Document.Completed() | Document.Failed():
                    found.pop((tenant, message.subject.id), None)
                case Document.Deleted() | Conversation.Deleted():
                    found = {key: of for key, of in found.items() if (key[0], of) != (tenant, message.subject.id)}
    return set(found)


@pytest.mark.parametrize(
    ("noun", "kind", "name"),
    [
        ("message", "chat", "conversation.request_name"),
        ("dataset", "embedding", "dataset.test"),
        ("document", "embedding", "index.embedding"),
    ],
)
def test_given_no_handler_when_a_call_is_made_then_its_trace_has_the_command(noun: str, kind: str, name: str) -> None:
    history = History()
    complete(history, call(history, "the-cause", "call-1", kind, noun))
    trace = the_trace(history)
    assert (trace["kind"], trace["name"], trace["status"], trace["model_calls"]) == ("index", name, "ok", 1)
