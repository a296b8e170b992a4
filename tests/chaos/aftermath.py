"""After the storm: what is still under way, what the log holds, and whether all else agrees with it."""

from __future__ import annotations

import asyncio
import json
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from random import Random

import nats.errors
import orjson
import psycopg
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy

from adapters.jetstream.streams import COMMANDS, CONSUMERS
from handlers.work.work import PENDING
from ops.supervisor import command_line, environment
from tests.chaos.account import Account, Finding, Sent
from tests.chaos.site import Site

QUIET_WITHIN_S = 240.0
SAY_EVERY_S = 10.0

REPLAYS = 100
"""Commands of the storm that are sent once more after it."""

LOG = ("EVENTS", "OUTCOMES")

_UNDER_WAY = " UNION ALL ".join(
    [
        "SELECT 'model call ' || id || ' is requested' FROM headrace.model_calls WHERE status = 'requested'",
        *(
            f"SELECT '{name} of ' || id || ' is ' || {rows.status} FROM headrace.{rows.table}"
            f" WHERE {rows.status} IN ({', '.join(map(repr, rows.open))}) AND {rows.also}"
            for name, rows in ((name, pending.rows) for name, pending in PENDING.items())
        ),
    ]
)


async def quiet(site: Site, say: Callable[[str], None], within: float = QUIET_WITHIN_S) -> list[Finding]:
    """Wait until nothing is under way any more; what still is after `within` seconds is stuck."""
    began, moving = time.monotonic(), ["no server answers"]
    reported = began
    while moving and time.monotonic() < began + within:
        await asyncio.sleep(0.25)
        with suppress(nats.errors.Error, psycopg.Error, OSError, TimeoutError):
            moving = await _moving(site)
        if moving and time.monotonic() > reported + SAY_EVERY_S:
            reported = time.monotonic()
            say(f"still: {'; '.join(moving[:3])}{' …' if len(moving) > 3 else ''}")
    return [Finding("stuck", what) for what in moving]


async def _moving(site: Site) -> list[str]:
    js, found = site.stack.client.stream, list[str]()
    if waiting := (await js.stream_info(COMMANDS)).state.messages:
        found.append(f"{waiting} commands wait in {COMMANDS}")
    for name, (stream, *_) in CONSUMERS.items():
        info = await js.consumer_info(stream, name)
        if info.num_pending or info.num_ack_pending:
            found.append(f"consumer {name} has {info.num_pending} pending and {info.num_ack_pending} in hand")
    reached = await site.stack.sql("SELECT stream, sequence FROM headrace_projection.checkpoints")
    for row in reached:
        last = (await js.stream_info(row["stream"])).state.last_seq
        if row["sequence"] != last:
            found.append(f"the tables have {row['stream']} up to {row['sequence']} of {last}")
    rows = await site.stack.sql(_UNDER_WAY)
    return found + [str(next(iter(row.values()))) for row in rows]


async def read(site: Site, account: Account) -> None:
    """Tell the account every message of the log."""
    js = site.stack.client.stream
    async for message in _messages(js, "EVENTS"):
        sequence, headers = message.metadata.sequence.stream, message.headers or {}
        account.commit(sequence, message.subject, headers, orjson.loads(message.data))
    async for message in _messages(js, "OUTCOMES"):
        account.outcome(message.metadata.sequence.stream, message.subject, orjson.loads(message.data))


async def _messages(js: JetStreamContext, stream: str) -> AsyncIterator[Msg]:
    last = (await js.stream_info(stream)).state.last_seq
    subscription = await js.subscribe(
        ">", stream=stream, ordered_consumer=True, config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    )
    try:
        while last:
            message = await subscription.next_msg(timeout=30)
            yield message
            if message.metadata.sequence.stream >= last:
                return
    finally:
        await subscription.unsubscribe()


async def replay(site: Site, sent: dict[str, Sent], seed: int) -> list[Finding]:
    """Send some of the commands once more: each has the outcome it had, and nothing changes."""
    client, found = site.stack.client, list[Finding]()
    before = [(await client.stream.stream_info(stream)).state.last_seq for stream in LOG]
    known = sorted(id for id, command in sent.items() if command.acknowledged)

    async def again(id: str) -> None:
        name, outcome = sent[id].name, await client.outcome(id)
        if (now := await client.send(name, sent[id].payload, id, wait=60)) != outcome:
            found.append(Finding("different", f"{name} {id} had {outcome}, and has {now} when sent again"))

    await asyncio.gather(*map(again, Random(f"replay {seed}").sample(known, min(REPLAYS, len(known)))))
    after = [(await client.stream.stream_info(stream)).state.last_seq for stream in LOG]
    if after != before:
        found.append(Finding("doubled", f"the log went from {before} to {after} by commands that were sent again"))
    return found


async def verify(site: Site, say: Callable[[str], None]) -> list[Finding]:
    """Return the findings of `headrace verify`, run as a user does."""
    process = await asyncio.create_subprocess_exec(
        *command_line("verify", "--json"), env=environment(site.settings), stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    checks = [json.loads(line) for line in out.decode().splitlines()]
    for check in checks:
        say(f"{check['name']}: {check['checked']:,} looked at, {check['faults']} faults")
    found = [Finding("different", f"{check['name']}: {first}") for check in checks for first in check["first"]]
    if process.returncode and not found:
        found.append(Finding("different", f"headrace verify ended with {process.returncode}: {err.decode()[-2000:]}"))
    return found
