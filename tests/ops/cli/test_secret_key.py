"""Another master secret: on one machine, on a cluster, broken off, and met by a worker that lacks it."""

from __future__ import annotations

import asyncio
import os
import random
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from adapters.archive.archiver import Archiver, keys_of_people
from adapters.archive.store import Archive
from adapters.jetstream.keys import JetStreamKeys, Key, entry
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import set_up
from adapters.privacy.vault import AesVault, UnknownKey, key_id
from domain.access.sql_login import SqlLogin
from domain.aggregate import new_id
from domain.chat.app import App
from domain.knowledge.dataset import Dataset
from domain.log import EVENTS, Metadata, Subject
from domain.models.provider import Credential, Provider
from domain.tools.toolset import Secret, Toolset
from domain.workflows.workflow import Workflow
from handlers.ports.log import Unavailable
from ops.servers.embedded import EmbeddedNats, disk_key
from ops.settings import Settings
from ops.supervisor import claimed
from ops.upkeep.rotate import needed, rewrap
from tests.ops.cli.test_cli import Cli

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)
SECRET = b"the first secret"
OTHER = b"the second secret"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in list(os.environ):
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@asynccontextmanager
async def server(home: Path) -> AsyncIterator[tuple[str, Client]]:
    async with EmbeddedNats(home) as running:
        client = await nats.connect(running.url)
        await set_up(client.jetstream())
        yield running.url, client
        await client.close()


TOOLSET = Subject("acme", "toolset", "api")
LOGIN = Subject("acme", "sql_login", "l")
APP = Subject("acme", "app", "chart")


def toolset(sealed: str) -> Toolset:
    return Toolset.begin(
        Toolset.Registered,
        "api",
        NOW,
        kind="openapi",
        description="",
        settings={},
        secret=Secret(sealed=sealed, hint=""),
        timeout_s=30.0,
    )


def sql_login(sealed: str) -> SqlLogin:
    return SqlLogin.begin(SqlLogin.Created, "l", NOW, name="bi", role="t_1", sealed_verifier=sealed)


def credential(sealed: str) -> Credential:
    return Credential(name="default", weight=1, sealed_key=sealed, hint="")


def lab(*sealed: str) -> Provider:
    credentials = [credential(each) for each in sealed]
    return Provider.begin(
        Provider.Registered, "lab", NOW, kind="openai", base_url="http://lab", credentials=credentials
    )


async def fill(nc: Client, vault: AesVault, count: int) -> list[str]:
    """People with a key, one with words in the log, a SQL login, and a provider; the ids of the people.

    The bucket has one key more: that of names.
    """
    keys = JetStreamKeys(nc, vault)
    people = [await keys.person("acme", f"user {number}") for number in range(count)]
    store = JetStreamEventStore(nc, keys)
    dataset = Dataset.begin(Dataset.Created, "d", NOW, name="words", description="")
    await store.append(
        Subject("acme", "dataset", "d"), dataset.pending(), Metadata(new_id(), "acme", new_id(), person=people[0]), 0
    )
    tools = toolset(vault.seal("acme", "s3cret"))
    await store.append(TOOLSET, tools.pending(), Metadata(new_id(), "acme", new_id()), 0)
    login = sql_login(vault.seal("acme", "verifier"))
    await store.append(LOGIN, login.pending(), Metadata(new_id(), "acme", new_id()), 0)
    app = App.begin(App.Created, "chart", NOW, name="Chart", description="", mode="workflow")
    await store.append(APP, app.pending(), Metadata(new_id(), "acme", new_id()), 0)
    chart = Workflow.begin(Workflow.Begun, "chart", NOW)
    sealed = {"KEY": vault.seal("acme", "k-71")}
    chart.save(NOW, replaces=None, document="d", graph="g", file=None, secrets=sealed)
    chart.publish(NOW, graph="g", name="", comment="")
    await store.append(Subject("acme", "workflow", "chart"), chart.pending(), Metadata(new_id(), "acme", new_id()), 0)
    provider = lab(vault.seal("acme", "sk-lab"))
    await store.append(Subject("acme", "provider", "lab"), provider.pending(), Metadata(new_id(), "acme", new_id()), 0)
    return people


async def all_open(nc: Client, vault: AesVault, people: list[str]) -> None:
    """Every person's key opens, and the words in the log are read."""
    keys = JetStreamKeys(nc, vault)
    for person in people:
        assert isinstance(await keys.of("acme", person), Key)
    messages = [each async for some in JetStreamLog(nc, keys).read(EVENTS, 0, follow=False) for each in some]
    assert len(messages) == 6
    assert "words" in str(messages[0])


async def forms(nc: Client) -> list[str]:
    """All wrapped keys that the bucket holds, of all people."""
    source = keys_of_people(nc)
    chunks = [some async for some in source.read(0, await source.last())]
    return [key for some in chunks for message in some if (key := entry(message.body).get("key"))]


