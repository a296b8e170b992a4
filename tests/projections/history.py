"""Histories for the tests of read models: messages as the real aggregates make them, and tables to fold them into."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from typing import Any, cast

from domain.aggregate import Aggregate, Event, new_id
from domain.chat.app import App, ModelSettings, features, settings
from domain.chat.conversation import Citation, Conversation, FilterVerdict, Truncation, Usage
from domain.chat.file import File, file_id
from domain.chat.speech import Speech
from domain.chat.transcription import Transcription
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.knowledge.retrieval import Candidate
from domain.knowledge.segmentation import Segmentation
from domain.knowledge.segments import Segment, encode_segments
from domain.log import EVENTS, OUTCOMES, Commit, Metadata, Outcome, Position, Recorded, Subject, Verdict
from domain.models.model_call import TokenUsage
from domain.tools.tool_call import ToolCall
from projections.catalog import KNOWN, READ_MODELS
from projections.engine.fold import Fold
from projections.engine.read_model import ReadModel, Row
from projections.engine.rows import RowId, Set

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODEL = ModelSettings(provider="builtin", name="extractive", max_tokens=512, context_window=8192, parameters={})
RETRIEVAL = settings({"mode": "hybrid", "top_k": 4, "score_threshold": None})
USAGE = Usage(prompt_tokens=90, completion_tokens=12, estimated=False)
TOKENS = TokenUsage(**USAGE, cached_tokens=64, cache_write_tokens=None, reasoning_tokens=3, raw={"total_tokens": 102})

HIT: Candidate = {
    "segment": "segment-1",
    "dataset": "the-dataset",
    "document": "the-document",
    "position": 1,
    "page": None,
    "heading": None,
    "score": 0.5,
    "semantic_rank": 1,
    "full_text_rank": None,
    "fusion_rank": 1,
    "rerank_score": None,
    "rerank_rank": None,
    "rank": 1,
    "dropped": None,
    "first": 1,
    "last": 1,
}


class History:
    """A history: each step is recorded a second after the one before, by a clock that may be wrong by `skew`."""

    def __init__(self, tenant: str = "default", skew: Callable[[], timedelta] = timedelta) -> None:
        self.tenant = tenant
        self.person: str | None = None
        self.door: str | None = None
        self.correlation = "the-correlation"
        self.causation: str | None = None
        self.streams: dict[str, list[Recorded]] = {EVENTS: [], OUTCOMES: []}
        self.blobs: dict[tuple[str, str], bytes] = {}
        self._seconds = count(1)
        self._skew = skew

    @property
    def messages(self) -> list[Recorded]:
        return [message for stream in self.streams.values() for message in stream]

    @property
    def now(self) -> datetime:
        return NOON + timedelta(seconds=next(self._seconds)) + self._skew()

    def record(self, aggregate: Aggregate, tenant: str | None = None) -> datetime:
        """Commit what is pending; gives the time of its last event."""
        tenant, stream = tenant or self.tenant, self.streams[EVENTS]
        events = [cast(Event, event) for event in aggregate.collect_events()]
        metadata = Metadata(
            new_id(),
            tenant,
            self.correlation,
            causation=self.causation,
            actor="ada",
            traceparent="the-trace",
            person=self.person,
            door=self.door,
        )
        at = events[-1].timestamp
        position = Position(EVENTS, len(stream) + 1)
        stream.append(Commit(Subject(tenant, aggregate.TOPIC, aggregate.id), events, metadata, position, at))
        return at

    def decide(self, outcome: Outcome) -> None:
        stream = self.streams[OUTCOMES]
        subject = Subject(outcome.metadata.tenant, "command", outcome.command)
        position = Position(OUTCOMES, len(stream) + 1)
        stream.append(Verdict(subject, (outcome,), outcome.metadata, position, outcome.at))

    def app(self, name: str = "Help", id: str | None = None) -> App:
        app = App.begin(App.Created, id or new_id(), self.now, name=name, description="Answers.")
        self.record(app)
        return app

    def configure(self, app: App, prompt: str) -> None:
        app.configure(
            self.now,
            model=MODEL,
            prompt=prompt,
            variables=[],
            datasets=["some"],
            retrieval=RETRIEVAL,
            features=features({}),
        )
        self.record(app)

    def dataset(self, id: str | None = None) -> Dataset:
        dataset = Dataset.begin(Dataset.Created, id or new_id(), self.now, name="Manuals", description="")
        self.record(dataset)
        return dataset

    def document(self, dataset: str, id: str | None = None, name: str = "gates.md") -> Document:
        document = Document.upload(
            id or new_id(),
            self.now,
            dataset=dataset,
            name=name,
            media_type="text/markdown",
            digest="d" * 64,
            size=1200,
            metadata={"author": "Ada"},
            person=self.person,
        )
        self.record(document)
        return document

    def split(
        self, document: Document, texts: Sequence[str], tenant: str | None = None, *, family: bool = False
    ) -> None:
        """Work on a document until its segments are known; of a `family` the first is the parent of the others."""
        document.start(self.now, stage="parsing")
        document.parsed(self.now, pages=2, characters=1000, title="Weirs", warnings=["1 comment left out"])
        segments = [
            Segment(position, text, 10 * position, 10 * position + len(text), 1, "Gates", len(text.split()), [101, 102])
            for position, text in enumerate(texts)
        ]
        rules = Segmentation(mode="parent_child" if family else "automatic").plain()
        if family:
            children = [replace(segment, parent=0) for segment in segments[1:]]
            segments = [replace(segments[0], token_ids=[]), *children]
        blob = encode_segments("a-model", segments)
        digest = hashlib.sha256(blob).hexdigest()
        self.blobs[tenant or self.tenant, digest] = blob
        tokens = sum(segment.tokens for segment in segments)
        document.split(
            self.now, segments=digest, count=len(segments), tokens=tokens, model="a-model", segmentation=rules
        )
        self.record(document, tenant)

    def index(self, document: Document, count: int, tenant: str | None = None) -> None:
        document.indexed(self.now, first=document.done, count=count)
        self.record(document, tenant)

    def conversation(self, app: str, user: str = "bo", id: str | None = None) -> Conversation:
        conversation = Conversation.begin(
            Conversation.Started, id or new_id(), self.now, app=app, user=user, name="A talk"
        )
        self.record(conversation)
        return conversation

    def ask(
        self,
        conversation: Conversation,
        query: str = "How high?",
        id: str | None = None,
        files: list[File] | None = None,
    ) -> str:
        message = id or new_id()
        conversation.ask(
            self.now,
            message=message,
            app=conversation.app,
            configuration=1,
            query=query,
            inputs={"tone": "dry"},
            user=conversation.user,
            files=files,
        )
        self.record(conversation)
        return message

    def fetch(self, conversation: Conversation, message: str, file: str) -> None:
        """Fetch and read a file of a question."""
        conversation.fetched(
            self.now,
            message=message,
            file=file,
            digest="e" * 64,
            media_type="application/pdf",
            size=900,
            address="https://host/plan.pdf",
            duration_ms=5.0,
        )
        conversation.read(
            self.now, message=message, file=file, segments="f" * 64, count=4, pages=2, characters=99, warnings=[]
        )
        self.record(conversation)

    def answer(
        self,
        conversation: Conversation,
        message: str,
        citations: Iterable[Citation] = (),
        *,
        answer: str = "Four metres.",
        model_call: str = "the-call",
    ) -> None:
        conversation.answering(self.now, message=message)
        conversation.answer(
            self.now,
            message=message,
            answer=answer,
            citations=list(citations),
            usage=USAGE,
            cut=Truncation(segments=1, messages=2),
            model_call=model_call,
            duration_ms=1500.0,
        )
        self.record(conversation)

    def moderate(self, conversation: Conversation, message: str, *verdicts: FilterVerdict, attempt: int = 1) -> None:
        conversation.moderate(
            self.now, message=message, attempt=attempt, verdicts=list(verdicts), query=None, inputs=None
        )
        self.record(conversation)

    def tool_call(self, cause: str, id: str | None = None, *, held: bool = False, **fields: Any) -> ToolCall:
        """Request a call of a tool for a message, which may wait for a person."""
        of: dict[str, Any] = {
            "toolset": "builtin",
            "kind": "builtin",
            "tool": "calculate",
            "name": "calculate",
            "digest": "",
            "arguments": '{"expression": "2 + 3"}',
            "cause_noun": "message",
            "cause_id": cause,
            "conversation": "the-talk",
            "app": "the-app",
            "model_call": "call-1",
            "round": 1,
            "position": 0,
            "attempt": 1,
            "destructive": False,
            "idempotent": True,
            "server": "",
        }
        call = ToolCall.begin(ToolCall.Requested, id or new_id(), self.now, **of | fields)
        if held:
            call.hold(self.now, why="approval", seconds=60.0)
        self.record(call)
        return call

    def recording(self, id: str | None = None) -> Transcription:
        known = Transcription.begin(
            Transcription.Requested,
            id or new_id(),
            self.now,
            app="the-app",
            digest="d" * 64,
            media_type="audio/mpeg",
            size=900,
            provider="lab",
            model="whisper",
            language="",
        )
        self.record(known)
        return known

    def transcribe(self, known: Transcription) -> None:
        known.complete(self.now, text="When?", spoken_language="english", seconds=2.5, model_call="the-call")
        self.record(known)

    def speech(self, id: str | None = None) -> Speech:
        known = Speech.begin(
            Speech.Requested,
            id or new_id(),
            self.now,
            app="the-app",
            conversation="the-talk",
            message="the-message",
            text="At six.",
            provider="lab",
            model="kokoro",
            voice="alba",
            autoplay=False,
        )
        self.record(known)
        return known

    def speak(self, known: Speech) -> None:
        known.complete(self.now, digest="e" * 64, media_type="audio/mpeg", size=4000, model_calls=["one", "two"])
        self.record(known)

    def rows(self, model: ReadModel) -> list[Row]:
        """The rows of a table after all of it, in order of their keys."""
        tables = Tables()
        tables.apply(self.messages, self.blobs)
        return tables.rows(model)


def citation(position: int) -> Citation:
    return Citation(
        position=position,
        dataset="the-dataset",
        document="the-document",
        document_name="gates.md",
        segment=f"segment-{position}",
        segment_position=7,
        page=3,
        heading="Gates",
        sentence="The gate is four metres high.",
        content="The gate is four metres high. It is green.",
        score=0.75,
    )


def verdict(where: str, verdict: str = "passed", **fields: Any) -> FilterVerdict:
    plain: dict[str, Any] = {
        "position": 0,
        "kind": "words",
        "action": "none",
        "checked": 2,
        "flagged": [],
        "code": None,
    }
    of = {"where": where, "verdict": verdict, "started_at": NOON.isoformat(), "duration_ms": 250.0}
    return cast("FilterVerdict", {**plain, **of, **fields})


def files_of(message: str) -> list[File]:
    """Files of a question: a stored image, and a document at an address."""
    stored: Any = {"digest": "d" * 64, "media_type": "image/png", "size": 12}
    remote: Any = {"digest": None, "media_type": None, "size": None}
    plan, image = file_id(message, 1), file_id(message, 0)
    known: Any = [
        {"id": image, "type": "image", "transfer_method": "local_file", "name": "Lock.PNG", "url": None, **stored},
        {
            "id": plan,
            "type": "document",
            "transfer_method": "remote_url",
            "name": "plan",
            "url": "https://host/plan",
            **remote,
        },
    ]
    return cast("list[File]", known)


def outcome(history: History, **fields: Any) -> Outcome:
    metadata = Metadata(new_id(), history.tenant, "the-correlation", actor="ada")
    known: dict[str, Any] = {"command": new_id(), "status": "accepted", "metadata": metadata, "at": history.now}
    return Outcome(**known | fields)


class Tables:
    """Tables in memory that are kept up to date batch by batch, as those in a database are."""

    def __init__(self) -> None:
        self.fold = Fold(READ_MODELS, KNOWN)
        self.stored: dict[ReadModel, dict[RowId, Row]] = {model: {} for model in READ_MODELS}

    def apply(self, batch: Sequence[Recorded], blobs: dict[tuple[str, str], bytes]) -> None:
        loaded: dict[ReadModel, list[Row]] = defaultdict(list)
        known: dict[ReadModel, set[RowId]] = defaultdict(set)
        needed = self.fold.needs(batch)
        while needed:
            found = {
                model: [self.stored[model][id] for id in ids if id in self.stored[model]]
                for model, ids in needed.items()
            }
            for model, ids in needed.items():
                known[model] |= ids
                loaded[model] += found[model]
            needed = self.fold.links.brought(found, known)
        for rows in self.fold(batch, loaded, blobs):
            stored = self.stored[rows.model]
            for column, cleared in rows.cleared.items():
                for id in [id for id, row in stored.items() if (row["tenant_id"], row[column]) in cleared]:
                    del stored[id]
            for done in rows.set:
                self._set(rows.model, done)
            for row in chain(*rows.result()):
                stored[row["tenant_id"], row[rows.model.key]] = row

    def _set(self, model: ReadModel, done: Set) -> None:
        for id, row in self.stored[model].items():
            found = (row["tenant_id"], row[done.setting.column]) == (done.tenant, done.value)
            if found and (columns := done.change(row)) is not None:
                self.stored[model][id] = model.changed(row, done.position, done.at, columns)

    def rows(self, model: ReadModel) -> list[Row]:
        return [row for _, row in sorted(self.stored[model].items())]
