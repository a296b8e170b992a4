"""Feeds monitors from the log: every ended call of a model, by way of the tables, from a durable position of each.

Nothing of it is on the way of a call. A call that was delivered when a process was killed before the position moved is
delivered again, with the same ids; a monitor that sends spans sends the same span.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg
import structlog
from nats.aio.client import Client
from psycopg import AsyncConnection, errors
from psycopg.rows import dict_row

from adapters.jetstream.aggregates import ids
from adapters.plugins.directory import LogPlugins
from adapters.telemetry.otlp.checkpoint import Checkpoint, Checkpoints, Moved
from adapters.telemetry.otlp.ended import Place
from adapters.trace_ids import span_id, trace_id
from domain.tools.plugin import Hook
from domain.tools.plugin_use import PluginUse
from handlers.models.filters import suits
from handlers.ports.log import Unavailable
from handlers.ports.plugins import EnabledPlugin, PluginFailed
from handlers.repository import Repository

log = structlog.get_logger(__name__)

CALLS = 100
"""Maximum number of calls that are read at a time."""

AT_ONCE = 16
"""Number of calls that a monitor handles at a time."""

PERIOD_S, LOOK_S = 1.0, 15.0
"""Intervals between queries for ended calls, and between looks for enabled monitors, in seconds."""

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0

TRIES = 5
"""Number of errors of a monitor on one call, after which the call is set aside for it."""

OUTAGES = (psycopg.OperationalError, psycopg.InterfaceError, errors.UndefinedTable, errors.UndefinedColumn, Unavailable)
"""Errors that pass when a server returns, or when the projector has made its tables."""

_ENDED = """
SELECT call.*, sent.request AS put_together, span.ended_sequence AS place, span.started_at, span.status AS outcome,
    span.parent_id, trace.app_id, call.traceparent
FROM headrace.spans span
JOIN headrace.model_calls call ON call.tenant_id = span.tenant_id AND call.id = span.model_call_id
LEFT JOIN headrace.traces trace ON trace.tenant_id = span.tenant_id AND trace.id = span.trace_id
LEFT JOIN LATERAL headrace.put_together(call.tenant_id, call.request) sent ON %(texts)s
WHERE span.tenant_id = %(tenant)s AND span.ended_sequence IS NOT NULL
    AND (span.ended_sequence, span.id) > (%(sequence)s, %(id)s)
