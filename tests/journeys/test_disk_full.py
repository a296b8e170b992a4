"""Full disks: what comes is refused with a reason, what was acknowledged stays, and all goes on once there is room."""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest

from adapters.jetstream.client import Client, NoOutcome, NotSent, Outcome, Unreachable
from domain.aggregate import new_id
from ops import supervisor
from ops.servers.embedded import reserve
from ops.settings import Settings
from tests.disk import ballast, mount, small_disk
from tests.journeys.stack import Stack

pytestmark = pytest.mark.long

NATS_MB, POSTGRES_MB, SHARED_MB = 96, 192, 400
WIDE = {"name": "wide", "description": "w" * 2000}


@pytest.fixture(scope="module")
async def small() -> AsyncIterator[Stack]:
    """Everything as `headrace up` runs it, with a small disk for NATS and one for PostgreSQL."""
    home = Path(mkdtemp(prefix="headrace-full-"))
    settings = Settings.load(home=home, max_waiting_mb=16)
    try:
        with small_disk(home / "nats", NATS_MB), small_disk(home / "postgres", POSTGRES_MB):
            try:
                await headrace(settings, "up", "--detach")
                located = settings.located()
                async with await Client.connect(located.nats_url, located.tenant) as client:
                    yield Stack(located, client, home / "log" / "worker-project.log")
            finally:
                await headrace(settings, "down")
    finally:
        shutil.rmtree(home)


async def headrace(settings: Settings, *arguments: str) -> None:
    command, environment = supervisor.command_line(*arguments), supervisor.environment(settings)
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


async def refusal(attempt: Callable[[], Awaitable[object]]) -> Exception:
    """Return the error of a publisher that goes on until nothing more is taken."""
    while True:
        try:
            await attempt()
        except (NotSent, Unreachable, NoOutcome) as refused:
            return refused


async def make(stack: Stack, id: str) -> Outcome:
    return await stack.client.send("app.create", WIDE, id, wait=20)


async def taken(stack: Stack) -> str:
    """The id of a command that is taken again, within a minute."""
    id = new_id()
    async with asyncio.timeout(60):
        while True:
            with suppress(NotSent, Unreachable, NoOutcome):
                outcome = await make(stack, id)
                assert outcome["status"] == "accepted"
                return id


async def assert_all_is_there(stack: Stack, outcomes: dict[str, Outcome]) -> None:
    """Nothing that was acknowledged is lost, and the tables catch up with the log."""
    for id, outcome in outcomes.items():
        assert await make(stack, id) == outcome
    last = (await stack.client.stream.stream_info("OUTCOMES")).state
    assert last.messages == last.last_seq
    await stack.until(
        "SELECT FROM headrace_projection.checkpoints WHERE stream = 'OUTCOMES' AND sequence >= %(last)s",
        last=last.last_seq,
    )
    await stack.until(
        "SELECT id FROM headrace.apps WHERE id = ANY(%(ids)s)",
        lambda rows: len(rows) == len(outcomes),
        ids=list(outcomes),
    )


async def test_the_disk_of_nats(small: Stack) -> None:
    """JetStream refuses before its disk is full, with a reserve; there is more room when the disk has grown."""
    disk = small.settings.home / "nats"
    outcomes = {id: await make(small, id) for id in (new_id() for _ in range(20))}
    for size in (2**20, 2**10):
        full = await refusal(lambda size=size: small.client.upload_blob(os.urandom(size)))
        assert isinstance(full, NotSent)
        assert full.code == "disk_full"
    with pytest.raises(NotSent, match="free some space") as refused:
        await small.client.send("app.create", WIDE, wait=1)
    assert refused.value.code == "disk_full"
    assert shutil.disk_usage(disk).free > reserve(NATS_MB * 2**20) / 2

    mount("-o", f"remount,size={2 * NATS_MB}m", str(disk))
    outcomes |= {id: await make(small, id) for id in [await taken(small)]}
    await assert_all_is_there(small, outcomes)


