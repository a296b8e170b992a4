"""The segments of a version as documents of an OpenSearch index: written, removed, searched."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
from opensearchpy import AsyncOpenSearch

from adapters.index.opensearch.client import refusal, waiting
from adapters.index.versions.schema import Scope
from adapters.index.versions.store import DECISIVE, RARE
from handlers.ports.index import Entry
from handlers.ports.log import Unavailable
from projections.values.words import words

BODY_BYTES = 8 * 2**20
"""Length in bytes from which a bulk request is sent."""

IN_FLIGHT = 4
"""Maximum number of concurrent bulk requests of this process."""

PAGE = 5000
"""Number of documents per page."""

EXPLORED = 200
"""Number of candidates of HNSW: the more, the fewer of the nearest segments are missed."""

NEVER = 2**62
"""The version of documents deleted for good: none is newer."""

K1 = 1.2

Vector = npt.NDArray[np.float32]
Document = dict[str, Any]
Filter = list[Document]


class Prepared(NamedTuple):
    """The lines that write each entry, by its id."""

    actions: dict[str, list[bytes]]
    dimension: int | None


class Found(NamedTuple):
    """A segment that a subquery found, by its `_id`; `routing` is its document."""

    key: str
    routing: str
    score: float


def place(tenant: str, dataset: str) -> str:
    """The filter value of a dataset's documents. It sorts by tenant, then dataset: a blank sorts before every character
    of a tenant's name."""
    return f"{tenant} {dataset}"


def mapping(dimension: int, engine: str) -> Document:
    """The mapping. Inner products are cosines, as vectors have length 1, and unlike cosines allow the zero vector."""
    method: Document = {"name": "hnsw", "engine": engine, "space_type": "innerproduct"}
    method |= {"parameters": {"m": 16, "ef_construction": 100}}
    kept = {"index": False, "doc_values": False}
    return {
        "dynamic": "strict",
        "_source": {"excludes": ["vector", "words"]},
        "_routing": {"required": True},
        "properties": {
            "place": {"type": "keyword"},
            "id": {"type": "keyword"},
            "document": {"type": "keyword"},
            "position": {"type": "integer"},
            "content": {"type": "text", "index": False},
            "answer": {"type": "text", "index": False},
            "heading": {"type": "keyword", **kept},
            "page": {"type": "integer", **kept},
            "parent": {"type": "integer", **kept},
            "words": {"type": "text", "analyzer": "whitespace", "index_options": "freqs", "similarity": "words"},
            "vector": {"type": "knn_vector", "dimension": dimension, "method": method},
        },
    }


def settings(shards: int) -> Document:
    return {
        "index.knn": True,
        "index.number_of_shards": shards,
        "index.auto_expand_replicas": "0-1",
        "index.max_terms_count": 1_000_000,
        "index.similarity.words": {"type": "BM25", "k1": K1, "b": 0.75},
    }


LOADING: Document = {"index.refresh_interval": "-1", "index.auto_expand_replicas": "false"}
LOADED: Document = {"index.refresh_interval": None, "index.auto_expand_replicas": "0-1"}


def written(name: str) -> str:
    """The alias for writes: unlike an index, a missing alias is not created by a write."""
    return f"{name}-write"


