"""Segments that are extracted, cut, embedded and indexed in a second, beside the embedding model alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.progress import Progress
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from adapters.jetstream.blobs import JetStreamBlobs
from adapters.segmenter import TokenSegmenter
from domain.segments import decode_segments
from handlers.ports import Block, Text
from ops.bench.documents import upload, written
from ops.bench.machine import flags
from ops.bench.measure import Aim, Measure, in_turns
from ops.bench.stack import Sizes, Stack

BATCH = 32
SAMPLE = 32
PARAGRAPHS = 40
"""Of a document, each about a segment."""

AIMS = {"amx_bf16": 2.5, "avx512_bf16": 1.8}
OTHERWISE = 0.9


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    limit = await asyncio.to_thread(Limit, str(stack.model))
    sample = TokenSegmenter(stack.settings.embedding_model).segment(_text(written(0, SAMPLE)))
    await limit.seconds([segment.content for segment in sample])
    wanted = sizes.seconds * len(sample) / await limit.seconds([segment.content for segment in sample])
    documents = max(1, round(wanted / PARAGRAPHS))
    paragraphs = max(1, min(PARAGRAPHS, round(wanted)))
    bar = bars.add_task("documents", total=sizes.rounds * documents)
    texts: list[str] = []

    async def segments_per_second(number: int) -> float:
        dataset = await stack.make("dataset.create", {"name": f"Round {number}"})
        files = {
            f"report-{place}.txt": written(1 + number * documents + place, paragraphs).encode()
            for place in range(documents)
        }
        began = time.perf_counter()
        digests = await upload(stack, dataset, files)
        took = time.perf_counter() - began
        bars.advance(bar, documents)
        texts[:] = await _contents(stack, digests)
        return len(texts) / took

    async def encoded_per_second(number: int) -> float:
        return len(texts) / await limit.seconds(texts)

    figures = await in_turns(sizes.rounds, segments_per_second, encoded_per_second)
    return [Measure("ingest", figures[0], "segments/s", figures[1], aim())]


def aim() -> Aim | None:
    """By what the processor can do; none where a GPU does the work."""
    if torch.cuda.is_available():
        return None
    return Aim(ratio=next((ratio for flag, ratio in AIMS.items() if flag in flags()), OTHERWISE))


class Limit:
    """The model as its library runs it: 32-bit numbers, batches of 32, all cores."""

    def __init__(self, folder: str) -> None:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._encode: Callable[..., Any] = SentenceTransformer(folder, model_kwargs={"dtype": "float32"}).encode

    async def seconds(self, texts: list[str]) -> float:
        began = time.perf_counter()
        await asyncio.to_thread(self._encode, texts, batch_size=BATCH, show_progress_bar=False)
        return time.perf_counter() - began


def _text(content: str) -> Text:
    return Text([Block(paragraph) for paragraph in content.split("\n\n")], pages=None)


async def _contents(stack: Stack, digests: list[str]) -> list[str]:
    """The texts of the segments in these blobs."""
    blobs = JetStreamBlobs(stack.client.connection)
    decoded = [decode_segments(await blobs.get(stack.settings.tenant, digest)) for digest in digests]
    return [segment.content for _, segments in decoded for segment in segments]
