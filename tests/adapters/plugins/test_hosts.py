"""Hosts of plugins: what a plugin that misbehaves, or is killed, does to calls."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapters.plugins import hosts, process
from domain.access.tenant import HOUSE
from handlers.ports.plugins import EnabledPlugin, PluginFailed
from tests.adapters.plugins.conftest import Site
from tests.packages import WHEEL, WHEEL_HASH, digest, manifest, package

ECHO = """
from headrace_plugin import *
def before(call):
    return replace(messages=[{"role": "user", "content": call.get("text", "")[::-1]}])
serve(globals(), threads=4)
"""

RAW = """
import json, os, sys, time
def say(**fields):
    sys.stdout.write(json.dumps(fields) + "\\n"); sys.stdout.flush()
for line in sys.stdin:
    message = json.loads(line)
    if message["type"] == "load":
        say(type="ready", hooks=["before_invoke"])
    elif message["type"] == "ping":
        say(type="pong")
    elif message["type"] == "hook":
        id, do = message["id"], message["call"].get("do")
        {body}
        say(id=id, action="continue")
"""


def raw(*lines: str) -> str:
    """A plugin without the helper, with these lines for each hook."""
    return RAW.replace("{body}", "\n        ".join(lines or ("pass",)))


async def ask(site: Site, plugin: EnabledPlugin, **call: Any) -> Any:
    return (await site.hosts.ask(plugin, "before_invoke", call)).fields


async def fails_for(site: Site, plugin: EnabledPlugin, reason: str) -> None:
    """Ask until the plugin has failed for this reason: on a busy machine, its start may take longer than a hook may."""
    async with asyncio.timeout(60):
        while True:
            asking = asyncio.create_task(failure(site, plugin))
            while not asking.done():
                if reason in site.hosts.host(plugin)._reason:
                    await asking
                    return
                await asyncio.sleep(0.002)
            assert asking.result() in ("timeout", "unusable")
            if reason in site.hosts.host(plugin)._reason:
                return


async def failure(site: Site, plugin: EnabledPlugin, **call: Any) -> str:
    with pytest.raises(PluginFailed) as failed:
        await ask(site, plugin, **call)
    return failed.value.code


def pid(site: Site) -> int:
    [found] = site.hosts.pids.values()
    return found


def plugin_pid(site: Site) -> int:
    """The process of the plugin itself, within its sandbox."""
    return psutil.Process(pid(site)).children(recursive=True)[-1].pid


async def test_hooks_are_answered_many_at_a_time(site: Site) -> None:
    plugin = await site.plugin(ECHO)
    replies = await asyncio.gather(*(ask(site, plugin, text=f"text {number}") for number in range(50)))
    assert [reply["messages"][0]["content"] for reply in replies] == [f"text {n}"[::-1] for n in range(50)]
    assert len(site.hosts.pids) == 1


async def test_the_reply_names_the_package(site: Site) -> None:
    plugin = await site.plugin(ECHO, version="3.1.4")
    reply = await site.hosts.ask(plugin, "before_invoke", {})
    assert (reply.version, reply.digest) == ("3.1.4", plugin.digest)


async def test_a_process_serves_one_tenant(site: Site) -> None:
    program = raw("sys.seen = getattr(sys, 'seen', 0) + 1", "say(id=id, action='continue', seen=sys.seen)", "continue")
    one, two = await site.plugin(program), await site.plugin(program, tenant="mill")
    assert [(await ask(site, each))["seen"] for each in (one, one, two)] == [1, 2, 1]
    assert len(set(site.hosts.pids.values())) == 2


async def test_it_gets_its_settings_and_secrets_when_it_loads(site: Site) -> None:
    program = """
from headrace_plugin import *
def load(settings):
    global given
    given = settings
def before(call):
    return answer(repr(sorted(given.items())))
