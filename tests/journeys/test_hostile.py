"""Commands that someone made to do harm: nothing crashes or hangs, each has its outcome, none reaches another tenant.

`HOSTILE=10000` says how many; seeds are fixed, so that the same number is the same commands.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

from adapters.jetstream.client import Client
from adapters.jetstream.streams import LARGEST
from adapters.jetstream.workers.commands import NO_TENANT
from domain.access.tenant import TENANT
from domain.aggregate import new_id
from domain.log import EVENTS, OUTCOMES, commit_id
from handlers.routes import ROUTES
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.conftest import fresh_database
from tests.journeys.stack import Stack

log = logging.getLogger(__name__)

HOSTILE = int(os.environ.get("HOSTILE", "1500"))
BATCH, AT_ONCE = 50, 100
VICTIM, ATTACKERS = "victim", ("mallory", "trudy")
COMMANDS_OF = "SELECT * FROM headrace.commands WHERE tenant_id = %(tenant)s ORDER BY id"
SECRET = "the-victims-own-words"
LIMIT = 8 * 2**20 - 16_384
"""Bytes of a payload that the bus still takes with its headers; the queue of commands says that it is too large."""

TOO_LARGE, TOO_FULL = 10054, (10077, 10167)

Headers = dict[bytes, bytes]


@dataclass(frozen=True)
class Attack:
    """A message as it goes over the wire."""

    subject: bytes
    headers: Headers
    payload: bytes

    @property
    def id(self) -> str | None:
        """The id that its outcome must have; None when it has none of its own."""
        named = self.headers.get(b"Headrace-Id") or self.headers.get(b"Nats-Msg-Id", b"")
        given = named.decode("utf-8", "replace").strip()
        return commit_id(given, "COMMANDS") if given and given.lower() not in IDS else given.lower() or None

    @property
    def tenant(self) -> str:
        tenant = self.subject.split(b".")[1].decode("utf-8", "replace")
        return tenant if TENANT.fullmatch(tenant) else NO_TENANT


IDS: set[str] = set()
"""Every right id that was made, so that the same one can be sent again."""


def made_id() -> str:
    IDS.add(id := new_id())
    return id


def attacks(victims: dict[str, str]) -> st.SearchStrategy[Attack]:
    """Whatever one could think of; `victims` are the ids of another tenant's things, by noun."""
    names = st.sampled_from(sorted(ROUTES))
    odd = st.sampled_from(
        ["\0", "\u202eevil", "ﬁ", "é", "e\u0301", "\ufeff", "\ud83d\ude00", "\uffff", "\x7f\x1b[2J", "a\u0300" * 300]
    )
    text = st.text(max_size=30) | odd | st.just(SECRET)
    numbers = st.integers(-(2**70), 2**70) | st.floats() | st.just(10**400)
    leaf = st.none() | st.booleans() | numbers | text | st.sampled_from(list(victims.values()))
    anything = st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
    )
    fields = names.flatmap(
        lambda name: st.dictionaries(st.sampled_from([*ROUTES[name].command.model_fields, "extra"]), anything)
    )
    stolen = names.map(lambda name: {field: victims.get(field, "x") for field in ROUTES[name].command.model_fields})
    objects = (fields | stolen | anything).map(lambda value: json.dumps(value).encode())
    raw_surrogates = st.just(b'{"name": "\xed\xa0\x80\xed\xb0\x80"}') | st.just(rb'{"name": "\ud800"}')
    twice = st.just(b'{"name": "a", "name": "b"}') | st.just(b'{"name": NaN}') | st.just(b'{"name": -Infinity}')
    deep = st.integers(1, 5000).map(lambda depth: b'{"name":' * depth + b"1" + b"}" * depth)
    cut = st.tuples(objects, st.integers(1, 30)).map(lambda it: it[0][: -it[1]])
    huge = st.sampled_from([2**20, 2**20 + 1, LIMIT]).map(lambda size: b'{"name": "' + b"x" * (size - 12) + b'"}')
    usual = objects | raw_surrogates | twice | deep | cut | st.binary(max_size=200)
    payloads = st.integers(0, 99).flatmap(lambda dice: huge if dice == 0 else usual)

    odd_tokens = st.sampled_from([b"\x7f", b"*", b"\xff\xfe", b"a\x01b", b"A", b"x" * 200, "ünï".encode(), b"\0", b"-"])
    attacker = st.sampled_from([tenant.encode() for tenant in ATTACKERS])
    tenants = attacker | odd_tokens
    verbs = names.map(str.encode) | odd_tokens | st.just(b"app.create.now") | st.just(b">")
    actors = st.sampled_from([b"anon", b"s_crm", b"a_1", b"k_1"]) | odd_tokens
    usual_subjects = st.tuples(attacker, st.sampled_from([b"anon", b"s_crm"]), names.map(str.encode))
    odd_subjects = st.tuples(tenants, actors, verbs) | st.tuples(tenants, verbs)
    subjects = (usual_subjects | usual_subjects | odd_subjects).map(lambda it: b"cmd." + b".".join(it))

    ids = st.builds(made_id) | st.builds(lambda: sorted(IDS)[-1] if IDS else made_id())
    strange_ids = st.sampled_from([b"1", b"x" * 300, b"\xff\xfe", b"../../etc", "ⅷ".encode(), b"*", b"00000000"])
    given_ids = ids.map(str.encode) | ids.map(lambda id: id.upper().encode()) | strange_ids
    values = st.sampled_from([b"", b"x" * 4000, b"\x1b[2J", b"\xff", b"a b", "é\u202e".encode()])
    known = st.sampled_from(
        [
            *(b"Headrace-Correlation", b"Headrace-Actor", b"Headrace-Door", b"Headrace-Origin", b"Headrace-Tenant"),
            b"traceparent",
        ]
    )
    headers = st.tuples(
        st.dictionaries(known, values, max_size=3),
        st.just({})
        | given_ids.map(lambda id: {b"Nats-Msg-Id": id})
        | given_ids.map(lambda id: {b"Headrace-Id": id})
        | st.tuples(given_ids, given_ids).map(lambda it: {b"Headrace-Id": it[0], b"Nats-Msg-Id": it[1]}),
    ).map(lambda it: it[0] | it[1])
    return st.builds(Attack, subjects, headers, payloads)


