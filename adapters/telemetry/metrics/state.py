"""State of servers, queues, tables and the export, queried on request, and cached for a moment."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import nats.errors
import psycopg
from nats.aio.client import Client
from nats.js.api import ConsumerInfo, StreamInfo
from nats.js.errors import NotFoundError
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from psycopg import AsyncConnection, errors
from psycopg_pool import PoolTimeout

from adapters.jetstream.direct import DirectReader
from adapters.jetstream.streams import COMMANDS, CONSUMERS, DEAD
from adapters.postgres.quotas import ALERTS, CURRENT
from adapters.telemetry.otlp.checkpoint import Checkpoint, Checkpoints
from adapters.telemetry.otlp.ended import behind
from domain.log import EVENTS, OUTCOMES
from handlers.ports.log import Unavailable

PATIENCE_S = 2.0
"""Time limit per server, in seconds, after which it counts as down."""

FRESH_S = 5.0
"""Time for which results are reused, in seconds."""

SPENT_S = 60.0
"""Time for which sums of costs are reused, in seconds."""

Reading = Callable[[float], AbstractAsyncContextManager[AsyncConnection[Any]]]
"""Open a connection to the tables with a time limit per statement, in seconds; its rows are dicts."""

NATS, POSTGRESQL = "nats", "postgresql"


class Figure(NamedTuple):
    """The help text of a metric, and the names of its labels."""

    meaning: str
    labels: tuple[str, ...] = ()


FIGURES = {
    "headrace_up": Figure("1 when the server answers, else 0.", ("server",)),
    "headrace_stream_messages": Figure("Messages in a stream of NATS.", ("stream",)),
    "headrace_stream_bytes": Figure("Bytes of a stream of NATS.", ("stream",)),
    "headrace_log_missing_messages": Figure("Messages that a stream of the log has lost.", ("stream",)),
    "headrace_queue_waiting": Figure("Messages that no worker has taken yet.", ("queue",)),
    "headrace_queue_in_hand": Figure("Messages that workers handle, or that wait for their turn.", ("queue",)),
    "headrace_queue_acknowledged_sequence": Figure("Sequence up to which a queue is done without a gap.", ("queue",)),
    "headrace_dead_letters": Figure("Messages that could not be handled and wait for a decision."),
    "headrace_projector_lag_messages": Figure(
        "Messages of the log that are not in the tables of a group.", ("stream", "group")
    ),
    "headrace_projector_lag_seconds": Figure("Age of the oldest of them, in seconds.", ("stream", "group")),
    "headrace_projector_halted": Figure("1 when the group of tables has halted, else 0.", ("group",)),
    "headrace_quarantined_messages": Figure("Messages of the log that cannot be read and wait for a decision."),
    "headrace_open_calls": Figure("Model calls in flight."),
    "headrace_unknown_calls": Figure("Model calls with an unknown outcome."),
    "headrace_held_calls": Figure("Calls of tools that wait for a person."),
    "headrace_export_waiting_spans": Figure("Spans that ended and were not sent yet, 10,000 at most."),
    "headrace_export_lag_seconds": Figure("For how long the oldest of them waits."),
    "headrace_export_sent_spans_total": Figure("Spans that the collector took."),
    "headrace_export_refused_spans_total": Figure("Spans that the collector will never take."),
    "headrace_budget_usd": Figure("Limit of the budget for a calendar month.", ("tenant", "budget")),
    "headrace_budget_used_usd": Figure("Amount spent of it in this month.", ("tenant", "budget")),
    "headrace_quota_alerted_percent": Figure(
        "Part of a quota that its window of now has reached: 50, 80 or 100 percent.", ("tenant", "quota", "subject")
    ),
}
"""Every metric by name; those of a server that is down are left out."""

Samples = dict[str, dict[tuple[str, ...], float]]
"""Values by name of the metric and values of its labels."""

_GROUPS = "SELECT name, stream, sequence, state FROM headrace_projection.groups"

_QUARANTINE = "SELECT count(*) FROM headrace_projection.quarantine WHERE discarded_at IS NULL"

Reached = dict[tuple[str, str], int]
"""Sequences by stream and group."""

_CALLS = """
SELECT (SELECT count(*) FROM headrace.model_calls WHERE status = 'requested') AS open,
    (SELECT count(*) FROM headrace.model_calls WHERE error_code = 'lost') AS unknown,
    (SELECT count(*) FROM headrace.tool_calls WHERE status = 'held') AS held
