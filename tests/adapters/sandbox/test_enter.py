"""A contained server: it listens on its port, and reaches nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE

import pytest

from adapters.sandbox import landlock
from adapters.sandbox.child import DEVICES, Limits, entrance, environment, visible

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the filter of system calls is Linux's")

SERVER = """
import json, socket, sys

def tried(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "done"

port, other, elsewhere = map(int, sys.argv[1:])
server = socket.create_server(("127.0.0.1", port))
found = {
    "connects": tried(lambda: socket.create_connection(("127.0.0.1", elsewhere))),
    "connects while it sends": tried(lambda: socket.socket().sendto(b"x", 0x20000000, ("127.0.0.1", elsewhere))),
    "sends a datagram": tried(lambda: socket.socket(type=socket.SOCK_DGRAM)),
    "opens a socket of this machine": tried(lambda: socket.socket(socket.AF_UNIX)),
    "listens elsewhere": tried(lambda: socket.create_server(("127.0.0.1", other))),
    "reads": tried(lambda: open("/etc/passwd")),
}
print("ready", flush=True)
connection, _ = server.accept()
connection.sendall(json.dumps(found).encode())
"""


async def test_a_server_listens_on_its_port_and_reaches_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        ports = [free(), free(), elsewhere.getsockname()[1]]
        entering = entrance(
            Limits(),
            user=None,
            counted=False,
            parent=os.getpid(),
            readable=[*visible(()), *DEVICES],
            listens=ports[0],
        )
        program = [sys.executable, "-c", SERVER, *map(str, ports)]
        process = await asyncio.create_subprocess_exec(*entering, *program, stdout=PIPE, env=environment())
        assert process.stdout
        assert await process.stdout.readline() == b"ready\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
        found = json.loads(await reader.read())
        writer.close()
        await process.wait()
    expected = dict.fromkeys(found, "PermissionError")
    if landlock.version() < 4:
        expected["listens elsewhere"] = "done"
    if not landlock.version():
        expected["reads"] = "done"
    assert found == expected


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
