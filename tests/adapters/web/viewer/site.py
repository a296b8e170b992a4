"""The viewer over HTTP, on real servers whose log holds what the tests put there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from html import unescape
from itertools import count
from pathlib import Path
from typing import Any, cast

import httpx2
import orjson
import uvicorn

from adapters.jetstream.client import Client
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.registry import JetStreamRegistry
from adapters.jetstream.store import JetStreamEventStore
from adapters.postgres import tables
from adapters.postgres.projector import Projector
from adapters.postgres.reader import POSTGRES, login
from adapters.privacy import passwords
from adapters.web.connections import BoundedProtocol
from adapters.web.viewer.access import Access
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.server import create_app
from domain.access.register import Register
from domain.access.tenant import HOUSE
from domain.aggregate import Aggregate, Event, new_id
from domain.chat.app import App, ModelSettings, features, settings
from domain.chat.conversation import Conversation, Truncation, Usage
from domain.chat.file import File, file_id
from domain.knowledge.retrieval import Candidate, Retrieval
from domain.log import EVENTS, OUTCOMES, Metadata, Position, Subject
from domain.models.model_call import ModelCall, TokenUsage
from domain.models.replay import Replay
from domain.tools.tool_call import ToolCall
from domain.workflows.run import Run
from domain.workflows.workflow import Workflow
from ops.roles import commands
from ops.settings import Settings
from ops.wiring import Wiring
from tests.projections import runs

TOKEN = "the token of the tests"
PASSWORD = "seven grey geese"
NOW = datetime.now(UTC).replace(microsecond=0)


class Site:
    """A site whose log is recorded at `at`, which goes on a second with every event."""

    def __init__(self, wiring: Wiring, url: str) -> None:
        self.wiring = wiring
        self.url = url
        self.tenant = wiring.settings.tenant
        self.client = httpx2.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {TOKEN}", "Origin": url}, timeout=30, follow_redirects=True
        )
        self.browsers: list[httpx2.AsyncClient] = []
        self.store = JetStreamEventStore(wiring.nc, wiring.keys)
        self._ends: dict[str, int] = {}
        self._ticks = count(1)
        self.at = NOW - timedelta(hours=2)

    @property
    def now(self) -> datetime:
        return self.at + timedelta(seconds=next(self._ticks))

    async def record(
        self, aggregate: Aggregate, correlation: str, actor: str = "ada", person: str | None = None
    ) -> int:
        """Commit what is pending; gives its sequence."""
        events = [cast(Event, event) for event in aggregate.collect_events()]
        metadata = Metadata(new_id(), self.tenant, correlation, correlation, actor, person=person)
        subject = Subject(self.tenant, aggregate.TOPIC, aggregate.id)
        position = await self.store.append(subject, events, metadata, self._ends.get(str(subject), 0))
        self._ends[str(subject)] = position.sequence
        return position.sequence

    async def app(self, name: str, *prompts: str, model: str = "gpt-4o-mini") -> App:
        app = App.begin(App.Created, new_id(), self.now, name=name, description="")
        for prompt in prompts:
            app.configure(
                self.now,
                model=ModelSettings(provider="openai", name=model, max_tokens=512, context_window=8192, parameters={}),
                prompt=prompt,
                variables=[],
                datasets=[],
                retrieval=settings({"mode": "hybrid", "top_k": 4, "score_threshold": None}),
                features=features({}),
            )
        await self.record(app, new_id())
        return app

    async def conversation(self, app: App, user: str = "bo", name: str = "Of gates") -> Conversation:
        talk = Conversation.begin(Conversation.Started, new_id(), self.now, app=app.id, user=user, name=name)
        await self.record(talk, new_id())
        return talk

    async def answer(
        self,
        app: App,
        talk: Conversation,
        query: str,
        answer: str | None = "Four metres.",
        *,
        configuration: int = 1,
        segments: tuple[str, ...] = (),
        model: str = "gpt-4o-mini",
        provider: str = "openai",
        server: str = "api.openai.com:443",
        parameters: dict[str, Any] | None = None,
        fails: tuple[str, str] | None = None,
        lost: bool = False,
        tokens: tuple[int, int] = (1200, 300),
        took_ms: float = 900.0,
        earlier: Sequence[dict[str, Any]] = (),
        tool_calls: list[dict[str, Any]] | None = None,
        picture: bytes = b"",
    ) -> tuple[str, str, str]:
        """A question, with a picture if there is one, and what became of it; gives the trace, the message and the call.
        Without an answer it is open."""
        trace = message = new_id()
        at, files = self.now, []
        if picture:
            stored: Any = {"digest": await self.wiring.files.put(self.tenant, None, "file", picture)}
            stored |= {"media_type": "image/png", "size": len(picture), "url": None}
            id = file_id(message, 0)
            files = [File(id=id, type="image", transfer_method="local_file", name="lock.png", **stored)]
        talk.ask(
            at,
            message=message,
            app=app.id,
            configuration=configuration,
            query=query,
            inputs={},
            user=talk.user,
            files=files or None,
        )
        await self.record(talk, trace)
        talk.answering(self.now, message=message)
        await self.record(talk, trace)
        if segments:
            await self.record(self._search(message, query, segments), trace)
        prompt, call = f"Be number {configuration}.", new_id()
        instructed = {"from": "instructions", "app": app.id, "configuration": configuration, "text": prompt}
        given = {"from": "segment", "document": "the-document", "dataset": "the-dataset"}
        system = [instructed]
        for rank, segment in enumerate(segments, 1):
            system += [{"text": "\n"}, {**given, "segment": segment, "rank": rank, "text": segment}]
        question = {"from": "query", "message_id": message, "quotes": f"question/{message}"}
        asked = [{"role": "system", "pieces": system}, *earlier, {"role": "user", "pieces": [question]}]
        made = ModelCall.begin(
            ModelCall.Requested,
            call,
            self.now,
            kind="chat",
            provider=provider,
            model=model,
            server=server,
            cause_noun="message",
            cause_id=message,
            attempt=1,
            request={"messages": asked, "max_tokens": 512, "parameters": parameters or {}},
        )
        await self.record(made, trace)
        if fails:
            made.fail(self.now, code=fails[0], reason=fails[1], response="", duration_ms=took_ms)
            talk.fail(self.now, message=message, code=fails[0], reason=fails[1], answer="")
        elif lost:
            made.fail(self.now, code="lost", reason="The worker died.", response="", duration_ms=None)
        elif answer is not None:
            self._answer(made, answer, tokens, took_ms, tool_calls)
            usage = Usage(prompt_tokens=tokens[0], completion_tokens=tokens[1], estimated=False)
            talk.answer(
                self.now,
                message=message,
                answer=answer,
                citations=[],
                usage=usage,
                cut=Truncation(segments=0, messages=0),
                model_call=call,
                duration_ms=took_ms,
            )
        if made.pending_events:
            await self.record(made, trace)
        if talk.pending_events:
            await self.record(talk, trace)
        return trace, message, call

    async def tool(
        self,
        trace: str,
        message: str,
        app: App,
        talk: Conversation,
        *,
        held: bool = False,
        ended: bool = True,
        picture: bytes = b"",
        **fields: Any,
    ) -> ToolCall:
        """A call of a tool: it waits for a person, is under way, or has ended with a result, and perhaps a picture."""
        of: dict[str, Any] = {
            "toolset": "harbour",
            "kind": "openapi",
            "tool": "weather",
            "name": "weather",
            "digest": "d" * 64,
            "arguments": '{"city": "Paris"}',
            "cause_noun": "message",
            "cause_id": message,
            "conversation": talk.id,
            "app": app.id,
            "model_call": new_id(),
            "round": 1,
            "position": 0,
            "attempt": 1,
            "destructive": True,
            "idempotent": False,
            "server": "api.example.com:443",
        }
        call = ToolCall.begin(ToolCall.Requested, new_id(), self.now, **of | fields)
        if held:
            call.hold(self.now, why="approval", seconds=3 * 86400.0)
        await self.record(call, trace)
        if ended and not held:
            parts: list[dict[str, Any]] = []
            if picture:
                digest = await self.wiring.files.put(self.tenant, None, "file", picture)
                parts = [{"type": "image", "digest": digest, "media_type": "image/png", "name": "map.png", "size": 9}]
            parts += [
                {"type": "json", "value": {"rain": True}},
                {"type": "link", "url": "https://example.com/rain", "title": "The rain"},
            ]
            call.complete(self.now, text="It rains.", parts=parts, duration_ms=42.0)
            await self.record(call, trace)
        return call

    def _answer(
        self,
        call: ModelCall,
        answer: str,
        tokens: tuple[int, int],
        took_ms: float,
        tool_calls: list[dict[str, Any]] | None = None,
    ) -> None:
        call.complete(
            self.now,
            response=answer,
            reasoning="<i>Let me see.</i>",
            response_id="response-1",
            response_model=call.model,
            finish_reason="stop",
            usage=TokenUsage(
                prompt_tokens=tokens[0],
                completion_tokens=tokens[1],
                estimated=False,
                cached_tokens=None,
                cache_write_tokens=None,
                reasoning_tokens=None,
                raw={},
            ),
            first_token_ms=took_ms / 4,
            duration_ms=took_ms,
            tool_calls=tool_calls,
            state={"signature": "c2ln"} if tool_calls else None,
        )

    def _search(self, message: str, query: str, segments: tuple[str, ...]) -> Retrieval:
        hits = [
            Candidate(
                segment=segment,
                dataset="the-dataset",
                document="the-document",
                position=rank,
                page=None,
                heading=None,
                score=1 / rank,
                semantic_rank=rank,
                full_text_rank=None,
                fusion_rank=rank,
                rerank_score=None,
                rerank_rank=None,
                rank=rank,
                dropped=None,
                first=rank,
                last=rank,
            )
            for rank, segment in enumerate(segments, 1)
        ]
        return Retrieval.begin(
            Retrieval.Made,
            new_id(),
            self.now,
            query=query,
            datasets=["the-dataset"],
            retrieval=settings({"mode": "hybrid", "top_k": 4, "score_threshold": None}),
            cause_noun="message",
            cause_id=message,
            attempt=1,
            hits=hits,
            duration_ms=12.0,
        )

    async def flow(self, name: str, words: str) -> tuple[App, Run]:
        """An app with a published graph, and a run of it that waits for a person."""
        app = App.begin(App.Created, new_id(), self.now, name=name, description="", mode="workflow")
        await self.record(app, new_id())
        nodes = [
            {"id": id, "data": {"type": type, "title": words}} for id, type in (("start", "start"), ("ask", "code"))
        ]
        document = {"kind": "app", "app": {"mode": "workflow"}, "workflow": {"graph": {"nodes": nodes, "edges": []}}}
        digest = await self.wiring.files.put(self.tenant, None, "value", orjson.dumps(document))
        workflow = Workflow.begin(Workflow.Begun, app.id, self.now)
        workflow.save(self.now, replaces=None, document=digest, graph=digest, file=None, secrets={})
        workflow.publish(self.now, graph=digest, name=words, comment=words)
        await self.record(workflow, new_id())
        of = runs.BEGUN | {"app": app.id, "graph": digest, "version": 1, "user": words}
        run = Run.begin(Run.Started, new_id(), self.now, **of | {"inputs": {"place": runs.text(words)}})
        run.take(self.now, by="first")
        form, asked = runs.form("ask", self.now + timedelta(days=9)), runs.step(self.now, "ask", "running")
        run.step(self.now, steps=[asked], values=[{"inputs": {"place": runs.text(words)}}], forms=[form], paused=True)
        await self.record(run, new_id())
        return app, run

    async def reranked(self, trace: str, message: str, scores: dict[str, float]) -> str:
        """A reranker's call for a message; gives its id."""
        call = ModelCall.begin(
            ModelCall.Requested,
            new_id(),
            self.now,
            kind="rerank",
            provider="builtin",
            model="lexical-2",
            cause_noun="message",
            cause_id=message,
            request={"query": "How high?", "segments": list(scores)},
        )
        await self.record(call, trace)
        self._answer(call, str(list(scores.values())), (40, 0), 9.0)
        await self.record(call, trace)
        return call.id

    async def replayed(self, replay: str, answer: str, took_ms: float = 400.0) -> str:
        """Do what a worker would do about a replay that was asked for; gives the call."""
        [commit] = await self.store.load(Subject(self.tenant, Replay.TOPIC, replay))
        asked = commit.events[0]
        assert isinstance(asked, Replay.Requested)
        found = cast(Replay, asked.mutate(None))
        self._ends[str(Subject(self.tenant, Replay.TOPIC, replay))] = commit.position.sequence
        call = ModelCall.begin(
            ModelCall.Requested,
            new_id(),
            self.now,
            kind="chat",
            provider=asked.provider,
            model=asked.model,
            server="api.openai.com:443",
            cause_noun="replay",
            cause_id=replay,
            attempt=1,
            request={"messages": [], "max_tokens": asked.max_tokens, "parameters": asked.parameters},
        )
        await self.record(call, replay)
        self._answer(call, answer, (1200, 90), took_ms)
        await self.record(call, replay)
        found.complete(self.now, model_call=call.id)
        await self.record(found, replay)
        return call.id

    async def command(self, name: str, payload: dict[str, Any], tenant: str = HOUSE) -> dict[str, Any]:
        """Send a command as the operator; gives the outcome, which is accepted."""
        outcome = await Client(self.wiring.nc, tenant).send(name, payload)
        assert outcome["status"] == "accepted", outcome
        return outcome

    async def account(self, email: str, name: str = "Ada", password: str = PASSWORD) -> str:
        """The id of a new account."""
        payload = {"email": email, "name": name, "password": await passwords.hash(password)}
        return str((await self.command("account.create", payload))["ids"]["account"])

    async def sign_in(self, email: str, password: str = PASSWORD, **headers: str) -> httpx2.AsyncClient:
        """A browser in which a person has signed in."""
        client = self.browser(**headers)
        answer = await client.post("/login", data={"email": email, "password": password})
        assert (answer.status_code, "set-cookie" in answer.headers) == (303, True), answer.text[:2000]
        return client

    def browser(self, **headers: str) -> httpx2.AsyncClient:
        """A browser in which no person has signed in."""
        named = {"Origin": self.url, "Accept": "text/html", **headers}
        self.browsers.append(httpx2.AsyncClient(base_url=self.url, headers=named, timeout=30))
        return self.browsers[-1]

    async def register(self) -> Register:
        """The accounts, tenants and keys, as the log has them now."""
        registry = JetStreamRegistry(self.wiring.nc, self.wiring.keys)
        return await registry.now()

    async def settled(self) -> None:
        """Wait until the tables hold all of the log."""
        for stream in (EVENTS, OUTCOMES):
            last = (await self.wiring.nc.jetstream().stream_info(stream)).state.last_seq
            await tables.wait_for(self.wiring.settings.postgres_url, Position(stream, last))

    async def get(self, path: str, status: int = 200, **query: Any) -> str:
        """A page, and that it is one that no browser would take for more than it is."""
        answer = await self.client.get(path, params=query or None, headers={"Accept": "text/html"})
        assert answer.status_code == status, answer.text[:2000]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert " style=" not in answer.text
        assert "<script>" not in answer.text
        return answer.text

    async def json(self, path: str, status: int = 200, **query: Any) -> Any:
        answer = await self.client.get(f"{path}.json", params=query)
        assert answer.status_code == status, answer.text[:2000]
        return answer.json()

    async def post(self, path: str, status: int = 200, /, **form: Any) -> httpx2.Response:
        """A form that was sent, and where it led to."""
        answer = await self.client.post(path, data=form, headers={"Accept": "text/html"})
        assert answer.status_code == status, answer.text[:2000]
        return answer


