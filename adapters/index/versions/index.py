"""An index of several versions: each dataset is written and searched where its route leads."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from adapters.index.versions.build import VersionedBuild, building
from adapters.index.versions.changes import delete, lock_versions, make_version, remove
from adapters.index.versions.database import Cursor, Database
from adapters.index.versions.schema import Scope
from adapters.index.versions.store import AnyStore, Question
from domain.embedding import shown
from handlers.ports.index import Entry, Hit, Mode, Moved, Span, changed
from handlers.ports.log import Unavailable
from handlers.retrieval.fusion import fused
from projections.values.words import RULES, asked, holds, quoted, words

LONGEST_QUERY = 128
"""Maximum number of different words of a query that are looked up."""

COMPARED = 400
"""Maximum number of segments that hold the words of quoted phrases and are compared with them."""

TRIES = 5
"""Maximum lookups of a dataset's version when it is moved during a search."""

REMEMBERED = 10_000
"""Maximum of remembered versions of datasets; every search checks that its version is still the one."""

T = TypeVar("T")


class Version(NamedTuple):
    number: int
    model: str
    dimension: int


class VersionedIndex:
    """An index in a database that was set up for it; use it as a context manager."""

    def __init__(self, url: str, store: AnyStore, *, connections: int, timeout_s: float) -> None:
        self._store = store
        self._sql = store.schema.sql
        self._database = Database(url, store.schema, store.configure, connections=connections, timeout_s=timeout_s)
        self._versions: dict[tuple[str, str], Version] = {}

    async def __aenter__(self) -> Self:
        await self._database.pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.pool.close()

    async def models(self, tenant: str, datasets: Sequence[str]) -> dict[str, str]:
        return {dataset: version.model for dataset, version in (await self._routes(tenant, datasets)).items()}

    async def dimension(self, tenant: str, dataset: str) -> int | None:
        version = (await self._routes(tenant, [dataset])).get(dataset)
        return version.dimension if version else None

    async def write(
        self, tenant: str, dataset: str, document: str, entries: Sequence[Entry], *, model: str, version: int
    ) -> None:
        if not entries:
            return
        scope = Scope(tenant, dataset, document)
        prepared = await self._store.prepare(scope, entries, version)
        async with self._database.writing(scope, unmoved=True) as cursor:
            number = await self._route(cursor, scope, model, prepared.dimension)
            if number is not None:
                await self._store.put(cursor, number, scope, prepared, version, found=True)
            else:
                # A cancelled write may have come in after the deletion: delete it, too.
                await delete(cursor, self._store, scope)

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        if ids:
            scope = Scope(tenant, dataset, document)
            async with self._database.writing(scope) as cursor:
                await remove(cursor, self._store, scope, ids, version)

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        scope = Scope(tenant, dataset, document)
        async with self._database.writing(scope, unmoved=document is None) as cursor:
            await delete(cursor, self._store, scope)

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
        looked_up = {} if mode == "semantic" else dict(list(asked(query).items())[:LONGEST_QUERY])
        near = None if mode == "full_text" else vector
        weight = weight if mode == "hybrid" else None
        if top_k < 1 or not datasets or (near is None and not looked_up) or (documents is not None and not documents):
            return []
        question = Question(tenant, looked_up, near, mode, weight, documents, top_k)
        phrases = [] if mode == "semantic" else quoted(query)
        hits, exact = await asyncio.gather(
            self._found(datasets, question, model), self._with_phrases(datasets, question, model, phrases)
        )
        return _first(exact, hits)[:top_k]

    async def _with_phrases(
        self, datasets: Sequence[str], question: Question, model: str, phrases: Sequence[str]
    ) -> list[Hit]:
        """The best hits that hold all of these phrases."""
        held = [word for word in dict.fromkeys(word for phrase in phrases for word in words(phrase))]
        if not held:
            return []
        hits = await self._found(datasets, replace(question, held=held[:LONGEST_QUERY], top_k=COMPARED), model)
        return [hit for hit in hits if all(holds(hit.entry.content, phrase) for phrase in phrases)]

    async def _found(self, datasets: Sequence[str], question: Question, model: str) -> list[Hit]:
        ask = partial(self._store.search, self._database, question=question)
        length = None if question.vector is None else len(question.vector)
        found = await self._ask(question.tenant, datasets, ask, model=model, length=length)
        if question.mode == "semantic" or question.weight is not None:
            return sorted((hit for hits in found for hit in hits), key=lambda hit: (-hit.score, hit.id))[
                : question.top_k
            ]
        return fused(found, question.top_k)

    async def texts(self, tenant: str, wanted: Sequence[Span]) -> list[list[Entry]]:
        spans = list(dict.fromkeys(wanted))
        ask = partial(self._store.read, self._database, tenant=tenant, spans=spans)
        found = [placed for part in await self._ask(tenant, [span.dataset for span in spans], ask) for placed in part]
        found.sort(key=lambda placed: (placed.entry.position, placed.entry.id))
        return [[placed.entry for placed in found if span.holds(*placed)] for span in wanted]

    def contents(self) -> AsyncGenerator[list[tuple[str, str, str]]]:
        return self._store.contents(self._database)

    @asynccontextmanager
    async def build(self, tenant: str | None = None, dataset: str | None = None) -> AsyncIterator[VersionedBuild]:
        async with building(self._database, self._store, tenant, dataset) as build:
            yield build
        self._versions.clear()

    async def _ask(
        self,
        tenant: str,
        datasets: Sequence[str],
        ask: Callable[[int, list[str]], Awaitable[list[T] | None]],
        *,
        model: str | None = None,
        length: int | None = None,
    ) -> list[list[T]]:
        """The answer of each version that some of the datasets are in.

        Raises: Moved when one is not searched with the `model`; ModelError `embedding_changed` when one has vectors of
        another `length`; Unavailable.
        """
        for attempt in range(TRIES):
            routes = await self._routes(tenant, datasets, again=attempt > 0)
            if model is not None and any(version.model != model for version in routes.values()):
                if attempt:
                    raise Moved
                continue
            other = next((it for it in routes.values() if length not in (None, it.dimension)), None)
            if other and length is not None:
                if attempt:
                    raise changed(shown(other.model), other.dimension, length)
                continue
            members = defaultdict(list)
            for dataset, version in routes.items():
                members[version.number].append(dataset)
            asking = [ask(number, of) for number, of in members.items()]
            answers = [answer for answer in await asyncio.gather(*asking) if answer is not None]
            if len(answers) == len(members):
                return answers
        raise Unavailable(f"The datasets were moved {TRIES} times while they were searched.")

    async def _routes(self, tenant: str, datasets: Sequence[str], *, again: bool = False) -> dict[str, Version]:
        """The versions of the datasets that have one, as last seen, or looked up `again`."""
        if again:
            for dataset in datasets:
                self._versions.pop((tenant, dataset), None)
        missing = [id for id in dict.fromkeys(datasets) if (tenant, id) not in self._versions]
        if missing:
            async with self._database.connection() as connection:
                rows = await (await connection.execute(self._sql(_ROUTES), [tenant, missing])).fetchall()
            self._remember({(tenant, dataset): Version(*version) for dataset, *version in rows})
        found = {id: self._versions.get((tenant, id)) for id in datasets}
        return {id: version for id, version in found.items() if version}

    def _remember(self, versions: dict[tuple[str, str], Version]) -> None:
        if len(self._versions) + len(versions) > REMEMBERED:
            self._versions.clear()
        self._versions |= versions

    async def _route(self, cursor: Cursor, scope: Scope, model: str, dimension: int | None) -> int | None:
        """The version that a document is written to, None when it was deleted; the first write chooses it.

        Raises: Moved; ModelError; ValueError when the version must be made and no dimension is known.
        """
        deleted, version = await self._where(cursor, scope)
        if deleted:
            return None
        if version is None:
            await lock_versions(cursor, self._store)
            await cursor.execute(self._sql(_NEWEST), {"model": model, "dimension": dimension, "rules": RULES})
            row = await cursor.fetchone()
            if row is None and dimension is None:
                raise ValueError("The first entries that are written for a model must hold a vector.")
            new = row[0] if row else await make_version(cursor, self._store, model, dimension or 0, live=True)
            await cursor.execute(self._sql(_FIRST_ROUTE), [scope.tenant, scope.dataset, new])
            if row is None:
                await self._store.point(cursor)
            _, version = await self._where(cursor, scope)
        assert version is not None
        if version.model != model:
            self._remember({(scope.tenant, scope.dataset): version})
            raise Moved
        if dimension not in (None, version.dimension):
            raise changed(shown(model), version.dimension, dimension or 0)
        return version.number

    async def _where(self, cursor: Cursor, scope: Scope) -> tuple[bool, Version | None]:
        """True if a document was deleted; the version of its dataset."""
        await cursor.execute(self._sql(_WHERE), scope._asdict())
        deleted, number, *of = await cursor.fetchone() or (False, None)
        return deleted, None if number is None else Version(number, *of)


