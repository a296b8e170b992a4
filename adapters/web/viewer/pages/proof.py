"""Proof that everything is accounted for: every call has ended, is in flight or is known to be unknown; the log has no
gap; and the tables and exports have caught up with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import nats.errors
import orjson
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, NotFoundError
from psycopg import errors
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.jetstream.direct import DirectReader
from adapters.jetstream.nats_py import api
from adapters.jetstream.streams import EXPORTS
from adapters.telemetry.otlp.ended import Place, behind
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.render import as_json, link, render, tenant, wants_json
from adapters.web.viewer.visitor import visitor
from domain.log import EVENTS, OUTCOMES
from handlers.ports.log import Unavailable

COUNTED = 250_000
"""Maximum length of a log, in messages, that is counted without request."""

OVERDUE = timedelta(minutes=10)
"""Age from which a call in flight is suspicious; calls of dead workers are recovered."""

_CALLS = """
SELECT count(*) AS requested, count(*) FILTER (WHERE status = 'completed') AS completed,
    count(*) FILTER (WHERE status = 'failed' AND error_code <> 'lost') AS failed,
    count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
    count(*) FILTER (WHERE status = 'failed' AND error_code = 'lost') AS unknown,
    count(*) FILTER (WHERE status = 'requested') AS in_flight
FROM headrace.model_calls WHERE tenant_id = %(tenant)s
"""

_TOOLS = """
SELECT count(*) AS requested, count(*) FILTER (WHERE status = 'completed') AS completed,
    count(*) FILTER (WHERE status = 'failed' AND error_code <> 'lost') AS failed,
    count(*) FILTER (WHERE status = 'refused') AS refused, count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
    count(*) FILTER (WHERE status = 'held') AS held,
    count(*) FILTER (WHERE status IN ('requested', 'released')) AS in_flight,
    count(*) FILTER (WHERE status = 'failed' AND error_code = 'lost') AS unknown
FROM headrace.tool_calls WHERE tenant_id = %(tenant)s
"""

_QUESTIONS = """
SELECT count(*) AS asked, count(*) FILTER (WHERE status = 'answered') AS answered,
    count(*) FILTER (WHERE status = 'failed') AS failed, count(*) FILTER (WHERE status = 'stopped') AS stopped,
    count(*) FILTER (WHERE status IN ('asked', 'answering')) AS waiting, count(*) FILTER (WHERE status = 'held') AS held
FROM headrace.messages WHERE tenant_id = %(tenant)s
"""

_DOCUMENTS = """
SELECT count(*) AS uploaded, count(*) FILTER (WHERE indexing_status = 'completed') AS completed,
    count(*) FILTER (WHERE indexing_status = 'error') AS failed,
    count(*) FILTER (WHERE indexing_status NOT IN ('completed', 'error')) AS waiting
FROM headrace.documents WHERE tenant_id = %(tenant)s
"""

_SPANS = """
SELECT (SELECT count(*) FROM headrace.spans WHERE tenant_id = %(tenant)s AND model_call_id IS NOT NULL) AS spans,
    (SELECT coalesce(sum(model_calls), 0)::bigint FROM headrace.traces WHERE tenant_id = %(tenant)s) AS in_traces
