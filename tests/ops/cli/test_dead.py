"""`headrace dead`, on real servers: a worker that cannot handle anything, and one that can."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.streams import set_up
from adapters.jetstream.workers import consumer
from adapters.jetstream.workers.consumers import Consumers
from adapters.postgres import tables
from adapters.postgres.projector import Projector
from domain.aggregate import new_id
from domain.log import EVENTS, Position
from domain.work.dead_letter import dead_letter_id
from handlers.routes import ROUTES
from handlers.work.work import TRIES
from ops.cli.dead import SECRET as WITHHELD
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from ops.upkeep.doctor import examine
from tests.adapters.jetstream.workers.test_commands import Sick
from tests.conftest import fresh_database
from tests.handlers.desk import Desk, files_of
from tests.ops.cli.test_cli import Cli, Result

SECRET = "sk-never-to-be-seen"


@dataclass
class Ward:
    """A log in which two tenants have a dead letter each, and a provider's command one more."""

    nc: Client
    postgres_url: str
    sick: Sick
    letters: list[str]

    async def caught_up(self) -> None:
        last = (await self.nc.jetstream().stream_info(EVENTS)).state.last_seq
        await tables.wait_for(self.postgres_url, Position(EVENTS, last))

    def cure(self) -> None:
        self.sick.dispatch.times = 0


@pytest.fixture
async def ward(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ward]:
    monkeypatch.setattr(consumer, "FIRST_DELAY_S", 0.005)
    home = Path(mkdtemp(prefix="headrace-ward-"))
    async with EmbeddedNats(home) as server, fresh_database(postgres) as url:
        monkeypatch.setenv("HEADRACE_NATS_URL", server.url)
        monkeypatch.setenv("HEADRACE_POSTGRES_URL", url)
        nc = await nats.connect(server.url)
        await set_up(nc.jetstream())
        await tables.set_up(url)
        projector = asyncio.create_task(Projector(url, JetStreamLog(nc), files_of(nc)).run())
        async with working(Sick(Desk(nc, "acme"), new_id()), server.url) as sick:
            ward = Ward(nc, url, sick, await buried(sick))
            await ward.caught_up()
            yield ward
        projector.cancel()
        await asyncio.gather(projector, return_exceptions=True)
        await nc.close()
    shutil.rmtree(home)


@asynccontextmanager
async def working(sick: Sick, url: str) -> AsyncIterator[Sick]:
    consumers = Consumers(url)
    sick.subscribe(consumers)
    with capture_logs():
        await consumers.start()
        yield sick
        await consumers.stop()


async def buried(sick: Sick) -> list[str]:
    """The letters of three commands."""
    ids = [sick.id, new_id(), new_id()]
    places = ["acme.anon.app.create", "other.anon.app.create", "acme.anon.provider.register"]
    payloads = [b'{"name": "Guide"}', b'{"name": "Theirs"}', SECRET.encode()]
    letters = []
    for id, place, payload in zip(ids, places, payloads, strict=True):
        await sick.desk.nc.jetstream().publish(f"cmd.{place}", payload, headers={"Headrace-Id": id})
        tenant = place.partition(".")[0]
        await sick.until(partial(decided, sick.desk, tenant, id))
        letters.append(dead_letter_id("commands", tenant, id))
    return letters


async def decided(desk: Desk, tenant: str, id: str) -> bool:
    return await desk.outcomes.get(tenant, id) is not None


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    return Cli(capsys)


async def listed(headrace: Cli, *options: str) -> dict[str, dict[str, Any]]:
    result = await headrace("dead", "list", "--json", *options)
    assert result.code == 0, result
    return {letter["id"]: letter for letter in result.lines}


def test_every_command_with_a_secret_is_withheld() -> None:
    secret = {name for name, route in ROUTES.items() if "writeOnly" in str(route.command.model_json_schema())}
    assert {"provider.register", "toolset.register"} <= secret
    assert {name for name in secret if not name.startswith(WITHHELD)} == set()


