"""The spans of runs of workflows: the run, its nodes, the items and rounds that they are in, and what they call.

All of a run is in the trace that it began in. The span of a node has the id of its execution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from domain.knowledge.retrieval import Retrieval
from domain.log import Recorded
from domain.workflows.effect import Effect
from domain.workflows.run import Run, Step
from projections.engine.read_model import Row, originator
from projections.traces import attributes
from projections.traces.spans import (
    HELD,
    OPEN,
    RUNNING,
    at_work,
    begun,
    causing_span,
    ended,
    failed,
    own_span,
    resumed,
    span_id,
    spans,
    tried,
)
from projections.values.fingerprint import fingerprint
from projections.workflow_node_executions import execution_id, form_of

__all__ = ["spans"]

for only in (OPEN, HELD):
    spans.sets(Run.Finished, {"status": "cancelled"}, column="noun_id", only=only, ended=("ended_at", "ended_sequence"))


# --- the run -------------------------------------------------------------------------------------------------


def around(event: Run.Started, message: Recorded) -> str | None:
    """The call of a tool that a run is, or the handler of the message that it answers."""
    if event.tool_call or event.message is None:
        return event.tool_call
    return span_id(message.metadata.correlation, event.message)


@spans.makes(Run.Started, once=own_span, related=(spans, around))
def run_waits(event: Run.Started, message: Recorded, parent: Row | None) -> Row:
    of = ("handler", "run", "run", event.originator_id)
    conversation, found = event.conversation, attributes.workflow()
    return begun(message, event.timestamp, *of, parent, conversation_id=conversation, attributes=found)


spans.changes(Run.Started, pick=around)(at_work)


@spans.changes(Run.Taken, pick=own_span)
def taken(row: Row, event: Run.Taken, message: Recorded) -> Row:
    return tried(row, event)


spans.changes(Run.Retried, pick=own_span)(resumed)


@spans.changes(Run.Stepped, pick=own_span)
def paused(row: Row, event: Run.Stepped, message: Recorded) -> Row | None:
    return {"status": "held"} if event.paused else None


@spans.changes(Run.Finished, pick=own_span)
def finished(row: Row, event: Run.Finished, message: Recorded) -> Row:
    if event.status == "failed":
        return RUNNING | ended(row, event, message, "error", **_reason(row, event.code or "node_failed", event.reason))
    return RUNNING | ended(row, event, message, "cancelled" if event.status == "stopped" else "ok")


def _reason(row: Row, code: str, reason: str) -> Row:
    return {"error_code": code, "error": reason, "fingerprint": fingerprint(row["kind"], code, reason)}


# --- its nodes and items -------------------------------------------------------------------------------------


def of_steps(event: Run.Stepped, message: Recorded) -> Iterator[str]:
    """The spans of steps, of the items and containers that they are in, and of their calls."""
    for step in event.steps:
        for path in (step["key"], *_within(step)):
            yield execution_id(event.originator_id, path)
        for call in step.get("calls", ()):
            yield call["id"]


def _within(step: Step) -> tuple[str, str] | tuple[()]:
    """The paths of the item that a step is in, and of its container; none at the top."""
    item = step["key"].removesuffix(step["node"]).removesuffix("/")
    return (item, item.rpartition("/")[0]) if item else ()


@spans.makes(Run.Stepped, within=(spans, own_span), among=of_steps)
def stepped(event: Run.Stepped, message: Recorded, run: Row, known: Mapping[str, Row]) -> Iterable[Row]:
    """The steps around others come first: a container that ends in the commit of its items is recorded after them."""
    batch = _Batch(event, message, run, dict(known))
    for step, values in sorted(zip(event.steps, event.values, strict=True), key=lambda pair: pair[0]["key"].count("/")):
        if step["status"] != "skipped":
            batch.add(step, values.get("error", ""))
    at = {"log_position": message.position.sequence, "updated_at": event.timestamp}
    return [row | at for id, row in batch.rows.items() if row is not known.get(id)]


class _Batch:
    def __init__(self, event: Run.Stepped, message: Recorded, run: Row, rows: dict[str, Row]) -> None:
        self.event, self.message, self.run, self.rows = event, message, run, rows

    def add(self, step: Step, error: str) -> None:
        began, parent = datetime.fromisoformat(step["began"]), self.run
        if within := _within(step):
            parent = self._item(within[0], within[1], began)
        found = attributes.node(step["node"], step["type"], step["key"])
        row = self._span(step["key"], "node", step["title"] or step["node"], began, parent, found)
        self.rows[row["id"]] = row = row | self._state(row, step, error)
        if within:
            self.rows[parent["id"]] = parent | self._of_item(parent, row)
        for call in step.get("calls", ()):
            if (span := self.rows.get(call["id"])) and span["trace_id"] == row["trace_id"]:
                self.rows[call["id"]] = span | _part(span, row)

    def _item(self, path: str, container: str, began: datetime) -> Row:
        """The item that a step is in: it begins with the first of its steps."""
        parent = self.rows.get(execution_id(self.run["noun_id"], container), self.run)
        name = f"item {path.rpartition('/')[2]}"
        row = self._span(path, "item", name, began, parent, {})
        row = row | {"started_at": min(row["started_at"], max(parent["started_at"], began))}
        self.rows[row["id"]] = row
        return row

    def _span(self, path: str, kind: str, name: str, began: datetime, parent: Row, found: Row) -> Row:
        id = execution_id(self.run["noun_id"], path)
        if known := self.rows.get(id):
            return known
        more = {"id": id, "conversation_id": self.run["conversation_id"], "attempt": 1, "attributes": found}
        row = begun(self.message, began, kind, name, "run", self.run["noun_id"], parent, **more)
        return {**dict.fromkeys(RUNNING), **row, "created_at": self.event.timestamp}

    def _state(self, row: Row, step: Step, error: str) -> Row:
        status, attempt = step["status"], step.get("attempt", 1)
        if status in ("running", "retried"):
            return {**RUNNING, "attempt": attempt + (status == "retried")}
        began, took = datetime.fromisoformat(step["began"]), step.get("duration_ms")
        at = self.event.timestamp if took is None else began + timedelta(milliseconds=took)
        state = {**RUNNING, "attempt": attempt, **self._end(row, at)}
        if status == "stopped":
            return {**state, "status": "cancelled"}
        if status == "succeeded":
            return {**state, "status": "ok"}
        return {**state, "status": "error", **_reason(row, step.get("error_type") or "node_failed", error)}

    def _of_item(self, item: Row, step: Row) -> Row:
        """It lasts until the last of its steps has ended, and has failed when one of them has."""
        if step["status"] == "running":
            return RUNNING
        status = "error" if "error" in (item["status"], step["status"]) else step["status"]
        return {"status": status, **self._end(item, max(step["ended_at"], item["ended_at"] or step["ended_at"]))}

    def _end(self, row: Row, at: datetime) -> Row:
        at = max(at, row["started_at"])
        took = (at - row["started_at"]) / timedelta(milliseconds=1)
        return {"ended_at": at, "duration_ms": took, "ended_sequence": self.message.position.sequence}


def _part(call: Row, step: Row) -> Row:
    """A call is part of its step, which is known at the end of it."""
    at = max(call["started_at"], step["started_at"])
    return {"parent_id": step["id"], "started_at": at, "ended_at": call["ended_at"] and max(call["ended_at"], at)}


@spans.changes(Run.Waiting, pick=form_of)
def waits(row: Row, event: Run.Waiting, message: Recorded) -> Row:
    return {"status": "held"}


@spans.changes(Run.Answered, Run.TimedOut, pick=form_of)
def goes_on(row: Row, event: Any, message: Recorded) -> Row:
    return {"status": "running"}


# --- its searches --------------------------------------------------------------------------------------------


def _searching(event: Retrieval.Made, message: Recorded) -> str | None:
    return causing_span(event, message) if event.cause_noun == "run" else None


@spans.makes(Retrieval.Made, within=(spans, _searching), new=originator)
def searched(event: Retrieval.Made, message: Recorded, run: Row) -> Row:
    """A run may search more than once: each search is a span of its own."""
    began = event.timestamp - timedelta(milliseconds=event.duration_ms)
    span = begun(
        message,
        began,
        "retrieval",
        "retrieval",
        "run",
        event.cause_id,
        run,
        id=event.originator_id,
        conversation_id=run["conversation_id"],
        attempt=event.attempt,
        retrieval_id=event.originator_id,
        attributes=attributes.retrieval(event.datasets, event.retrieval["top_k"]),
    )
    state = ended(span, event, message, "error" if event.code else "ok")
    return span | state | (_reason(span, event.code, event.reason or "") if event.code else {})


# --- its requests to servers ---------------------------------------------------------------------------------


def of_effect(event: Effect.Requested, message: Recorded) -> tuple[str, str]:
    """The spans of the run and of the step that send a request."""
    return causing_span(event, message), execution_id(event.cause_id, event.step.rpartition("#")[0])


@spans.makes(Effect.Requested, new=originator, among=of_effect)
def requested(event: Effect.Requested, message: Recorded, known: Mapping[str, Row]) -> Row:
    run, step = (known.get(id) for id in of_effect(event, message))
    return begun(
        message,
        event.timestamp,
        "effect",
        f"{event.method} {event.server}",
        "run",
        event.cause_id,
        step or run,
        id=event.originator_id,
        conversation_id=run and run["conversation_id"],
        attempt=event.attempt,
        attributes=attributes.effect(event.method, event.server),
    )


@spans.changes(Effect.Begun)
def sent_again(row: Row, event: Effect.Begun, message: Recorded) -> Row:
    return {**RUNNING, "attempt": event.attempt}


@spans.changes(Effect.Completed)
def responded(row: Row, event: Effect.Completed, message: Recorded) -> Row:
    found = row["attributes"] | attributes.responded(event.status)
    return ended(row, event, message, "ok") | {"duration_ms": event.duration_ms, "attributes": found}


@spans.changes(Effect.Failed)
def not_responded(row: Row, event: Effect.Failed, message: Recorded) -> Row:
    return failed(row, event, message) | {"duration_ms": event.duration_ms}


@spans.changes(Effect.Cancelled)
def broken_off(row: Row, event: Effect.Cancelled, message: Recorded) -> Row:
    return ended(row, event, message, "cancelled") | {"duration_ms": event.duration_ms}
