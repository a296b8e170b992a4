"""The contained process that queries SQLite files, by the protocol of `adapters.sandbox.serve`.

The data of a request is the file; its head has the `statement`, none for the schema. The reply is JSON: a text, or a
fault.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from adapters.sandbox.serve import serve
from adapters.tools.sql.answer import MOST_ROWS, table

_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


def reply(head: dict[str, Any], data: bytes) -> bytes:
    try:
        found = {"text": _answer(data, head["statement"])}
    except sqlite3.Error as error:
        found = {"fault": f"The database refused it: {error}"[:1000]}
    return json.dumps(found).encode(errors="replace")


def _answer(data: bytes, statement: str | None) -> str:
    """Raises: sqlite3.Error."""
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    if statement is None:
        rows = connection.execute("SELECT sql FROM sqlite_master WHERE type IN ('table', 'view') LIMIT 200").fetchall()
        return "\n".join(" ".join(str(sql).split()) for (sql,) in rows if sql) or "There are no tables."
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY)
    cursor = connection.execute(statement)
    if cursor.description is None:
        raise sqlite3.ProgrammingError("the statement gives no rows: send one SELECT")
    return table([column[0] for column in cursor.description], cursor.fetchmany(MOST_ROWS + 1))


if __name__ == "__main__":
    serve(reply)
