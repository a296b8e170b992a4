"""A program that guesses API keys at a NATS server: `python -m … HOST PORT GUESSES AT_ONCE PATIENCE_S one|many`.

With `one`, all guesses are from one address; with `many`, from as many addresses as have each guess answered. It prints
how many connections were `refused`, `unanswered` after the patience, and let `in`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator

from adapters.jetstream.callout import MOST_WRONG


async def guess(
    host: str, port: int, numbers: Iterator[int], patience_s: float, many: bool, ends: Counter[str]
) -> None:
    """Open a connection for each number, until there are no more."""
    for number in numbers:
        place = number // MOST_WRONG
        source = (f"127.{1 + (place >> 16)}.{place >> 8 & 255}.{place & 255}", 0) if many else None
        reader, writer = await asyncio.open_connection(host, port, local_addr=source)
        try:
            async with asyncio.timeout(patience_s):
                ends[await _shown(f"app-{hashlib.sha256(str(number).encode()).hexdigest()[:24]}", reader, writer)] += 1
        except TimeoutError:
            ends["unanswered"] += 1
        finally:
            writer.close()


async def _shown(key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """The end of a connection that shows this key."""
    assert (await reader.readline()).startswith(b"INFO ")
    options = {"auth_token": key, "verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 1}
    writer.write(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
    try:
        while line := await reader.readline():
            if line.startswith(b"PONG"):
                return "in"
            if line.startswith(b"-ERR"):
                assert b"Authorization Violation" in line, line
                return "refused"
    except ConnectionError:
        pass
    return "refused"


async def main(host: str, port: int, guesses: int, at_once: int, patience_s: float, many: bool) -> None:
    ends, numbers = Counter[str](), iter(range(guesses))
    await asyncio.gather(*(guess(host, port, numbers, patience_s, many, ends) for _ in range(at_once)))
    sys.stdout.write(json.dumps(ends))


if __name__ == "__main__":
    host, port, guesses, at_once, patience_s, which = sys.argv[1:]
    asyncio.run(main(host, int(port), int(guesses), int(at_once), float(patience_s), which == "many"))
