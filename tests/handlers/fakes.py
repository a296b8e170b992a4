"""Small stand-ins for models, extractors and the index, for the handlers that need them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar
from zlib import crc32

import numpy as np
import orjson

from adapters.models.circuit import LocalOutages
from domain.knowledge.segmentation import AUTOMATIC, Segmentation
from domain.knowledge.segments import Segment
from domain.models.model_call import Try
from handlers.abilities import Abilities
from handlers.chat.annotations import unpack
from handlers.chat.evidence import evidence
from handlers.chat.files import MessageFiles
from handlers.chat.ranking import ranked
from handlers.commands.plugin_package import parse
from handlers.models import embeddings
from handlers.models.choose import Choose, Known, Way
from handlers.models.model_calls import ModelCalls
from handlers.models.structured import fault
from handlers.ports.annotations import Nearest
from handlers.ports.documents import Block, Digest, Embedding, Text, Unreadable, Vectors
from handlers.ports.files import Fetched, NotFetched
from handlers.ports.filters import Check, Filter, Finding
from handlers.ports.index import Entry, Hit, changed
from handlers.ports.log import Unavailable
from handlers.ports.models import (
    Access,
    ChatModel,
    ChatRequest,
    ChatUsage,
    Client,
    Delta,
    Embeddings,
    ModelError,
    Models,
    RemoteEmbedder,
)
from handlers.ports.plugins import EnabledPlugin, PluginFailed, Reply
from handlers.repository import Repository
from tests.handlers.desk import Desk
from tests.memory import Memory

C = TypeVar("C", bound=Client)


class Lines:
    """Extracts a text by its lines, as what the file says it is; a file of the media type `x/broken` cannot be read."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def extract(self, tenant: str, data: bytes, media_type: str, name: str) -> Text:
        self.asked.append((media_type, name))
        if media_type == "x/broken":
            raise Unreadable("broken_file", "The file is broken.")
        return Text([Block(line) for line in data.decode().splitlines() if line], None)


class Cites:
    """Finds evidence in this process, or raises an error."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def evidence(self, tenant: str, answer: str, passages: Sequence[str]) -> list[tuple[int, str]]:
        if self.error:
            raise self.error
        return evidence(answer, passages)


class Guards:
    """Filters of providers: each flags what `flags` says, and changes it as `changes` says; or it fails, with `error`
    or for the text `away`."""

    server = "guard:443"

    def __init__(self) -> None:
        self.flags: Callable[[str], bool] = lambda text: False
        self.changes: Callable[[str], str] | None = None
        self.error: Exception | None = None
        self.away = ""
        self.silent = False
        self.asked: list[Check] = []

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[Filter]]:
        if provider == "nothing":
            raise ModelError("not_found", "There is no such filter.")
        return [Access(self)]

    async def check(self, check: Check) -> Finding:
        self.asked.append(check)
        if self.silent:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        if self.away in check.texts.values():
            raise ModelError("server_error", "The filter is away.")
        flagged = {name: text for name, text in check.texts.items() if self.flags(text)}
        changed = {name: self.changes(text) for name, text in flagged.items()} if self.changes else {}
        return Finding(bool(flagged), changed)


class Here:
    """Checks answers by schemas in this process."""

    def prepare(self, tenant: str) -> None:
        pass

    async def fault(self, tenant: str, schema: dict[str, Any], answer: str) -> str | None:
        return fault(schema, answer)


class Notes:
    """Annotations as the tables have them, from the log in memory; there is none without one."""

    def __init__(self, memory: Memory | None = None, desk: Any = None) -> None:
        self.memory = memory
        self.desk = desk

    async def _all(self, app: str) -> list[tuple[str, list[Any]]]:
        messages = self.memory.streams["EVENTS"].messages if self.memory else []
        ids = dict.fromkeys(
            message.subject.rpartition(".")[2] for message in messages if ".annotation." in message.subject
        )
        found = [(id, await self.desk.events("annotation", id)) for id in ids]
        return [(id, events) for id, events in found if events[0].app == app]

    async def of(self, tenant: str, app: str, sequence: int) -> list[str]:
        return [id for id, _ in await self._all(app)][::-1]

    async def nearest(self, tenant: str, app: str, model: str, vector: Vectors) -> Nearest | None:
        best: Nearest | None = None
        for id, events in await self._all(app):
            packed = None
            for event in events:
                if event.TOPIC in ("annotation.edited.v1", "annotation.removed.v1"):
                    packed = None
                elif event.TOPIC == "annotation.embedded.v1" and event.embedding_model == model:
                    packed = event.vector
            if packed and (best is None or float(unpack(packed) @ vector) > best.score):
                best = Nearest(id, min(float(unpack(packed) @ vector), 1.0))
        return best


class Addresses:
    """Files by their addresses, with their media types; an error is raised."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, str] | NotFetched] = {}
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, tenant: str, url: str, most: int) -> Fetched:
        self.asked.append((url, most))
        found = self.files[url]
        if isinstance(found, NotFetched):
            raise found
        return Fetched(*found, url + "?end")


