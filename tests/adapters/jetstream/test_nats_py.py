"""The private names of nats-py that nats_py.py relies on; a newer version has to be checked against that file."""

from __future__ import annotations

import ast
import asyncio
import inspect
import socket
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream import nats_py
from ops.servers.embedded import EmbeddedNats

ROOT = Path(__file__).parents[3]


def test_the_version_is_the_one_that_was_checked() -> None:
    assert version("nats-py") == nats_py.CHECKED_VERSION
    assert f"\nnats-py=={nats_py.CHECKED_VERSION} " in (ROOT / "ops/constraints.txt").read_text()


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (nats_py._build_message, ["self", "sid", "subject", "reply", "data", "headers"]),
        (nats_py._process_msg, ["self", "sid", "subject", "reply", "data", "headers"]),
    ],
)
def test_private_methods_have_the_parameters_that_are_relied_on(function: object, parameters: list[str]) -> None:
    assert callable(function)
    assert list(inspect.signature(function).parameters) == parameters


def test_private_attributes_are_there() -> None:
    client = Client()
    assert client._server_info == {}
    assert client._subs == {}
    assert nats_py.connection_of(Msg(_client=client, subject="any")) is client


async def test_a_cancellation_that_comes_with_the_answer_is_heard(nc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archiver and the exporter are stopped so; before Python 3.12, `wait_for` swallows it."""

    async def answers_at_that_moment(client: Client, subject: str) -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "answer"

    monkeypatch.setattr(nats_py, "_request", answers_at_that_moment)
    asking = asyncio.create_task(nc.request("any"))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()


async def test_a_request_in_the_cleanup_of_a_cancelled_task_is_answered(nc: Client) -> None:
    async def leave() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            left.append((await nc.request("$JS.API.INFO")).data)

    left: list[bytes] = []
    leaving = asyncio.create_task(leave())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert len(left) == 1


async def test_subjects_that_are_not_text_reach_every_connection(nc: Client) -> None:
    found: list[str] = []

    async def note(message: Msg) -> None:
        found.append(message.subject)

    other = await nats.connect(nc.connected_url.geturl())
    for connection in (nc, other):
        await connection.subscribe("odd.>", cb=note)
        await connection.flush()
    await nc._send_command(b"PUB odd.\xff 1\r\nx\r\n")
    await nc.publish("odd.next", b"x")
    async with asyncio.timeout(5):
        while len(found) < 4:
            await asyncio.sleep(0.01)
    await other.close()
    assert sorted(found) == 2 * ["odd.next"] + 2 * ["odd.�"]


async def test_a_diverted_subscription_hands_over_raw_messages(nc: Client) -> None:
    taken: list[nats_py.Raw] = []
    diverted, usual = await nc.subscribe("raw.>"), await nc.subscribe("raw.>")
    nats_py.divert(diverted, taken.append)
    await nc.publish("raw.one", b"x", reply="raw.reply", headers={"Name": "value"})
    assert (await usual.next_msg(2)).data == b"x"
    assert [tuple(bytes(part) for part in parts) for parts in taken] == [
        (b"raw.one", b"raw.reply", b"x", b"NATS/1.0\r\nName: value\r\n\r\n")
    ]


def test_no_other_file_uses_private_names_of_nats_py() -> None:
    private = set().union(*(_private_names(path) for path in Path(nats.__path__[0]).rglob("*.py")))
    assert {"_build_message", "_client", "_nc", "_send_unsubscribe", "_server_info", "_sub", "_subs"} <= private
    for path in [*(ROOT / "adapters").rglob("*.py"), *(ROOT / "ops").rglob("*.py")]:
        if path.name != "nats_py.py":
            assert not _borrowed_names(ast.parse(path.read_text())) & private, path


def _private_names(path: Path) -> set[str]:
    """The private attributes and functions that a file of nats-py defines."""
    return {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _names(node)
        if name.startswith("_") and not name.startswith("__")
    }


def _names(node: ast.AST) -> list[str]:
    match node:
        case ast.Attribute(value=ast.Name("self"), attr=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.AnnAssign(target=ast.Name(name)):
            return [name]
        case _:
            return []


def _borrowed_names(tree: ast.Module) -> set[str]:
    """The names of attributes that a file reads from another object than its own `self` and `super()`."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "super()")
    }


@pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning")
async def test_websockets_connect_with_what_is_loaded_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = EmbeddedNats.configuration
    own = f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true }}'
    monkeypatch.setattr(EmbeddedNats, "configuration", lambda self: f"{configuration(self)}\n{own}")
    async with EmbeddedNats(tmp_path) as server:
        login = server.url.removeprefix("nats://").partition("@")[0]
        client = await nats_py.connect(f"ws://{login}@127.0.0.1:{port}")
        assert (await client.request("$JS.API.INFO")).data
        await client.close()
