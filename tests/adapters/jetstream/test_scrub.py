"""Where words of a person are kept unsealed in the streams, and how they go."""

from __future__ import annotations

import orjson
import pytest
from nats.aio.client import Client

from adapters.jetstream import scrub
from adapters.jetstream.scrub import JetStreamScrub
from adapters.jetstream.streams import COMMANDS, DEAD
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from domain.aggregate import new_id
from domain.log import Position
from handlers.access.erase import Erase
from handlers.ports.log import Unavailable
from handlers.work.dead_letters import Failure
from tests.handlers.access.test_erase import asked
from tests.handlers.desk import Desk

NOWHERE = Position("EVENTS", 0)


@pytest.fixture
def desk(nc: Client, tenant: str) -> Desk:
    return Desk(nc, tenant)


@pytest.fixture
async def app(desk: Desk) -> str:
    app = await desk.done("app.create", name="assistant")
    await desk.done("app.configure", app=app)
    return app


async def none(tenant: str, person: str, erased: Position) -> list[str]:
    return []


async def buried(desk: Desk, name: str, /, **fields: object) -> str:
    letter = new_id()
    death = Failure("commands", Position(COMMANDS, 7), f"cmd.{desk.tenant}.anon.{name}", "KeyError", "", "", 5, 0)
    await JetStreamDeadLetters(desk.nc).keep(letter, new_id(), {}, orjson.dumps(fields), death)
    return letter


async def test_dead_letters_with_words_of_the_person_go(desk: Desk, app: str) -> None:
    conversation, message = await asked(desk, app, "ada")
    dataset = await desk.done("dataset.create", name="Rules")
    document = await desk.done("document.upload", dataset=dataset, name="a.txt", text="Six.", user="ada")
    shared = await desk.done("document.upload", dataset=dataset, name="a.txt", text="Six.")
    hers = [
        await buried(desk, "document.upload", dataset=dataset, name="b.txt", text="Seven.", user="ada"),
        await buried(desk, "document.rename", document=document, name="ada's"),
        await buried(desk, "message.send", app=app, query="Why?", user="ada"),
        await buried(desk, "message.rate", conversation=conversation, message=message, rating="like", content="Good"),
    ]
    others = [
        await buried(desk, "message.send", app=app, query="Why?", user="eve"),
        await buried(desk, "message.send", app=app, query="Why?"),
        await buried(desk, "app.create", name="ada"),
        await buried(desk, "document.rename", document=shared, name="ours"),
        await buried(desk, "message.rate", conversation="?", content="Good"),
    ]
    await desk.done("end_user.erase", user="ada")
    commits = await desk.commits("end_user", await desk.person("ada"))
    places = JetStreamScrub(desk.nc, desk.repository, desk.keys, ours=True)
    for _ in range(2):
        await Erase(desk.keys, desk.repository, none, places.dead_letters)(commits[0])
    kept = JetStreamDeadLetters(desk.nc)
    assert [await kept.get("commands", letter) for letter in hers] == [None] * 4
    assert None not in [await kept.get("commands", letter) for letter in others]
    await desk.nc.jetstream().purge_stream(DEAD)


async def test_commands_are_freed_when_none_is_under_way(
    desk: Desk, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub, "PATIENCE_S", 0.2)
    js = nc.jetstream()
    await js.publish(f"cmd.{desk.tenant}.anon.app.create", b"{}")
    await JetStreamScrub(nc, desk.repository, desk.keys, ours=False).commands(desk.tenant, "p", NOWHERE)
    with pytest.raises(Unavailable, match="always in progress"):
        await JetStreamScrub(nc, desk.repository, desk.keys, ours=True).commands(desk.tenant, "p", NOWHERE)
    last = (await js.stream_info(COMMANDS)).state.last_seq
    await js.delete_msg(COMMANDS, last)
    await JetStreamScrub(nc, desk.repository, desk.keys, ours=True).commands(desk.tenant, "p", NOWHERE)
    state = (await js.stream_info(COMMANDS)).state
    assert (state.messages, state.first_seq) == (0, last + 1)
