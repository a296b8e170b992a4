"""Documents by what their metadata says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, LiteralString, Self

from psycopg import OperationalError, errors
from psycopg_pool import AsyncConnectionPool

from domain.chat.app import Condition
from domain.log import EVENTS
from handlers.ports.log import Unavailable

POLL_S = 0.02
"""Between two looks at how far the tables are."""


class PostgresDocuments:
    """The port Documents, on the read table; use it as a context manager."""

    def __init__(self, url: str, *, connections: int = 4, timeout_s: float = 10.0) -> None:
        self._pool = AsyncConnectionPool(
            url,
            kwargs={"autocommit": True, "connect_timeout": 10, "options": "-c timezone=UTC -c datestyle=ISO"},
            min_size=0,
            max_size=connections,
            timeout=timeout_s,
            open=False,
        )
        self._timeout = timeout_s

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    async def matching(
        self, tenant: str, datasets: Sequence[str], conditions: Sequence[Condition], *, logical_operator: str
    ) -> list[str]:
        tests = []
        parameters: dict[str, Any] = {"tenant": tenant, "datasets": list(datasets)}
        for number, condition in enumerate(conditions):
            operator, value = condition["comparison_operator"], condition["value"]
            tests.append(_test(condition["name"], operator, number))
            parameters[f"name_{number}"] = condition["name"]
            parameters[f"value_{number}"] = _time(str(value)) if operator in ("before", "after") else value
        joined = (" OR " if logical_operator == "or" else " AND ").join(tests)
        statement = f"{_MATCHING} AND ({joined or 'true'})"
        return [id for (id,) in await self._rows(statement, parameters)]

    async def of(self, tenant: str, dataset: str, sequence: int) -> list[str]:
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    [(reached,)] = await self._rows(REACHED, {})
                    if reached >= sequence:
                        break
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Unavailable(f"The tables have not come up to {EVENTS} {sequence} in {self._timeout:g} s.") from None
        return [id for (id,) in await self._rows(_MATCHING, {"tenant": tenant, "datasets": [dataset]})]

    async def _rows(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        try:
            async with self._pool.connection() as connection:
                return await (await connection.execute(statement.encode(), parameters)).fetchall()
        except (OperationalError, errors.UndefinedTable) as error:
            raise Unavailable(f"The table of documents does not answer: {error}") from error


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _test(name: str, operator: str, number: int) -> str:
    """Return the test of the condition of this number, as SQL that holds none of the values given."""
    found = "doc_metadata -> $name::text"
    if name in _BUILT_IN:
        found = f"coalesce({found}, {_BUILT_IN[name]})"
    given = f"(SELECT nullif({found}, 'null') AS json) AS given"
    known = f"(SELECT jsonb_typeof(json) AS kind, json #>> '{{}}' AS text FROM {given}) AS known"
    test = f"(SELECT {_TESTS[operator]} FROM {known})"
    return test.replace("$name", f"%(name_{number})s").replace("$value", f"%(value_{number})s")


REACHED = "SELECT coalesce(max(sequence), 0) FROM headrace_projection.checkpoints WHERE stream = 'EVENTS'"

_MATCHING = """
SELECT id FROM headrace.documents WHERE tenant_id = %(tenant)s AND dataset_id = ANY (%(datasets)s::text[])
"""

_BUILT_IN: dict[str, LiteralString] = {
    "document_name": "to_jsonb(name)",
    "uploader": "to_jsonb(created_by)",
    "upload_date": "to_jsonb(created_at)",
    "last_update_date": "to_jsonb(updated_at)",
}
"""Built-in fields: every document has a value of each, unless its metadata has one by that name."""

_NUMBER: LiteralString = "(CASE kind WHEN 'number' THEN text::numeric END)"

# Only what looks like a date is read as one, not PostgreSQL's own `now` or `infinity`; numbers are seconds since 1970.
_TIME: LiteralString = r"""(CASE
    WHEN kind = 'number' AND abs(text::numeric) < 2e11 THEN to_timestamp(text::float8)
    WHEN kind = 'string' AND text ~ '^\d{4}-\d\d-\d\d' AND pg_input_is_valid(text, 'timestamptz')
    THEN text::timestamptz
END)"""

_TESTS: dict[str, LiteralString] = {
    "contains": "position($value::text IN text) > 0",
    "not contains": "position($value::text IN text) = 0",
    "start with": "starts_with(text, $value::text)",
    "end with": "right(text, length($value::text)) = $value::text",
    "is": "text = $value::text",
    "is not": "text <> $value::text",
    "empty": "coalesce(text, '') = ''",
    "not empty": "text <> ''",
    "in": "text = ANY ($value::text[])",
    "not in": "text <> ALL ($value::text[])",
    "=": f"{_NUMBER} = $value::numeric",
    "≠": f"{_NUMBER} <> $value::numeric",
    ">": f"{_NUMBER} > $value::numeric",
    "<": f"{_NUMBER} < $value::numeric",
    "≥": f"{_NUMBER} >= $value::numeric",
    "≤": f"{_NUMBER} <= $value::numeric",
    "before": f"{_TIME} < $value::timestamptz",
    "after": f"{_TIME} > $value::timestamptz",
}
