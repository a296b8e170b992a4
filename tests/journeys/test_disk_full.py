"""Full disks: what comes is refused with a reason, what was acknowledged stays, and all goes on once there is room."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest

from adapters.jetstream.client import Client, NoOutcome, NotSent, Outcome, Unreachable
from domain.aggregate import new_id
from ops import supervisor
from ops.servers.embedded import reserve
from ops.settings import Settings
from tests.journeys.stack import Stack

pytestmark = pytest.mark.long

NATS_MB, POSTGRES_MB = 96, 192
WIDE = {"name": "wide", "description": "w" * 2000}


def mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A disk of its own for a folder."""
    folder.mkdir(mode=0o700)
    options = f"size={megabytes}m,mode=0700"
    mounted = mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount a tmpfs, which is missing here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
async def small() -> AsyncIterator[Stack]:
    """Everything as `headrace up` runs it, with a small disk for NATS and one for PostgreSQL."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is a tmpfs, which only root may mount")
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


@contextmanager
def ballast(disk: Path) -> Iterator[None]:
    """Not a byte is left of the disk."""
    file = disk / "ballast"
    with file.open("wb", buffering=0) as heavy, suppress(OSError):
        for size in (2**16, 2**10, 1):
            with suppress(OSError):
                while heavy.write(bytes(size)) == size:
                    pass
    try:
        yield
    finally:
        file.unlink()


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
    full = await refusal(lambda: small.client.upload_blob(os.urandom(2**20)))
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
