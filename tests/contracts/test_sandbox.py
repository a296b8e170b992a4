"""Behaviour of every sandbox: hostile programs reach nothing, and end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

import adapters
from adapters.sandbox.child import Child, Limits, Sandbox
from adapters.sandbox.choice import candidates, tried

LIMITS = Limits(memory=512 * 2**20, cpu_s=4)

PATIENCE_S = 30.0

HOSTILE = {
    "reads the environment of the process that started it": """
for pid in (argv[1], os.getppid(), 1):
    attempt(lambda: open(f"/proc/{pid}/environ", "rb").read())
    attempt(lambda: os.listdir(f"/proc/{pid}/fd"))
""",
    "has a variable of the process that started it": """
attempt(lambda: os.environ["HEADRACE_SECRET_KEY"])
attempt(lambda: os.environ["HOME"])
""",
    "reads files of the home and of the machine": """
attempt(lambda: open(argv[2]).read())
attempt(lambda: os.listdir(os.path.dirname(argv[2])))
attempt(lambda: open("/etc/shadow").read())
attempt(lambda: open("/etc/passwd").read())
""",
    "reads the folder that this code is in": """
attempt(lambda: open(os.path.dirname(os.path.dirname(argv[5])) + "/pyproject.toml").read())
""",
    "changes files": """
attempt(lambda: open(argv[5], "a"))
attempt(lambda: open(argv[2], "w"))
attempt(lambda: os.truncate(argv[2], 0))
attempt(lambda: os.rename(argv[2], argv[2] + "x"))
attempt(lambda: os.link(argv[2], argv[2] + "y"))
attempt(lambda: os.unlink(argv[2]))
attempt(lambda: os.chmod(argv[2], 0o777))
attempt(lambda: os.chown(argv[2], 1, 1))
attempt(lambda: os.utime(argv[2]))
attempt(lambda: os.setxattr(argv[2], "user.x", b"x"))
""",
    "connects to this machine": """
for family, address in ((socket.AF_INET, ("127.0.0.1", int(argv[3]))), (socket.AF_UNIX, "\\0" + argv[4])):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        attempt(lambda: socket.socket(family, kind).connect(address))
""",
    "opens a socket past the library": """
call(41 if x86 else 198, 2, 1, 0)
call(41 if x86 else 198, 16, 3, 0)
""",
    "queues system calls past the filter": """
call(425, 8, ctypes.create_string_buffer(256))
""",
    "forks without end": """
attempt(os.fork)
attempt(lambda: __import__("subprocess").run([sys.executable, "-c", ""]))
attempt(lambda: os.posix_spawn(sys.executable, [sys.executable], {}))
""",
    "starts threads without end": """
import threading, time
count = 0
try:
    while count < 2000:
        threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
        count += 1
except RuntimeError:
    os._exit(0)
attempt(lambda: count)
""",
    "allocates memory at once": """
attempt(lambda: len(bytearray(10**10)))
""",
    "allocates memory in pieces": """
def fill():
    pieces = []
    for _ in range(64):
        pieces.append(b"x" * 2**24)
attempt(fill)
""",
    "hides memory in files of the kernel": """
def fill():
    file = os.memfd_create("x")
    for _ in range(64):
        os.write(file, bytes(2**24))
attempt(fill)
call(29 if x86 else 194, 0, 2**30, 0o1600)
""",
    "fills the disk": """
for folder in ("/tmp", "/var/tmp", "/dev/shm", "/dev", "/", os.getcwd(), os.path.dirname(argv[2])):
    attempt(lambda: open(folder + "/x", "w").write("x" * 2**20))
    attempt(lambda: os.mkdir(folder + "/y"))
""",
    "signals other processes": """
for pid in (int(argv[1]), os.getppid(), -1, -int(argv[1])):
    attempt(lambda: os.kill(pid, signal.SIGCONT))
call(234 if x86 else 131, int(argv[1]), int(argv[1]), signal.SIGCONT)
attempt(lambda: signal.pidfd_send_signal(os.pidfd_open(int(argv[1])), signal.SIGCONT))
""",
    "reads the memory of other processes": """
call(101 if x86 else 117, 16, int(argv[1]), 0, 0)
call(310 if x86 else 270, int(argv[1]), None, 0, None, 0, 0)
attempt(lambda: open(f"/proc/{argv[1]}/mem", "rb"))
""",
    "changes the limits of other processes": """
