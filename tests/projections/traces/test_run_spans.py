"""The spans of runs of workflows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from domain.aggregate import new_id
from domain.models.model_call import ModelCall
from domain.workflows.effect import Effect
from domain.workflows.run import Values
from projections.engine.read_model import Row
from projections.traces.attributes import exported
from projections.traces.spans import span_id, spans
from projections.traces.traces import traces
from projections.workflow_node_executions import execution_id
from tests.projections.history import TOKENS, History, Tables
from tests.projections.runs import begun, finish, form, record, step, take, text


def call(history: History, run: str, id: str) -> ModelCall:
    made = ModelCall.begin(
        ModelCall.Requested,
        id,
        history.now,
        kind="chat",
        provider="openai",
        model="gpt-4o-mini",
        cause_noun="run",
        cause_id=run,
        request={"messages": [], "parameters": {}},
    )
    history.record(made)
    return made


def complete(history: History, made: ModelCall) -> None:
    made.complete(history.now, response="So.", finish_reason="stop", usage=TOKENS, first_token_ms=4.0, duration_ms=9.0)
    history.record(made)


def tree(rows: list[Row]) -> list[str]:
    """The spans as indented names."""

    def below(parent: str | None, depth: int) -> list[str]:
        found = sorted(
            (row for row in rows if row["parent_id"] == parent), key=lambda row: (row["started_at"], row["name"])
        )
        return [line for row in found for line in (f"{'  ' * depth}{row['name']}", *below(row["id"], depth + 1))]

    return below(None, 0)


def whole(rows: list[Row]) -> None:
    """No span begins before its parent, or ends before it begins."""
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        if row["parent_id"]:
            assert by_id[row["parent_id"]]["started_at"] <= row["started_at"], row["name"]
        assert row["ended_at"] is None or row["ended_at"] >= row["started_at"], row["name"]


def test_a_run_is_a_tree_of_nodes_items_and_calls() -> None:
    history = History()
    run = begun(history)
    take(history, run)
    at = history.now
    record(history, run, (step(at, "start", type="start"), {}), (step(at, "each", "running", "iteration"), {}))
    for number in range(2):
        made = call(history, run.id, f"call-{number}")
        complete(history, made)
        named: dict[str, Any] = {"calls": [{"noun": "model_call", "id": made.id}], "tokens": 4}
        record(history, run, (step(history.now, f"each/{number}/ask", type="llm", **named), {}))
    record(history, run, (step(at, "each", type="iteration"), {}), (step(at, "other", "skipped"), {}))
    finish(history, run, outputs={"text": text("So it is.")})
    rows = history.rows(spans)
    assert tree(rows) == [
        "run", "  Each", "    item 0", "      Ask", "        chat gpt-4o-mini",
        "    item 1", "      Ask", "        chat gpt-4o-mini", "  Start",
    ]  # fmt: skip
    whole(rows)
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["noun_id"] for row in rows} == {run.id}
    node = next(row for row in rows if row["name"] == "Start")
    assert (node["id"], node["kind"], node["duration_ms"]) == (execution_id(run.id, "start"), "node", 500.0)
    assert node["attributes"]["headrace.workflow.node_type"] == "start"
    [handler] = [row for row in rows if row["kind"] == "handler"]
    assert exported("handler", "run", handler["attributes"])["traceloop.span.kind"] == "workflow"
    [trace] = history.rows(traces)
    assert (trace["kind"], trace["name"], trace["status"], trace["run_id"]) == ("run", "run.start", "ok", run.id)
    assert (trace["question"], trace["answer"], trace["model_calls"]) == ("weir", "So it is.", 2)
    assert (trace["spans"], trace["end_user"]) == (len(rows), "bo")


def test_a_container_that_is_recorded_after_its_items_is_above_them() -> None:
    history = History()
    run = begun(history)
    take(history, run)
    at = history.now
    inner = [(step(at + timedelta(milliseconds=number), f"each/{number}/loop/0/code"), Values()) for number in range(2)]
    loops = [(step(at, f"each/{number}/loop", type="loop"), Values()) for number in range(2)]
    record(history, run, *inner, *loops, (step(at, "each", type="iteration"), {}))
    rows = history.rows(spans)
    each = [[f"    item {number}", "      Loop", "        item 0", "          Code"] for number in range(2)]
    assert tree(rows)[1:] == ["  Each", *each[0], *each[1]]
    whole(rows)


def test_a_node_that_fails_says_why_and_the_run_with_it() -> None:
    history = History()
    history.person = "the-person"
    run = begun(history)
    take(history, run)
    at = history.now
    record(history, run, (step(at, "ask", "retried", "llm", error_type="InvokeRateLimitError"), Values(error="Wait.")))
    [node] = [row for row in history.rows(spans) if row["kind"] == "node"]
    assert (node["status"], node["attempt"]) == ("running", 2)
    record(history, run, (step(at, "ask", "failed", "llm", attempt=2, error_type="Odd"), Values(error="It is odd.")))
    record(history, run, (step(at, "slow", "running"), {}), (step(at, "cut", "stopped"), {}))
    finish(history, run, "failed", reason="It is odd.")
    rows = {row["name"]: row for row in history.rows(spans)}
    assert (rows["Ask"]["status"], rows["Ask"]["error_code"], rows["Ask"]["error"]) == ("error", "Odd", "It is odd.")
    assert (rows["Cut"]["status"], rows["Slow"]["status"]) == ("cancelled", "cancelled")
    assert rows["Slow"]["ended_sequence"] == len(history.messages)
    assert rows["Ask"]["person_id"] == "the-person"
    assert (rows["run"]["status"], rows["run"]["error_code"]) == ("error", "node_failed")
    [trace] = history.rows(traces)
    assert (trace["status"], trace["error"], trace["errors"]) == ("error", "It is odd.", 2)


def test_a_run_that_waits_is_held_and_goes_on_in_its_trace() -> None:
    history = History()
    run = begun(history)
    take(history, run)
    asked = step(history.now, "ask", "running", "human-input")
    record(history, run, (asked, {}), forms=(form("ask", history.now + timedelta(days=1)),), paused=True)
    assert {row["status"] for row in history.rows(spans)} == {"held"}
    [trace] = history.rows(traces)
    assert trace["status"] == "held"
    began, history.correlation = history.correlation, new_id()
    run.answer(history.now, key="ask", action="yes", fields={}, by="bo")
    history.record(run)
    take(history, run, "second")
    record(history, run, (step(history.now, "ask", type="human-input"), {}), (step(history.now, "end"), {}))
    finish(history, run)
    rows = history.rows(spans)
    assert {row["trace_id"] for row in rows} == {began}
    assert {row["status"] for row in rows} == {"ok"}
    [trace] = history.rows(traces)
    assert (trace["id"], trace["status"], trace["spans"]) == (began, "ok", 3)


def test_the_run_of_a_message_is_part_of_its_answer() -> None:
    history = History()
    app = history.app()
    talk = history.conversation(app.id)
    message = history.ask(talk)
    run = begun(history, app=app.id, conversation=talk.id, message=message, mode="advanced-chat")
    take(history, run)
    record(history, run, (step(history.now, "start"), {}))
    finish(history, run)
    [trace] = history.rows(traces)
    assert (trace["status"], trace["kind"], trace["run_id"]) == ("running", "message", run.id)
    history.answer(talk, message)
    [trace] = history.rows(traces)
    assert trace["status"] == "ok"
    rows = history.rows(spans)
    handler = span_id(history.correlation, message)
    assert [row["name"] for row in rows if row["parent_id"] == handler] == ["run"]
    whole(rows)


def test_a_request_of_a_node_is_part_of_it() -> None:
    history = History()
    run = begun(history)
    take(history, run)
    record(history, run, (step(history.now, "fetch", "running", "http-request"), {}))
    of: dict[str, Any] = {"kind": "http", "method": "POST", "server": "example.com:443", "request": {}}
    of |= {"cause_noun": "run", "cause_id": run.id, "step": "fetch#1.0", "app": "the-app"}
    sent = [Effect.begin(Effect.Requested, id, history.now, **of, attempt=1, idempotent=False) for id in ("a", "b")]
    for each in sent:
        history.record(each)
    sent[0].complete(history.now, status=201, headers={}, body="", digest=None, size=0, duration_ms=12.0)
    sent[1].lose(history.now, "The worker died.")
    for each in sent:
        history.record(each)
    rows = {row["id"]: row for row in history.rows(spans)}
    assert rows["a"]["parent_id"] == rows["b"]["parent_id"] == execution_id(run.id, "fetch")
    assert (rows["a"]["name"], rows["a"]["status"], rows["a"]["duration_ms"]) == ("POST example.com:443", "ok", 12.0)
    assert rows["a"]["attributes"]["http.response.status_code"] == 201
    assert (rows["b"]["status"], rows["b"]["error_code"]) == ("unknown", "lost")
    whole([*rows.values()])


def test_the_batches_of_spans_make_no_difference() -> None:
    history = History()
    run = begun(history)
    take(history, run)
    for number in range(3):
        at, made = history.now, call(history, run.id, f"call-{number}")
        record(history, run, (step(at, "each", "running"), {}), (step(at, f"each/{number}/ask", "running"), {}))
        complete(history, made)
        named: dict[str, Any] = {"calls": [{"noun": "model_call", "id": made.id}]}
        record(history, run, (step(at, f"each/{number}/ask", **named), {}))
    finish(history, run)
    one, many = Tables(), Tables()
    one.apply(history.messages, {})
    for each in history.messages:
        many.apply([each], {})
    for model in (spans, traces):
        assert one.rows(model) == many.rows(model)
    whole(one.rows(spans))