serve(globals())
"""
    plugin = await site.plugin(program, hooks={"before_invoke": "before", "load": "load"}, settings={"mark": "x"})
    plugin = plugin._replace(settings={"mark": "x"}, secrets={"token": json.dumps("t-1")})
    assert (await ask(site, plugin))["response"] == "[('mark', 'x'), ('token', 't-1')]"


async def test_its_environment_is_empty(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SECRET_KEY", "the secret of the worker")
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    program = raw(
        "found = dict(os.environ)",
        "files = [name for name in ('/etc/passwd', '/etc/shadow', '/home', '/proc/1') if os.path.exists(name)]",
        "say(id=id, action='continue', found=found, files=files, home=os.listdir(os.environ['HOME']))",
        "continue",
    )
    reply = await ask(site, await site.plugin(program))
    assert "secret of the worker" not in str(reply)
    assert not {"HEADRACE_SECRET_KEY", "OPENAI_API_KEY"} & set(reply["found"])
    assert set(reply["found"]) <= {
        *("PATH", "LANG", "TZ", "HOME", "TMPDIR", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"),
        *("RUST_BACKTRACE", "RAYON_NUM_THREADS", "MALLOC_ARENA_MAX", "PWD", "LC_CTYPE", "SHLVL", "_"),
    }
    assert reply["files"] == []


async def test_without_network_no_socket_can_be_opened(site: Site) -> None:
    program = raw(
        "import socket",
        "try: socket.create_connection(('127.0.0.1', 9), 1); said = 'connected'",
        "except OSError as error: said = type(error).__name__",
        "say(id=id, action='continue', said=said)",
        "continue",
    )
    assert (await ask(site, await site.plugin(program)))["said"] == "PermissionError"


# --- failures ------------------------------------------------------------------------------------------------------


async def test_a_hook_that_hangs_is_abandoned_and_its_process_replaced(site: Site) -> None:
    plugin = await site.plugin(raw("if do == 'hang': time.sleep(60)"), timeout_ms=500)
    await ask(site, plugin)
    first = pid(site)
    began = time.monotonic()
    assert await failure(site, plugin, do="hang") == "timeout"
    assert time.monotonic() - began < 2
    await asyncio.sleep(1.2)
    await ask(site, plugin._replace(manifest={**plugin.manifest, "timeout_ms": 5000}))
    assert pid(site) != first
    assert not psutil.pid_exists(first)


async def test_a_slow_hook_does_not_end_a_process_that_answers_others(site: Site) -> None:
    program = """
from headrace_plugin import *
import time
def before(call):
    time.sleep(call["s"])
