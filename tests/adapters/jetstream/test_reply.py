"""Replies to requests, which could name any subject."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream.reply import respond
from domain.log import EVENTS
from ops.servers.embedded import EmbeddedNats

ROOT = Path(__file__).resolve().parents[3]

RUINOUS = [
    "evt.victim.app.x",
    "out.victim.x",
    "cmd.victim.anon.app.delete",
    "$JS.API.STREAM.DELETE.EVENTS",
    "$KV.keys.victim.x",
    "live.victim.c.m",
    "_INBOX",
    "_INBOXES.x",
    "x._INBOX.y",
    "_R_",
]


async def test_a_request_is_answered_at_an_inbox(nc: Client) -> None:
    async def answer(message: Msg) -> None:
        await respond(message, b"yes", {"X": "1"})

    served = await nc.subscribe("ask.one", cb=answer)
    reply = await nc.request("ask.one", b"", timeout=5)
    assert (reply.data, reply.headers) == (b"yes", {"X": "1"})
    await served.unsubscribe()


async def test_a_request_of_another_account_is_answered(nc: Client) -> None:
    """The server names an inbox of its own, which no client may name."""
    heard = await nc.subscribe("_R_.>")
    await respond(Msg(nc, "ask.one", "_R_.another.account", b"", None), b"yes")
    assert (await heard.next_msg(5)).data == b"yes"
    await heard.unsubscribe()


@pytest.mark.parametrize("reply", RUINOUS)
async def test_no_other_reply_subject_gets_an_answer(fresh: Client, reply: str) -> None:
    asked, heard = asyncio.Event(), []

    async def answer(message: Msg) -> None:
        await respond(message, b"{}")
        asked.set()

    async def note(message: Msg) -> None:
        heard.append(message.subject)

    await fresh.subscribe("ask.two", cb=answer)
    await fresh.subscribe(reply, cb=note)
    await fresh.publish("ask.two", b"", reply=reply)
    await asyncio.wait_for(asked.wait(), 5)
    await fresh.flush()
    assert heard == []
    assert (await fresh.jetstream().stream_info(EVENTS)).state.last_seq == 0


async def test_a_message_without_a_reply_and_a_connection_that_is_closed_are_no_error(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server:
        nc = await nats.connect(server.url)
        heard = await nc.subscribe("ask.three")
        await nc.publish("ask.three", b"")
        await respond(await heard.next_msg(5), b"{}")
        await nc.publish("ask.three", b"", reply="_INBOX.x")
        message = await heard.next_msg(5)
        await nc.close()
        await respond(message, b"{}")


def test_only_this_module_publishes_to_a_subject_that_a_message_names() -> None:
    """`message.respond(…)`, and `message.reply` in any call, as the reply of requests is where rights are borrowed.

    The callout answers the server itself, in an account in which no other user can ask.
    """
    found = []
    for folder in ("adapters", "ops"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                named = [it for it in ast.walk(node) if isinstance(it, ast.Attribute) and it.attr == "reply"]
                publishes = called in ("publish", "request") and any(named)
                if called == "respond" or publishes:
                    found.append(str(file.relative_to(ROOT)))
    assert found == ["adapters/jetstream/callout.py", "adapters/jetstream/reply.py"]
