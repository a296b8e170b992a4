"""Latency of each search mode over many segments, and recall of semantic search."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from psycopg import AsyncConnection
from rich.progress import Progress

from adapters.index.opensearch.client import Access
from adapters.index.pgvector.encoding import HalfvecDumper
from domain.aggregate import new_id
from handlers.commands.retrieval import WEIGHT
from handlers.ports.index import Index, Mode
from ops.bench.corpus import DIMENSION, TOP_K, Corpus, Query
from ops.bench.indexes import TENANT, cluster, database, fill, in_opensearch, in_postgres, merged
from ops.bench.measure import Aim, Measure, percentile
from ops.bench.stack import Sizes, Stack

MODEL = "made up"
TEN = 10

WARM = 20
"""Warm-up searches per mode."""

MODES: dict[str, tuple[Mode, float | None]] = {
    "semantic": ("semantic", None),
    "full_text": ("full_text", None),
    "hybrid": ("hybrid", None),
    "weighted": ("hybrid", WEIGHT),
}

RECALL = Aim(at_least=0.98)
AGAINST_RAW = Aim(ratio_at_most=1.2)
TEN_AGAINST_ONE = Aim(ratio_at_most=2.0)


Search = Callable[[Query], Awaitable[Sequence[Any]]]
"""Hits or rows, in order of rank."""


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    reading = bars.add_task("texts", total=None)
    corpus = await asyncio.to_thread(Corpus.made, sizes.segments, sizes.searches)
    bars.remove_task(reading)
    url = stack.settings.postgres_url
    async with database(url) as one, database(url) as ten:
        async with in_postgres(one) as index, in_postgres(ten) as other:
            measures = await _searched("pgvector", index, other, corpus, bars, raw=one)
        if there := cluster():
            async with in_opensearch(one, there) as index_, in_opensearch(ten, there) as other_:
                measures += await _searched("opensearch", index_, other_, corpus, bars, merging=there)
    return measures


async def _searched(
    name: str,
    one: Index,
    ten: Index,
    corpus: Corpus,
    bars: Progress,
    *,
    raw: str | None = None,
    merging: Access | None = None,
) -> list[Measure]:
    """Measures of an index with one large knowledge base, of one with ten, and of a bare connection."""
    bar = bars.add_task(f"{name}: segments", total=2 * len(corpus.texts))
    began = time.perf_counter()
    datasets = await _filled(one, corpus, 1, lambda segments: bars.advance(bar, segments))
    took = time.perf_counter() - began
    others = await _filled(ten, corpus, TEN, lambda segments: bars.advance(bar, segments))
    if merging:
        await merged(merging)
    searches = _modes(one, datasets)
    searches |= {"ten": _modes(ten, others)["hybrid"], "tenth": _modes(ten, others[:1])["hybrid"]}
    async with _raw(raw, datasets) if raw else nullcontext() as bare:
        found = await _in_turns(searches | ({"raw": bare} if bare else {}), corpus.queries, f"{name}: searches", bars)
    if bare and _agreement(found["hybrid"], found["raw"]) < 0.9:
        raise RuntimeError("The bare statement and the index disagree.")
    return _measures(f"search.{name}", corpus, found, len(corpus.texts) / took)


async def _filled(index: Index, corpus: Corpus, datasets: int, advance: Callable[[int], None]) -> list[str]:
    """Fill an index with this number of datasets that share the segments. Return their ids."""
    ids = [new_id() for _ in range(datasets)]
    await fill(index, {id: corpus.documents(part, datasets) for part, id in enumerate(ids)}, MODEL, DIMENSION, advance)
    return ids


def _modes(index: Index, datasets: list[str]) -> dict[str, Search]:
    def search(mode: Mode, weight: float | None) -> Search:
        return lambda query: index.search(
            TENANT, datasets, query.text, query.vector, model=MODEL, mode=mode, top_k=TOP_K, weight=weight
        )

    return {name: search(*how) for name, how in MODES.items()}


class Found(NamedTuple):
    milliseconds: float
    hits: Sequence[Any]


async def _in_turns(
    searches: Mapping[str, Search], queries: Sequence[Query], what: str, bars: Progress
) -> dict[str, list[Found]]:
    """Hits and latency of each search for each query, in turns, so that a slow moment affects all."""
    bar = bars.add_task(what, total=len(queries))
    found: dict[str, list[Found]] = {name: [] for name in searches}
    for number, query in enumerate([*queries[:WARM], *queries], -min(WARM, len(queries))):
        for name, search in searches.items():
            began = time.perf_counter()
            hits = await search(query)
            if number >= 0:
                found[name].append(Found((time.perf_counter() - began) * 1000, hits))
        if number >= 0:
            bars.advance(bar)
    return found


def _measures(name: str, corpus: Corpus, found: dict[str, list[Found]], filled: float) -> list[Measure]:
    def milliseconds(kind: str, percent: int) -> float | None:
        return percentile([each.milliseconds for each in found[kind]], percent) if kind in found else None

    measures = [Measure(f"{name}.filled", filled, "segments/s")]
    for mode in MODES:
        for percent in (50, 95):
            limit = milliseconds("raw", percent) if mode == "hybrid" else None
            aim = AGAINST_RAW if limit and percent == 50 else None
            measures.append(Measure(f"{name}.{mode}.p{percent}", milliseconds(mode, percent) or 0, "ms", limit, aim))
    ten, tenth, one = (milliseconds(kind, 50) or 0 for kind in ("ten", "tenth", "hybrid"))
    recalls = [corpus.recall(query, each.hits) for query, each in zip(corpus.queries, found["semantic"], strict=True)]
    return [
        *measures,
        Measure(f"{name}.ten.p50", ten, "ms", one, TEN_AGAINST_ONE),
        Measure(f"{name}.tenth.p50", tenth, "ms"),
        Measure(f"{name}.recall", sum(recalls) / len(recalls), "of 10", aim=RECALL),
    ]


def _agreement(found: Sequence[Found], others: Sequence[Found]) -> float:
    """Share of the first's hits that the second found as well."""
    both = zip(found, others, strict=True)
    pairs = [({hit.id for hit in one.hits}, {id for id, *_ in other.hits}) for one, other in both]
    return sum(len(one & other) for one, other in pairs) / max(1, sum(len(one) for one, _ in pairs))


