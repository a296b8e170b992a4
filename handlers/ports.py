"""The ports: what the handlers need of the world.

Every adapter of a port passes the port's contract suite in tests/contracts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from domain.aggregate import Event, Snapshot
from domain.app import Condition as Condition
from domain.app import Model
from domain.log import EVENTS as EVENTS
from domain.log import OUTCOMES as OUTCOMES
from domain.log import Commit as Commit
from domain.log import Metadata as Metadata
from domain.log import Outcome as Outcome
from domain.log import Position as Position
from domain.log import Recorded as Recorded
from domain.log import Subject as Subject
from domain.log import Verdict as Verdict
from domain.log import commit_id as commit_id
from domain.segmentation import AUTOMATIC, Segmentation
from domain.segments import Segment as Segment
from domain.segments import decode_segments as decode_segments
from domain.segments import encode_segments as encode_segments

Vectors = npt.NDArray[np.float32]
"""One row a text, L2-normalised, shape (n, dimension)."""


class Unavailable(Exception):
    """A server that the work needs does not answer; the work waits and is tried again."""


# --- the log -------------------------------------------------------------------------------------------------


class Conflict(Exception):
    """The aggregate has changed since it was loaded: load it again and decide anew."""


class EventStore(Protocol):
    async def load(self, subject: Subject, *, after: int = 0, limit: int | None = None) -> list[Commit]:
        """The first `limit` commits of an aggregate whose stream sequence is greater than `after`, in order.

        May lag behind the last append: then commits are missing at the end. `append` notices, `rest` knows.
        """
        ...

    async def rest(self, subject: Subject, *, after: int) -> list[Commit]:
        """The commits that `load` did not see after the sequence `after`, every one that is acknowledged.

        Raises: Unavailable.
        """
        ...

    async def append(self, subject: Subject, events: Sequence[Event], metadata: Metadata, expected: int) -> Position:
        """Commit the events if the aggregate's last commit is at sequence `expected` (0: it has none).

        A commit with this id that is already the aggregate's last is a success: its position is returned.
        Raises: Conflict, Unavailable.
        """
        ...


class Log(Protocol):
    """The streams `EVENTS` (of commits) and `OUTCOMES` (of verdicts), for those who read all of one in order."""

    def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        """The messages whose sequence is greater than `after`, in order, as many at a time as have arrived.

        Ends at what was the stream's last sequence when it began; when it follows, only if the stream ends before
        `after`, and so has lost what was there. Raises: Unavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot, the sequence of its aggregate's last commit, (sequence, version) of the latest commits by id, and the
    person whose words it holds."""

    snapshot: Snapshot
    sequence: int
    commits: dict[str, tuple[int, int]]
    person: str | None = None


class Snapshots(Protocol):
    async def get(self, subject: Subject) -> Taken | None: ...

    async def put(self, subject: Subject, taken: Taken) -> None: ...


class Blobs(Protocol):
    """Bytes by their SHA-256 in hex, per tenant; the same bytes are stored once."""

    async def put(self, tenant: str, data: bytes) -> str: ...

    async def get(self, tenant: str, digest: str) -> bytes:
        """Raises: KeyError when there is no such blob, ValueError when its bytes do not have the digest."""
        ...

    async def size(self, tenant: str, digest: str) -> int | None:
        """The size in bytes, or None when there is no such blob."""
        ...


class Outcomes(Protocol):
    async def get(self, tenant: str, command: str) -> Outcome | None: ...

    async def put(self, outcome: Outcome) -> None:
        """Publish the outcome on `out.<tenant>.<command>`; a second one for the same command is dropped, but for one
        that follows `NOT_FINAL` and has another code."""
        ...


class DeadLetters(Protocol):
    """Messages that could not be handled, as they came, by consumer and letter, as long as their letters wait."""

    async def send_again(self, consumer: str, letter: str, id: str) -> None:
        """Put a command back into its queue: as message `id`, with the id that it had. Raises: Unavailable."""
        ...

    async def remove(self, consumer: str, letter: str, until: datetime) -> None:
        """Remove what was kept for the letter until then. Raises: Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Wait:
    """A document, message (in `conversation`), replay or model call that has not changed since then and has not ended.

    `attempt` counts how often work on it began (0 for a replay or call), `position` is the sequence in EVENTS of its
    last change, `consumers` are those who may move it, or its cause, `correlation` is the id of the command that began
    it, and `person` is whose words it holds.
    """

    noun: str
    tenant: str
    id: str
    conversation: str | None
    status: str
    attempt: int
    since: datetime
    position: int
    consumers: list[str]
    correlation: str
    person: str | None = None