async def test_letters_are_listed_and_shown(headrace: Cli, ward: Ward) -> None:
    guide, theirs, provider = ward.letters
    found = await listed(headrace)
    assert set(found) == set(ward.letters)
    assert found[guide]["reason"] == "ZeroDivisionError: odd"
    assert (found[guide]["status"], found[guide]["message_id"]) == ("buried", ward.sick.id)
    assert set(await listed(headrace, "--tenant", "other")) == {theirs}
    assert await listed(headrace, "--status", "discarded") == {}
    human = await headrace("dead", "list")
    assert guide in human.out
    assert "cmd.acme.anon.app.create" in human.out

    [letter] = (await headrace("dead", "show", guide, "--json")).lines
    assert (letter["payload"], letter["headers"]["Headrace-Id"]) == ('{"name": "Guide"}', ward.sick.id)
    assert letter["failures"] == TRIES
    withheld = await headrace("dead", "show", provider)
    assert withheld.code == 0
    assert "withheld" in withheld.out
    assert SECRET not in withheld.out

    [finding] = [finding async for finding in examine(Settings.load()) if finding.what == "stream DEAD"]
    assert not finding.good
    assert "headrace dead list" in finding.advice


async def test_letters_are_tried_again(headrace: Cli, ward: Ward) -> None:
    guide, theirs, provider = ward.letters
    ward.cure()
    result = await headrace("dead", "retry", guide, "--json")
    assert (result.code, result.lines[0]["status"]) == (0, "accepted"), result
    await ward.sick.until(partial(accepted, ward))
    await ward.caught_up()
    assert set(await listed(headrace)) == {theirs, provider}
    assert (await listed(headrace, "--status", "retried"))[guide]["retries"] == 1
    again = await headrace("dead", "retry", guide)
    assert again.code == 1
    assert "already retried" in again.out

    result = await headrace("dead", "retry", "--all", "--json")
    assert {outcome["status"] for outcome in result.lines} == {"accepted"}
    await ward.caught_up()
    assert await listed(headrace) == {}
    await ward.sick.until_dead_letters_are(0)
    assert "No dead letters are waiting" in (await headrace("dead", "retry", "--all")).out


async def accepted(ward: Ward) -> bool:
    outcome = await ward.sick.desk.outcomes.get("acme", ward.sick.id)
    return outcome is not None and outcome.status == "accepted"


async def test_letters_are_discarded(headrace: Cli, ward: Ward) -> None:
    ward.cure()
    result = await headrace("dead", "discard", ward.letters[0], ward.letters[2], "--json")
    assert [outcome["name"] for outcome in result.lines] == 2 * ["dead_letter.discard"]
    await ward.caught_up()
    assert set(await listed(headrace)) == {ward.letters[1]}
    await ward.sick.until_dead_letters_are(1)
    [letter] = (await headrace("dead", "show", ward.letters[0], "--json")).lines
    assert (letter["status"], letter["payload"]) == ("discarded", None)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["show", "unknown"], 1, "There is no dead letter unknown"),
        (["retry", "unknown"], 1, "There is no dead letter unknown"),
        (["retry"], 2, "either ids or --all"),
        (["discard", "one", "--all"], 2, "either ids or --all"),
        (["list", "--status", "odd"], 2, "is not one of"),
    ],
)
async def test_a_wrong_call_says_why(
    headrace: Cli,
    postgres: EmbeddedPostgres,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    async with fresh_database(postgres) as url:
        monkeypatch.setenv("HEADRACE_POSTGRES_URL", url)
        await tables.set_up(url)
        result: Result = await headrace("dead", *arguments)
    assert result.code == code
    assert sentence in result.err


async def test_no_tables_is_said_so(headrace: Cli, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fresh_database(postgres) as url:
        monkeypatch.setenv("HEADRACE_POSTGRES_URL", url)
        result = await headrace("dead", "list")
    assert result.code == 1
    assert "PostgreSQL" in result.err


@pytest.mark.parametrize("name", ["list", "show", "retry", "discard"])
async def test_every_command_has_an_example_and_speaks_json(headrace: Cli, name: str) -> None:
    result = await headrace("dead", name, "--help")
    assert result.code == 0
    assert f"headrace dead {name}" in result.out
    assert "--json" in result.out