# --- the limit -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def _raw(url: str, datasets: list[str]) -> AsyncIterator[Search]:
    """A hand-written hybrid search: a prepared statement over a bare connection."""
    async with await AsyncConnection.connect(url, autocommit=True, options=_OPTIONS) as connection:
        connection.adapters.register_dumper(np.ndarray, HalfvecDumper)
        cursor = await connection.execute("SELECT version FROM headrace_index.routes WHERE dataset = %s", datasets[:1])
        [number] = await cursor.fetchone() or [0]
        statement = _RAW.replace("{n}", str(number)).encode()

        async def search(query: Query) -> Sequence[Any]:
            asked = {"words": query.words, "vector": query.vector, "top_k": TOP_K}
            async with connection.cursor(binary=True) as cursor:
                await cursor.execute(statement, asked | {"tenant": TENANT, "dataset": datasets[0]}, prepare=True)
                return await cursor.fetchall()

        yield search


_OPTIONS = " ".join(
    f"-c {name}={value}"
    for name, value in {
        "hnsw.ef_search": 200,
        "hnsw.iterative_scan": "relaxed_order",
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "max_parallel_workers_per_gather": 0,
        "jit": "off",
    }.items()
)

_RAW = """
WITH counted AS MATERIALIZED (
    SELECT sum(segments)::float8 AS segments, (sum(length) / sum(segments))::float8 AS average
    FROM headrace_index.statistics_{n}
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s
), nearest AS MATERIALIZED (
    SELECT id, embedding <#> %(vector)s::halfvec AS distance
    FROM headrace_index.segments_{n}
    WHERE (tenant = %(tenant)s AND dataset = %(dataset)s) IS TRUE
    ORDER BY embedding <#> %(vector)s::halfvec
    LIMIT 100
), semantic AS (
    SELECT id, row_number() OVER (ORDER BY distance + 0) AS rank FROM nearest
), matched AS MATERIALIZED (
    SELECT segment AS id, word, frequency::float8, length::float8
    FROM headrace_index.postings_{n}
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND word = ANY (%(words)s::text[])
), weights AS MATERIALIZED (
    SELECT word, ln(1 + ((SELECT segments FROM counted) - count(*) + 0.5) / (count(*) + 0.5)) AS weight
    FROM matched
    GROUP BY word
), weighed AS (
    SELECT id, sum(weight * frequency * 2.2
        / (frequency + 1.2 * (0.25 + 0.75 * length / (SELECT average FROM counted)))) AS bm25
    FROM matched JOIN weights USING (word)
    GROUP BY id
    ORDER BY bm25 DESC
    LIMIT 100
), full_text AS (
    SELECT id, row_number() OVER (ORDER BY bm25 DESC) AS rank FROM weighed
), fused AS (
    SELECT id, coalesce(1.0 / (60 + semantic.rank), 0) + coalesce(1.0 / (60 + full_text.rank), 0) AS fusion
    FROM semantic FULL JOIN full_text USING (id)
    ORDER BY fusion DESC
    LIMIT %(top_k)s
)
SELECT id::text, document, position, content, page, heading, fusion
FROM fused JOIN headrace_index.segments_{n} USING (id)
WHERE tenant = %(tenant)s AND dataset = %(dataset)s
ORDER BY fusion DESC
"""