class Live(Protocol):
    """Frames for whoever watches an answer grow; lost when nobody does."""

    async def publish(self, tenant: str, conversation: str, message: str, frame: dict[str, Any]) -> None:
        """Publish on `live.<tenant>.<conversation>.<message>`, as JSON."""
        ...


class Stops(Protocol):
    """Tells a worker that someone asked for the end of an answer it gives."""

    def watch(self, tenant: str, conversation: str, message: str, *, person: str | None = None) -> asyncio.Event:
        """Set when the stop of the message is requested, or the person who asked is erased, from now on."""
        ...

    def unwatch(self, tenant: str, conversation: str, message: str) -> None: ...


class People(Protocol):
    """Who end users are: the keys that their words are kept under. Every method raises: Unavailable."""

    async def person(self, tenant: str, user: str) -> str:
        """The id of who goes by this name now: another one each time that somebody of the name was erased."""
        ...

    async def last_person(self, tenant: str, user: str) -> tuple[str, bool]:
        """The id of who went by this name last, and whether anybody ever did."""
        ...

    async def erase(self, tenant: str, person: str) -> None:
        """Throw the person's key away for good: nothing that was said can be read any more."""
        ...


class Vault(Protocol):
    """Secrets of tenants, encrypted at rest."""

    def seal(self, tenant: str, secret: str) -> str: ...

    def open(self, tenant: str, sealed: str) -> str: ...


# --- ingest --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list item, heading or table row of an extracted text, with its place: `page` counts from 1,
    `heading` is the path of headings above it joined by ` › `."""

    text: str
    page: int | None = None
    heading: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """What was extracted from a file; `pages` is None where the format has none."""

    blocks: list[Block]
    pages: int | None
    title: str | None = None

    @property
    def characters(self) -> int:
        return sum(len(block.text) for block in self.blocks)


class Unreadable(Exception):
    """A file that no text can be had from: `code` for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Extractor(Protocol):
    async def extract(self, data: bytes, media_type: str, name: str) -> Text:
        """Extract in a process that can be killed, within time and memory limits.

        Raises: Unreadable (`unsupported_type`, `empty_file`, `broken_file`, `encrypted_file`, `no_text`, `too_slow`,
        `too_large`).
        """
        ...


class Segmenter(Protocol):
    model: str
    """The identity of the embedding model whose tokens are counted."""

    def segment(self, text: Text, rules: Segmentation = AUTOMATIC) -> list[Segment]:
        """Cut by these rules into segments of at most 254 tokens, and parents, which come before what they stand for.

        Only white space is lost, and what the rules say: separators, what is cleaned up, what is neither question nor
        answer. Raises: Unreadable (`no_questions`).
        """
        ...

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a query, with the special ones, cut to the model's longest input."""
        ...


class Embedder(Protocol):
    @property
    def identity(self) -> str:
        """Model, backend and number type: vectors of two identities are not comparable."""
        ...

    @property
    def dimension(self) -> int: ...

    async def embed(self, token_ids: Sequence[Sequence[int]], *, tenant: str = "", urgent: bool = False) -> Vectors:
        """Vectors of tokenised texts, shape (n, dimension); tenants take turns, and a question, which is `urgent`,
        overtakes documents.

        Raises: Unavailable.
        """
        ...


class Embedding(NamedTuple):
    """An embedding model at hand: what cuts and tokenises texts for it, and what embeds them."""

    segmenter: Segmenter
    embedder: Embedder


class EmbeddingModels(Protocol):
    default: str
    """The model of datasets that no other was chosen for."""

    async def get(self, name: str) -> Embedding:
        """The model of this name, whose identity and dimension are known.

        Raises: Unavailable when it is not among those in use here, or nobody serves it.
        """
        ...


# --- the index -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A segment as the index keeps it; `id` is the segment's.

    One without a vector is kept but never found, neither by words nor by vector: what `parent`, the position in the
    same cut of the document, names is given to the model in place of what was found. With an `answer` the content is
    the question, and only that is matched.
    """

    id: str
    position: int
    content: str
    page: int | None
    heading: str | None
    vector: npt.NDArray[np.float32] | None
    parent: int | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A segment that was found; `score` is comparable within one search only; a rank (from 1) is None in a leg that
    did not find it."""

    id: str
    dataset: str
    document: str
    position: int
    content: str
    page: int | None
    heading: str | None
    score: float
    semantic_rank: int | None
    full_text_rank: int | None
    parent: int | None = None
    answer: str | None = None