class Segments:
    """The documents of a cluster, in indexes by name. Every method raises: Unavailable."""

    def __init__(self, client: AsyncOpenSearch) -> None:
        self._client = client
        self._bulks = asyncio.Semaphore(IN_FLIGHT)
        self._refreshes: dict[str, tuple[asyncio.Task[None], asyncio.Task[None] | None]] = {}

    async def make(self, name: str, dimension: int, *, live: bool) -> None:
        """Make the index of this name, in place of one that a lost database left behind."""
        with waiting():
            major = int((await self._client.info())["version"]["number"].partition(".")[0])
            body = {"mappings": mapping(dimension, "faiss" if major >= 3 else "lucene"), "aliases": {written(name): {}}}
            await self._client.indices.delete(index=name, params={"ignore_unavailable": "true"})
            await self._client.indices.create(index=name, body=body if live else body | {"settings": LOADING})

    async def finish(self, name: str) -> None:
        """Make a loaded index fit to be searched."""
        with waiting():
            await self._client.indices.put_settings(index=name, body=LOADED)
            await self._client.indices.refresh(index=name)

    async def merge(self, name: str) -> None:
        """Merge the parts of the index into one, for faster searches; it goes on in the background."""
        with waiting():
            await self._client.indices.refresh(index=name)
            await self._client.indices.forcemerge(
                index=name, params={"max_num_segments": 1, "wait_for_completion": "false"}
            )

    async def drop(self, names: Iterable[str]) -> None:
        if listed := ",".join(names):
            with waiting():
                await self._client.indices.delete(index=listed, params={"ignore_unavailable": "true"})

    async def names(self, pattern: str) -> list[str]:
        with waiting():
            found: dict[str, object] = await self._client.indices.get_alias(index=pattern)
        return list(found)

    async def counts(self, names: Sequence[str]) -> dict[str, int]:
        """The number of documents in each index."""
        if not names:
            return {}
        with waiting():
            params = {"ignore_unavailable": "true"}
            stats = await self._client.indices.stats(index=",".join(names), metric="docs", params=params)
        return {name: int(of["primaries"]["docs"]["count"]) for name, of in stats["indices"].items()}

    async def alias(self, alias: str, names: Sequence[str]) -> None:
        """Point the alias to these indexes and no others, in one step."""
        with waiting():
            known = await self._client.indices.get_alias(index=f"{alias}-*")
            actions = [{"add": {"index": name, "alias": alias}} for name in names]
            actions += [
                {"remove": {"index": name, "alias": alias}}
                for name, of in known.items()
                if name not in names and alias in of["aliases"]
            ]
            if actions:
                await self._client.indices.update_aliases(body={"actions": actions})

    # --- changes -------------------------------------------------------------------------------------------------

    async def put(self, name: str, actions: Iterable[list[bytes]]) -> None:
        """Write prepared entries, except over newer ones."""
        await self._bulk(name, _joined(actions))

    async def remove(self, name: str, scope: Scope, ids: Iterable[str], sequence: int) -> None:
        """Remove entries, except newer ones."""
        within = place(scope.tenant, scope.dataset)
        await self._bulk(name, _joined([_delete(f"{within} {id}", scope.document, sequence + 1)] for id in ids))

    async def clear(self, name: str, scope: Scope, *, good: bool = False) -> None:
        """Remove all of a document or a dataset; for `good`: late writes of these entries fail."""
        await self.refresh(name)
        documents = None if scope.document is None else [scope.document]
        query = {"filter": _filter([place(scope.tenant, scope.dataset)], documents)}
        body = {"query": {"bool": query}, "_source": False, "version": True, "size": PAGE}
        found = PAGE
        while found == PAGE:
            with waiting():
                hits = (await self._client.search(index=name, body=body, params=_WHOLE))["hits"]["hits"]
            found = len(hits)
            lines = ([_delete(hit["_id"], hit["_routing"], NEVER if good else hit["_version"])] for hit in hits)
            await self._bulk(name, _joined(lines))
            if found:
                await self.refresh(name)

    async def _bulk(self, name: str, bodies: Iterable[bytes]) -> None:
        """Send all, and only then raise: no request takes effect after the failure was reported."""
        sending = (self._send(name, body) for body in bodies)
        for outcome in await asyncio.gather(*sending, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _send(self, name: str, body: bytes) -> None:
        async with self._bulks:
            with waiting():
                params = {"require_alias": "true", "filter_path": "errors,items.*.error,items.*.status"}
                answer = await self._client.bulk(body=body, index=written(name), params=params)
        if answer["errors"]:
            for item in answer["items"]:
                for of in item.values():
                    # A newer document is there (409); one to delete is not (404), which is no error.
                    if "error" in of and of["status"] != 409:
                        raise refusal(of["status"], of["error"]["type"]) or ValueError(f"OpenSearch: {of['error']}")

    async def refresh(self, name: str) -> None:
        """Let everything be found that was written before this call; concurrent calls share the work."""
        running, following = self._refreshes.get(name, (None, None))
        if running is None or running.done():
            task = asyncio.create_task(self._refresh(name, None))
            self._refreshes[name] = (task, None)
        elif following is None:
            task = asyncio.create_task(self._refresh(name, running))
            self._refreshes[name] = (running, task)
        else:
            task = following
        task.add_done_callback(_seen)  # all callers may have been cancelled
        await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel refreshes that are no longer awaited."""
        tasks = [task for pair in self._refreshes.values() for task in pair if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh(self, name: str, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait([after])
            task = asyncio.current_task()
            assert task is not None
            self._refreshes[name] = (task, None)
        with waiting():
            await self._client.indices.refresh(index=name)

    # --- searches ------------------------------------------------------------------------------------------------

    async def subqueries(
        self,
        name: str,
        tenant: str,
        datasets: Sequence[str],
        documents: Sequence[str] | None,
        vector: Vector | None,
        asked: Mapping[str, int],
        held: Sequence[str],
        candidates: int,
    ) -> tuple[list[Found], list[Found]]:
        """The documents nearest to the vector, with inner products, and those with the words, with BM25, each best
        first, equals by id; only those that hold the words `held`."""
        within = [*_filter([place(tenant, dataset) for dataset in datasets], documents), *_holding(held)]
        queries: list[Document] = []
        if vector is not None:
            queries.append(_near(vector, within, candidates))
        if asked:
            queries.append(_matching(asked, within, candidates))
        answers = iter(await self._searches(name, tenant, queries))
        near = [] if vector is None else _ranked(next(answers), product)
        return near, _ranked(next(answers), bm25) if asked else []

    async def exact(
        self,
        name: str,
        tenant: str,
        datasets: Sequence[str],
        documents: Sequence[str] | None,
        asked: Mapping[str, int],
        held: Sequence[str],
    ) -> list[Found]:
        """The documents that hold every rare word, with BM25, best first; [] without such words, or if they do not
        decide."""
        everywhere = _filter([place(tenant, dataset) for dataset in datasets], None)
        filters = {"filters": {word: {"term": {"words": word}} for word in asked}}
        aggregations = {"held": {"filters": filters}, "searched": {"filter": {"exists": {"field": "words"}}}}
        counting = {"query": {"bool": {"filter": everywhere}}, "size": 0, "aggs": aggregations}
        [answer] = await self._searches(name, tenant, [counting])
        counted, searched = answer["aggregations"]["held"]["buckets"], answer["aggregations"]["searched"]["doc_count"]
        counts = {word: of["doc_count"] for word, of in counted.items() if of["doc_count"]}
        if not (rare := _decisive(asked, counts, searched)):
            return []
        within = [*_filter([place(tenant, dataset) for dataset in datasets], documents), *_holding([*held, *rare])]
        [answer] = await self._searches(name, tenant, [_matching(asked, within, RARE)])
        return _ranked(answer, bm25)

    async def products(self, name: str, tenant: str, keys: Sequence[Found], vector: Vector) -> dict[str, float]:
        """The inner products of these documents with a vector, by `_id`."""
        query = _near(vector, [{"ids": {"values": [found.key for found in keys]}}], len(keys))
        [answer] = await self._searches(name, tenant, [query])
        return {found.key: found.score for found in _ranked(answer, product)}

    async def sources(self, name: str, found: Sequence[Found]) -> dict[str, Document]:
        """The sources of documents, by `_id`, without those that are gone."""
        if not found:
            return {}
        with waiting():
            body = {"docs": [{"_id": it.key, "routing": it.routing} for it in found]}
            answer = await self._client.mget(index=name, body=body)
        for document in answer["docs"]:
            if "error" in document:
                kind = document["error"]["type"]
                raise refusal(404 if kind == "index_not_found_exception" else 503, kind) or Unavailable(kind)
        return {document["_id"]: document["_source"] for document in answer["docs"] if document["found"]}

    async def places(self, name: str, spans: Sequence[tuple[str, str, int, int]]) -> AsyncIterator[Document]:
        """The sources of the documents in these spans: place, document, first and last position."""
        wanted = [
            {"bool": {"filter": [*_filter([of], [document]), {"range": {"position": {"gte": first, "lte": last}}}]}}
            for of, document, first, last in spans
        ]
        body: Document = {"query": {"bool": {"should": wanted}}, "size": PAGE, "sort": ["place", "id"]}
        async for hit in self._pages(body, index=name):
            yield hit["_source"]

    async def moment(self, names: Sequence[str]) -> str:
        """The id of a point in time of these indexes, now."""
        with waiting():
            params = {"keep_alive": "10m", "allow_partial_pit_creation": "false"}
            return str((await self._client.create_pit(index=",".join(names), params=params))["pit_id"])

    async def forget(self, moment: str) -> None:
        with waiting():
            await self._client.delete_pit(body={"pit_id": [moment]})

    async def keys(self, moment: str, within: dict[str, list[str]]) -> AsyncGenerator[str]:
        """The `_id` of every document in these places (by index), in order."""
        parts = [
            {"bool": {"filter": [{"term": {"_index": name}}, {"terms": {"place": places}}]}}
            for name, places in within.items()
        ]
        body: Document = {"query": {"bool": {"should": parts}}, "size": PAGE, "sort": ["place", "id"], "_source": False}
        async for hit in self._pages(body | {"pit": {"id": moment, "keep_alive": "10m"}}):
            yield hit["_id"]

    async def _pages(self, body: Document, index: str | None = None) -> AsyncIterator[Document]:
        hits: list[Document] = []
        params = {} if index is None else _WHOLE
        while True:
            with waiting():
                hits = (await self._client.search(index=index, body=body, params=params))["hits"]["hits"]
            for hit in hits:
                yield hit
            if len(hits) < PAGE:
                return
            body = body | {"search_after": hits[-1]["sort"]}

    async def _searches(self, name: str, tenant: str, queries: Sequence[Document]) -> list[Document]:
        """Answers of several searches in one request; copies of a shard differ a little, so a tenant uses the same."""
        # BM25 counts the words of all shards.
        header = {"index": name, "preference": tenant[:64], "search_type": "dfs_query_then_fetch"}
        lines: list[Document] = []
        for query in queries:
            lines += header | {"allow_partial_search_results": False}, query | _BARE
        if not lines:
            return []
        with waiting():
            answer = await self._client.msearch(body=b"".join(_line(line) for line in lines))
        found: list[Document] = answer["responses"]
        for part in found:
            if "error" in part:
                error = part["error"]["type"]
                raise refusal(part["status"], error) or ValueError(f"OpenSearch: {part['error']}")
        return found


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


_DIGIT = re.compile("[0-9]")
_WHOLE = {"allow_partial_search_results": "false"}
_BARE: Document = {"_source": False, "track_total_hits": False}


def product(score: float) -> float:
    """The inner product behind a score of OpenSearch, which is never negative."""
    return score - 1 if score >= 1 else 1 - 1 / score


def bm25(score: float) -> float:
    """BM25 as in the literature: Lucene omits a constant factor."""
    return score * (K1 + 1)


def _ranked(answer: Document, scale: Any) -> list[Found]:
    found = [Found(hit["_id"], hit["_routing"], scale(hit["_score"])) for hit in answer["hits"]["hits"]]
    return sorted(found, key=lambda it: (-it.score, it.key.rpartition(" ")[2]))


def _near(vector: Vector, within: Filter, size: int) -> Document:
    knn = {"vector": {"vector": vector, "k": max(size, EXPLORED), "filter": {"bool": {"filter": within}}}}
    return {"query": {"knn": knn}, "size": size}


def _matching(asked: Mapping[str, int], within: Filter, size: int) -> Document:
    """The query for these words, each with the weight of the times that it is asked for."""
    terms = [{"term": {"words": {"value": word, "boost": times}}} for word, times in asked.items()]
    return {"query": {"bool": {"should": terms, "minimum_should_match": 1, "filter": within}}, "size": size}


def _decisive(asked: Mapping[str, int], counts: Mapping[str, int], searched: int) -> list[str]:
    """The rare words, by the number of documents that hold each word; [] if they do not decide."""
    weights = {word: asked[word] * math.log(1 + (searched - n + 0.5) / (n + 0.5)) for word, n in counts.items()}
    rare = [word for word, count in counts.items() if count <= RARE]
    share = sum(weights[word] for word in rare) / (sum(weights.values()) or 1)
    return rare if share >= DECISIVE or any(_DIGIT.search(word) for word in rare) else []


def _holding(words: Sequence[str]) -> Filter:
    return [{"term": {"words": word}} for word in words]


def _filter(places: Sequence[str], documents: Sequence[str] | None) -> Filter:
    found: Filter = [{"terms": {"place": places}}]
    if documents is not None:
        found.append({"terms": {"document": documents}})
    return found


def prepared(scope: Scope, entries: Iterable[Entry], sequence: int) -> Prepared:
    """Encode entries; the last of those with the same id counts."""
    of, kept = place(scope.tenant, scope.dataset), {entry.id: entry for entry in entries}
    dimensions = (len(entry.vector) for entry in kept.values() if entry.vector is not None)
    actions = {id: _index(of, scope.document, entry, sequence + 1) for id, entry in kept.items()}
    return Prepared(actions, next(dimensions, None))


def _index(of: str, document: str | None, entry: Entry, version: int) -> list[bytes]:
    """The lines that write an entry; one without a vector is stored, but never found."""
    source: Document = {
        "place": of,
        "id": entry.id,
        "document": document,
        "position": entry.position,
        "content": entry.content,
    }
    optional = {"answer": entry.answer, "heading": entry.heading, "page": entry.page, "parent": entry.parent}
    source |= {name: value for name, value in optional.items() if value is not None}
    if entry.vector is not None:
        vector = np.ascontiguousarray(entry.vector, np.float32)
        source |= {"words": " ".join(words(entry.content).elements()), "vector": vector}
    return [_line({"index": _meta(f"{of} {entry.id}", document, version)}), _line(source)]


def _delete(key: str, document: str | None, version: int) -> bytes:
    return _line({"delete": _meta(key, document, version)})


def _meta(key: str, document: str | None, version: int) -> Document:
    """Versions count from 1 in OpenSearch, sequences of the log from 0 (none known)."""
    return {"_id": key, "routing": document, "version": version, "version_type": "external_gte"}


def _line(document: Document) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _joined(actions: Iterable[list[bytes]]) -> Iterable[bytes]:
    """Join actions into the bodies of bulk requests."""
    lines: list[bytes] = []
    length = 0
    for action in actions:
        lines += action
        length += sum(map(len, action))
        if length >= BODY_BYTES:
            yield b"".join(lines)
            lines, length = [], 0
    if lines:
        yield b"".join(lines)
