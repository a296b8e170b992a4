"""The tool `query` of a database: its description has the tables and columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from adapters.sandbox.child import Limits, Sandbox, python
from adapters.sandbox.pool import Children, Died, TooSlow
from adapters.tools.sql.connections import Connection
from adapters.tools.sql.postgres import PostgresDatabase
from domain.tools.tool import Definition
from domain.tools.toolset import Toolset
from handlers.ports.log import Blobs
from handlers.ports.tools import Invocation, Listing, Result, ToolError

LONGEST_SCHEMA = 12_000
"""Maximum length of the schema in the description, in characters."""

LARGEST_FILE = 64 * 2**20
"""Maximum size of a SQLite file, in bytes."""

LIMITS = Limits(memory=2**30, cpu_s=600)


class Database(Protocol):
    async def schema(self) -> str: ...

    async def query(self, statement: str) -> str: ...


@dataclass(frozen=True, slots=True)
class SqlToolbox:
    """A Toolbox of one database."""

    database: Database
    description: str
    server = ""

    async def list(self) -> Listing:
        schema = await self.database.schema()
        warnings = []
        if len(schema) > LONGEST_SCHEMA:
            schema = schema[:LONGEST_SCHEMA]
            warnings = [f"The schema has more than {LONGEST_SCHEMA:,} characters: the model sees its beginning."]
        what = self.description.strip() or "Query a database."
        definition = Definition(
            name="query",
            label="SQL",
            description=f"{what} Send one SELECT; it only reads. The tables:\n{schema}",
            parameters={
                "type": "object",
                "properties": {"statement": {"type": "string", "minLength": 1, "maxLength": 20_000}},
                "required": ["statement"],
                "additionalProperties": False,
            },
            destructive=False,
            idempotent=True,
        )
        return Listing([definition], warnings)

    async def call(self, invocation: Invocation) -> Result:
        return Result(await self.database.query(invocation.arguments["statement"]))


class SqliteFile:
    """A SQLite file in the object store, which is read in a contained process."""

    def __init__(self, children: Children, blobs: Blobs, tenant: str, digest: str, seconds: float) -> None:
        self._children = children
        self._blobs = blobs
        self._tenant = tenant
        self._digest = digest
        self._seconds = seconds

    async def schema(self) -> str:
        """Raises: ToolError, Unavailable."""
        return await self._ask(None)

    async def query(self, statement: str) -> str:
        """Raises: ToolError, Unavailable."""
        return await self._ask(statement)

    async def _ask(self, statement: str | None) -> str:
        try:
            data = await self._blobs.get(self._tenant, self._digest)
        except KeyError:
            raise ToolError("not_found", "The file is not in the object store.") from None
        try:
            reply = await self._children.ask(self._tenant, {"statement": statement}, data, seconds=self._seconds)
        except TooSlow:
            raise ToolError("timeout", f"The query took longer than {self._seconds:g} s.") from None
        except Died as died:
            raise ToolError("server_error", f"The query ended the process ({died}).") from None
        found: dict[str, Any] = json.loads(reply)
        if fault := found.get("fault"):
            raise ToolError("bad_request", str(fault))
        return str(found["text"])


class SqlToolboxes:
    """Toolboxes of the operator's connections and of SQLite files. Use it as a context manager."""

    def __init__(self, sandbox: Sandbox, blobs: Blobs, connections: Mapping[str, Connection]) -> None:
        self._blobs = blobs
        self._connections = connections
        self._children = Children(sandbox, python("adapters.tools.sql.sqlite_child"), LIMITS, most=2, most_reply=2**20)

    def __call__(self, tenant: str, toolset: Toolset) -> SqlToolbox:
        """Raises: ToolError `not_found` for a connection that the operator has not named for this tenant."""
        settings, seconds = toolset.settings, toolset.timeout_s
        if digest := settings.get("digest"):
            file = SqliteFile(self._children, self._blobs, tenant, digest, seconds)
            return SqlToolbox(file, toolset.description)
        name = settings["connection"]
        found = self._connections.get(name)
        if found is None or not found.is_for(tenant):
            raise ToolError("not_found", f"The operator has named no connection {name!r} for this tenant.")
        return SqlToolbox(PostgresDatabase(found.url.get_secret_value(), seconds), toolset.description)

    async def __aenter__(self) -> Self:
        await self._children.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._children.__aexit__(None, None, None)
