"""Documents for the benchmarks: the example handbook, and any number of similar ones."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path

from domain.aggregate import new_id
from domain.log import EVENTS
from ops.bench.stack import Stack

HANDBOOK = Path(__file__).resolve().parents[2] / "examples" / "handbook"

AT_ONCE = 4
SENTENCES = 12
"""Sentences per paragraph, about enough to fill a segment."""

PATIENCE_S = 600.0
"""Maximum time without a document becoming searchable, in seconds."""


def handbook() -> dict[str, bytes]:
    """The files of the example handbook, by name."""
    return {file.name: file.read_bytes() for file in sorted(HANDBOOK.iterdir())}


def sentences() -> list[str]:
    """Sentences of the handbook's plain texts."""
    text = "\n\n".join(file.read_text("utf-8") for file in sorted(HANDBOOK.glob("*.txt")))
    joined = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    found = [sentence for paragraph in joined for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph)]
    return [sentence for sentence in found if 40 <= len(sentence) <= 300 and sentence.endswith(".")]


def written(seed: int, paragraphs: int) -> str:
    """A text of the handbook's sentences in random order with random numbers; equal for equal seeds."""
    dice = random.Random(seed)
    known = sentences()

    def paragraph() -> str:
        chosen = dice.sample(known, SENTENCES)
        return " ".join(re.sub(r"\d+", lambda _: str(dice.randint(2, 4000)), sentence) for sentence in chosen)

    return "\n\n".join(paragraph() for _ in range(paragraphs))


async def upload(
    stack: Stack, dataset: str, files: Mapping[str, bytes], found: Callable[[], object] = lambda: None
) -> list[str]:
    """Upload the files and wait until each is `found`. Return the digests of their segments."""
    names = {new_id(): name for name in files}
    waiting, digests = set(names), []
    since = int((await stack.client.stream.stream_info(EVENTS)).state.last_seq) + 1
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(id: str, name: str) -> None:
        async with turn:
            digest = await stack.client.upload_blob(files[name])
            await stack.make("document.upload", {"dataset": dataset, "name": name, "digest": digest}, id)

    async def follow() -> None:
        loop = asyncio.get_running_loop()
        async with (
            asyncio.timeout(PATIENCE_S) as patience,
            aclosing(stack.client.commits("document", since=since)) as commits,
        ):
            async for commit in commits:
                for event in commit.events:
                    match event["type"].split(".")[1]:
                        case "split":
                            digests.append(event["state"]["segments"])
                        case "completed":
                            waiting.discard(commit.id)
                            found()
                            patience.reschedule(loop.time() + PATIENCE_S)
                        case "failed":
                            raise RuntimeError(f"{names[commit.id]} failed: {event['state']['reason']}")
                if not waiting:
                    return

    await asyncio.gather(follow(), *(one(id, name) for id, name in names.items()))
    return digests
