"""Annotations of the read tables, and the one whose question is closest to a vector."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, LiteralString, Self

import numpy as np
import numpy.typing as npt
from psycopg import OperationalError, errors
from psycopg_pool import AsyncConnectionPool

from adapters.postgres.documents import POLL_S, REACHED
from domain.log import EVENTS
from handlers.chat.annotations import unpack
from handlers.ports.annotations import MOST, Nearest
from handlers.ports.documents import Vectors
from handlers.ports.index import changed
from handlers.ports.log import Unavailable

KEPT = 20_000
"""Maximum number of vectors that are kept in memory, over all apps: 15 MB with 384 numbers each."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """The vectors of an app as the table had them, at a state of it."""

    state: tuple[int, int]
    ids: list[str]
    vectors: npt.NDArray[np.float16]


class PostgresAnnotations:
    """The port Annotations; use it as a context manager. The vectors of apps that are asked stay in memory as long as
    the table has no others."""

    def __init__(self, url: str, *, connections: int = 4, timeout_s: float = 10.0) -> None:
        self._pool = AsyncConnectionPool(
            url,
            kwargs={"autocommit": True, "connect_timeout": 10},
            min_size=0,
            max_size=connections,
            timeout=timeout_s,
            open=False,
        )
        self._timeout = timeout_s
        self._kept: OrderedDict[tuple[str, str, str], _Kept] = OrderedDict()

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    async def of(self, tenant: str, app: str, sequence: int) -> Sequence[str]:
        try:
            async with asyncio.timeout(self._timeout):
                while (await self._rows(REACHED, {}))[0][0] < sequence:
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Unavailable(f"The tables have not come up to {EVENTS} {sequence} in {self._timeout:g} s.") from None
        return [id for (id,) in await self._rows(_OF, {"tenant": tenant, "app": app, "most": MOST})]

    async def nearest(self, tenant: str, app: str, model: str, vector: Vectors) -> Nearest | None:
        kept = await self._vectors(tenant, app, model)
        if not kept.ids:
            return None
        if kept.vectors.shape[1] != len(vector):
            raise changed(model, kept.vectors.shape[1], len(vector))
        scores = kept.vectors.astype(np.float32) @ np.asarray(vector, np.float32)
        best = int(scores.argmax())
        return Nearest(kept.ids[best], min(float(scores[best]), 1.0))

    async def _vectors(self, tenant: str, app: str, model: str) -> _Kept:
        key = tenant, app, model
        of = {"tenant": tenant, "app": app, "model": model, "most": MOST}
        [(count, position)] = await self._rows(_STATE, of)
        kept = self._kept.pop(key, None)
        if kept is None or kept.state != (count, position):
            rows = await self._rows(_VECTORS, of)
            vectors = [unpack(packed).astype(np.float16) for _, packed in rows]
            for each in vectors:
                if len(each) != len(vectors[0]):
                    raise changed(model, len(vectors[0]), len(each))
            kept = _Kept(
                (count, position), [id for id, _ in rows], np.stack(vectors) if rows else np.zeros((0, 0), "f2")
            )
        self._kept[key] = kept
        while sum(len(each.ids) for each in self._kept.values()) > KEPT and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return kept

    async def _rows(self, statement: LiteralString, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        try:
            async with self._pool.connection() as connection:
                return await (await connection.execute(statement, parameters)).fetchall()
        except (OperationalError, errors.UndefinedTable) as error:
            raise Unavailable(f"The table of annotations does not answer: {error}") from error


_OF: LiteralString = """
SELECT id FROM headrace.message_annotations WHERE tenant_id = %(tenant)s AND app_id = %(app)s
ORDER BY created_at DESC, id DESC LIMIT %(most)s
"""

_STATE: LiteralString = """
SELECT count(*), coalesce(max(log_position), 0) FROM headrace.annotation_vectors
WHERE tenant_id = %(tenant)s AND app_id = %(app)s AND embedding_model = %(model)s
"""

_VECTORS: LiteralString = """
SELECT annotation_id, vector FROM headrace.annotation_vectors
WHERE tenant_id = %(tenant)s AND app_id = %(app)s AND embedding_model = %(model)s
ORDER BY annotation_id DESC LIMIT %(most)s
"""
