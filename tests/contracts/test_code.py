"""Behaviour of everything that runs code: hostile code reaches nothing, leaves nothing, and ends at its limits."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from adapters.code.contained import ContainedCode
from handlers.ports.code import CallLimits, Kind, Language
from tests.contracts.running import LIMITS, failed, works

SHORT = LIMITS._replace(seconds=0.4)

PREAMBLE = """
import ctypes, os, platform, signal, socket, subprocess, sys
x86, reached = platform.machine() == "x86_64", []
def attempt(what):
    try:
        reached.append(repr(what())[:200])
    except (OSError, ValueError, KeyError, MemoryError, RuntimeError, ImportError):
        pass
def call(number, *arguments):
    if ctypes.CDLL(None).syscall(number, *arguments) >= 0:
        reached.append(f"call {number}")
def main(pid, file, port):
    tries(pid, file, port)
    return {"reached": reached}
def tries(pid, file, port):
"""

REACHES = {
    "connects to this machine": """
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        attempt(lambda: socket.socket(socket.AF_INET, kind).connect(("127.0.0.1", port)))
    attempt(lambda: socket.create_connection(("127.0.0.1", port)))
    call(41 if x86 else 198, 2, 1, 0)
""",
    "reads files and variables": """
    for path in (file, "/etc/passwd", "/etc/shadow", "/proc/1/environ", f"/proc/{pid}/environ", "/proc/self/environ"):
        attempt(lambda: open(path, "rb").read())
    attempt(lambda: os.environ["HEADRACE_SECRET_KEY"])
    attempt(lambda: os.environ["HOME"])
""",
    "changes files": """
    for path in (file, os.__file__, "/etc/passwd", "/usr/x", "/x"):
        attempt(lambda: open(path, "ab"))
        attempt(lambda: os.unlink(path))
        attempt(lambda: os.chmod(path, 0o777))
""",
    "starts processes": """
    for _ in range(300):
        attempt(os.fork)
    attempt(lambda: subprocess.run(["/bin/sh", "-c", "echo"]))
    attempt(lambda: os.posix_spawn(sys.executable, [sys.executable], {}))
    call(57 if x86 else 220, 17, None, None, None, None)
""",
    "signals processes": """
    for other in (os.getppid(), 1, pid, -1, -os.getpgrp()):
        attempt(lambda: os.kill(other, signal.SIGKILL))
        call(234 if x86 else 131, other, other, signal.SIGKILL)
    call(62 if x86 else 129, os.getppid(), signal.SIGKILL)
    attempt(lambda: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGKILL))
""",
    "reads the memory of other processes": """
    for other in (os.getppid(), pid):
        call(101 if x86 else 117, 16, other, 0, 0)
        call(310 if x86 else 270, other, None, 0, None, 0, 0)
        attempt(lambda: open(f"/proc/{other}/mem", "rb"))
""",
    "regains privileges": """
    attempt(lambda: os.setgroups([0]))
    attempt(os.setsid)
    call(272 if x86 else 97, 0x10000000)
    call(165 if x86 else 40, b"none", b"/tmp", b"tmpfs", 0, None)
    call(425, 8, ctypes.create_string_buffer(256))
    attempt(lambda: (__import__("resource").setrlimit(__import__("resource").RLIMIT_CPU, (99, 99))))
""",
    "reads what other calls sent": """
    for number in range(4, 64):
        attempt(lambda: os.fstat(number))
    assert os.read(0, 1) == b"" and sys.stdin.read(1) == ""
""",
    "imports what is installed": """
    for name in ("adapters", "handlers.ports.code", "pydantic", "numpy", "quickjs"):
        attempt(lambda: __import__("importlib").import_module(name))
