"""A desk that takes commands: the dispatch on a log in memory or on a real one, for one tenant."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from nats.aio.client import Client

from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.counters import JetStreamCounters
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.live import NatsLive
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.registry import JetStreamRegistry
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.waiting import NatsWaiting
from adapters.privacy.scram import verifier
from adapters.privacy.vault import AesVault
from domain.access.account import Account
from domain.access.actor import ANON
from domain.access.end_user import person_id
from domain.access.tenant import HOUSE, Tenant
from domain.aggregate import Aggregate, Event, new_id
from domain.log import Commit, Metadata, Outcome, Position, Subject
from domain.nouns import NOUNS
from domain.tools.plugin import Plugin
from domain.tools.question import Question
from domain.tools.tool_call import ToolCall
from domain.work.dead_letter import dead_letter_id
from handlers.access.quota import Quota
from handlers.cause import Cause
from handlers.commands.preparation import Ports
from handlers.dispatch import Delivery, Dispatch
from handlers.files import Files
from handlers.models.grants import Grants
from handlers.models.model_calls import ModelCalls
from handlers.ports.access import Registry
from handlers.ports.counters import Counters, Waiting
from handlers.ports.log import Blobs, EventStore, Live, Outcomes, Snapshots
from handlers.repository import Repository
from handlers.routes import ROUTES
from handlers.work.dead_letters import Failure, GiveUp
from tests.memory import (
    Memory,
    MemoryBlobs,
    MemoryCounters,
    MemoryEventStore,
    MemoryKeys,
    MemoryLive,
    MemoryOutcomes,
    MemoryRegistry,
    MemorySnapshots,
    MemoryWaiting,
)

EMBEDDING_MODELS = ["a-model", "another-model"]

VERIFIER = verifier("password-of-a-sql-login")


class Desk:
    def __init__(
        self,
        server: Memory | Client,
        tenant: str,
        *,
        outcomes: Outcomes | None = None,
        blobs: Blobs | None = None,
        rerank_model: str = "a-reranker",
    ) -> None:
        self.server = server
        self.tenant = tenant
        self.vault = AesVault(bytes(32))
        self.keys: MemoryKeys | JetStreamKeys
        self.store: EventStore
        self.live: Live
        self.registry: Registry
        self.counters: Counters
        self.waiting: Waiting
        snapshots: Snapshots
        if isinstance(server, Memory):
            self.keys = keys = MemoryKeys(server)
            self.store, snapshots = MemoryEventStore(server, keys), MemorySnapshots(server, keys)
            self.live = MemoryLive(server)
            self.counters, self.waiting = MemoryCounters(server), MemoryWaiting(server)
            self.outcomes = outcomes or MemoryOutcomes(server)
            self.blobs = blobs or MemoryBlobs(server)
            self.registry = MemoryRegistry(server, keys)
        else:
            self.keys = real_keys = JetStreamKeys(server, self.vault)
            self.store, snapshots = JetStreamEventStore(server, real_keys), JetStreamSnapshots(server, real_keys)
            self.live = NatsLive(server)
            self.counters, self.waiting = JetStreamCounters(server), NatsWaiting(server)
            self.outcomes = outcomes or JetStreamOutcomes(server, real_keys)
            self.blobs = blobs or JetStreamBlobs(server)
            self.registry = JetStreamRegistry(server, real_keys)
        self.files = Files(self.blobs, self.keys)
        self.repository = Repository(self.store, snapshots)
        self.keys.on_erased = self.repository.forget
        self.ports = Ports(
            self.repository,
            self.blobs,
            self.vault,
            self.keys,
            self.registry,
            EMBEDDING_MODELS,
            rerank_model,
        )
        self.quota = Quota(self.repository, self.blobs, self.counters, self.waiting, held_s=0.0)
        self.grants = Grants(self.repository, held_s=0.0)
        self.dispatch = Dispatch(self.ports, self.outcomes, self.quota, self.grants)
        self.calls = ModelCalls(self.repository, self.quota, self.grants)

    async def person(self, user: str, erasures: int = 0) -> str:
        """The id of the person of this name after this number of erasures of it."""
        return person_id(await self.keys.key_of_names(), self.tenant, user, erasures)

    @property
    def nc(self) -> Client:
        """The connection of a desk on a real log."""
        assert isinstance(self.server, Client)
        return self.server

    async def send(
        self, name: str, payload: Any = None, /, *, id: str | None = None, actor: str = ANON, **fields: Any
    ) -> Outcome:
        """Dispatch a command: its fields, or a payload as it stands. Those of the house go to it."""
        data = payload if isinstance(payload, bytes) else orjson.dumps(fields if payload is None else payload)
        id = id or new_id()
        tenant = HOUSE if name in ROUTES and ROUTES[name].house else self.tenant
        return await self.dispatch(Delivery(name, data, Metadata(id, tenant, id, actor=actor), datetime.now(UTC)))

    async def done(self, name: str, /, **fields: Any) -> str:
        """The id of what an accepted command is about."""
        outcome = await self.send(name, **fields)
        assert outcome.status == "accepted", outcome
        return outcome.ids[name.partition(".")[0]]

    async def fails(self, name: str, payload: Any = None, /, **fields: Any) -> tuple[str | None, str | None]:
        """The code and the field of a rejected command, whose outcome says why and is recorded."""
        outcome = await self.send(name, payload, **fields)
        assert outcome.status == "rejected", outcome
        assert outcome.message
        assert (outcome.position, outcome.version) == (None, None)
        assert await self.outcomes.get(outcome.metadata.tenant, outcome.command) == outcome
        return outcome.code, outcome.field

    async def commits(self, noun: str, id: str) -> list[Commit]:
        tenant = HOUSE if noun in (Account.TOPIC, Plugin.TOPIC, Tenant.TOPIC) else self.tenant
        return await self.store.load(Subject(tenant, noun, id))

    async def events(self, noun: str, id: str) -> list[Event]:
        return [event for commit in await self.commits(noun, id) for event in commit.events]

    async def types(self, noun: str, id: str) -> list[str]:
        return [event.TOPIC for event in await self.events(noun, id)]

    async def fold(self, noun: str, id: str) -> Aggregate:
        """The aggregate from all of its events, without a snapshot."""
        folded: Any = None
        for event in await self.events(noun, id):
            folded = event.mutate(folded)
        assert isinstance(folded, NOUNS[noun])
        return folded

    async def change(self, noun: str, id: str, decision: Any) -> None:
        """Do what a worker would do."""

        def decide(aggregate: Aggregate | None) -> Aggregate:
            assert aggregate is not None
            decision(aggregate)
            return aggregate

        await self.repository.change(NOUNS[noun], id, Metadata(new_id(), self.tenant, new_id()), decide)

    async def bury(self, consumer: str, message: str, **fields: Any) -> str:
        """The letter of a message that died."""
        died = {"reason": "KeyError: 'gate'", "where": "x.py:run:7", "stack": "0" * 16, "failures": 5, "deaths": 0}
        known: dict[str, Any] = {"consumer": consumer, "position": Position("COMMANDS", 7), "subject": "cmd.a.b.c"}
        death = Failure(**known | died | fields)
        await GiveUp(self.repository, self.live)(Metadata(message, self.tenant, message), death)
        return dead_letter_id(consumer, self.tenant, message)

    async def called(
        self,
        kind: str = "chat",
        *,
        request: dict[str, Any] | None = None,
        provider: str = "builtin",
        model: str = "extractive",
        cause: Cause | None = None,
    ) -> str:
        """The id of a recorded model call."""
        cause = cause or Cause(Metadata(new_id(), self.tenant, new_id()), "message", new_id(), 1)
        texts = {"system": "Be brief.", "user": "Why?"}
        messages = [{"role": role, "pieces": [{"text": text}]} for role, text in texts.items()]
        known = {"messages": messages, "max_tokens": 64, "parameters": {"temperature": 0.2}}
        request = known if request is None else request
        return await self.calls.request(cause, kind, kind=kind, provider=provider, model=model, request=request)

    async def held(self, app: str, conversation: str, message: str, *, seconds: float = 60.0) -> str:
        """The id of a call of a tool that waits for a person."""
        id, at = new_id(), datetime.now(UTC)
        of: dict[str, Any] = {"app": app, "conversation": conversation, "cause_noun": "message", "cause_id": message}
        names = dict.fromkeys(("toolset", "kind", "tool", "name", "digest", "server"), "mail")
        numbers: dict[str, Any] = {"round": 1, "position": 0, "attempt": 1, "destructive": True, "idempotent": False}
        call = ToolCall.begin(ToolCall.Requested, id, at, arguments="{}", model_call=new_id(), **of, **names, **numbers)
        call.hold(at, why="approval", seconds=seconds)
        cause = Metadata(new_id(), self.tenant, new_id())
        await self.store.append(Subject(self.tenant, call.TOPIC, id), call.pending(), cause, 0)
        return id

    async def asking(self, app: str, conversation: str, message: str) -> str:
        """The id of a call of a tool whose server asks for a size."""
        id = await self.held(app, conversation, message)
        size = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
        question = Question(name="size", message="How large?", form=size)

        def ask(call: Any) -> None:
            at = datetime.now(UTC)
            call.release(at)
            call.begin_again(at, attempt=2)
            call.ask(at, questions=[question], state="state", session=False, seconds=60.0)

        await self.change("tool_call", id, ask)
        return id

    async def answered(self, conversation: str, message: str) -> None:
        await self.change(
            "conversation",
            conversation,
            lambda talk: talk.answer(
                datetime.now(UTC),
                message=message,
                answer="At six.",
                citations=[],
                usage={"prompt_tokens": 1, "completion_tokens": 1, "estimated": True},
                cut={"segments": 0, "messages": 0},
                model_call=new_id(),
                duration_ms=1.0,
            ),
        )


def files_of(nc: Client) -> Files:
    """The files of documents, as a process of its own has them."""
    return Files(JetStreamBlobs(nc), JetStreamKeys(nc, AesVault(bytes(32))))


class ForgetfulOutcomes:
    """Outcomes of a process that dies before it can put the first."""

    class Died(Exception):
        pass

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self.died = False

    async def get(self, tenant: str, command: str) -> Outcome | None:
        return await self._outcomes.get(tenant, command)

    async def put(self, outcome: Outcome) -> None:
        if not self.died:
            self.died = True
            raise self.Died
        await self._outcomes.put(outcome)