attempt(lambda: resource.prlimit(int(argv[1]), resource.RLIMIT_CORE, (0, 0)))
attempt(lambda: os.sched_setaffinity(int(argv[1]), {0}))
attempt(lambda: os.setpriority(os.PRIO_PROCESS, int(argv[1]), 19))
""",
    "raises its own limits": """
for name in ("AS", "CPU", "FSIZE", "NOFILE", "CORE"):
    number = getattr(resource, f"RLIMIT_{name}")
    most = resource.getrlimit(number)[1]
    attempt(lambda: resource.setrlimit(number, (most + 1, most + 1)))
""",
    "has unlimited resources": """
for name in ("AS", "CPU", "FSIZE", "NOFILE", "CORE"):
    if resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] == resource.RLIM_INFINITY:
        attempt(lambda: name)
""",
    "regains privileges": """
attempt(lambda: os.setgroups([0]))
call(272 if x86 else 97, 0x10000000)
call(272 if x86 else 97, 0x20000)
call(161 if x86 else 51, b"/")
call(165 if x86 else 40, b"none", b"/", b"tmpfs", 0, None)
call(56 if x86 else 220, 0x10000000 | 17, None, None, None, None)
call(321 if x86 else 280, 0, None, 0)
call(250 if x86 else 219, 0, -3, 1)
if ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) != 1:
    attempt(lambda: "new privileges")
""",
    "uses descriptors that were left open": """
for number in range(3, 64):
    attempt(lambda: os.fstat(number))
""",
    "leaves its process group": """
attempt(os.setsid)
attempt(lambda: os.setpgid(0, 0))
""",
}
"""Programs; `attempt` and `call` report what they reach."""

PREAMBLE = """
import ctypes, os, platform, resource, signal, socket, sys
argv, x86 = sys.argv, platform.machine() == "x86_64"
def attempt(what):
    try:
        found = what()
    except (OSError, ValueError, KeyError, MemoryError, RuntimeError):
        return
    os.write(1, f"REACHED {found!r}".encode()[:200])
def call(number, *arguments):
    if ctypes.CDLL(None).syscall(number, *arguments) >= 0:
        os.write(1, f"REACHED call {number}".encode())
os.write(1, b"BEGUN ")
"""


@pytest.fixture(scope="module", params=candidates("auto"), ids=lambda each: f"{each.kind}, own_user={each.own_user}")
async def each(request: pytest.FixtureRequest) -> Sandbox:
    sandbox: Sandbox = request.param
    try:
        open = await tried(sandbox)
    except (OSError, TimeoutError) as error:
        pytest.skip(f"It does not work here: {error}")
    if open:
        pytest.skip(f"Its children can {', '.join(open)} here.")
    return sandbox


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Arguments of a program: the id of this process, a secret file, a port and an abstract address that listen, and a
    file of this code."""
    monkeypatch.setenv("HEADRACE_SECRET_KEY", "topsecret")
    (tmp_path / "secret.key").write_text("topsecret")
    (tmp_path / "secret.key").chmod(0o600)
    name = f"headrace-{uuid4()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen()
        os.set_inheritable(server.fileno(), True)
        yield [str(os.getpid()), str(tmp_path / "secret.key"), str(server.getsockname()[1]), name, adapters.__file__]