def text_of(page: str) -> str:
    """The words of a page, without its marks."""
    import re

    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


@asynccontextmanager
async def serving(
    home: Path, nats_url: str, postgres_url: str, *, audit_reads: bool = False, logs: Path | None = None
) -> AsyncIterator[Site]:
    """A viewer with a projector and a worker that takes commands, in this process."""
    settings = Settings.load(home=home, nats_url=nats_url, postgres_url=postgres_url)
    await tables.set_up(postgres_url)
    async with Wiring(settings, "site") as wiring:
        await commands.begin(wiring)
        await wiring.consumers.start()
        backend = Backend(
            wiring.nc, await login(postgres_url, settings.vault().derive(POSTGRES)), settings.tenant, wiring.keys
        )
        access = Access.of("127.0.0.1", TOKEN, "", settings.vault().derive("viewer cookies"))
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(backend, access, audit_reads=audit_reads, logs=logs),
                http=BoundedProtocol,
                log_config=None,
                lifespan="on",
            )
        )
        site = Site(wiring, f"http://127.0.0.1:{listening.getsockname()[1]}")
        work = [
            asyncio.create_task(Projector(postgres_url, JetStreamLog(wiring.nc, wiring.keys), wiring.files).run()),
            asyncio.create_task(server.serve(sockets=[listening])),
            asyncio.create_task(backend.reports.run()),
        ]
        try:
            async with asyncio.timeout(20):
                while not server.started:
                    await asyncio.sleep(0.01)
            yield site
        finally:
            for client in (site.client, *site.browsers):
                await client.aclose()
            server.should_exit = True
            await work[1]
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            listening.close()
