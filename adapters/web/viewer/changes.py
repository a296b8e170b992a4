"""Commands that pages send, and the wait until the tables show what they did."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.datastructures import FormData
from starlette.requests import Request

from adapters.web.viewer.backend import Backend
from domain.log import Outcome

SEEN_S = 3.0
"""How long a page waits for the tables; after that it shows what there is."""

_POSITION = "SELECT sequence FROM headrace_projection.checkpoints WHERE stream = 'EVENTS'"


async def fields(request: Request) -> FormData:
    """The form that was sent, without files."""
    return await request.form(max_files=0, max_fields=1000, max_part_size=2**20)


def text(form: FormData, name: str) -> str:
    """One field, with line ends as they are elsewhere."""
    return str(form.get(name, "")).replace("\r\n", "\n").strip()


async def seen(backend: Backend, outcomes: Iterable[Outcome]) -> bool:
    """Wait until the tables hold what the accepted commands did; False when that takes too long."""
    last = max((outcome.position.sequence for outcome in outcomes if outcome.position), default=0)
    try:
        async with asyncio.timeout(SEEN_S):
            while (row := await backend.row(_POSITION)) is None or row["sequence"] < last:
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True