"""

_BUDGETS = """
SELECT tenant_id, id, amount_usd, coalesce(
    CASE scope WHEN 'model' THEN (
        SELECT sum(cost) FROM headrace.model_calls call
        WHERE call.tenant_id = budget.tenant_id AND model = subject AND created_at >= date_trunc('month', now())
    ) ELSE (
        SELECT sum(cost) FROM headrace.traces trace
        WHERE trace.tenant_id = budget.tenant_id AND started_at >= date_trunc('month', now())
            AND subject = CASE scope WHEN 'app' THEN app_id WHEN 'user' THEN end_user ELSE '' END
    ) END, 0) AS used
FROM headrace.budgets budget ORDER BY tenant_id, id LIMIT 1000
"""

_ALERTED = f"""
SELECT w.tenant_id, w.quota_id, w.subject, alerted.max
FROM headrace.quota_windows w, LATERAL (SELECT max((alert ->> 'percent')::int) {ALERTS}) alerted
WHERE {CURRENT} AND w.alerts <> '[]' AND alerted.max IS NOT NULL
ORDER BY 1, 2, 3 LIMIT 1000
"""

NO_ANSWER = (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName, errors.QueryCanceled)
"""PostgreSQL answers, but the tables are of another version, or too large for the time limit."""

T = TypeVar("T")


class State(Collector):
    """The results of `refresh`; Prometheus' library reads them by `collect`."""

    def __init__(self, nc: Client, reading: Reading, target: str = "") -> None:
        self._nc = nc
        self._reading = reading
        self._target = target
        self._direct = DirectReader(nc, timeout_s=PATIENCE_S)
        self._turn = asyncio.Lock()
        self._until = 0.0
        self._samples: Samples = {}
        self._budgets: tuple[float, Samples] = (0.0, {})

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for name, figure in FIGURES.items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(name, figure.meaning, labels=figure.labels)
            for labels, value in self._samples.get(name, {}).items():
                family.add_metric(labels, value)
            yield family

    async def refresh(self) -> None:
        """Query the servers, unless that was done a moment ago, within their time limit."""
        async with self._turn:
            if monotonic() < self._until:
                return
            samples: Samples = defaultdict(dict)
            last, checkpoint = await self._asked(samples, NATS, self._nats(samples)) or ({}, None)
            reached = await self._asked(samples, POSTGRESQL, self._postgres(samples, checkpoint)) or {}
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await self._lag(samples, last, reached)
            self._samples, self._until = samples, monotonic() + FRESH_S

    async def _asked(self, samples: Samples, server: str, questions: Coroutine[Any, Any, T]) -> T | None:
        """The answer of a server, and its state."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await questions
        except (nats.errors.Error, Unavailable, psycopg.OperationalError, PoolTimeout, OSError, TimeoutError):
            samples["headrace_up"][server,] = 0
            return None
        samples["headrace_up"][server,] = 1
        return found

    async def _nats(self, samples: Samples) -> tuple[dict[str, int], Checkpoint | None]:
        """The last sequence of each stream, and the progress of the export."""
        streams = (EVENTS, OUTCOMES, COMMANDS, DEAD)
        found = await asyncio.gather(*map(self._stream, streams), *map(self._consumer, CONSUMERS))
        last = {}
        for stream, info in zip(streams, found, strict=False):
            if isinstance(info, StreamInfo):
                last[stream] = info.state.last_seq
                samples["headrace_stream_messages"][stream,] = info.state.messages
                samples["headrace_stream_bytes"][stream,] = info.state.bytes
                if stream in (EVENTS, OUTCOMES):
                    samples["headrace_log_missing_messages"][stream,] = info.state.last_seq - info.state.messages
                if stream == DEAD:
                    samples["headrace_dead_letters"][()] = info.state.messages
        for queue, consumer in zip(CONSUMERS, found[len(streams) :], strict=True):
            if isinstance(consumer, ConsumerInfo):
                samples["headrace_queue_waiting"][queue,] = consumer.num_pending or 0
                samples["headrace_queue_in_hand"][queue,] = consumer.num_ack_pending or 0
                done = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
                samples["headrace_queue_acknowledged_sequence"][queue,] = done
        if not self._target:
            return last, None
        checkpoint = await Checkpoints(self._nc).get(self._target)
        samples["headrace_export_sent_spans_total"][()] = checkpoint.sent
        samples["headrace_export_refused_spans_total"][()] = checkpoint.set_aside
        return last, checkpoint

    async def _stream(self, name: str) -> StreamInfo | None:
        with suppress(NotFoundError):
            return await self._nc.jetstream(timeout=PATIENCE_S).stream_info(name)
        return None

    async def _consumer(self, name: str) -> ConsumerInfo | None:
        with suppress(NotFoundError):
            info: ConsumerInfo = await self._nc.jetstream(timeout=PATIENCE_S).consumer_info(CONSUMERS[name][0], name)
            return info
        return None

    async def _postgres(self, samples: Samples, checkpoint: Checkpoint | None) -> Reached:
        """The positions of the groups of tables."""
        reached: Reached = {}
        for row in await self._rows(_GROUPS):
            reached[row["stream"], row["name"]] = row["sequence"]
            samples["headrace_projector_halted"][row["name"],] = row["state"] == "halted"
        for row in await self._rows(_QUARANTINE):
            samples["headrace_quarantined_messages"][()] = row["count"]
        for row in await self._rows(_CALLS):
            samples["headrace_open_calls"][()] = row["open"]
            samples["headrace_unknown_calls"][()] = row["unknown"]
            samples["headrace_held_calls"][()] = row["held"]
        if checkpoint:
            with suppress(*NO_ANSWER):
                async with self._reading(PATIENCE_S) as connection:
                    waiting = await behind(connection, checkpoint.place)
                samples["headrace_export_waiting_spans"][()] = waiting.rows
                samples["headrace_export_lag_seconds"][()] = _age(waiting.since) if waiting.since else 0.0
        samples.update(await self._spent())
        return reached

    async def _spent(self) -> Samples:
        """The budgets, and the amounts spent: these sums take time. And the alerts of quotas."""
        until, samples = self._budgets
        if monotonic() >= until:
            samples = defaultdict(dict)
            for row in await self._rows(_BUDGETS):
                samples["headrace_budget_usd"][row["tenant_id"], row["id"]] = row["amount_usd"]
                samples["headrace_budget_used_usd"][row["tenant_id"], row["id"]] = row["used"]
            for row in await self._rows(_ALERTED):
                of = row["tenant_id"], row["quota_id"], row["subject"]
                samples["headrace_quota_alerted_percent"][of] = row["max"]
            self._budgets = (monotonic() + SPENT_S, samples)
        return samples

    async def _rows(self, statement: str) -> list[dict[str, Any]]:
        with suppress(*NO_ANSWER):
            async with self._reading(PATIENCE_S) as connection:
                return await (await connection.execute(statement.encode())).fetchall()
        return []

    async def _lag(self, samples: Samples, last: Mapping[str, int], reached: Reached) -> None:
        ages: dict[tuple[str, int], float] = {}
        for (stream, group), sequence in reached.items():
            if stream in last:
                behind = max(0, last[stream] - sequence)
                if behind and (stream, sequence) not in ages:
                    oldest = await self._direct.at(stream, sequence + 1)
                    since = (oldest.headers or {})["Nats-Time-Stamp"] if oldest else None
                    ages[stream, sequence] = _age(datetime.fromisoformat(since)) if since else 0.0
                samples["headrace_projector_lag_messages"][stream, group] = behind
                samples["headrace_projector_lag_seconds"][stream, group] = ages.get((stream, sequence), 0.0)


def _age(since: datetime) -> float:
    return max(0.0, (datetime.now(UTC) - since).total_seconds())