class Ranks:
    """Ranks in this process."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def ranked(self, tenant: str, question: str, passages: Sequence[str]) -> list[int]:
        self.asked.append(question)
        return ranked(question, passages)


def message_files(desk: Desk, fetch: Addresses | None = None, ranks: Ranks | None = None) -> MessageFiles:
    """The files of questions at a desk; documents are read by their lines."""
    fetch, ranks = fetch or Addresses(), ranks or Ranks()
    return MessageFiles(desk.files, fetch, Lines(), Words(), ranks, Abilities(desk.repository))


class Words:
    """A model that cuts a text into its blocks, and whose tokens are words."""

    model = "words"
    identity = "words/1"
    dimension = 4

    def __init__(self) -> None:
        self.away = False
        self.embedded: list[int] = []
        """Number of texts of each call."""
        self.rules: list[Segmentation] = []
        self.before: Callable[[], object] = lambda: None
        """Called before each embedding."""

    async def segment(self, tenant: str, text: Text, rules: Segmentation = AUTOMATIC) -> list[Segment]:
        self.rules.append(rules)
        found, start = list[Segment](), 0
        for position, block in enumerate(text.blocks):
            ids, end = self.tokenize(block.text), start + len(block.text)
            found.append(Segment(position, block.text, start, end, block.page, block.heading, len(ids), ids))
            start = end + 2
        return found

    def tokenize(self, text: str) -> list[int]:
        return [crc32(word.encode()) & 0xFFFFF for word in text.split()]

    def known(self, text: str) -> float:
        return 1.0

    async def embed(self, token_ids: Sequence[Sequence[int]], *, tenant: str = "", urgent: bool = False) -> Vectors:
        self.before()
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("The model is away.")
        self.embedded.append(len(token_ids))
        vectors = np.array([[len(ids), sum(ids), ids[0], 1] for ids in token_ids], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class OneModel:
    """The only embedding model there is."""

    default = Words.model

    def __init__(self, words: Words) -> None:
        self.words = words

    @property
    def segmenter(self) -> Words:
        return self.words

    async def get(self, name: str) -> Embedding:
        if name != self.default:
            raise Unavailable(f"No worker serves {name}.")
        return Embedding(self.words, self.words)


class Vectorizer:
    """The embedding models of a provider: each text is its number of words, its length, and as many ones as make the
    `dimension`. It fails with `error`, or as many times as there are `errors`."""

    server = "vectors:443"

    def __init__(self) -> None:
        self.dimension = 3
        self.error: ModelError | None = None
        self.errors: list[ModelError] = []
        self.asked: list[tuple[str, list[str]]] = []

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[RemoteEmbedder]]:
        if provider == "removed":
            raise ModelError("not_found", "No provider 'removed' is registered.")
        return [Access(self)]

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        self.asked.append((model, list(texts)))
        if error := self.errors.pop(0) if self.errors else self.error:
            raise error
        vectors = np.ones((len(texts), self.dimension), np.float32)
        vectors[:, :2] = [(len(text.split()), len(text)) for text in texts]
        return Embeddings(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), ChatUsage(7, 0), "m-1")


def embedding_models(
    repository: Repository, models: OneModel, provider: Vectorizer | None = None
) -> embeddings.Embeddings:
    """The models of the workers, and those of a provider."""
    return embeddings.Embeddings(ModelCalls(repository), models, choosing(repository, provider or Vectorizer()))


class Cache:
    """Vectors that were made."""

    def __init__(self) -> None:
        self.vectors: dict[Digest, Any] = {}

    async def get(self, tenant: str, identity: str, digests: Sequence[Digest]) -> dict[Digest, Any]:
        return {digest: self.vectors[digest] for digest in digests if digest in self.vectors}

    async def put(self, tenant: str, identity: str, vectors: Mapping[Digest, Any]) -> None:
        self.vectors |= vectors


class Write(NamedTuple):
    document: str
    entries: list[Entry]
    version: int


class Shelf:
    """An index that finds all that was written to it; `before` is called before each write."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.searched: dict[str, str] = {}
        self.length: int | None = None
        self.before: Callable[[], object] = lambda: None

    async def models(self, tenant: str, datasets: Sequence[str]) -> dict[str, str]:
        return {dataset: self.searched[dataset] for dataset in datasets if dataset in self.searched}

    async def dimension(self, tenant: str, dataset: str) -> int | None:
        return self.length

    async def write(
        self, tenant: str, dataset: str, document: str, entries: Sequence[Entry], *, model: str, version: int
    ) -> None:
        self.before()
        self.searched.setdefault(dataset, model)
        for entry in entries:
            if entry.vector is not None:
                self.length = self.length or len(entry.vector)
                if len(entry.vector) != self.length:
                    raise changed(model, self.length, len(entry.vector))
        self.writes.append(Write(document, list(entries), version))

    async def search(self, tenant: str, datasets: Sequence[str], *query: Any, top_k: int, **how: Any) -> list[Hit]:
        entries = [(write.document, entry) for write in self.writes for entry in write.entries]
        return [
            Hit(datasets[0], document, entry, 1 / rank, None, rank)
            for rank, (document, entry) in enumerate(entries[:top_k], 1)
        ]

    def positions(self, document: str) -> list[int]:
        """Of all that was written of a document, in order."""
        return [entry.position for write in self.writes if write.document == document for entry in write.entries]