class Span(NamedTuple):
    """A document's positions from `first` to `last`, both included."""

    dataset: str
    document: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A segment as the index has it, whether or not a search can find it."""

    id: str
    dataset: str
    document: str
    position: int
    content: str
    page: int | None
    heading: str | None
    answer: str | None


Mode = Literal["hybrid", "semantic", "full_text"]


class Moved(Unavailable):
    """A dataset is not, or no longer, searched with this embedding model: the work is to begin with the other one."""


class Index(Protocol):
    """Versions of segments, words and vectors, each for the vectors of one embedding model.

    A dataset is searched in one of them, that of its first write, until a build moves it into another.

    `version` is the sequence in `EVENTS` of what caused a change. Late and repeated changes undo nothing: an entry is
    left as it is by a write or removal that is older than what last wrote or removed it.
    """

    async def models(self, tenant: str, datasets: Sequence[str]) -> dict[str, str]:
        """The embedding model that each dataset is searched with; those are left out that nothing was written of.

        Raises: Unavailable.
        """
        ...

    async def write(
        self, tenant: str, dataset: str, document: str, entries: Sequence[Entry], *, model: str, version: int
    ) -> None:
        """Put entries in, replacing those of the same id; they can be found when this returns.

        Does nothing for a document or dataset that was deleted, whichever came first. Raises: Moved, Unavailable.
        """
        ...

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        """Take entries out, of every version, until a write that is not older brings them back.

        Raises: Unavailable.
        """
        ...

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        """Take a document, or all of a dataset, out for good, of every version: later writes of it are ignored.

        Raises: Unavailable.
        """
        ...

    async def search(
        self,
        tenant: str,
        datasets: Sequence[str],
        query: str,
        vector: npt.NDArray[np.float32] | None,
        *,
        model: str,
        mode: Mode,
        top_k: int,
        weight: float | None = None,
        documents: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The best hits first, only of these documents if some are given; `vector` (shape (dimension,)) may be None in
        mode `full_text`.

        Mode `hybrid` ranks by reciprocal rank fusion (k = 60), or with a `weight` from 0 to 1 by
        weight · cosine + (1 - weight) · BM25 / best BM25: the cosine is that of every segment that either leg found,
        BM25 is 0 for what the full text leg did not find. Raises: Moved, Unavailable.
        """
        ...

    async def texts(self, tenant: str, wanted: Sequence[Span]) -> list[Kept]:
        """The entries in these places, by dataset, document, position and id; each once. Raises: Unavailable."""
        ...

    def contents(self) -> AsyncGenerator[list[tuple[str, str, str]]]:
        """Every entry, as tenant, dataset and id, in this order, some thousands at a time; without a vector as well.

        All as they were at one moment. Raises: Unavailable.
        """
        ...

    def build(self, tenant: str | None = None, dataset: str | None = None) -> AbstractAsyncContextManager[Build]:
        """Build all anew, or one dataset, beside what is searched; one does so at a time, others wait for their turn.

        Raises: Unavailable.
        """
        ...


class Build(Protocol):
    """New versions of an index, which nobody searches before they are swapped in. Every method raises: Unavailable."""

    id: str
    attempt: int
    """Counts from 1."""
    reached: int
    """The sequence of the log up to which all is in."""

    async def searched(self) -> str | None:
        """The model that the dataset is searched with now."""
        ...

    async def begin(self, plan: str, end: int) -> None:
        """Go on with what was broken off, if it followed the same plan (of models) and the log, which ends with
        sequence `end`, has all that it has; else begin from nothing."""
        ...

    async def open(self, model: str, dimension: int) -> None:
        """Make the version for this model, unless it is there."""
        ...

    async def write(
        self,
        tenant: str,
        dataset: str,
        document: str,
        entries: Sequence[Entry],
        *,
        model: str,
        version: int,
    ) -> None:
        """As the index does, into the version for this model."""
        ...

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        """As the index does, also while the swap holds writers up."""
        ...

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        """As the index does, also while the swap holds writers up."""
        ...

    async def bury(self, deleted: Sequence[tuple[str, str, str | None]]) -> None:
        """Ignore writes of these (tenant, dataset, and document or None for all of it) from now on."""
        ...

    async def reach(self, sequence: int, goal: int) -> None:
        """Note that all up to this sequence of the log is in, of `goal`."""
        ...

    async def complete(self) -> None:
        """Do what is quicker done when most is in."""
        ...

    def swap(self, *, keep_old: bool = False) -> AbstractAsyncContextManager[None]:
        """Nothing is written elsewhere meanwhile; at the end what was built takes the place of what was searched.

        What nobody searches any more is dropped, unless it is to be kept. An error leaves all as it was.
        """
        ...


