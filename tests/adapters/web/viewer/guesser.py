"""A program that guesses passwords at a viewer: `python -m … HOST PORT GUESSES AT_ONCE one|many`.

With `one`, all guesses are from one address for one account; with `many`, each is from another address for another.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator


async def guess(host: str, port: int, numbers: Iterator[int], many: bool, found: Counter[int]) -> None:
    """Send guesses over one connection, until there are no more numbers."""
    reader, writer = await asyncio.open_connection(host, port)
    for number in numbers:
        account = f"user{number}%40example.com" if many else "ada%40example.com"
        address = f"198.51.{number >> 8}.{number & 255}" if many else "198.51.100.7"
        body = f"email={account}&password=guess+number+{number}"
        lines = [
            "POST /login HTTP/1.1",
            f"Host: {host}:{port}",
            f"Origin: http://{host}:{port}",
            f"X-From: {address}",
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(body)}",
            "",
            body,
        ]
        writer.write("\r\n".join(lines).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r")[0])
        await reader.readexactly(length)
        found[int(head.split(" ", 2)[1])] += 1
    writer.close()


async def main(host: str, port: int, guesses: int, at_once: int, many: bool) -> None:
    found, numbers = Counter[int](), iter(range(guesses))
    await asyncio.gather(*(guess(host, port, numbers, many, found) for _ in range(at_once)))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    host, port, guesses, at_once, which = sys.argv[1:]
    asyncio.run(main(host, int(port), int(guesses), int(at_once), which == "many"))