async def test_one_machine_gets_a_new_secret_and_reads_all(headrace: Cli, home: Path) -> None:
    settings = Settings.load(home=home)
    async with server(home) as (_, client):
        people = await fill(client, settings.vault(), 20)
    with claimed(home):
        running = await headrace("rotate-key")
        assert (running.code, "already running" in running.err) == (1, True)
    assert len(settings.masters().read()) == 1
    before, disk = settings.vault(), disk_key(home)

    [done] = (await headrace("rotate-key", "--json")).lines
    vault = settings.vault()
    assert vault.ids == [vault.current, before.current]
    assert (done["made"], done["keys"], done["faults"]) == (True, 21, {})
    none: dict[str, list[str]] = {"providers": [], "sql_logins": []}
    assert done["secrets"] == [
        {"id": vault.current, "current": True, "people": 21, "archived": 0, **none, "toolsets": [], "variables": []},
        {
            "id": before.current,
            "current": False,
            "people": 0,
            "archived": 0,
            "providers": ["acme/lab/default"],
            "sql_logins": ["acme/l"],
            "toolsets": ["acme/api"],
            "variables": ["acme/chart/KEY"],
        },
    ]
    assert disk_key(home) == disk
    for name in ("secret.key", "jetstream.key"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600

    listed = await headrace("rotate-key", "--check")
    assert listed.code == 1
    earlier = f"{before.current} earlier: 0 keys of people, 1 providers, 1 SQL logins, 1 toolsets"
    assert f"{earlier}, 1 variables of workflows" in listed.out
    assert "headrace provider add-key lab default --tenant acme" in listed.out
    assert "headrace sql-login create NAME --tenant acme, then revoke l" in listed.out
    assert "headrace toolset register api … --secret-file - --tenant acme" in listed.out
    assert "headrace send workflow.save app=chart secrets.KEY@=- … --tenant acme" in listed.out
    async with server(home) as (_, client):
        await all_open(client, vault, people)
        assert all(vault.is_current(key) for key in await forms(client))
        assert len(await forms(client)) == 21
        with pytest.raises(UnknownKey, match=f"lacks key {vault.current}"):
            await JetStreamKeys(client, before).of("acme", people[0])
        sealed = vault.seal("acme", "sk-new")
        changed = lab()
        changed.pending()
        changed.add_credential(NOW, credential(sealed))
        last = (await client.jetstream().stream_info(EVENTS)).state.last_seq
        await JetStreamEventStore(client).append(
            Subject("acme", "provider", "lab"), changed.pending(), Metadata(new_id(), "acme", new_id()), last
        )
        login = sql_login("")
        login.pending()
        login.revoke(NOW)
        first = await JetStreamEventStore(client).load(LOGIN)
        await JetStreamEventStore(client).append(
            LOGIN, login.pending(), Metadata(new_id(), "acme", new_id()), first[-1].position.sequence
        )
        tools = toolset("")
        tools.pending()
        tools.remove(NOW)
        first = await JetStreamEventStore(client).load(TOOLSET)
        await JetStreamEventStore(client).append(
            TOOLSET, tools.pending(), Metadata(new_id(), "acme", new_id()), first[-1].position.sequence
        )
        app = App.begin(App.Created, "chart", NOW, name="Chart", description="", mode="workflow")
        app.pending()
        app.delete(NOW)
        first = await JetStreamEventStore(client).load(APP)
        await JetStreamEventStore(client).append(
            APP, app.pending(), Metadata(new_id(), "acme", new_id()), first[-1].position.sequence
        )
    assert (await headrace("rotate-key", "--check")).code == 0

    # Nothing needs the earlier secret any more, so its line may go; the server's files keep their key.
    (home / "secret.key").write_text((home / "secret.key").read_text().splitlines()[0])
    async with server(home) as (_, client):
        for person in people:
            assert isinstance(await JetStreamKeys(client, settings.vault()).of("acme", person), Key)


async def test_a_given_secret_is_taken_and_taken_once(headrace: Cli, home: Path, tmp_path: Path) -> None:
    async with server(home) as (_, client):
        await fill(client, Settings.load().vault(), 2)
    file = tmp_path / "new"
    file.write_text("short")
    refused = await headrace("rotate-key", "--new", str(file))
    assert (refused.code, "one line of 16 characters or more" in refused.err) == (1, True)
    assert "cannot be read" in (await headrace("rotate-key", "--new", str(tmp_path / "nowhere"))).err
    file.write_text(f"{OTHER.decode()}\n")
    for made, keys in ((True, 3), (False, 0)):
        [done] = (await headrace("rotate-key", "--new", str(file), "--json")).lines
        assert (done["made"], done["keys"]) == (made, keys)
        assert [each["current"] for each in done["secrets"]] == [True, False]
        assert done["secrets"][0]["id"] == key_id(OTHER)


@pytest.mark.long
async def test_a_kill_at_any_moment_loses_nothing(headrace: Cli, home: Path) -> None:
    settings, count = Settings.load(home=home), 300
    async with server(home) as (_, client):
        people = await fill(client, settings.vault(), count)
    kills = 0
    for attempt in range(40):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", "rotate-key", "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        wait = 120.0 if attempt > 12 else 0.6 + 0.15 * attempt + random.random() * 0.1
        try:
            async with asyncio.timeout(wait):
                out, error = await process.communicate()
                assert process.returncode == 0, (out + error).decode()
                break
        except TimeoutError:
            process.kill()
            await process.wait()
            kills += 1
    assert kills > 2
    masters = settings.masters().read()
    async with server(home) as (_, client):
        await all_open(client, settings.vault(), people)
        found = await forms(client)
        assert len(found) == count + 1
        assert all(settings.vault().is_current(key) for key in found)
    assert 2 <= len(masters) <= 2 + kills


async def test_an_interrupted_rotation_is_continued_under_the_same_secret(headrace: Cli, home: Path) -> None:
    settings = Settings.load(home=home)
    async with server(home) as (_, client):
        people = await fill(client, settings.vault(), 3)
    settings.masters().renew(OTHER.decode())
    async with server(home) as (_, client):
        # Killed after the first key was stored, and before its earlier form was removed.
        keys = JetStreamKeys(client, AesVault(*reversed(settings.masters().read())))
        first = (await forms(client))[1]
        secret = keys._vault.open("acme", first, "people")
        body = b'{"key":"%s"}' % settings.vault().seal("acme", secret, "people").encode()
        await client.jetstream().publish(f"$KV.keys.acme.{people[0]}", body)
        assert len(await forms(client)) == 5
    [done] = (await headrace("rotate-key", "--json")).lines
    assert (done["made"], done["keys"], len(done["secrets"])) == (False, 3, 2)
    async with server(home) as (_, client):
        await all_open(client, settings.vault(), people)
        assert len(await forms(client)) == 4


async def test_a_cluster_is_given_the_steps_and_the_last_one_is_done(
    headrace: Cli, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with server(home) as (url, client):
        people = await fill(client, AesVault(SECRET), 5)
        await Archiver(client, Archive.at(str(tmp_path / "archive")), segment_bytes=2**20).update()
        monkeypatch.setenv("HEADRACE_NATS_URL", url)
        monkeypatch.setenv("HEADRACE_SECRET_KEY", SECRET.decode())
        steps = await headrace("rotate-key")
        assert steps.code == 1
        assert [line[:2] for line in steps.err.splitlines() if line[1:2] == "."] == ["1.", "2.", "3.", "4.", "5."]

        # Step 2: workers know the next one, which seals nothing yet. Step 3: it is the current one.
        knows = AesVault(SECRET, OTHER)
        assert knows.is_current(knows.seal("acme", "x"))
        monkeypatch.setenv("HEADRACE_SECRET_KEY", OTHER.decode())
        monkeypatch.setenv("HEADRACE_FURTHER_SECRET_KEYS", SECRET.decode())
        monkeypatch.setenv("HEADRACE_ARCHIVE_URL", str(tmp_path / "archive"))
        [done] = (await headrace("rotate-key", "--json")).lines
        assert (done["made"], done["keys"]) == (False, 6)
        assert [(each["people"], each["archived"]) for each in done["secrets"]] == [(6, 0), (0, 6)]
        await all_open(client, knows, people)  # a worker of step 2
        with pytest.raises(Unavailable, match=f"lacks key {key_id(OTHER)}: restart it"):
            await all_open(client, AesVault(SECRET), people)
        await Archiver(client, Archive.at(str(tmp_path / "archive")), segment_bytes=2**20).update()
        found = await needed(client, AesVault(OTHER, SECRET), Archive.at(str(tmp_path / "archive")))
        assert (dict(found.people), dict(found.archived)) == ({key_id(OTHER): 6}, {key_id(OTHER): 6})


async def test_an_erased_person_stays_erased_and_an_unknown_key_stays(home: Path) -> None:
    async with server(home) as (_, client):
        first, both = AesVault(SECRET), AesVault(OTHER, SECRET)
        people = await fill(client, first, 3)
        await JetStreamKeys(client, first).erase("acme", people[1])
        done = await rewrap(client, AesVault(OTHER))
        assert (done.keys, set(done.faults)) == (0, {"_house/names", f"acme/{people[0]}", f"acme/{people[2]}"})
        assert f"lacks key {key_id(SECRET)}" in done.faults[f"acme/{people[0]}"]
        assert all(first.is_current(key) for key in await forms(client))
        assert (await rewrap(client, both)).keys == 3
        assert len(await forms(client)) == 3
        keys = JetStreamKeys(client, both)
        assert not isinstance(await keys.of("acme", people[1]), Key)
        assert isinstance(await keys.of("acme", people[2]), Key)


async def test_erasures_during_a_rotation_win(home: Path) -> None:
    async with server(home) as (_, client):
        first, both = AesVault(SECRET), AesVault(OTHER, SECRET)
        people = await fill(client, first, 60)
        keys = JetStreamKeys(client, both)
        done, *_ = await asyncio.gather(rewrap(client, both), *(keys.erase("acme", each) for each in people[1:]))
        assert done.faults == {}
        assert len(await forms(client)) == 2
        fresh = JetStreamKeys(client, both)
        assert [isinstance(await fresh.of("acme", each), Key) for each in people] == [True, *[False] * 59]