"""

_OLDEST = """
SELECT id, kind, provider, model, cause_noun, correlation_id, created_at FROM headrace.model_calls
WHERE tenant_id = %(tenant)s AND status = 'requested' ORDER BY created_at LIMIT 1
"""

_LETTERS = """
SELECT count(*) AS waiting FROM headrace.dead_letters
WHERE tenant_id = %(tenant)s AND status IN ('buried', 'returned')
"""

_POSITIONS = "SELECT stream, min(sequence) AS sequence FROM headrace_projection.groups GROUP BY stream"


@dataclass(frozen=True)
class Term:
    """A number of an equation, with a link to its rows."""

    name: str
    number: int
    link: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Equation:
    """An equation: `whole` must be the sum of the `parts`."""

    name: str
    says: str
    whole: Term
    parts: list[Term]

    @property
    def sum(self) -> int:
        return sum(part.number for part in self.parts)

    @property
    def holds(self) -> bool:
        return self.whole.number == self.sum


@dataclass(frozen=True)
class Stream:
    """A stream of the log, and the progress of the tables; `since` is the time of the oldest message not in them."""

    name: str
    last: int
    messages: int
    reached: int
    since: datetime | None

    @property
    def missing(self) -> int:
        return self.last - self.messages

    @property
    def behind(self) -> int:
        return max(0, self.last - self.reached)


@dataclass(frozen=True)
class Export:
    """Progress of the export to a collector; `waiting` spans have ended and were not sent."""

    target: str
    sent: int
    set_aside: int
    at: datetime
    waiting: int
    since: datetime | None


@dataclass(frozen=True)
class Proof:
    equations: list[Equation]
    streams: list[Stream]
    exports: list[Export]
    oldest: Row | None
    letters: int
    counted: bool
    doubts: list[str]
    """Discrepancies; empty when everything adds up."""


async def proof(request: Request, now: datetime, *, counted: bool) -> Proof:
    backend: Backend = request.app.state.backend
    of = tenant(request)
    values = {"tenant": of}
    streams = await _streams(backend)
    counted = counted or sum(stream.messages for stream in streams) <= COUNTED
    # The log is counted before the tables, which can only be ahead then.
    logged = await _logged(backend, of) if counted else None
    async with backend.reading() as connection:  # all numbers of one snapshot

        async def one(statement: str) -> Row:
            return await (await connection.execute(statement.encode(), values)).fetchone() or {}

        calls, questions, documents = await one(_CALLS), await one(_QUESTIONS), await one(_DOCUMENTS)
        tools = await one(_TOOLS)
        spans, oldest, letters = await one(_SPANS), await one(_OLDEST), await one(_LETTERS)
    equations = _equations(request, calls, tools, questions, documents, spans)
    if logged is not None:
        open_calls, all_calls = logged
        equations.insert(1, _in_log(request, all_calls, open_calls, calls))
    behind = any(stream.behind for stream in streams)
    # What all tenants did together is for operators.
    streams, exports = (streams, await _exports(backend)) if visitor(request).is_operator else ([], [])
    doubts = _doubts(equations, streams, exports, oldest, letters["waiting"], now, behind=behind)
    return Proof(equations, streams, exports, oldest or None, letters["waiting"], counted, doubts)


def _equations(request: Request, calls: Row, tools: Row, questions: Row, documents: Row, spans: Row) -> list[Equation]:
    def listed(statement: str) -> str:
        """A link to the rows, by SQL, since not all of them are traces; empty without access to it."""
        if not visitor(request).is_operator:
            return ""
        own = tenant(request).replace("'", "''")
        return link(request, "/sql", query=f"SELECT *\nFROM {statement.format(tenant=own)}\nORDER BY created_at DESC")

    def of_calls(test: str) -> str:
        return listed("model_calls\nWHERE tenant_id = '{tenant}'" + (f" AND {test}" if test else ""))

    def of_tools(test: str) -> str:
        return listed("tool_calls\nWHERE tenant_id = '{tenant}'" + (f" AND {test}" if test else ""))

    def traces(**filters: str) -> str:
        return link(request, "/traces", **filters)

    return [
        Equation(
            "Calls of models",
            "Every call is recorded before it is made, so that none can be lost: it has ended, it is in flight, "
            "or its worker died and its outcome is unknown.",
            Term("requested", calls["requested"], of_calls("")),
            [
                Term("completed", calls["completed"], of_calls("status = 'completed'")),
                Term("failed", calls["failed"], of_calls("status = 'failed' AND error_code <> 'lost'")),
                Term("cancelled", calls["cancelled"], of_calls("status = 'cancelled'")),
                Term("in flight", calls["in_flight"], of_calls("status = 'requested'"), "run"),
                Term("unknown", calls["unknown"], of_calls("error_code = 'lost'"), "warn"),
            ],
        ),
        Equation(
            "Calls of tools",
            "Recorded before they are made, too. One whose worker died may have done something.",
            Term("requested", tools["requested"], of_tools("")),
            [
                Term("completed", tools["completed"], of_tools("status = 'completed'")),
                Term("failed", tools["failed"], of_tools("status = 'failed' AND error_code <> 'lost'")),
                Term("refused", tools["refused"], of_tools("status = 'refused'")),
                Term("cancelled", tools["cancelled"], of_tools("status = 'cancelled'")),
                Term("held", tools["held"], link(request, "/tools"), "warn"),
                Term("in flight", tools["in_flight"], of_tools("status IN ('requested', 'released')"), "run"),
                Term("unknown", tools["unknown"], of_tools("error_code = 'lost'"), "warn"),
            ],
        ),
        Equation(
            "Calls in traces",
            "Every call is a span of one trace, and is counted there once.",
            Term("calls requested", calls["requested"], of_calls("")),
            [Term("spans of calls", spans["spans"])],
        ),
        Equation(
            "Questions",
            "Those of conversations that were not deleted. What waits has a worker, or gets one.",
            Term("asked", questions["asked"], traces(kind="message")),
            [
                Term("answered", questions["answered"], traces(kind="message", state="ok")),
                Term("failed", questions["failed"], traces(kind="message", state="error")),
                Term("stopped", questions["stopped"], traces(kind="message", state="cancelled")),
                Term("waiting", questions["waiting"], traces(kind="message", state="running"), "run"),
                Term("held", questions["held"], link(request, "/tools"), "warn"),
            ],
        ),
        Equation(
            "Documents",
            "Those that were not deleted.",
            Term("uploaded", documents["uploaded"], traces(kind="document")),
            [
                Term("completed", documents["completed"], traces(kind="document", state="ok")),
                Term("failed", documents["failed"], traces(kind="document", state="error")),
                Term("waiting", documents["waiting"], traces(kind="document", state="running"), "run"),
            ],
        ),
    ]


def _in_log(request: Request, all_calls: int, open_calls: int, calls: Row) -> Equation:
    return Equation(
        "Calls in the log",
        f"Counted in the stream itself, apart from the tables. Without an end there: {open_calls:,}.",
        Term("calls in the log", all_calls),
        [Term("calls in the tables", calls["requested"])],
    )


async def _streams(backend: Backend) -> list[Stream]:
    """Raises: Unavailable."""
    js = backend.nc.jetstream(timeout=5.0)
    direct = DirectReader(backend.nc, timeout_s=5.0)
    reached = {row["stream"]: row["sequence"] for row in await backend.rows(_POSITIONS)}

    async def one(name: str) -> Stream:
        try:
            state = (await js.stream_info(name)).state
        except NotFoundError:
            return Stream(name, 0, 0, 0, None)
        except nats.errors.Error as error:
            raise Unavailable(f"Stream {name} cannot be read: {error!r}") from error
        place, since = reached.get(name, 0), None
        if place < state.last_seq and (oldest := await direct.at(name, place + 1)):
            since = datetime.fromisoformat((oldest.headers or {})["Nats-Time-Stamp"])
        return Stream(name, state.last_seq, state.messages, place, since)

    return list(await asyncio.gather(one(EVENTS), one(OUTCOMES)))


async def _logged(backend: Backend, of: str) -> tuple[int, int]:
    """Number of calls without an end in the log (subjects with one commit), and of all calls."""
    open_calls = all_calls = 0
    subject = f"{api(backend.nc)}.STREAM.INFO.{EVENTS}"
    for _ in count():
        asked = orjson.dumps({"subjects_filter": f"evt.{of}.model_call.*", "offset": all_calls})
        try:
            answer = orjson.loads((await backend.nc.request(subject, asked, timeout=10)).data)
        except nats.errors.Error as error:
            raise Unavailable(f"The calls in the log cannot be counted: {error!r}") from error
        subjects: Mapping[str, int] = answer.get("state", {}).get("subjects") or {}
        all_calls += len(subjects)
        open_calls += sum(1 for commits in subjects.values() if commits == 1)
        if not subjects or all_calls >= answer.get("total", 0):
            break
    return open_calls, all_calls


async def _exports(backend: Backend) -> list[Export]:
    """Every collector that spans were sent to."""
    try:
        js = backend.nc.jetstream(timeout=5.0)
        bucket = await js.key_value(EXPORTS)
        state = (await js.stream_info(f"KV_{EXPORTS}", subjects_filter=">")).state
        keys = [subject.rpartition(".")[2] for subject in state.subjects or {}]
        entries = [orjson.loads((await bucket.get(key)).value or b"{}") for key in keys]
    except (BucketNotFoundError, KeyNotFoundError):
        return []
    except nats.errors.Error as error:
        raise Unavailable(f"The progress of the export cannot be read: {error!r}") from error
    found = []
    for kept in entries:
        try:
            async with backend.reading() as connection:
                left = await behind(connection, Place(*kept["place"]))
        except (errors.UndefinedTable, errors.UndefinedColumn):
            continue
        at = datetime.fromisoformat(kept["at"])
        found.append(Export(kept["target"], kept["sent"], kept["set_aside"], at, left.rows, left.since))
    return found


def _doubts(
    equations: list[Equation],
    streams: list[Stream],
    exports: list[Export],
    oldest: Row,
    letters: int,
    now: datetime,
    *,
    behind: bool,
) -> list[str]:
    doubts = [
        f"{equation.name}: {equation.whole.number:,} is not {equation.sum:,}."
        for equation in equations
        if not equation.holds and not behind
    ]
    for stream in streams:
        if stream.missing:
            doubts.append(f"{stream.name} has lost {stream.missing:,} of {stream.last:,} messages.")
        if stream.since and now - stream.since > timedelta(seconds=30):
            doubts.append(f"The tables are {stream.behind:,} messages behind {stream.name}: does a worker project?")
    if oldest and now - oldest["created_at"] > OVERDUE:
        doubts.append("A call is in flight for longer than any should be.")
    for export in exports:
        if export.since and now - export.since > timedelta(minutes=1):
            doubts.append(f"{export.waiting:,} spans wait to be sent to {export.target}.")
        if export.set_aside:
            doubts.append(f"{export.target} refused {export.set_aside:,} spans for good.")
    if letters:
        doubts.append(f"{letters:,} dead letters need a decision.")
    return doubts


async def show(request: Request) -> Response:
    now = datetime.now(UTC)
    found = await proof(request, now, counted=request.query_params.get("count") == "log")
    if wants_json(request):
        return as_json(_written(found))
    given: dict[str, Any] = {**vars(found), "now": now}
    return render(request, "proof.html", given)


def _written(found: Proof) -> Row:
    return {
        "adds_up": not found.doubts,
        "doubts": found.doubts,
        "equations": {
            equation.name: {
                equation.whole.name: equation.whole.number,
                "sum_of": {part.name: part.number for part in equation.parts},
                "holds": equation.holds,
            }
            for equation in found.equations
        },
        "streams": {
            stream.name: {**vars(stream), "missing": stream.missing, "behind": stream.behind}
            for stream in found.streams
        },
        "exports": [vars(export) for export in found.exports],
        "oldest_call_in_flight": found.oldest,
        "dead_letters": found.letters,
    }


routes = [Route("/proof", show)]
