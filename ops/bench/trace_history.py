"""Synthetic traces in memory, as messages of the log: questions, and one trace of many spans."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from domain.aggregate import Aggregate
from domain.chat.app import App, ModelSettings, settings
from domain.chat.conversation import Citation, Conversation, Truncation, Usage
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.knowledge.retrieval import Candidate
from domain.knowledge.retrieval import Retrieval as Search
from domain.log import EVENTS, Commit, Metadata, Position, Recorded, Subject
from domain.models.model_call import ModelCall, TokenUsage
from ops.bench.documents import sentences

TURNS = 3
HITS = 4
SEGMENTS = 2000
"""Segments of the knowledge base, repeated in prompts."""

MESSAGES_PER_TURN = 8
CALLS_PER_STORY = 2 * TURNS
SPANS_PER_STORY = 4 * TURNS
USERS = 1000
APPS = 20
DAY = timedelta(days=1)

MODELS = [("openai", "api.openai.com:443", "gpt-4o-mini"), ("lab", "models.example.com:443", "large-70b")]
USAGE = Usage(prompt_tokens=912, completion_tokens=61, estimated=False)
TOKENS = TokenUsage(**USAGE, cached_tokens=256, cache_write_tokens=None, reasoning_tokens=None, raw={"total": 973})
RETRIEVAL = settings({"mode": "hybrid", "top_k": HITS, "score_threshold": None})
CHAT = ModelSettings(provider="openai", name="gpt-4o-mini", max_tokens=512, context_window=8192, parameters={})


class TraceHistory:
    """Messages of the log during the day before `end`."""

    def __init__(self, tenant: str, end: datetime, seed: int = 1) -> None:
        self.tenant = tenant
        self.sequence = 0
        self._dice = random.Random(seed)
        self._now = end - DAY
        self._sentences = sentences()
        self._segments = [self._text(3) for _ in range(SEGMENTS)]

    def batches(self, stories: int, size: int) -> Iterator[list[Recorded]]:
        """Messages of this number of conversations, in lists of `size`."""
        messages = self._generate(stories)
        while batch := list(islice(messages, size)):
            yield batch

    def messages(self, stories: int) -> int:
        """Number of messages of this number of conversations."""
        return APPS + stories * MESSAGES_PER_TURN * TURNS

    def wide(self, spans: int) -> tuple[str, list[Recorded]]:
        """A document whose trace has this number of spans. Return the trace id and the messages."""
        trace, dataset, id = (
            self._id(),
            Dataset.begin(Dataset.Created, self._id(), self._at(), name="Big", description=""),
            self._id(),
        )
        messages = [self._commit(dataset, trace)]
        document = Document.upload(
            id,
            self._at(),
            dataset=dataset.id,
            name=f"{spans} spans.txt",
            media_type="text/plain",
            digest="0" * 64,
            size=8000,
            metadata={},
        )
        messages.append(self._commit(document, trace))
        document.start(self._at(), stage="parsing")
        document.parsed(self._at(), pages=None, characters=8000)
        document.split(self._at(), segments="0" * 64, count=spans, tokens=240 * spans, model="a-model")
        messages.append(self._commit(document, trace))
        for _ in range(spans - 4):
            messages += self._call(trace, "document", id, "embedding", [], "")
        document.fail(self._at(), stage="indexing", code="unreachable", reason="The index is away.")
        return trace, [*messages, self._commit(document, trace)]

    def _generate(self, stories: int) -> Iterator[Recorded]:
        self._step = DAY / (self.messages(stories) + stories)
        apps = []
        for number in range(APPS):
            app = App.begin(App.Created, self._id(), self._at(), name=f"App {number}", description="")
            apps.append(app)
            yield self._commit(app, self._id())
        for _ in range(stories):
            app = self._dice.choice(apps)
            user = f"user-{self._dice.randrange(USERS)}"
            conversation = Conversation.begin(
                Conversation.Started, self._id(), self._at(), app=app.id, user=user, name="Talk"
            )
            for turn in range(TURNS):
                yield from self._turn(app, conversation, self._id(), failing=turn == 1 and self._dice.random() < 0.06)

    def _turn(self, app: App, conversation: Conversation, trace: str, *, failing: bool) -> Iterator[Recorded]:
        query = self._text(1)
        conversation.ask(
            self._at(),
            message=trace,
            app=app.id,
            configuration=1,
            query=query,
            inputs={},
            user=conversation.user,
        )
        yield self._commit(conversation, trace)
        conversation.answering(self._at(), message=trace)
        yield self._commit(conversation, trace)
        yield from self._call(trace, "message", trace, "embedding", [], "")
        passages = self._dice.sample(self._segments, HITS)
        answer = self._text(2)
        prompt = [("system", "\n\n".join(["You are an assistant of the plant.", *passages])), ("user", query)]
        yield self._search(trace, query)
        yield from self._call(trace, "message", trace, "chat", prompt, answer, failing=failing)
        if failing:
            reason = f"Server {self._dice.randrange(100)} sent nothing for 60 s."
            conversation.fail(self._at(), message=trace, code="timeout", reason=reason, answer="")
        else:
            conversation.answer(
                self._at(),
                message=trace,
                answer=answer,
                citations=[self._citation(passage) for passage in passages[:1]],
                usage=USAGE,
                cut=Truncation(segments=0, messages=0),
                model_call=trace,
                duration_ms=1500.0,
            )
        yield self._commit(conversation, trace)

    def _call(
        self,
        trace: str,
        noun: str,
        cause: str,
        kind: str,
        prompt: Sequence[tuple[str, str]],
        answer: str,
        *,
        failing: bool = False,
    ) -> Iterator[Recorded]:
        provider, server, model = self._dice.choice(MODELS) if kind == "chat" else ("builtin", "", "a-model")
        sent = [{"role": role, "content": text} for role, text in prompt]
        call = ModelCall.begin(
            ModelCall.Requested,
            self._id(),
            self._at(),
            kind=kind,
            provider=provider,
            model=model,
            cause_noun=noun,
            cause_id=cause,
            server=server,
            request={"messages": sent, "max_tokens": 512, "parameters": {}} if sent else {"texts": 1, "tokens": 12},
        )
        yield self._commit(call, trace)
        took = self._dice.lognormvariate(7, 0.6) if kind == "chat" else 8.0
        if failing:
            call.fail(self._at(), code="timeout", reason="It sent nothing for 60 s.", response="", duration_ms=6e4)
        else:
            call.complete(
                self._at(), response=answer, finish_reason="stop", usage=TOKENS, first_token_ms=90.0, duration_ms=took
            )
        yield self._commit(call, trace)

    def _search(self, trace: str, query: str) -> Recorded:
        hits = [
            Candidate(
                segment=self._id(),
                dataset="the-dataset",
                document="the-document",
                position=rank,
                page=None,
                heading=None,
                score=1 / (60 + rank),
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
            for rank in range(1, HITS + 1)
        ]
        made = Search.begin(
            Search.Made,
            self._id(),
            self._at(),
            query=query,
            datasets=["the-dataset"],
            retrieval=RETRIEVAL,
            cause_noun="message",
            cause_id=trace,
            attempt=1,
            hits=hits,
            duration_ms=7.0,
        )
        return self._commit(made, trace)

    def _citation(self, passage: str) -> Citation:
        return Citation(
            position=1,
            dataset="the-dataset",
            document="the-document",
            document_name="report.txt",
            segment="segment",
            segment_position=0,
            page=None,
            heading=None,
            sentence=passage.partition(". ")[0],
            content=passage,
            score=0.03,
        )

    def _commit(self, aggregate: Aggregate, trace: str) -> Recorded:
        self.sequence += 1
        metadata = Metadata(self._id(), self.tenant, trace, trace, actor="bench")
        subject = Subject(self.tenant, aggregate.TOPIC, aggregate.id)
        return Commit(subject, aggregate.pending(), metadata, Position(EVENTS, self.sequence), self._now)

    def _at(self) -> datetime:
        self._now += self._step
        return self._now

    _step = timedelta(milliseconds=1)

    def _id(self) -> str:
        return str(UUID(int=self._dice.getrandbits(128), version=4))

    def _text(self, count: int) -> str:
        return " ".join(self._dice.choices(self._sentences, k=count))
