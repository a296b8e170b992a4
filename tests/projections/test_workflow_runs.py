"""The tables of runs: `workflow_runs`, `workflow_node_executions` and `human_input_forms`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from domain.access.end_user import EndUser
from domain.workflows.run import Source, Values
from projections.conversation_variables import conversation_variables
from projections.engine.fold import Fold
from projections.engine.values import Values as Kept
from projections.human_input_forms import human_input_forms
from projections.workflow_node_executions import execution_id, workflow_node_executions
from projections.workflow_runs import workflow_runs
from tests.projections.history import History, Tables
from tests.projections.runs import begun, finish, form, record, step, take, text

CALL = {"noun": "model_call", "id": "the-call"}


def test_a_run_is_a_row_from_its_request_to_its_end() -> None:
    history = History()
    history.person = "the-person"
    run = begun(history, version=None, trigger="draft", source=Source(run="other", kind="fork", step="ask"))
    [row] = history.rows(workflow_runs)
    assert (row["status"], row["version"], row["triggered_from"], row["type"]) == (
        "scheduled", "draft", "draft", "workflow"
    )  # fmt: skip
    assert (row["source_id"], row["source_kind"], row["source_step"]) == ("other", "fork", "ask")
    assert (row["inputs"], row["end_user"], row["correlation_id"]) == (
        {"place": text("weir")},
        "bo",
        history.correlation,
    )
    take(history, run)
    [row] = history.rows(workflow_runs)
    assert (row["status"], row["attempt"], row["finished_at"]) == ("running", 1, None)
    run.stop(history.now)
    history.record(run)
    finish(history, run, "stopped", reason="It was stopped on request.", outputs={"a": text("b")})
    [row] = history.rows(workflow_runs)
    assert (row["status"], row["error_code"], row["error"]) == ("stopped", None, "It was stopped on request.")
    assert (row["outputs"], row["total_steps"], row["elapsed_time"]) == ({"a": text("b")}, 3, 1.5)
    assert row["stop_requested_at"] < row["finished_at"]


def test_an_execution_is_one_row_whatever_tries_and_commits_it_takes() -> None:
    history = History()
    run = begun(history)
    take(history, run)
    at = history.now
    record(history, run, (step(at, "start", type="start"), {}), (step(at, "draft", "running", "llm"), {}))
    [draft, start] = sorted(history.rows(workflow_node_executions), key=lambda row: row["node_id"])
    assert (start["index"], start["status"], start["elapsed_time"], start["tries"]) == (1, "succeeded", 0.5, 1)
    assert (draft["index"], draft["status"], draft["elapsed_time"], draft["title"]) == (2, "running", None, "Draft")
    lost = step(at, "draft", "retried", "llm", tokens=3, calls=[CALL], error_type="InvokeServerUnavailableError")
    record(history, run, (lost, Values(error="It is away.")))
    [row] = [row for row in history.rows(workflow_node_executions) if row["node_id"] == "draft"]
    assert (row["status"], row["error"], row["finished_at"]) == ("retried", "It is away.", None)
    done = step(at, "draft", type="llm", attempt=2, tokens=4, calls=[{**CALL, "id": "another"}], handle="source")
    values = Values(inputs={"q": text("Why?")}, outputs={"text": text("So.")})
    record(history, run, (done, values), (step(at, "no", "skipped"), {}))
    rows = {row["node_id"]: row for row in history.rows(workflow_node_executions)}
    row = rows["draft"]
    assert (row["index"], row["status"], row["tries"], row["total_tokens"]) == (2, "succeeded", 2, 7)
    assert [call["id"] for call in row["calls"]] == ["the-call", "another"]
    assert (row["inputs"], row["outputs"]) == ({"q": text("Why?")}, {"text": text("So.")})
    assert row["finished_at"] - row["started_at"] == timedelta(seconds=0.5)
    assert (rows["no"]["status"], rows["no"]["tries"], rows["no"]["index"]) == ("skipped", 0, 3)
    [found] = history.rows(workflow_runs)
    assert (found["executions"], found["total_tokens"]) == (3, 7)


def test_nodes_of_items_name_their_container() -> None:
    history = History()
    run = begun(history)
    take(history, run)
    inner = [(step(history.now, f"each/{number}/code"), Values()) for number in range(2)]
    record(history, run, (step(history.now, "each", "running", "iteration"), {}), *inner)
    record(history, run, (step(history.now, "each/0/loop/3/code"), {}))
    rows = {row["step"]: row for row in history.rows(workflow_node_executions)}
    assert (rows["each"]["parent_id"], rows["each"]["item_index"]) == (None, None)
    assert (rows["each/1/code"]["parent_id"], rows["each/1/code"]["item_index"]) == (rows["each"]["id"], 1)
    deep = rows["each/0/loop/3/code"]
    assert (deep["parent_id"], deep["item_index"]) == (execution_id(run.id, "each/0/loop"), 3)


def test_a_form_waits_until_it_is_answered_or_the_run_ends() -> None:
    history = History()
    run = begun(history)
    take(history, run)
    until = history.now + timedelta(days=3)
    asked = [(step(history.now, key, "running", "human-input"), Values()) for key in ("ask", "more", "last")]
    record(history, run, *asked, forms=tuple(form(key, until) for key in ("ask", "more", "last")), paused=True)
    [run_row] = history.rows(workflow_runs)
    assert run_row["status"] == "paused"
    assert {row["status"] for row in history.rows(workflow_node_executions)} == {"waiting"}
    run.answer(history.now, key="ask", action="yes", fields={"gate": "south"}, by="")
    run.time_out(until, key="more")
    history.record(run)
    finish(history, run, "stopped")
    rows = {row["node_id"]: row for row in history.rows(human_input_forms)}
    ask = rows["ask"]
    assert (ask["status"], ask["selected_action_id"], ask["submitted_data"]) == ("submitted", "yes", {"gate": "south"})
    assert (ask["submitted_by"], ask["expiration_time"], ask["rendered_content"]) == (
        "ada",
        until,
        "Open {{#$output.gate#}}?",
    )
    assert (rows["more"]["status"], rows["last"]["status"]) == ("timeout", "expired")
    assert {row["status"] for row in history.rows(workflow_node_executions)} == {"stopped"}


def test_a_run_that_lost_its_workers_goes_on_in_the_same_rows() -> None:
    history = History()
    run = begun(history)
    take(history, run)
    record(history, run, (step(history.now, "draft", "running"), {}))
    run.fail(history.now, code="stalled", reason="No worker is there.")
    history.record(run)
    [row] = history.rows(workflow_runs)
    assert (row["status"], row["error_code"]) == ("failed", "stalled")
    run.retry(history.now)
    history.record(run)
    take(history, run, "second")
    record(history, run, (step(history.now, "draft"), {}))
    [row] = history.rows(workflow_runs)
    assert (row["status"], row["error_code"], row["attempt"], row["executions"]) == ("running", None, 2, 1)
    [row] = history.rows(workflow_node_executions)
    assert row["status"] == "succeeded"


@pytest.mark.parametrize("gone", ["app", "conversation", "person"])
def test_what_is_deleted_or_erased_leaves_no_words(gone: str) -> None:
    history = History()
    app = history.app()
    talk = history.conversation(app.id)
    history.person = "the-person"
    run = begun(history, app=app.id, conversation=talk.id, message="m", mode="advanced-chat")
    take(history, run)
    values = Values(inputs={"q": text("Secret")}, outputs={"a": text("Secret")}, error="Secret")
    record(history, run, (step(history.now, "ask", "running"), values), forms=(form("ask", history.now),))
    match gone:
        case "app":
            app.delete(history.now)
            history.record(app)
        case "conversation":
            talk.delete(history.now)
            history.record(talk)
        case "person":
            history.record(EndUser.begin(EndUser.Erased, "the-person", history.now, known=True))
    found = {model.name: history.rows(model) for model in (workflow_runs, workflow_node_executions, human_input_forms)}
    if gone != "person":
        assert not any(found.values())
        return
    [row], [execution], [asked] = found.values()
    assert (row["inputs"], row["end_user"], execution["inputs"], execution["outputs"]) == ({}, "", {}, {})
    assert (execution["error"], asked["rendered_content"], asked["inputs"]) == (None, "", [])


def test_variables_of_a_conversation_are_those_that_were_assigned_last() -> None:
    history = History()
    talk = history.conversation(history.app().id)
    history.person = "the-person"
    talk.set_variables(history.now, run="one", step="set", values={"gate": text("north"), "count": text("1")})
    history.record(talk)
    first = {row["name"]: row["created_at"] for row in history.rows(conversation_variables)}
    talk.set_variables(history.now, run="two", step="each/0/set", values={"gate": text("south")})
    history.record(talk)
    rows = {row["name"]: row for row in history.rows(conversation_variables)}
    assert {name: row["data"]["data"] for name, row in rows.items()} == {"gate": "south", "count": "1"}
    gate = rows["gate"]
    assert (gate["workflow_run_id"], gate["step"], gate["conversation_id"]) == ("two", "each/0/set", talk.id)
    assert first["gate"] == gate["created_at"] < gate["updated_at"]
    history.record(EndUser.begin(EndUser.Erased, "the-person", history.now, known=True))
    assert {row["name"]: row["data"] for row in history.rows(conversation_variables)} == {"gate": {}, "count": {}}
    talk.delete(history.now)
    history.record(talk)
    assert history.rows(conversation_variables) == []


def test_an_installation_may_keep_the_outcome_only() -> None:
    history = History()
    run = begun(history)
    take(history, run)
    values = Values(inputs={"q": text("Why?")}, outputs={"a": text("So.")}, writes=[], error="It is odd.")
    record(history, run, (step(history.now, "draft", "exception", error_type="CodeNodeError"), values))
    tables = Tables()
    tables.fold = Fold(tables.fold.models, set(tables.fold.rules), Kept(run_keep="outcome"))
    tables.apply(history.messages, {})
    [row] = tables.rows(workflow_node_executions)
    assert (row["inputs"], row["outputs"], row["writes"]) == ({}, {}, [])
    assert (row["status"], row["error_type"], row["error"]) == ("exception", "CodeNodeError", "It is odd.")


def test_the_batches_make_no_difference() -> None:
    history = History()
    run = begun(history)
    take(history, run)
    for number in range(4):
        key = f"each/{number}/code"
        record(history, run, (step(history.now, key, "running"), {}), (step(history.now, "each", "running"), {}))
        record(history, run, (step(history.now, key, tokens=2), Values(outputs={"n": text(str(number))})))
    finish(history, run)
    one, many = Tables(), Tables()
    one.apply(history.messages, {})
    for message in history.messages:
        many.apply([message], {})
    for model in (workflow_runs, workflow_node_executions):
        assert one.rows(model) == many.rows(model)
    assert [row["executions"] for row in one.rows(workflow_runs)] == [5]