class Speaker:
    """A chat model that thinks, says these words, and ends for a reason; at an exception it fails, at an event it
    waits."""

    server = "speaker:1"
    reasoning = ""
    finish: str | None = "stop"

    def __init__(self, *says: str | Exception | asyncio.Event) -> None:
        self.says = list(says)
        self.asked: list[ChatRequest] = []
        self.waits = asyncio.Event()
        """Set when it has come to an event that it waits for."""

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[ChatModel]]:
        return [Access(self)]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        self.asked.append(request)
        if self.reasoning:
            yield Delta(reasoning=self.reasoning)
        for said in self.says:
            if isinstance(said, Exception):
                raise said
            if isinstance(said, asyncio.Event):
                self.waits.set()
                await said.wait()
            else:
                await asyncio.sleep(0)
                yield Delta(said)
        yield Delta(finish_reason=self.finish, usage=ChatUsage(7, len(self.says)))


Handler = Callable[[Mapping[str, Any]], "Mapping[str, Any] | PluginFailed | None"]


class Installed:
    """Plugins of every tenant, in this process: each hook is a function, and `asked` are the calls of hooks."""

    def __init__(self) -> None:
        self.plugins: list[EnabledPlugin] = []
        self.handlers: dict[tuple[str, str], Handler] = {}
        self.asked: list[tuple[str, str, Mapping[str, Any]]] = []

    def add(self, name: str, fields: Mapping[str, Any] | None = None, **hooks: Handler) -> None:
        """A filter with these hooks and fields of the manifest."""
        given = {
            "name": name,
            "version": "1.0.0",
            "kind": "filter",
            "hooks": dict.fromkeys(hooks, "f"),
            **(fields or {}),
        }
        manifest = parse(orjson.dumps(given))
        plugin = EnabledPlugin("", name, manifest["version"], f"{name:0<64}", manifest, {}, {}, "none")
        self.plugins = sorted([*self.plugins, plugin], key=lambda each: (each.manifest["order"], each.name))
        self.handlers |= {(name, hook): handler for hook, handler in hooks.items()}

    def known(self, tenant: str) -> Sequence[EnabledPlugin] | None:
        return None

    async def enabled(self, tenant: str) -> Sequence[EnabledPlugin]:
        return [each._replace(tenant=tenant) for each in self.plugins]

    async def ask(self, plugin: EnabledPlugin, hook: str, call: Mapping[str, Any]) -> Reply:
        self.asked.append((plugin.name, hook, call))
        reply = self.handlers[plugin.name, hook](call)
        if isinstance(reply, PluginFailed):
            raise reply
        return Reply(plugin.version, plugin.digest, reply or {"action": "continue"})


@dataclass
class Only(Generic[C]):
    """The one way to a model, which is tried once."""

    provider: str
    client: C
    model: str = "m"

    async def next(self) -> tuple[Way[C], Try | None]:
        return Way(self.provider, self.model, 1, Known(), Access(self.client)), None

    async def answered(self, way: Way[C], first_ms: float | None, tokens: int) -> None:
        pass

    async def failed(self, way: Way[C], call: str, error: ModelError, *, arrived: bool) -> None:
        raise error

    def left(self, way: Way[C]) -> None:
        pass


def choosing(repository: Repository, models: Models[C]) -> Choose[C]:
    """Chooses without pauses."""
    return Choose(repository, models, LocalOutages(), draw=lambda: -0.5, held_s=0)