def program(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-c", PREAMBLE + code, *arguments]


async def run(sandbox: Sandbox, code: str, *arguments: str, limits: Limits = LIMITS) -> tuple[bytes, int, bytes]:
    """The output of a program, at most 1 MiB, its status, and its last words."""
    child = await sandbox.start(program(code, *arguments), limits)
    try:
        async with asyncio.timeout(PATIENCE_S):
            said = await read(child, 2**20)
            if len(said) < 2**20:
                while child.alive:
                    await asyncio.sleep(0.01)
    finally:
        ending = await child.end()
        assert child.stdout.at_eof()
    return said, *ending


async def read(child: Child, most: int) -> bytes:
    said = b""
    while len(said) < most and (part := await child.stdout.read(most - len(said))):
        said += part
    return said


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_program_reaches_nothing(each: Sandbox, given: list[str], name: str) -> None:
    said, status, errors = await run(each, HOSTILE[name], *given)
    assert said == b"BEGUN ", (said, status, errors)
    assert b"topsecret" not in errors
    assert not errors, errors


async def test_a_loop_ends_by_itself(each: Sandbox) -> None:
    _, status, _ = await run(each, "while True: pass", limits=LIMITS._replace(cpu_s=2))
    assert status in (-signal.SIGXCPU, -signal.SIGKILL)


async def test_a_loop_that_ignores_the_soft_limit_ends_by_itself(each: Sandbox) -> None:
    code = "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    _, status, _ = await run(each, code, limits=LIMITS._replace(cpu_s=2))
    assert status == -signal.SIGKILL


async def test_endless_output_stops_with_its_reader(each: Sandbox) -> None:
    said, status, _ = await run(each, "while True: os.write(1, bytes(2**16))")
    assert (len(said), status) == (2**20, -signal.SIGKILL)


async def test_endless_errors_are_bounded(each: Sandbox) -> None:
    code = "count = 0\nfor _ in range(64):\n    count += os.write(2, bytes(2**16)) if count < 2**20 else 1 / 0"
    _, status, errors = await run(each, code)
    assert status != 0
    assert len(errors) <= 4096


async def test_one_that_ignores_every_signal_is_ended(each: Sandbox) -> None:
    code = """
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
os.write(1, b"READY")
while True: signal.pause()
"""
    child = await each.start(program(code), LIMITS)
    assert await child.stdout.readexactly(len(b"BEGUN READY")) == b"BEGUN READY"
    began = time.monotonic()
    assert (await child.end()).status == -signal.SIGKILL
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("then", ["time.sleep(100)", "os._exit(0)"], ids=["stays", "ends first"])
async def test_no_process_is_left(each: Sandbox, then: str) -> None:
    mark = uuid4().hex
    # It ends once its child has begun: with it, the child ends too.
    begun = "read, write = os.pipe()\nif os.fork() == 0:\n    os.write(1, b'CHILD')\n    os.write(write, b'1')\n"
    code = f"import time\n{begun}    time.sleep(100)\nos.read(read, 1)\n{then}"
    child = await each.start(program(code, mark), LIMITS._replace(forks=True))
    assert await child.stdout.readexactly(len(b"BEGUN CHILD")) == b"BEGUN CHILD"
    if then != "os._exit(0)":
        assert marked(mark)
    await child.end()
    await gone(mark)


async def test_no_process_outlives_the_one_that_started_it(each: Sandbox) -> None:
    mark = uuid4().hex
    code = f"""
import asyncio, sys
from adapters.sandbox.bubblewrap import Bubblewrap
from adapters.sandbox.child import Limits
from adapters.sandbox.restricted import Restricted
async def main():
    sandbox = {type(each).__name__}(own_user={each.own_user})
    child = await sandbox.start([sys.executable, "-c", "import time; print('READY', flush=True); time.sleep(100)",
        "{mark}"], Limits())
    await child.stdout.readline()
    print("READY", flush=True)
    await asyncio.sleep(100)
asyncio.run(main())
"""
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout
    async with asyncio.timeout(PATIENCE_S):
        assert await worker.stdout.readline() == b"READY\n"
    assert marked(mark)
    worker.kill()
    await worker.wait()
    await gone(mark)


async def test_a_folder_of_its_own_is_there_when_asked_for_and_then_gone(each: Sandbox) -> None:
    code = """
folder = os.environ["TMPDIR"]
open(folder + "/x", "wb").write(bytes(2**19))
os.write(1, folder.encode())
attempt(lambda: open(folder + "/y", "wb").write(bytes(2**23)))
"""
    said, status, errors = await run(each, code, limits=LIMITS._replace(scratch=2**20))
    assert (status, errors) == (0, b"")
    folder = Path(said.decode().removeprefix("BEGUN "))
    assert folder.is_absolute()
    assert "REACHED" not in folder.name
    assert not (folder / "x").exists()


async def test_a_path_that_was_given_can_be_read_and_no_other(each: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "file").write_text("words")
    (tmp_path / "other").write_text("words")
    code = "for path in argv[1:]: attempt(lambda: open(path).read())\nattempt(lambda: open(argv[1], 'a'))"
    child = await each.start(
        program(code, str(tmp_path / "given" / "file"), str(tmp_path / "other")), LIMITS, [tmp_path / "given"]
    )
    assert await read(child, 1000) == b"BEGUN REACHED 'words'"
    await child.end()


def marked(mark: str) -> list[int]:
    """Processes that live and have this argument."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if mark in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
    return found


async def gone(mark: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while marked(mark):
            await asyncio.sleep(0.01)