serve(globals(), threads=4)
"""
    plugin = await site.plugin(program, timeout_ms=600)
    await ask(site, plugin, s=0)
    first = pid(site)

    async def others() -> None:
        for _ in range(15):
            await ask(site, plugin, s=0.05)

    slow, _ = await asyncio.gather(failure(site, plugin, s=2), others())
    assert slow == "timeout"
    assert pid(site) == first


@pytest.mark.parametrize("when", ["before", "within"])
async def test_a_killed_plugin_is_started_again_and_the_hook_repeated(site: Site, when: str) -> None:
    program = raw("if do and not os.path.exists('/tmp/x'): time.sleep(0.5)")
    plugin = await site.plugin(program, timeout_ms=8000)
    await ask(site, plugin)
    if when == "before":
        os.kill(plugin_pid(site), signal.SIGKILL)
        await ask(site, plugin)
    else:
        asking = asyncio.create_task(ask(site, plugin, do="sleep"))
        await asyncio.sleep(0.2)
        os.kill(plugin_pid(site), signal.SIGKILL)
        assert (await asking)["action"] == "continue"
    assert site.suspended == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("sys.stdout.write('x' * 9_000_000)", "a line of more than"),
        ("[print('{}x') for _ in range(3000)]", "lines in a row"),
        ("[print(json.dumps({'id': 'none'})) for _ in range(3000)]", "lines in a row"),
        ("sys.stdout.write('{\"id\": '); sys.stdout.flush(); os._exit(3)", "status 3"),
        ("sys.exit('no more')", "no more"),
        ("os.close(1); time.sleep(60)", "took longer"),
    ],
)
async def test_what_a_plugin_writes_is_bounded(site: Site, body: str, reason: str) -> None:
    plugin = await site.plugin(raw(body, "sys.stdout.flush()"), timeout_ms=1500)
    await fails_for(site, plugin, reason)


async def test_a_hundred_megabytes_in_a_line_take_no_memory(site: Site) -> None:
    body = "[sys.stdout.write('x' * 2**20) for _ in range(100)]"
    plugin = await site.plugin(raw(body, "sys.stdout.flush()"), timeout_ms=1500)
    before = psutil.Process().memory_info().rss
    await failure(site, plugin)
    assert psutil.Process().memory_info().rss - before < 60 * 2**20


async def test_what_it_prints_before_it_is_ready_does_no_harm(site: Site) -> None:
    plugin = await site.plugin("print('hello')\nprint('{\"type\": 1}')\n" + raw())
    assert (await ask(site, plugin))["action"] == "continue"


async def test_a_hook_that_raises_fails_with_its_error(site: Site) -> None:
    program = "from headrace_plugin import *\ndef before(call):\n    raise ValueError('no')\nserve(globals())"
    plugin = await site.plugin(program)
    with pytest.raises(PluginFailed, match="ValueError: no") as failed:
        await ask(site, plugin)
    assert failed.value.code == "failed"


async def test_memory_is_bounded(site: Site) -> None:
    plugin = await site.plugin(raw("x = bytearray(2**30)"), memory_mb=256, timeout_ms=1500)
    await fails_for(site, plugin, "MemoryError")


async def test_five_failures_suspend_it_and_success_resumes_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PAUSE_S", 0.01)
    monkeypatch.setattr(hosts, "LONGEST_PAUSE_S", 0.5)
    program = raw("if do: sys.exit('bad day')")
    plugin = await site.plugin(program, timeout_ms=8000)
    assert await failure(site, plugin, do=1) == "suspended"
    await asyncio.sleep(0.05)
    assert len(site.suspended) == 1
    assert "5 times in a row" in str(site.suspended[0])
    assert "bad day" in str(site.suspended[0])
    began = time.monotonic()
    assert await failure(site, plugin) == "suspended"
    assert time.monotonic() - began < 0.1
    await asyncio.sleep(0.6)
    await ask(site, plugin)
    await asyncio.sleep(0.05)
    assert site.suspended[1:] == [None]


async def test_enabling_it_again_tries_a_suspended_plugin_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PAUSE_S", 0.01)
    plugin = await site.plugin(raw("if do: sys.exit('bad day')"), timeout_ms=8000)
    assert await failure(site, plugin, do=1) == "suspended"
    assert await failure(site, plugin) == "suspended"
    await ask(site, plugin._replace(starts=plugin.starts + 1))


async def test_a_plugin_that_ends_at_load_is_suspended_with_its_reason(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "PAUSE_S", 0.01)
    program = "from headrace_plugin import *\ndef load(settings):\n    raise OSError('no key')\nserve(globals())"
    plugin = await site.plugin(program, hooks={"before_invoke": "load", "load": "load"}, timeout_ms=20_000)
    assert await failure(site, plugin) == "suspended"
    assert "It cannot load: OSError: no key" in str(site.suspended[0])


async def test_a_package_that_is_missing_suspends_the_plugin(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PAUSE_S", 0.01)
    plugin = (await site.plugin(ECHO))._replace(digest="0" * 64)
    assert await failure(site, plugin) == "suspended"
    assert "is missing" in str(site.suspended[0])


async def test_no_process_outlives_the_hosts(site: Site) -> None:
    plugin = await site.plugin(raw("signal = __import__('signal'); signal.signal(15, signal.SIG_IGN)"))
    await ask(site, plugin)
    all_of_it = [psutil.Process(pid(site)), *psutil.Process(pid(site)).children(recursive=True)]
    await site.hosts.close()
    gone, alive = psutil.wait_procs(all_of_it, timeout=5)
    assert alive == []
    assert len(gone) == len(all_of_it)


async def test_an_idle_process_ends_and_comes_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = await site.plugin(ECHO)
    await ask(site, plugin)
    monkeypatch.setattr(hosts, "IDLE_S", 0.0)
    await site.hosts.host(plugin).look()
    assert site.hosts.pids == {}
    await ask(site, plugin)
    assert len(site.hosts.pids) == 1


async def test_a_process_that_gives_no_sign_of_life_is_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = await site.plugin(raw("say(id=id, action='continue'); time.sleep(600)"))
    await ask(site, plugin)
    monkeypatch.setattr(hosts, "PING_S", 0.2)
    host = site.hosts.host(plugin)
    await host.look()
    await asyncio.sleep(0.5)
    await host.look()
    assert site.hosts.pids == {}
    assert "no sign of life" in host._reason


async def test_a_process_that_is_busy_without_a_call_is_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    spin = "import threading; threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()"
    plugin = await site.plugin(raw(spin))
    await ask(site, plugin)
    monkeypatch.setattr(hosts, "PING_S", 0.5)
    host = site.hosts.host(plugin)
    await host.look()
    await asyncio.sleep(1.5)
    await host.look()
    assert "processor time" in host._reason


# --- replacement ---------------------------------------------------------------------------------------------------


async def test_another_package_takes_over_under_load_without_a_failed_call(site: Site) -> None:
    slow = """
