"""Forms that pages receive, commands that they send, and the wait until the tables show the change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.datastructures import FormData
from starlette.requests import Request

from adapters.jetstream.client import Outcome
from adapters.web.viewer.backend import Backend

SEEN_S = 3.0
"""Maximum wait of a page for the tables, in seconds."""

_POSITION = "SELECT sequence FROM headrace_projection.checkpoints WHERE stream = 'EVENTS'"


async def fields(request: Request) -> FormData:
    """The form of a request, without files."""
    return await request.form(max_files=0, max_fields=1000, max_part_size=2**20)


def text(form: FormData, name: str) -> str:
    """A field of a form, stripped, with line ends `\n`."""
    return str(form.get(name, "")).replace("\r\n", "\n").strip()


async def seen(backend: Backend, outcomes: Iterable[Outcome]) -> bool:
    """Wait until the tables show what the accepted commands changed; False after `SEEN_S` seconds."""
    last = max((outcome["sequence"] or 0 for outcome in outcomes), default=0)
    try:
        async with asyncio.timeout(SEEN_S):
            while (row := await backend.row(_POSITION)) is None or row["sequence"] < last:
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True
