"""The contract of DeadLetters, on a real server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from adapters.jetstream.direct import DirectReader
from adapters.jetstream.size import largest, size_of
from adapters.jetstream.streams import COMMANDS, DEAD, LARGEST
from adapters.jetstream.workers.dead_letters import WITHHELD, JetStreamDeadLetters
from domain.aggregate import new_id
from domain.log import Position
from handlers.ports.log import DeadLetters, TooLarge, Unavailable
from handlers.work.dead_letters import Failure
from ops.servers.embedded import EmbeddedNats

SUBJECT = "cmd.acme.anon.app.create"
HEADERS = {"Nats-Msg-Id": "first", "Headrace-Door": "Jürgen", "traceparent": "00-ab"}


def death(sequence: int = 7) -> Failure:
    return Failure("commands", Position(COMMANDS, sequence), SUBJECT, "KeyError:\n 'x'", "x.py:run:7", "ab", 5, 0)


@pytest.fixture
def letters(nc: Client) -> JetStreamDeadLetters:
    return JetStreamDeadLetters(nc)


async def kept(letters: JetStreamDeadLetters, id: str) -> str:
    """The letter of a command of this id."""
    letter = new_id()
    await letters.keep(letter, id, HEADERS, b"body", death())
    return letter


async def again(nc: Client) -> tuple[bytes, dict[str, str]]:
    """The last command, and its headers."""
    found = await DirectReader(nc, timeout_s=5).last(COMMANDS, SUBJECT)
    assert found
    return found.data, dict(found.headers or {})


async def test_it_is_kept_as_it_came_with_the_reason(letters: JetStreamDeadLetters) -> None:
    letter = await kept(letters, "the-command")
    found = await letters.get("commands", letter)
    assert found
    headers = found.headers or {}
    assert (found.subject, found.data) == (f"dead.commands.{letter}", b"body")
    assert (headers["Headrace-Id"], headers["Headrace-Door"], headers["traceparent"]) == (
        "the-command",
        "Jürgen",
        "00-ab",
    )
    assert (headers["Headrace-Letter-Subject"], headers["Headrace-Letter-Sequence"]) == (SUBJECT, "7")
    assert (headers["Headrace-Letter-Reason"], headers["Headrace-Letter-Failures"]) == ("KeyError: 'x'", "5")
    assert await letters.get("ingest", letter) is None


async def test_keeping_it_twice_is_keeping_it_once(nc: Client, letters: JetStreamDeadLetters) -> None:
    letter = await kept(letters, "the-command")
    before = (await nc.jetstream().stream_info(DEAD)).state.messages
    await letters.keep(letter, "the-command", HEADERS, b"body", death())
    assert (await nc.jetstream().stream_info(DEAD)).state.messages == before
    await letters.keep(letter, "the-command", HEADERS, b"body", death(sequence=9))
    assert (await nc.jetstream().stream_info(DEAD)).state.messages == before + 1


async def test_the_largest_commit_is_kept_whole_with_the_longest_reason(
    nc: Client, letters: JetStreamDeadLetters
) -> None:
    letter, headers = new_id(), {"Nats-Msg-Id": "first", "Headrace-Actor": "ada"}
    body = b"x" * (largest(nc) - size_of(b"", headers))
    await letters.keep(letter, "the-commit", headers, body, replace(death(), reason="水" * 1000))
    assert (found := await letters.get("commands", letter))
    assert found.data == body


async def test_what_does_not_fit_is_kept_without_its_body(nc: Client, letters: JetStreamDeadLetters) -> None:
    letter = new_id()
    await letters.keep(letter, "the-command", HEADERS, b"x" * (nc.max_payload - 100), death())
    assert (found := await letters.get("commands", letter))
    assert (found.data, WITHHELD in (found.headers or {})) == (b"", True)
    before = (await nc.jetstream().stream_info(COMMANDS)).state.last_seq
    await letters.send_again("commands", letter)
    assert (await nc.jetstream().stream_info(COMMANDS)).state.last_seq == before


async def test_a_command_that_its_queue_does_not_take_is_no_outage(nc: Client, letters: JetStreamDeadLetters) -> None:
    letter = new_id()
    await letters.keep(letter, "the-command", {}, b"x" * (LARGEST - 50), death())
    with pytest.raises(TooLarge):
        await letters.send_again("commands", letter)


async def test_a_command_is_sent_again_with_the_id_that_it_had(nc: Client, letters: JetStreamDeadLetters) -> None:
    letter = await kept(letters, "the-command")
    port: DeadLetters = letters
    await port.send_again("commands", letter)
    body, headers = await again(nc)
    assert body == b"body"
    ours = {name: value for name, value in headers.items() if not name.startswith("Nats-")}
    assert ours == {"Headrace-Id": "the-command", "Headrace-Door": "Jürgen", "traceparent": "00-ab"}
    assert "Nats-Msg-Id" not in headers, "NATS would drop the command of any sender with the same"


async def test_what_is_gone_is_not_sent_again(nc: Client, letters: JetStreamDeadLetters) -> None:
    before = (await nc.jetstream().stream_info(COMMANDS)).state.last_seq
    await letters.send_again("commands", new_id())
    assert (await nc.jetstream().stream_info(COMMANDS)).state.last_seq == before


async def test_all_of_a_letter_is_removed_up_to_a_time(letters: JetStreamDeadLetters) -> None:
    """A message that was given up again since then stays."""
    letter, other = await kept(letters, "the-command"), await kept(letters, "the-command")
    await letters.keep(letter, "the-command", HEADERS, b"body", death(sequence=9))
    await letters.remove("commands", letter, datetime.now(UTC) - timedelta(minutes=1))
    assert await letters.get("commands", letter)
    for _ in range(2):
        await letters.remove("commands", letter, datetime.now(UTC) + timedelta(minutes=1))
        assert await letters.get("commands", letter) is None
    assert await letters.get("commands", other)


async def test_a_stream_that_was_never_made_is_unavailable(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server:
        nc = await nats.connect(server.url)
        with pytest.raises(Unavailable):
            await JetStreamDeadLetters(nc).keep(new_id(), "the-command", {}, b"", death())
        await nc.close()
