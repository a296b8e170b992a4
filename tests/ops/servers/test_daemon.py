from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from ops.servers import daemon as module
from ops.servers.daemon import Daemon, StartFailed, rotate

SLEEP = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)",
]


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    one = Daemon(tmp_path, "one")
    yield one
    await one.stop(within=0.1)


async def written(daemon: Daemon) -> None:
    while not daemon.log.read_bytes():
        await asyncio.sleep(0.01)


async def test_another_process_finds_and_stops_it(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start(SLEEP)
    other = Daemon(tmp_path, "one")
    process = other.process()
    assert process is not None
    assert process == daemon.process()
    assert await other.stop()
    assert not process.is_running()
    assert daemon.process() is None
    assert not await daemon.stop()
    assert not daemon.pid_file.exists()


async def test_it_has_a_session_of_its_own_and_a_log(daemon: Daemon) -> None:
    daemon.start(SLEEP)
    process = daemon.process()
    assert process is not None
    assert psutil.Process().ppid() != process.pid
    await written(daemon)
    assert daemon.tail() == "here"


async def test_its_files_are_its_owners_alone(daemon: Daemon) -> None:
    """Also a log of an earlier version, and what the process itself makes."""
    daemon.log.parent.mkdir()
    daemon.log.write_text("before\n")
    daemon.log.chmod(0o644)
    own = daemon.home / "own"
    code = f"open({str(own)!r}, 'w').close(); print('here', flush=True); import time; time.sleep(60)"
    daemon.start([sys.executable, "-c", code])
    async with asyncio.timeout(10):
        while "here" not in daemon.tail():
            await asyncio.sleep(0.01)
    for file in (daemon.log, daemon.pid_file, own):
        assert file.stat().st_mode & 0o077 == 0


async def test_one_that_does_not_listen_is_killed(daemon: Daemon) -> None:
    daemon.start(DEAF)
    process = daemon.process()
    await written(daemon)
    assert await daemon.stop(within=0.2)
    assert process is not None
    assert not process.is_running()


async def test_one_that_was_killed_is_not_running(daemon: Daemon) -> None:
    daemon.start(SLEEP)
    process = daemon.process()
    assert process is not None
    process.send_signal(signal.SIGKILL)
    while daemon.process() is not None:
        await asyncio.sleep(0.01)
    daemon.start(SLEEP)
    assert daemon.process() not in (None, process)


@pytest.mark.parametrize(
    "change", [{"created": 0.0}, {"executable": "/bin/other"}, {"pid": 2**22 + 1}, {"pid": "none"}, {"pid": None}]
)
async def test_a_stale_pid_file_names_no_process(daemon: Daemon, change: dict[str, object]) -> None:
    daemon.claim()
    daemon.pid_file.write_text(json.dumps(json.loads(daemon.pid_file.read_text()) | change))
    assert daemon.process() is None
    assert not await daemon.stop()


async def test_a_caller_can_claim_it(daemon: Daemon) -> None:
    daemon.claim()
    assert daemon.process() == psutil.Process()
    daemon.pid_file.unlink()


async def test_a_broken_pid_file_names_no_process(daemon: Daemon) -> None:
    daemon.claim()
    daemon.pid_file.write_text("{")
    assert daemon.process() is None


async def test_a_command_that_does_not_exist_or_ends_at_once(daemon: Daemon) -> None:
    with pytest.raises(FileNotFoundError):
        daemon.start(["/nowhere/program"])
    with pytest.raises(StartFailed, match=r"(?s)^one ended while it started\. The end of \S+one\.log:\nbroken"):
        await start_and_lose(daemon)


async def start_and_lose(daemon: Daemon) -> None:
    daemon.start([sys.executable, "-c", "print('broken')"])
    while daemon.process() is not None:
        await asyncio.sleep(0.01)
    raise daemon.failure("ended while it started")


async def test_a_large_log_is_set_aside_at_the_start(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rotate", partial(rotate, limit=10))
    daemon.log.parent.mkdir()
    daemon.log.write_text("old " * 10)
    daemon.start(SLEEP)
    await written(daemon)
    assert daemon.log.with_suffix(".log.1").read_text() == "old " * 10
    assert daemon.tail() == "here"


async def test_logs_stay_within_their_limits_while_the_process_runs(daemon: Daemon) -> None:
    chatty = "import time\nfor n in range(20000):\n print('line', n, flush=True)\n n % 20 or time.sleep(0.001)"
    daemon.start([sys.executable, "-c", f"{chatty}\nprint('end', flush=True); time.sleep(60)"])
    limit, rotated, most = 20_000, 0, 0
    async with asyncio.timeout(60):
        while "end" not in daemon.tail(1):
            rotated += rotate(daemon.log, limit, 2)
            most = max(most, daemon.log.stat().st_size)
            await asyncio.sleep(0.002)
    assert rotated > 3
    assert most < 3 * limit
    files = sorted(daemon.log.parent.glob("one.log*"))
    assert [file.name for file in files] == ["one.log", "one.log.1", "one.log.2"]
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    earlier, later = (int(file.read_text().splitlines()[-1].split()[1]) for file in reversed(files[1:]))
    assert earlier < later
    assert daemon.last_line() == "end"


def test_a_log_that_cannot_be_rotated_stays(tmp_path: Path) -> None:
    assert not rotate(tmp_path / "missing.log", 1)
    log = tmp_path / "one.log"
    log.write_text("kept")
    assert not rotate(log, 4)
    (tmp_path / "one.log.1").mkdir()
    (tmp_path / "one.log.1" / "inside").touch()
    assert not rotate(log, 1, 1)
    assert log.read_text() == "kept"
    assert rotate(log, 1, 0)
    assert log.read_text() == ""


async def test_the_last_line_is_the_sentence_that_it_ended_with(daemon: Daemon) -> None:
    async def last(*lines: str) -> str:
        written = "\n".join(lines)
        daemon.start([sys.executable, "-c", f"import time; print({written!r}); time.sleep(0.3)"])
        while daemon.process() is not None:
            await asyncio.sleep(0.01)
        return daemon.last_line()

    assert await last("begun", "✗ It cannot listen.", "leaked!", "") == "It cannot listen."
    assert await last("begun", "Killed") == "Killed"
    assert await last('{"event": "waiting", "reason": "no leader"}') == "its log ends with: waiting no leader"


async def test_a_failure_names_the_fault_of_the_machine(daemon: Daemon) -> None:
    daemon.log.parent.mkdir()
    daemon.log.write_text("[ERR] write 1.blk: no space left on device\n")
    said = str(daemon.failure("ended"))
    assert said.startswith(
        "one ended: No space left on device: free some space on its disk, then try again. The end of"
    )


async def test_a_complaint_is_the_last_sentence_with_what_follows(daemon: Daemon) -> None:
    assert daemon.complaint() == ""
    daemon.log.parent.mkdir()
    daemon.log.write_text("✗ earlier\nready\n")
    assert daemon.complaint() == "earlier\nready"
    daemon.start([sys.executable, "-c", "print('begun\\n✗ PostgreSQL ended. Its log:\\nFATAL')"])
    while daemon.process() is not None:
        await asyncio.sleep(0.01)
    assert daemon.complaint() == "PostgreSQL ended. Its log:\nFATAL"


async def test_the_tail_is_the_end(daemon: Daemon) -> None:
    assert daemon.tail() == "(no log)"
    daemon.log.parent.mkdir()
    daemon.log.write_text("".join(f"line {number}\n" for number in range(5000)))
    assert daemon.tail(2) == "line 4998\nline 4999"