def generate(strategy: st.SearchStrategy[Attack], count: int) -> list[Attack]:
    found: list[Attack] = []
    for number in range((count + BATCH - 1) // BATCH):

        @seed(number)
        @settings(
            max_examples=BATCH,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def collect(attack: Attack) -> None:
            found.append(attack)

        collect()
    return found[:count]


class Wire:
    """Publishes bytes as they are, which the client would refuse to, and hears what the log says to each."""

    def __init__(self, connection: Connection) -> None:
        self._nc = connection
        self._inbox = connection.new_inbox()
        self.said: dict[int, dict[str, Any]] = {}
        self._heard = asyncio.Event()

    async def start(self) -> None:
        await self._nc.subscribe(f"{self._inbox}.*", cb=self._hear)

    async def _hear(self, message: Msg) -> None:
        self.said[int(message.subject.rpartition(".")[2])] = json.loads(
            message.data or b'{"error": {"err_code": "no stream"}}'
        )
        self._heard.set()

    async def publish(self, number: int, attack: Attack) -> None:
        head = b"NATS/1.0\r\n" + b"".join(b"%s: %s\r\n" % pair for pair in attack.headers.items()) + b"\r\n"
        reply, size = f"{self._inbox}.{number}".encode(), len(head) + len(attack.payload)
        line = b"HPUB %s %s %d %d\r\n" % (attack.subject, reply, len(head), size)
        await self._nc._send_command(line + head + attack.payload + b"\r\n")
        await self._nc._flush_pending()

    async def deliver(self, start: int, attacks: list[Attack]) -> None:
        """Publish them and wait for what the log says; those for which the queue was too full, again."""
        waiting = dict(enumerate(attacks, start))
        async with asyncio.timeout(60):
            while waiting:
                for number, attack in waiting.items():
                    await self.publish(number, attack)
                while not waiting.keys() <= self.said.keys():
                    self._heard.clear()
                    await self._heard.wait()
                waiting = {number: attack for number, attack in waiting.items() if self._too_full(number)}

    def _too_full(self, number: int) -> bool:
        if self.said[number].get("error", {}).get("err_code") in TOO_FULL:
            del self.said[number]
            return True
        return False


@pytest.fixture(scope="module")
async def stormed(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home: Path = tmp_path_factory.mktemp("stormed")
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url, tenant=VICTIM)
        async with Stack.running(settings, ("commands", "project")) as stack:
            yield stack


async def victims_of(stack: Stack) -> dict[str, str]:
    dataset = await stack.make("dataset.create", name=SECRET)
    app = await stack.make("app.create", name=SECRET)
    await stack.send("app.configure", app=app, datasets=[dataset], prompt=SECRET)
    document = await stack.make("document.upload", dataset=dataset, name=SECRET, text=SECRET)
    message = await stack.make("message.send", app=app, query=SECRET)
    await stack.send("provider.register", name="lab", base_url=f"https://{SECRET}.example.com")
    return {"dataset": dataset, "app": app, "document": document, "message": message, "conversation": message}


async def messages(stack: Stack, stream: str, keep: Callable[[str], bool]) -> list[Msg]:
    """All messages of a stream whose subject is one to keep."""
    found = []
    last = (await stack.client.stream.stream_info(stream)).state.last_seq
    subscription = await stack.client.stream.subscribe(">", stream=stream, ordered_consumer=True)
    async for message in subscription.messages:
        if keep(message.subject):
            found.append(message)
        if message.metadata.sequence.stream == last:
            break
    await subscription.unsubscribe()
    return found


async def test_hostile_commands_do_no_harm(stormed: Stack) -> None:
    workers = await pids(stormed)
    victims = await victims_of(stormed)
    before = await stormed.until(COMMANDS_OF, lambda rows: len(rows) == 6, tenant=VICTIM)
    first = (await stormed.client.stream.stream_info(OUTCOMES)).state.last_seq
    sent = generate(attacks(victims), HOSTILE)
    assert len(sent) == HOSTILE

    wire = Wire(stormed.client.connection)
    await wire.start()
    for start in range(0, HOSTILE, AT_ONCE):
        await wire.deliver(start, sent[start : start + AT_ONCE])
    stored = [attack for number, attack in enumerate(sent) if wire.said[number].keys() == {"stream", "seq"}]
    errors = Counter(said["error"]["err_code"] for said in wire.said.values() if "error" in said)
    assert errors == {TOO_LARGE: sum(len(attack.payload) > LARGEST for attack in sent)}

    async with asyncio.timeout(30 + HOSTILE / 50):
        while (await stormed.client.stream.stream_info("COMMANDS")).state.messages:
            await asyncio.sleep(0.1)
    assert await pids(stormed) == workers
    assert (await stormed.client.stream.stream_info("DEAD")).state.messages == 0

    outcomes = await messages(stormed, OUTCOMES, lambda subject: not subject.startswith(f"out.{VICTIM}."))
    kept = Counter(message.subject for message in outcomes)
    named = {f"out.{attack.tenant}.{attack.id}" for attack in stored if attack.id}
    unnamed = sum(attack.id is None for attack in stored)
    assert set(kept.values()) == {1}
    assert named <= kept.keys()
    assert len(kept) == len(named) + unnamed
    assert (await stormed.client.stream.stream_info(OUTCOMES)).state.last_seq == first + len(kept)

    rows = await stormed.until(
        "SELECT tenant_id, id FROM headrace.commands WHERE tenant_id <> %(tenant)s",
        lambda rows: len(rows) >= len(kept),
        tenant=VICTIM,
    )
    assert sorted(f"out.{row['tenant_id']}.{row['id']}" for row in rows) == sorted(kept)
    await assert_the_victim_is_untouched(stormed, victims, before)
    await assert_no_other_tenant_saw_the_victims_data(stormed, victims)
    await assert_an_id_of_the_victim_is_free_for_others(stormed, victims["app"])
    log.info("%d hostile commands, %d stored, %d outcomes", len(sent), len(stored), len(kept))


async def pids(stack: Stack) -> list[Any]:
    connection = stack.client.connection
    cards = [await connection.request(f"worker.{role}", timeout=5) for role in ("commands", "project")]
    return [orjson.loads(card.data)["pid"] for card in cards]


async def assert_the_victim_is_untouched(stack: Stack, victims: dict[str, str], before: list[dict[str, Any]]) -> None:
    assert await stack.sql(COMMANDS_OF, tenant=VICTIM) == before
    outcome = await stack.send("app.configure", app=victims["app"], prompt=SECRET)
    assert outcome["version"] == 3, "the victim's own second configuration"


async def assert_an_id_of_the_victim_is_free_for_others(stack: Stack, id: str) -> None:
    """An id is a tenant's own."""
    async with await Client.connect(stack.nats_url, ATTACKERS[0]) as attacker:
        outcome = await attacker.send("app.create", {"name": "of my own"}, id, wait=30)
    victims = await stack.client.outcome(id)
    assert victims is not None
    assert (outcome["status"], outcome["command"]) == ("accepted", victims["command"])
    assert outcome["sequence"] > victims["sequence"]


async def assert_no_other_tenant_saw_the_victims_data(stack: Stack, victims: dict[str, str]) -> None:
    """No accepted command and no event of another tenant names what belongs to the victim."""
    others = await messages(stack, EVENTS, lambda subject: not subject.startswith(f"evt.{VICTIM}."))
    assert all(message.subject.split(".")[1] in ATTACKERS for message in others)
    for message in others:
        for event in orjson.loads(message.data):
            state = event["state"]
            assert not set(victims.values()) & {state.get(noun) for noun in victims}, message.subject
            assert message.subject.rpartition(".")[2] not in victims.values()
