"""Bytes that questions take, by stream and by table, and those of a message in a long conversation."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import psycopg
from rich.progress import Progress, TaskID

from adapters.postgres.tables import STREAMS, wait_for
from domain.log import Position
from ops.bench.answer import questions
from ops.bench.documents import handbook, upload, written
from ops.bench.measure import Aim, Measure
from ops.bench.stack import Sizes, Stack

AT_ONCE = 8
PARAGRAPHS = 60
"""Paragraphs of text in addition to the handbook, about a segment each."""

MOST_IN_NATS, MOST_IN_POSTGRES = 12.0, 15.0
"""Kilobytes that a question with retrieval may take."""

GROWTH = 1.2
"""Maximum of the bytes of a message in the last quarter, as a multiple of those in the second."""

_TABLES = """
SELECT relname, pg_total_relation_size(oid) FROM pg_class
WHERE relnamespace = 'headrace'::regnamespace AND relkind = 'r'
"""


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    number, quarter = 5 * sizes.questions, max(sizes.questions // 2, 1)
    bar = bars.add_task("questions", total=number + 4 * quarter)
    dataset = await stack.make("dataset.create", {"name": "Handbook"})
    await upload(stack, dataset, handbook() | {"more.txt": written(1, PARAGRAPHS).encode()})
    app = await stack.make("app.create", {"name": "Handbook assistant"})
    await stack.make("app.configure", {"app": app, "datasets": [dataset]})
    queries = questions()
    await _asked(stack, app, queries[0])
    before = await _bytes(stack)
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(query: str) -> None:
        async with turn:
            await _asked(stack, app, query)
            bars.advance(bar)

    await asyncio.gather(*(one(queries[each % len(queries)]) for each in range(number)))
    taken = {where: size / 1000 / number for where, size in ((await _bytes(stack)) - before).items()}
    return [*_totals(taken), *(await _conversation(stack, quarter, bars, bar))]


def _totals(taken: dict[str, float]) -> list[Measure]:
    measures = []
    for server, most in (("nats", MOST_IN_NATS), ("postgres", MOST_IN_POSTGRES)):
        parts = {where: size for where, size in taken.items() if where.startswith(server)}
        measures.append(Measure(f"storage.{server}", sum(parts.values()), "kB/question", aim=Aim(at_most=most)))
        for where, size in sorted(parts.items(), key=lambda part: -part[1]):
            measures.append(Measure(f"storage.{where}", size, "kB/question"))
    return measures


async def _conversation(stack: Stack, quarter: int, bars: Progress, bar: TaskID) -> list[Measure]:
    """Bytes of a message in the last quarter of a conversation; limit: in the second, when the history is full."""
    app = await stack.make("app.create", {"name": "Companion"})
    await stack.make("app.configure", {"app": app})
    conversation = None
    marks = []
    for number in range(4 * quarter):
        if number % quarter == 0:
            marks.append(_of(await _bytes(stack), "nats"))
        conversation = await _asked(stack, app, f"And what is {number}?", conversation)
        bars.advance(bar)
    marks.append(_of(await _bytes(stack), "nats"))
    quarters = [(end - start) / 1000 / quarter for start, end in pairwise(marks)]
    aim = Aim(ratio_at_most=GROWTH)
    return [Measure("storage.conversation", quarters[-1], "kB/message", quarters[1], aim)]


def _of(sizes: Counter[str], server: str) -> int:
    return sum(size for where, size in sizes.items() if where.startswith(server))


async def _asked(stack: Stack, app: str, query: str, conversation: str | None = None) -> str:
    """Ask, and return the id of the conversation. Raises: RuntimeError when there is no answer."""
    frames = [frame async for frame in stack.client.ask(app, query, conversation=conversation)]
    if frames[-1]["type"] != "answered":
        raise RuntimeError(f"no answer: {frames[-1]}")
    return str(frames[0]["conversation"])


async def _bytes(stack: Stack) -> Counter[str]:
    """Bytes of each stream and table, when the tables have all that was recorded."""
    found: Counter[str] = Counter()
    for info in await stack.client.stream.streams_info():
        stream = str(info.config.name)
        if stream in STREAMS:
            await wait_for(stack.settings.postgres_url, Position(stream, info.state.last_seq))
        found[f"nats.{stream}"] = int(info.state.bytes)
    async with await psycopg.AsyncConnection.connect(stack.settings.postgres_url) as connection:
        for table, size in await (await connection.execute(_TABLES)).fetchall():
            found[f"postgres.{table}"] = size
    return found