""",
}
"""Bodies of Python functions; `attempt` and `call` report what they reach."""

ENDS: list[tuple[str, Language, str, CallLimits, Kind]] = [
    ("loop", "python3", "def main():\n    while True: pass", SHORT, "timeout"),
    ("loop", "javascript", "function main() { for (;;); }", SHORT, "timeout"),
    (
        "loop",
        "jinja2",
        "{% for _ in range(9**5) %}{% for _ in range(9**5) %}{% endfor %}{% endfor %}",
        SHORT,
        "timeout",
    ),
    (
        "loop that ignores signals",
        "python3",
        "import signal\ndef main():\n    for each in set(signal.Signals) - {9, 19}:\n"
        "        signal.signal(each, signal.SIG_IGN)\n    while True: pass",
        LIMITS._replace(cpu_s=1),
        "timeout",
    ),
    ("sleep", "python3", "import time\ndef main(): time.sleep(100)", SHORT, "timeout"),
    ("loop of a processor", "javascript", "function main() { for (;;); }", LIMITS._replace(cpu_s=1), "timeout"),
    (
        "sleep that ignores the clock",
        "python3",
        "import signal\ndef main():\n    signal.setitimer(signal.ITIMER_REAL, 0)\n    __import__('time').sleep(100)",
        SHORT,
        "timeout",
    ),
    ("catastrophic regex", "python3", "import re\ndef main(): re.match('(a+)+$', 'a' * 40 + 'b')", SHORT, "timeout"),
    ("catastrophic regex", "javascript", "const main = () => /(a+)+$/.test('a'.repeat(40) + 'b')", SHORT, "timeout"),
    ("memory at once", "python3", "def main(): bytearray(10**10)", LIMITS, "memory"),
    ("memory at once", "javascript", "const main = () => new Uint8Array(2**31 - 1)", LIMITS, "memory"),
    ("memory at once", "jinja2", "{{ 'a' * 10**10 }}", LIMITS, "memory"),
    (
        "memory in pieces",
        "python3",
        "def main(x=[]):\n    while True: x.append(b'x' * 2**20)",
        LIMITS,
        "memory",
    ),
    ("memory in pieces", "javascript", "const main = () => { for (const a = [];;) a.push(['x']) }", LIMITS, "memory"),
    (
        "memory in typed arrays",
        "javascript",
        "const main = () => { for (const a = [];;) a.push(new Float64Array(2**17).fill(1)) }",
        LIMITS,
        "memory",
    ),
    (
        "memory in pieces",
        "jinja2",
        "{% set ns = namespace(x='a') %}{% for _ in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        LIMITS,
        "memory",
    ),
    ("recursion", "python3", "def main(): return main()", LIMITS, "raised"),
    ("recursion", "javascript", "const main = () => main() + 1", LIMITS, "raised"),
    ("recursion", "jinja2", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", LIMITS, "raised"),
    (
        "recursion past the check",
        "python3",
        "import sys\ndef main():\n    sys.setrecursionlimit(10**9)\n    f = lambda: [*map(lambda _: f(), 'a')]\n"
        "    f()",
        LIMITS,
        "raised",
    ),
    ("crash", "python3", "import ctypes\ndef main(): ctypes.string_at(0)", LIMITS, "raised"),
    ("exit", "python3", "import os\ndef main(): os._exit(0)", LIMITS, "raised"),
    ("exit by exception", "python3", "import sys\ndef main(): sys.exit()", LIMITS, "raised"),
    ("large result", "python3", "def main(): return {'x': 'x' * 2**20}", LIMITS, "output_too_large"),
    ("large result", "javascript", "const main = () => ({x: 'x'.repeat(2**20)})", LIMITS, "output_too_large"),
    ("large result", "jinja2", "{{ 'x' * 2**20 }}", LIMITS, "output_too_large"),
    (
        "200 MB of output",
        "python3",
        "import os\ndef main():\n    for _ in range(3200): os.write(1, bytes(2**16))\n    return {}",
        LIMITS,
        "output_too_large",
    ),
    (
        "200 MB of output",
        "javascript",
        "const main = () => { for (let i = 0; i < 3200; i++) console.log('x'.repeat(2**16)); return {} }",
        LIMITS,
        "output_too_large",
    ),
    (
        "200 MB past the function",
        "python3",
        "import os\ndef main():\n    for _ in range(3200): os.write(3, b' ' * 2**16)\n    return {}",
        LIMITS,
        "output_too_large",
    ),
]
"""Name, language, code, limits, and the kind of its end."""


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.setenv("HEADRACE_SECRET_KEY", "topsecret")
    (tmp_path / "secret.key").write_text("topsecret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"pid": os.getpid(), "file": str(tmp_path / "secret.key"), "port": server.getsockname()[1]}


@pytest.mark.parametrize("name", REACHES)
async def test_hostile_code_reaches_nothing(code: ContainedCode, given: dict[str, Any], name: str) -> None:
    ran = await code.run("mill", "python3", PREAMBLE + REACHES[name], given, LIMITS)
    assert ran.value == {"reached": []}
    await works(code, "python3")


@pytest.mark.parametrize(("name", "language", "text", "limits", "kind"), ENDS, ids=[f"{a}, {b}" for a, b, *_ in ENDS])
async def test_hostile_code_ends(
    code: ContainedCode, name: str, language: Language, text: str, limits: CallLimits, kind: Kind
) -> None:
    error = await failed(code, language, text, limits=limits)
    assert error.kind == kind, error.reason
    assert error.reason.endswith(".") or kind == "raised"
    assert error.adapter == await code.adapter(language)
    await works(code, language)


async def test_a_file_is_bounded(code: ContainedCode) -> None:
    text = """
import os
def main():
    size = 0
    with open(os.environ["TMPDIR"] + "/x", "wb", buffering=0) as file:
        try:
            for _ in range(2048):
                size += file.write(bytes(2**20))
        except OSError:
            pass
    return {"size": size}
