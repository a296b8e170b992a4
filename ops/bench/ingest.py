"""Ingest throughput, from extraction to index, compared with the embedding model alone."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import psutil
import torch
from rich.progress import Progress
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from adapters.embedding.client import NatsEmbedder
from adapters.segmenting.segmenter import TokenSegmenter
from domain.knowledge.segments import decode_segments
from handlers.ports.documents import Block, Text
from ops.bench.documents import upload, written
from ops.bench.machine import flags
from ops.bench.measure import Aim, Measure, in_turns
from ops.bench.stack import Sizes, Stack

BATCH = 32
SAMPLE = 32
PARAGRAPHS = 40
"""Paragraphs per document, each about one segment."""

AIMS = {"amx_bf16": 3.5, "avx512_bf16": 2.5}
OTHERWISE = 1.0

LOOK_S = 0.5
"""Interval of memory samples and of questions, in seconds."""

GROWTH = 1.15
"""Maximum growth of memory from the second quarter of the run to the last, as a factor."""

TICK_S = 0.01
"""Resolution of the system's processor time, in seconds."""

QUESTION = "Which machine was replaced after the flood, and who decided it?"


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    limit = await asyncio.to_thread(Limit, str(stack.model))
    segmenter = TokenSegmenter(stack.settings.embedding_model)
    began, worked = time.perf_counter(), time.process_time()
    sample = segmenter.segment(_text(written(0, SAMPLE)))
    tokenised = len(sample) / (time.perf_counter() - began)
    tokenise_s = (time.process_time() - worked) / len(sample)
    await limit.seconds([segment.content for segment in sample])
    least = max(1, round(sizes.seconds * len(sample) / await limit.seconds([segment.content for segment in sample])))
    wanted = sizes.ingest or least
    documents = max(1, round(wanted / PARAGRAPHS))
    paragraphs = max(1, min(PARAGRAPHS, wanted))
    bar = bars.add_task("documents", total=sizes.rounds * documents)
    texts: list[str] = []
    ingested = 0
    usage = Usage(stack)

    async def segments_per_second(number: int) -> float:
        nonlocal ingested
        dataset = await stack.make("dataset.create", {"name": f"Round {number}"})
        files = {
            f"report-{place}.txt": written(1 + number * documents + place, paragraphs).encode()
            for place in range(documents)
        }
        async with usage.watched():
            began = time.perf_counter()
            digests = await upload(stack, dataset, files, lambda: bars.advance(bar))
            took = time.perf_counter() - began
        contents = [content async for content in _contents(stack, digests)]
        ingested += len(contents)
        texts[:] = contents[:least]
        return len(contents) / took

    async def encoded_per_second(number: int) -> float:
        return len(texts) / await limit.seconds(texts)

    figures = await in_turns(sizes.rounds, segments_per_second, encoded_per_second)
    measures = [
        Measure("ingest", figures[0], "segments/s", figures[1], aim()),
        Measure("ingest.tokeniser", figures[0], "segments/s", tokenised),
        *usage.stages(ingested * tokenise_s),
        usage.memory(),
        await _question(stack, paragraphs),
    ]
    if torch.cuda.is_available():
        tokens = statistics.fmean(len(segment.token_ids) for segment in sample)
        measures.append(Measure("ingest.card", figures[0], "segments/s", limit.of_the_card(tokens)))
    return measures


def aim() -> Aim | None:
    """Aim by the features of the processor; None on a GPU."""
    if torch.cuda.is_available():
        return None
    return Aim(ratio=next((ratio for flag, ratio in AIMS.items() if flag in flags()), OTHERWISE))


class Limit:
    """The model as its library runs it: float32, batches of 32, all cores."""

    def __init__(self, folder: str) -> None:
        logging.disable_progress_bar()
        self._model: Any = SentenceTransformer(folder, model_kwargs={"dtype": "float32"})
        self._encode: Callable[..., Any] = self._model.encode

    async def seconds(self, texts: list[str]) -> float:
        began = time.perf_counter()
        await asyncio.to_thread(self._encode, texts, batch_size=BATCH, show_progress_bar=False)
        return time.perf_counter() - began

    def of_the_card(self, tokens: float) -> float:
        """Upper bound of texts per second on the GPU, from its speed in large bfloat16 matrix products."""
        config = self._model[0].model.config
        weights = sum(each.numel() for name, each in self._model.named_parameters() if "embeddings" not in name)
        attention = 4 * tokens * config.hidden_size * config.num_hidden_layers
        return float(_multiplications_per_second() / (tokens * (2 * weights + attention)))