from headrace_plugin import *
import time
def before(call):
    time.sleep(0.02)
serve(globals(), threads=8)
"""
    old = await site.plugin(slow, version="1.0.0", timeout_ms=8000)
    new = await site.plugin(slow + "\n", version="2.0.0", timeout_ms=8000)
    await ask(site, old)
    current, seen, stop = old, list[tuple[str, str]](), asyncio.Event()

    async def caller() -> None:
        while not stop.is_set():
            reply = await site.hosts.ask(current, "before_invoke", {})
            seen.append((reply.version, reply.digest))

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    await asyncio.sleep(0.3)
    first = pid(site)
    current = new
    await asyncio.sleep(2.0)
    stop.set()
    await asyncio.gather(*callers)
    assert set(seen) == {("1.0.0", old.digest), ("2.0.0", new.digest)}
    at = seen.index(("2.0.0", new.digest))
    assert len(seen) - at > 20
    assert ("1.0.0", old.digest) not in seen[at + 16 :]
    await asyncio.sleep(0.2)
    assert not psutil.pid_exists(first)


async def test_other_settings_start_another_process(site: Site) -> None:
    program = """
from headrace_plugin import *
def load(settings):
    global mark
    mark = settings["mark"]
def before(call):
    return answer(mark)
serve(globals())
"""
    plugin = await site.plugin(program, hooks={"before_invoke": "before", "load": "load"}, settings={"mark": "x"})
    plugin = plugin._replace(settings={"mark": "x"})
    assert (await ask(site, plugin))["response"] == "x"
    other = plugin._replace(settings={"mark": "y"})
    async with asyncio.timeout(10):
        while (await ask(site, other))["response"] != "y":
            await asyncio.sleep(0.05)


async def test_a_new_package_that_does_not_start_leaves_the_old_one_until_it_is_suspended(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "PAUSE_S", 0.05)
    old, new = await site.plugin(ECHO), await site.plugin("import sys; sys.exit('broken')", version="2.0.0")
    await ask(site, old)
    answered = 0
    with suppress(PluginFailed):
        async with asyncio.timeout(20):
            while True:
                await ask(site, new)
                answered += 1
                await asyncio.sleep(0.02)
    assert answered > 5
    assert "broken" in str(site.suspended[0])


# --- packages ------------------------------------------------------------------------------------------------------


async def test_dependencies_come_from_the_wheels_of_the_package(site: Site, tmp_path: Path) -> None:
    whole = manifest(dependencies={"tide": "==1.0"})
    program = (
        "from headrace_plugin import *\nimport tide\ndef before(call):\n    return answer(tide.HIGH)\nserve(globals())"
    )
    lock = f"tide==1.0 --hash=sha256:{WHEEL_HASH}\n"
    data = package(program, whole, **{"requirements_lock": lock, "wheels/tide-1_0-py3-none-any_whl": WHEEL})
    await site.blobs.put(HOUSE, data)
    plugin = (await site.plugin(program, dependencies={"tide": "==1.0"}))._replace(digest=digest(data))
    async with asyncio.timeout(60):
        await site.environments.get(plugin.digest)
    assert (await ask(site, plugin))["response"] == "18:05"
    environments = list((tmp_path / "plugins" / "environments").iterdir())
    assert len(environments) == 1


async def test_a_wheel_with_another_hash_is_not_installed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PAUSE_S", 0.01)
    whole = manifest(dependencies={"tide": "==1.0"})
    lock = f"tide==1.0 --hash=sha256:{'0' * 64}\n"
    data = package("x = 1", whole, **{"requirements_lock": lock, "wheels/tide-1_0-py3-none-any_whl": WHEEL})
    await site.blobs.put(HOUSE, data)
    plugin = (await site.plugin("x = 1", dependencies={"tide": "==1.0"}, timeout_ms=60_000))._replace(
        digest=digest(data)
    )
    assert await failure(site, plugin) == "suspended"
    assert "cannot be built" in str(site.suspended[0])


async def test_another_language_speaks_the_protocol(site: Site) -> None:
    program = """#!/usr/bin/env node
