"""MCP servers of the operator: contained processes, one for each tenant."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapters.sandbox.child import Sandbox
from adapters.sandbox.choice import candidates, tried
from adapters.tools.mcp import processes as running
from adapters.tools.mcp import session
from adapters.tools.mcp.processes import Processes
from adapters.tools.mcp.programs import Program, read
from domain.tools.question import Answer, Question
from handlers.ports.tools import Toolbox
from tests.adapters.tools.mcp import servers
from tests.adapters.tools.mcp.test_toolbox import boxes, call, failed, toolset, unlisted

SECRET = "sk-secret-0123456789"

SERVERS = Path(servers.__file__)


def program(*arguments: str, **fields: Any) -> Program:
    """A server of the tests, which reads its own code."""
    start = f"import runpy; runpy.run_path({str(SERVERS)!r}, run_name='__main__')"
    args = ["-c", start, *arguments]
    return Program(command=sys.executable, args=args, readable=[SERVERS], **fields)


@asynccontextmanager
async def open_processes(sandbox: Sandbox, *, idle_s: float = 60.0, **programs: Program) -> AsyncIterator[Processes]:
    async def choose() -> Sandbox:
        return sandbox

    async with Processes(choose, programs, idle_s=idle_s) as processes:
        yield processes


def box(processes: Processes, name: str, tenant: str = "acme", secret: str = "", timeout_s: float = 30.0) -> Toolbox:
    return boxes(processes=processes)(tenant, toolset(None, secret, timeout_s, name))


async def environment(box: Toolbox, name: str) -> dict[str, Any]:
    return dict(json.loads((await call(box, "environment", name=name)).text))


async def test_a_tenant_has_a_process_of_its_own_which_stays(sandbox: Sandbox) -> None:
    station = program("loud", env={"UNIT": "C"}, secret_env="SECRET")
    async with open_processes(sandbox, station=station) as processes:
        acme, zenith = box(processes, "station", secret=SECRET), box(processes, "station", "zenith")
        listed = await acme.list()
        assert {"add", "weather"} <= {tool["name"] for tool in listed.tools}
        assert (await call(acme, "add", a=2, b=3)).text == "5"
        first, second = await environment(acme, "UNIT"), await environment(acme, "HOME")
        assert (first["value"], second["value"], second["pid"]) == ("C", None, first["pid"])
        assert [first["calls"], second["calls"], (await environment(zenith, "UNIT"))["calls"]] == [1, 2, 1]
        assert len(processes.pids) == 2
        assert (await call(acme, "echo_secret", length=3)).text == "***xxx"
        assert (await call(zenith, "echo_secret", length=3)).text == "xxx"


@pytest.mark.parametrize("each", [*candidates("auto")], ids=lambda each: f"{each.kind}-{each.own_user}")
async def test_it_reads_and_reaches_only_what_the_operator_allows(each: Sandbox) -> None:
    try:
        await tried(each)
    except OSError as error:
        pytest.skip(f"It does not work here: {error}")
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_processes(each, closed=program(), open=program(network=True)) as processes:
        for path in ("/etc/passwd", "/proc/1/environ", str(Path.home() / ".bashrc")):
            assert (await call(box(processes, "closed"), "read", path=path)).text.startswith("refused")
        assert (await call(box(processes, "closed"), "connect", host="127.0.0.1", port=port)).text.startswith("refused")
        assert (await call(box(processes, "open"), "connect", host="127.0.0.1", port=port)).text == "connected"


async def test_an_idle_process_ends(sandbox: Sandbox) -> None:
    async with open_processes(sandbox, idle_s=0.2, station=program()) as processes:
        await call(box(processes, "station"), "add", a=2, b=3)
        [pid] = processes.pids
        async with asyncio.timeout(20):
            while psutil.pid_exists(pid):
                await asyncio.sleep(0.05)
        assert processes.pids == []
        assert (await call(box(processes, "station"), "add", a=2, b=3)).text == "5"


async def test_a_process_that_dies_costs_its_calls_and_is_replaced(sandbox: Sandbox) -> None:
    async with open_processes(sandbox, station=program()) as processes:
        station = box(processes, "station")
        slow = asyncio.create_task(failed(station, "slow", seconds=30.0))
        await asyncio.sleep(0)
        assert (await failed(station, "die"))[0] == "server_error"
        assert (await slow)[0] == "server_error"
        assert (await call(station, "add", a=2, b=3)).text == "5"


async def test_a_result_without_end_ends_the_process(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MOST_BYTES", 2**20)
    async with open_processes(sandbox, station=program(env={"TMPDIR": "/nowhere"})) as processes:
        station = box(processes, "station")
        assert (await environment(station, "TMPDIR"))["value"] == "/nowhere"
        assert (await failed(station, "echo_secret", length=2**21))[0] == "too_large"
        assert (await environment(station, "TMPDIR"))["calls"] == 1


async def test_a_program_asks_the_user_of_the_only_call(sandbox: Sandbox) -> None:
    waits, goes_on = asyncio.Event(), asyncio.Event()

    async def ask(question: Question) -> Answer:
        waits.set()
        await goes_on.wait()
        return Answer(action="accept", content={"size": 4})

    async with open_processes(sandbox, station=program("asks")) as processes:
        station = box(processes, "station")
        first = asyncio.create_task(call(station, "order", ask=ask))
        await waits.wait()
        assert "Elicitation" not in (await call(station, "order", ask=ask)).text
        goes_on.set()
        assert json.loads((await first).text) == {"action": "accept", "content": {"size": 4}}


async def test_a_cancelled_call_leaves_the_others(sandbox: Sandbox) -> None:
    async with open_processes(sandbox, station=program()) as processes:
        station = box(processes, "station")
        await station.list()
        slow = asyncio.create_task(call(station, "slow", seconds=30.0))
        other = asyncio.create_task(call(station, "slow", seconds=0.3))
        await asyncio.sleep(0.1)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert (await other).text == "slept"
        assert len(processes.pids) == 1


@pytest.mark.parametrize(
    ("made", "codes"),
    [
        (Program(command="/no/such/program"), ("unreachable", "server_error")),
        (Program(command="/usr/bin/false"), ("server_error",)),
        (program("flood"), ("too_large", "server_error")),
        (program("silent"), ("timeout",)),
    ],
)
async def test_a_program_that_does_not_speak(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, made: Program, codes: tuple[str, ...]
) -> None:
    monkeypatch.setattr(session, "MOST_BYTES", 2**22)
    async with open_processes(sandbox, idle_s=0.0, odd=made) as processes:
        began = time.perf_counter()
        code, _ = await unlisted(box(processes, "odd", timeout_s=4.0))
        assert code in codes
        assert time.perf_counter() - began < 10
        async with asyncio.timeout(20):
            while processes.pids:
                await asyncio.sleep(0.05)


async def test_the_number_of_processes_of_a_tenant_is_limited(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MOST_OF_TENANT", 1)
    async with open_processes(sandbox, one=program(), two=program()) as processes:
        await call(box(processes, "one"), "add", a=1, b=1)
        await call(box(processes, "two"), "add", a=1, b=1)  # in place of the idle one
        slow = asyncio.create_task(call(box(processes, "two"), "slow", seconds=1.0))
        await asyncio.sleep(0.1)
        assert (await failed(box(processes, "one"), "add", a=1, b=1))[0] == "rate_limited"
        assert (await slow).text == "slept"


async def test_an_unknown_server_is_refused(sandbox: Sandbox) -> None:
    async with open_processes(sandbox) as processes:
        assert await unlisted(box(processes, "other")) == (
            "not_found",
            "The operator has configured no MCP server 'other'.",
        )


def test_a_file_names_the_programs(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text('{"mcpServers": {"files": {"command": "/usr/bin/node", "args": ["server.js"], "memory_mb": 0}}}')
    found = read(file)["files"]
    assert (found.command, found.args, found.network, found.limits.memory) == (
        "/usr/bin/node",
        ["server.js"],
        False,
        None,
    )


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{", "is not JSON"),
        ('{"mcpServers": {"files": {"command": "node"}}}', "mcpServers.files.command"),
        ('{"mcpServers": {"Files!": {"command": "/bin/x"}}}', "mcpServers.Files!"),
        ('{"mcpServers": {"files": {"command": "/bin/x", "shell": true}}}', "mcpServers.files.shell"),
        ("{}", "mcpServers"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, text: str, rule: str) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=rule):
        read(file)
    with pytest.raises(ValueError, match="cannot be read"):
        read(tmp_path / "none.json")