def _first(exact: Sequence[Hit], hits: Sequence[Hit]) -> list[Hit]:
    """The exact hits, with scores that are not below the others', and then the others."""
    known = {hit.id: hit for hit in hits}
    best = max((hit.score for hit in hits), default=-math.inf)
    first = [
        replace(known.get(hit.id) or replace(hit, semantic_rank=None, full_text_rank=None), score=max(hit.score, best))
        for hit in exact
    ]
    return [*first, *(hit for hit in hits if hit.id not in {hit.id for hit in first})]


_ROUTES = """
SELECT dataset::text, version, model, dimension FROM {schema}.routes JOIN {schema}.versions ON number = version
WHERE tenant = %s AND dataset = ANY (%s::uuid[])
"""

_WHERE = """
SELECT EXISTS (
    SELECT FROM {schema}.tombstones
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND (document = %(document)s OR document IS NULL)
), version, model, dimension
FROM (VALUES (1)) AS once LEFT JOIN (
    {schema}.routes JOIN {schema}.versions ON number = version
) ON tenant = %(tenant)s AND dataset = %(dataset)s
"""

_NEWEST = """
SELECT max(number) FROM {schema}.versions
WHERE live AND rules = %(rules)s AND model = %(model)s
    AND dimension = coalesce(%(dimension)s::integer, dimension) HAVING count(*) > 0
"""

_FIRST_ROUTE = "INSERT INTO {schema}.routes (tenant, dataset, version) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