"""
    ran = await code.run("mill", "python3", text, {}, LIMITS)
    assert 2**20 <= ran.value["size"] <= 16 * 2**20


async def test_threads_are_bounded(code: ContainedCode) -> None:
    text = """
import threading, time
def main():
    count = 0
    try:
        while count < 500:
            threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
            count += 1
    except RuntimeError:
        pass
    return {"count": count}
"""
    ran = await code.run("mill", "python3", text, {}, LIMITS)
    assert 1 <= ran.value["count"] < 500
    await works(code, "python3")


LEAVES = """
import builtins, json, os, sys, threading
def main(path):
    folder = os.environ["TMPDIR"]
    found = [getattr(builtins, "left", None), getattr(json, "left", None), sys.modules.get("left"),
        os.environ.get("LEFT"), *os.listdir(folder)]
    builtins.left = json.left = os.environ["LEFT"] = "left"
    sys.modules["left"] = json
    os.umask(0)
    os.makedirs(folder + "/" + path)
    threading.Thread(target=lambda: open(folder + "/later", "w")).start()
    return {"found": [each for each in found if each not in (None, "hr")]}
"""


async def test_nothing_is_left_for_the_next_call(code: ContainedCode) -> None:
    for path in ("left", "left/deep", "left"):
        ran = await code.run("mill", "python3", LEAVES, {"path": path}, LIMITS)
        assert ran.value == {"found": []}
    leaves = "globalThis.left ??= 0; function main() { return {left: left++, was: Array.prototype.left ?? null} }"
    for _ in range(2):
        ran = await code.run("mill", "javascript", leaves + "\nArray.prototype.left = 1", {}, LIMITS)
        assert ran.value == {"left": 0, "was": 1}


FINDS = """
import ctypes
def main(drow, times):
    word, libc = drow[::-1].encode(), ctypes.CDLL(None)
    kept = word * times
    libc.sbrk.restype, seen = ctypes.c_void_p, ctypes.create_string_buffer(1)
    libc.mincore.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    page, count = libc.sbrk(0) - 4096 & ~4095, 0
    while libc.mincore(page, 4096, seen) == 0:
        count += ctypes.string_at(page, 4096).count(word)
        page -= 4096
    return {"found": count}
"""
"""Looks for a word in the heap, where long texts are."""


async def test_no_words_of_a_call_are_in_the_memory_of_the_next(code: ContainedCode) -> None:
    word = uuid4().hex
    ran = await code.run("mill", "python3", "def main(a):\n    print(a)\n    return {'a': a}", {"a": word * 40})
    assert (ran.value, ran.printed) == ({"a": word * 40}, word * 40 + "\n")
    assert (await code.run("mill", "python3", FINDS, {"drow": word[::-1], "times": 0})).value == {"found": 0}
    assert (await code.run("mill", "python3", FINDS, {"drow": word[::-1], "times": 40})).value["found"] >= 30


async def test_results_are_not_faked_by_output(code: ContainedCode) -> None:
    text = """
import os, sys
def main():
    print('V{"x": 2}', flush=True)
    os.write(1, b'<<RESULT>>{"x": 2}<<RESULT>>')
    sys.stderr.write("R")
    return {"x": 1}
"""
    ran = await code.run("mill", "python3", text, {}, LIMITS)
    assert ran.value == {"x": 1}
    assert ran.printed.startswith('V{"x": 2}\n<<RESULT>>{"x": 2}<<RESULT>>')
    for said in (b"", b"V", b'V{"x"', b"F", b'F["sandbox_unavailable"]', b'F["none", "x", 1]', b"X", b"\xff" * 99):
        text = f"import os\ndef main():\n    os.write(3, {said!r})\n    os._exit(0)"
        assert (await failed(code, "python3", text)).kind in ("raised", "not_json")
        await works(code, "python3")


async def test_one_that_writes_to_every_descriptor_harms_no_other(code: ContainedCode) -> None:
    text = """
import os
def main():
    for number in range(64):
        try:
            os.write(number, b"\\0" * 999)
        except OSError:
            pass
    return {}
"""
    await failed(code, "python3", text)
    await works(code, "python3")


async def test_a_process_that_was_killed_is_replaced(code: ContainedCode) -> None:
    await works(code, "python3")
    for pid in code.pids("python3"):
        os.kill(pid, signal.SIGKILL)
    await works(code, "python3")


async def test_the_calls_of_one_tenant_do_not_hold_up_another(code: ContainedCode) -> None:
    await works(code, "python3", "pond")
    sleeps = "import time\ndef main():\n    time.sleep(1)\n    return {}"
    slow = [asyncio.create_task(code.run("mill", "python3", sleeps, {})) for _ in range(4)]
    await asyncio.sleep(0)
    await works(code, "python3", "pond")
    assert not all(each.done() for each in slow)
    assert [each.value for each in await asyncio.gather(*slow)] == [{}] * 4
