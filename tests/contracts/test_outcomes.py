"""The contract of Outcomes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import nats
import orjson
import pytest
from nats.aio.client import Client

from adapters.jetstream.outcomes import JetStreamOutcomes
from domain.aggregate import new_id
from domain.log import EVENTS, OUTCOMES, Metadata, Outcome, Position
from handlers.ports.log import Outcomes, Unavailable
from ops.servers.embedded import EmbeddedNats
from tests.memory import Memory, MemoryOutcomes

NOW = datetime(2026, 5, 4, 8, 0, 0, 250_000, tzinfo=UTC)


@pytest.fixture
def outcomes(place: Memory | Client) -> Outcomes:
    return MemoryOutcomes(place) if isinstance(place, Memory) else JetStreamOutcomes(place)


async def count(place: Memory | Client, outcome: Outcome) -> int:
    """Number of stored outcomes of the command."""
    subject = f"out.{outcome.metadata.tenant}.{outcome.command}"
    if isinstance(place, Memory):
        return len(place.streams[OUTCOMES].of(subject))
    return dict((await place.jetstream().stream_info(OUTCOMES, subjects_filter=subject)).state.subjects or {})[subject]


def accepted(tenant: str, id: str | None = None) -> Outcome:
    id = id or new_id()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    return Outcome(
        command=id,
        name="app.create",
        status="accepted",
        metadata=Metadata(id, tenant, new_id(), None, "Jürgen", trace),
        at=NOW,
        position=Position(EVENTS, 12),
        version=1,
        ids={"app": id},
    )


def rejected(tenant: str) -> Outcome:
    id = new_id()
    return Outcome(
        command=id,
        name="app.create",
        status="rejected",
        metadata=Metadata(id, tenant, id),
        at=NOW,
        code="invalid",
        message="Must not be blank.",
        field="name",
        excerpt='{"name": " "}',
    )


def over_quota(tenant: str) -> Outcome:
    return replace(rejected(tenant), code="over_quota", details={"limit": "messages/minute/user", "most": 3})


async def test_there_is_none_before_it_is_put(outcomes: Outcomes, tenant: str) -> None:
    assert await outcomes.get(tenant, new_id()) is None


@pytest.mark.parametrize("make", [accepted, rejected, over_quota])
async def test_it_is_got_as_it_was_put(outcomes: Outcomes, tenant: str, make: type[Outcome]) -> None:
    outcome = make(tenant)
    await outcomes.put(outcome)
    assert await outcomes.get(tenant, outcome.command) == outcome


async def test_it_reads_as_promised_on_the_wire(nc: Client, outcomes: Outcomes, tenant: str) -> None:
    """By a direct get of its subject, and by an earlier subscription."""
    outcome = accepted(tenant)
    subject = f"out.{tenant}.{outcome.command}"
    heard = await nc.subscribe(subject)
    await outcomes.put(outcome)
    live = await heard.next_msg(timeout=2)
    kept = await nc.request(f"$JS.API.DIRECT.GET.{OUTCOMES}.{subject}", b"")
    assert live.data == kept.data
    assert orjson.loads(kept.data) == {
        "command": outcome.command,
        "name": "app.create",
        "status": "accepted",
        "at": "2026-05-04T08:00:00.250000+00:00",
        "stream": "EVENTS",
        "sequence": 12,
        "version": 1,
        "ids": {"app": outcome.command},
        "code": None,
        "message": None,
        "field": None,
        "excerpt": None,
        "correlation": outcome.metadata.correlation,
        "actor": "Jürgen",
        "door": None,
    }
    await heard.unsubscribe()


async def test_a_second_one_for_the_same_command_is_dropped(
    place: Memory | Client, outcomes: Outcomes, tenant: str
) -> None:
    first = accepted(tenant)
    await outcomes.put(first)
    await outcomes.put(replace(first, status="rejected", code="invalid"))
    await asyncio.gather(*(outcomes.put(replace(first, version=number)) for number in range(20)))
    assert await outcomes.get(tenant, first.command) == first
    assert await count(place, first) == 1


async def test_another_one_may_follow_an_internal_error(
    place: Memory | Client, outcomes: Outcomes, tenant: str
) -> None:
    """Once: it is as final as any."""
    last = accepted(tenant)
    broken = replace(last, status="rejected", code="internal_error", position=None, version=None, ids={})
    await outcomes.put(broken)
    await asyncio.gather(*(outcomes.put(replace(broken, message=f"{number}")) for number in range(5)))
    assert await outcomes.get(tenant, last.command) == broken
    await asyncio.gather(*(outcomes.put(last) for _ in range(5)), return_exceptions=True)
    await outcomes.put(last)
    await outcomes.put(broken)
    await outcomes.put(replace(last, status="rejected", code="invalid"))
    assert await outcomes.get(tenant, last.command) == last
    assert await count(place, last) == 2


async def test_tenants_are_apart(outcomes: Outcomes, tenant: str) -> None:
    """Also where both give a command the same id."""
    ours = accepted(tenant)
    theirs = replace(accepted("other", ours.command), name="dataset.create")
    await outcomes.put(ours)
    assert await outcomes.get("other", ours.command) is None
    await outcomes.put(theirs)
    assert await outcomes.get("other", ours.command) == theirs
    assert await outcomes.get(tenant, ours.command) == ours


async def test_a_stream_that_was_never_made_is_unavailable(
    tmp_path_factory: pytest.TempPathFactory, tenant: str
) -> None:
    async with EmbeddedNats(tmp_path_factory.mktemp("bare")) as server:
        nc = await nats.connect(server.url)
        with pytest.raises(Unavailable):
            await JetStreamOutcomes(nc).put(accepted(tenant))
        with pytest.raises(Unavailable):
            await JetStreamOutcomes(nc).get(tenant, new_id())
        await nc.close()