async def test_the_last_byte_of_the_disk_of_nats(small: Stack) -> None:
    """Other writers leave JetStream no room: it would stay silent for ever, were it not restarted."""
    outcomes = {id: await make(small, id) for id in (new_id() for _ in range(5))}
    with ballast(small.settings.home / "nats"):
        await refusal(lambda: small.client.send("app.create", WIDE, wait=2))
    outcomes |= {id: await make(small, id) for id in [await taken(small)]}
    await assert_all_is_there(small, outcomes)


async def test_the_disk_of_postgres(small: Stack) -> None:
    """Commands are taken all the while; tables and documents wait."""
    outcomes: dict[str, Outcome] = {}
    log = small.settings.home / "log" / "worker-project.log"
    dataset, before = await small.make("dataset.create", name="waiting"), len(log.read_text())
    with ballast(small.settings.home / "postgres"):
        async with asyncio.timeout(60):
            while "projector.waiting" not in log.read_text()[before:]:
                id = new_id()
                outcomes[id] = await make(small, id)
        document = await small.make("document.upload", dataset=dataset, name="late.txt", text="Late, but not lost.")
        assert (await make(small, new_id()))["status"] == "accepted"
    await assert_all_is_there(small, outcomes)
    assert (await small.ended([document]))[document]["indexing_status"] == "completed"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A home on a small disk that others write to."""
    disk = Path(mkdtemp(prefix="headrace-shared-"))
    try:
        with small_disk(disk, SHARED_MB, mode="0711"):
            yield disk / "home"
    finally:
        shutil.rmtree(disk)


async def test_a_disk_that_others_fill(shared: Path) -> None:
    """NATS refuses at its reserve, before a write fails; what was acknowledged stays; space that returns is used."""
    settings, disk = Settings.load(home=shared, view_address="127.0.0.1:0"), shared.parent
    spare = reserve(SHARED_MB * 2**20)
    await headrace(settings, "up", "--detach")
    try:
        located = settings.located()
        async with await Client.connect(located.nats_url, located.tenant) as client:
            stack = Stack(located, client, shared / "log" / "worker-project.log")
            outcomes = {id: await make(stack, id) for id in (new_id() for _ in range(20))}
            with ballast(disk, leaving=3 * spare):
                await asyncio.sleep(3)
                refused = await refusal(lambda: client.upload_blob(os.urandom(2**20)))
                assert isinstance(refused, NotSent)
                assert refused.code == "disk_full"
                assert shutil.disk_usage(disk).free > spare / 2
            outcomes |= {id: await make(stack, id) for id in [await taken(stack)]}
            await assert_all_is_there(stack, outcomes)
        assert "no space left" not in (shared / "log" / "nats.log").read_text()
    finally:
        await headrace(settings, "down")


async def test_a_start_without_space_says_so_and_the_next_one_works(shared: Path) -> None:
    settings, disk = Settings.load(home=shared, view_address="127.0.0.1:0"), shared.parent
    with ballast(disk, leaving=20 * 2**20):
        await assert_refused(settings, "No space left on device: free some space on its disk, then try again")
    with ballast(disk):
        await assert_refused(settings, "No space left on device: free some space on its disk, then try again")
    mount("-o", "remount,ro", str(disk))
    await assert_refused(settings, "Read-only file system: make its disk writable, or choose another home with --home")
    mount("-o", "remount,rw", str(disk))
    await headrace(settings, "up", "--detach")
    await headrace(settings, "down")


async def assert_refused(settings: Settings, said: str) -> None:
    """Each way to start ends with 1 and the reason, and leaves no process."""
    environment = supervisor.environment(settings)
    for arguments in (("up", "--detach"), ("up",)):
        process = await asyncio.create_subprocess_exec(
            *supervisor.command_line(*arguments), env=environment, stdout=PIPE, stderr=PIPE
        )
        _, error = await process.communicate()
        assert process.returncode == 1
        assert said in error.decode(), error.decode()
        assert "Traceback" not in error.decode()
    assert await supervisor.down(settings) == []