def _multiplications_per_second() -> float:
    """Floating-point operations per second of a large bfloat16 matrix product."""
    size, times = 8192, 20
    matrix = torch.ones((size, size), dtype=torch.bfloat16, device="cuda")
    matrix @ matrix
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        matrix @ matrix
    torch.cuda.synchronize()
    return float(times * 2 * size**3 / (time.perf_counter() - began))


class Usage:
    """Processor time and memory of servers and workers, sampled while this runs."""

    def __init__(self, stack: Stack) -> None:
        self._processes: Mapping[str, int] = stack.settings.running()["processes"]
        self._seconds: dict[str, float] = defaultdict(float)
        self._megabytes: list[float] = []

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        for name, seconds in self._processor_seconds().items():
            self._seconds[name] -= seconds
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
        for name, seconds in self._processor_seconds().items():
            self._seconds[name] += seconds

    def stages(self, tokenise_s: float) -> list[Measure]:
        """Processor seconds of each stage, with their total as the limit; `tokenise_s` of them in the ingest worker."""
        found = self._seconds
        tokenise_s = min(tokenise_s, found["worker-ingest"])
        stages = {
            "extract": found["extract"],
            "tokenise": tokenise_s,
            "embed": found["worker-embed"],
            "index": found["worker-ingest"] - tokenise_s + found["postgres"],
            "record": sum(found[name] for name in ("nats", "worker-commands", "worker-project")),
        }
        stages = {name: max(seconds, TICK_S) for name, seconds in stages.items()}
        total = sum(stages.values())
        return [Measure(f"ingest.{name}", seconds, "processor s", total) for name, seconds in stages.items()]

    def memory(self) -> Measure:
        """Memory of the ingest and embed workers in the last quarter of the run, with the second as the limit."""
        quarter = max(1, len(self._megabytes) // 4)
        second, last = self._megabytes[quarter : 2 * quarter] or self._megabytes, self._megabytes[-quarter:]
        return Measure(
            "ingest.memory", statistics.median(last), "MB", statistics.median(second), Aim(ratio_at_most=GROWTH)
        )

    async def _look(self) -> None:
        while True:
            workers = [self._processes[name] for name in ("worker-ingest", "worker-embed")]
            self._megabytes.append(sum(psutil.Process(pid).memory_info().rss for pid in workers) / 1e6)
            await asyncio.sleep(LOOK_S)

    def _processor_seconds(self) -> dict[str, float]:
        """Processor seconds by process, including children; the extractors of the ingest worker are listed apart."""
        found: dict[str, float] = defaultdict(float)
        for name, pid in self._processes.items():
            process = psutil.Process(pid)
            own, children = _seconds(process)
            for child in process.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    children += sum(_seconds(child))
            found[name] += own
            found["extract" if name == "worker-ingest" else name] += children
        return found


def _seconds(process: psutil.Process) -> tuple[float, float]:
    """Processor seconds of a process and of its ended children."""
    times = process.cpu_times()
    return times.user + times.system, getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)


async def _question(stack: Stack, paragraphs: int) -> Measure:
    """Time to embed a question during ingest, in milliseconds, with the idle time as the limit."""
    dataset = await stack.make("dataset.create", {"name": "Questions"})
    files = {f"late-{place}.txt": written(-1 - place, paragraphs).encode() for place in range(4)}
    token_ids = [TokenSegmenter(stack.settings.embedding_model).tokenize(QUESTION)]
    async with NatsEmbedder(stack.client.connection, stack.settings.embedding_model) as embedder:

        async def once() -> float:
            began = time.perf_counter()
            await embedder.embed(token_ids, tenant=stack.settings.tenant, urgent=True)
            return (time.perf_counter() - began) * 1000

        idle = [await once() for _ in range(20)]
        uploading = asyncio.create_task(upload(stack, dataset, files))
        busy = [await once()]
        while not uploading.done():
            await asyncio.wait([uploading], timeout=LOOK_S / 5)
            busy.append(await once())
        await uploading
    return Measure("ingest.question.p50", statistics.median(busy), "ms", statistics.median(idle))


def _text(content: str) -> Text:
    return Text([Block(paragraph) for paragraph in content.split("\n\n")], pages=None)


async def _contents(stack: Stack, digests: list[str]) -> AsyncIterator[str]:
    """Texts of the segments in these blobs."""
    for digest in digests:
        _, segments = decode_segments(await stack.client.blobs.get(stack.settings.tenant, digest))
        for segment in segments:
            yield segment.content