const lines = require("readline").createInterface({ input: process.stdin });
const say = (message) => process.stdout.write(JSON.stringify(message) + "\\n");
lines.on("line", (line) => {
  const message = JSON.parse(line);
  if (message.type === "load") say({ type: "ready", hooks: ["before_invoke"] });
  else if (message.type === "ping") say({ type: "pong" });
  else if (message.type === "hook")
    say({ id: message.id, action: "answer", response: "node says " + message.call.text });
  else if (message.type === "close") process.exit(0);
});
"""
    plugin = await site.plugin(program, main="main.js", memory_mb=65_536)
    assert (await ask(site, plugin, text="höher"))["response"] == "node says höher"


def test_the_longest_line_is_larger_than_a_large_prompt() -> None:
    assert process.LONGEST_LINE >= 8 * 2**20


async def test_calls_go_to_as_many_processes_as_the_manifest_lets_it_have(site: Site) -> None:
    slow = raw("time.sleep(call['s']) if (call := message['call']).get('s') else None")
    plugin = await site.plugin(slow, timeout_ms=30_000, instances=3)
    await ask(site, plugin)
    assert len(site.hosts.pids) == 1  # a call at a time needs one
    calls = [asyncio.create_task(ask(site, plugin, s=0.5)) for _ in range(2)]
    async with asyncio.timeout(60):
        while len(site.hosts.pids) < 3:
            calls.append(asyncio.create_task(ask(site, plugin, s=0.5)))
            await asyncio.sleep(0.1)
    assert all(each["action"] == "continue" for each in await asyncio.gather(*calls))
    for _ in range(4):
        calls.append(asyncio.create_task(ask(site, plugin, s=0.5)))
        await asyncio.sleep(0.05)
    assert sorted(host.in_flight for host in site.hosts._hosts["acme", "mask"]) == [1, 1, 2]
    await asyncio.gather(*calls)
    assert len(site.hosts.pids) == 3


async def test_a_process_that_is_killed_leaves_the_others(site: Site) -> None:
    plugin = await site.plugin(raw("time.sleep(0.3)"), timeout_ms=60_000, instances=2)
    async with asyncio.timeout(60):
        while len(site.hosts.pids) < 2:
            await asyncio.gather(ask(site, plugin), ask(site, plugin))
    os.kill(next(iter(site.hosts.pids.values())), signal.SIGKILL)
    replies = await asyncio.gather(*(ask(site, plugin) for _ in range(4)))
    assert all(each["action"] == "continue" for each in replies)