class Documents(Protocol):
    """Documents as the read tables have them, which come some milliseconds after the log."""

    async def matching(
        self, tenant: str, datasets: Sequence[str], conditions: Sequence[Condition], *, logical_operator: str
    ) -> list[str]:
        """The ids of the documents of these datasets whose metadata meets all conditions (`and`) or one (`or`).

        A value is compared by its type; one that is not there, or of another type, meets nothing but `empty`.
        Raises: Unavailable.
        """
        ...

    async def of(self, tenant: str, dataset: str, sequence: int) -> list[str]:
        """The ids of a dataset's documents, with all that were uploaded up to this sequence of `EVENTS`.

        Raises: Unavailable, also when the tables do not come up to it.
        """
        ...


Digest = bytes
"""The SHA-256 of what is embedded: its token ids, little-endian int32."""


class EmbeddingCache(Protocol):
    """Vectors that models have made, per tenant, to half precision; what is lost is made again."""

    async def get(self, tenant: str, identity: str, digests: Sequence[Digest]) -> dict[Digest, npt.NDArray[np.float32]]:
        """Those that are there, of a model of this identity. Raises: Unavailable."""
        ...

    async def put(self, tenant: str, identity: str, vectors: Mapping[Digest, npt.NDArray[np.float32]]) -> None:
        """Raises: Unavailable."""
        ...


# --- chat models ---------------------------------------------------------------------------------------------


class ChatMessage(NamedTuple):
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked of a chat model; `passages` are the retrieved texts that the system message also holds, for a model
    that reads them apart."""

    model: str
    messages: list[ChatMessage]
    max_tokens: int
    parameters: dict[str, Any] = field(default_factory=dict)
    passages: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ChatUsage:
    """Tokens as the server counts them: all of prompt and answer, and what of them it read from its cache, wrote into
    it, or spent on reasoning (None where it does not say); `raw` is what it sent, as JSON."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer; all but its text comes with the last: the server's own id of the answer, and its own name
    of the model, as well."""

    text: str = ""
    finish_reason: str | None = None
    usage: ChatUsage | None = None
    response_id: str | None = None
    model: str | None = None


class ModelError(Exception):
    """A chat model that did not answer: `code` is one of `unreachable`, `timeout`, `server_error`, `broken_off`,
    `rate_limited`, `unauthorized`, `bad_request`, `context_length_exceeded`, `not_found`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ChatModel(Protocol):
    @property
    def server(self) -> str:
        """Where it answers, as `host:port`; empty for a model within the process."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        """The answer as it comes. Tries again by itself while nothing has arrived and the error may pass.

        Raises: ModelError.
        """
        ...


class ChatModels(Protocol):
    async def get(self, tenant: str, model: Model) -> ChatModel:
        """The client of a model; the provider's newest address and key are used.

        Raises: ModelError `not_found` when the provider is not registered, or was removed.
        """
        ...


# --- rerankers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reranking:
    """How well each text answers the query, in the order in which the texts were given: the higher, the better, and
    from 0 to 1 where the model gives probabilities. The rest is as in `Delta`."""

    scores: list[float]
    usage: ChatUsage | None = None
    response_id: str | None = None
    model: str | None = None


class Reranker(Protocol):
    """A model that reads a query and a text together."""

    @property
    def server(self) -> str:
        """Where it answers, as `host:port`; empty for one that workers serve."""
        ...

    async def rerank(self, model: str, query: str, texts: Sequence[str]) -> Reranking:
        """A finite score for every text; what does not fit into the model is cut. Nobody waits long for it: what is
        away is `unreachable`. Raises: ModelError.
        """
        ...


class Rerankers(Protocol):
    async def get(self, tenant: str, provider: str, model: str | None) -> tuple[Reranker, str]:
        """The reranker of a provider, and the name of its model; None is that of the built-in one.

        Raises: ModelError `not_found` when the provider is not registered, or has no such model.
        """
        ...