ORDER BY span.ended_sequence, span.id LIMIT %(limit)s
"""

_FACTS = (
    *("id", "kind", "provider", "model", "server", "cause_noun", "cause_id", "attempt", "route", "try", "app_id"),
    *("finish_reason", "response_id", "response_model", "prompt_tokens", "completion_tokens", "cached_tokens"),
    *("reasoning_tokens", "tokens_estimated", "cost", "first_token_ms", "duration_ms"),
)
"""Columns of a call that every monitor gets."""


class Monitors:
    """Follows the log for all monitors of all tenants. Of several workers on a database, one works, and the others wait
    to take over."""

    def __init__(
        self,
        url: str,
        nc: Client,
        repository: Repository,
        plugins: LogPlugins,
        masking: Callable[[str], str],
    ) -> None:
        self._url = url
        self._nc = nc
        self._repository = repository
        self._plugins = plugins
        self._masking = masking
        self._checkpoints = Checkpoints(nc)
        self._changed = asyncio.Event()
        plugins.on_change(lambda tenant: self._changed.set())

    async def run(self) -> None:
        """Work until cancelled: a fault of a monitor is none of the answers that this process gives."""
        wait = SHORTEST_WAIT_S
        while True:
            try:
                if await self._wanted():
                    from adapters.postgres.tables import MONITOR_LOCK, connect, turn  # only where there are monitors

                    async with connect(self._url) as connection:
                        await turn(connection, MONITOR_LOCK)
                        wait = SHORTEST_WAIT_S
                        await self._follow_all(connection)
                await self._notice(4 * LOOK_S)
            except OUTAGES as error:
                log.warning("monitors.waiting", reason=str(error) or repr(error), seconds=wait)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
            except Exception:
                log.exception("monitors.failed", seconds=LONGEST_WAIT_S)
                await asyncio.sleep(LONGEST_WAIT_S)

    async def _notice(self, seconds: float) -> None:
        """Wait for a change of a plugin, or as long as this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    async def _follow_all(self, connection: AsyncConnection[Any]) -> None:
        """Follow for each enabled monitor, as long as there is one, and the lock's connection."""
        following: dict[tuple[str, str], asyncio.Task[None]] = {}
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_end, following)
            while wanted := await self._wanted():
                for key in [key for key in following if key not in wanted]:
                    await _end({key: following.pop(key)})
                for key in wanted - following.keys():
                    following[key] = asyncio.create_task(self._keep_following(*key))
                await self._notice(LOOK_S)
                await connection.execute("SELECT 1")  # the lock goes with its connection

    async def _wanted(self) -> set[tuple[str, str]]:
        """Tenant and name of the enabled monitors. Raises: Unavailable."""
        tenants = {tenant for tenant, _ in await ids(self._nc, PluginUse)}
        return {
            (tenant, plugin.name)
            for tenant in tenants
            for plugin in await self._plugins.enabled(tenant)
            if plugin.manifest["kind"] == "monitor"
        }

    async def _keep_following(self, tenant: str, name: str) -> None:
        from adapters.postgres.tables import connect

        wait = SHORTEST_WAIT_S
        while True:
            try:
                async with connect(self._url) as connection:
                    await self._follow(connection, tenant, name)
            except (*OUTAGES, Moved) as error:
                about = {"tenant": tenant, "plugin": name}
                log.warning("monitor.waiting", **about, reason=str(error) or repr(error), seconds=wait)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
            except Exception:
                log.exception("monitor.failed", tenant=tenant, plugin=name, seconds=LONGEST_WAIT_S)
                await asyncio.sleep(LONGEST_WAIT_S)

    async def _follow(self, connection: AsyncConnection[Any], tenant: str, name: str) -> None:
        checkpoint = await self._begin(tenant, name)
        while True:
            plugin = await self._plugin(tenant, name)
            if plugin is None:
                await asyncio.sleep(PERIOD_S)
                continue
            rows = await self._ended(connection, checkpoint.place, plugin)
            for start in range(0, len(rows), AT_ONCE):
                some = rows[start : start + AT_ONCE]
                delivered = await asyncio.gather(*(self._deliver(tenant, name, row) for row in some))
                last = Place(some[-1]["place"], 0, some[-1]["id"])
                moved = checkpoint.moved(last, sum(delivered), len(some) - sum(delivered))
                checkpoint = await self._checkpoints.put(moved)
            if len(rows) < CALLS:
                await asyncio.sleep(PERIOD_S)

    async def _begin(self, tenant: str, name: str) -> Checkpoint:
        """The position of a monitor; where it has none yet, that of the commit that enabled it."""
        checkpoint = await self._checkpoints.get(f"plugin {tenant}/{name}")
        if checkpoint.at is not None:
            return checkpoint
        commits = await self._repository.commits(PluginUse, tenant, name)
        enabled = [
            commit.position.sequence
            for commit in commits
            if any(isinstance(event, PluginUse.Enabled) for event in commit.events)
        ]
        return replace(checkpoint, place=Place(enabled[0] if enabled else 0))

    async def _plugin(self, tenant: str, name: str) -> EnabledPlugin | None:
        found = await self._plugins.enabled(tenant)
        return next((each for each in found if each.name == name), None)

    async def _ended(
        self, connection: AsyncConnection[Any], after: Place, plugin: EnabledPlugin
    ) -> list[dict[str, Any]]:
        """Calls that ended after a place, in the order of the log."""
        values = {"tenant": plugin.tenant, "sequence": after.sequence, "id": after.id, "limit": CALLS}
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_ENDED.encode(), {**values, "texts": plugin.content != "none"})
            return await cursor.fetchall()

    async def _deliver(self, tenant: str, name: str, row: dict[str, Any]) -> bool:
        """Have the monitor handle a call, however long it is away; return whether it did: False where it failed on this
        call again and again."""
        wait, tries = SHORTEST_WAIT_S, 0
        while True:
            plugin = await self._plugin(tenant, name)
            if plugin is None or not suits(plugin, {**row, "app": row["app_id"]}):
                return True
            try:
                reason = await self._ask(plugin, row)
            except PluginFailed as failed:
                reason = failed.reason
                tries += failed.code in ("failed", "timeout")
            if reason is None:
                return True
            about = {"tenant": tenant, "plugin": name, "call": row["id"], "reason": reason}
            if tries >= TRIES:
                log.error("monitor.set_aside", **about)
                return False
            log.warning("monitor.waiting", **about, seconds=wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    async def _ask(self, plugin: EnabledPlugin, row: dict[str, Any]) -> str | None:
        """Have a monitor handle a call; return why it wants the call again later, or None. Raises: PluginFailed."""
        for hook, call in hooks(row, plugin, self._masking):
            if hook in plugin.manifest["hooks"]:
                reply = await self._plugins.ask(plugin, hook, call)
                if reply.fields.get("action") == "later":
                    return str(reply.fields.get("reason", ""))[:500]
        return None


def hooks(
    row: dict[str, Any], plugin: EnabledPlugin, masking: Callable[[str], str]
) -> Sequence[tuple[Hook, dict[str, Any]]]:
    """The hooks of an ended call, with what each gets: metadata, and texts as far as operator and tenant let it."""
    tenant, correlation = plugin.tenant, row["correlation_id"]
    call = {name: row[name] for name in _FACTS if name in row} | {
        "app": row["app_id"],
        "status": row["status"],
        "trace_id": trace_id(tenant, correlation, row["traceparent"]).hex(),
        "span_id": span_id(tenant, row["id"]).hex(),
        "parent_span_id": span_id(tenant, row["parent_id"] or correlation).hex(),
        "started_at": _time(row["created_at"]),
        "ended_at": _time(row["finished_at"]),
    }
    asked, said, reason = {}, {}, {}
    if plugin.content != "none":
        shown = masking if plugin.content == "masked" else str
        messages = (row["put_together"] or {}).get("messages") or []
        asked = {"messages": [{"role": each.get("role"), "content": shown(_text(each))} for each in messages]}
        said = {"response": shown(row["response"])}
        reason = {"reason": shown(row["error"] or "")}
    ended: tuple[Hook, dict[str, Any]] = ("after_invoke", {**call, **asked, **said, "last": True})
    if row["status"] != "completed":
        code = row["error_code"] or row["status"]
        ended = ("on_error", {**call, **asked, "code": code, **reason})
    return [("before_invoke", {**call, **asked}), ended]


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or () if isinstance(part, dict))


def _time(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


async def _end(following: dict[tuple[str, str], asyncio.Task[None]]) -> None:
    for task in following.values():
        task.cancel()
    if following:
        await asyncio.wait(following.values())
