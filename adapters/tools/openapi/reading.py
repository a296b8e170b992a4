"""Reads documents of APIs in contained processes: they are a stranger's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

import orjson

from adapters.sandbox.child import Limits, Sandbox, python
from adapters.sandbox.pool import Children, Died, TooSlow
from domain.tools.tool import Definition
from handlers.ports.tools import Listing, ToolError

LIMITS = Limits(memory=2**30, cpu_s=600)

AT_ONCE = 1
"""Number of documents of a tenant that are read at a time."""

SECONDS, BYTES_PER_S = 20.0, 400_000
"""Time limit of a document: seconds, plus its size at this rate."""

MOST_REPLY = 16 * 2**20


class ContainedDocuments:
    """Use it as a context manager."""

    def __init__(self, sandbox: Sandbox) -> None:
        program = python("adapters.tools.openapi.child")
        self._children = Children(sandbox, program, LIMITS, most=AT_ONCE, most_reply=MOST_REPLY)

    async def read(
        self,
        tenant: str,
        data: bytes,
        *,
        place: str,
        server: str,
        operations: Sequence[str] | None,
        filled: Sequence[tuple[str, str]],
    ) -> Listing | str:
        """The tools of a document, or the address of the document where it is a manifest; see `Wanted`.

        Raises: ToolError, Unavailable.
        """
        head = {"place": place, "server": server, "operations": operations, "filled": filled}
        seconds = SECONDS + len(data) / BYTES_PER_S
        try:
            reply = await self._children.ask(tenant, head, data, seconds=seconds)
        except TooSlow:
            raise ToolError("timeout", f"Reading the document took longer than {seconds:.0f} s.") from None
        except Died as died:
            what = "needs too much memory" if died.out_of_memory else f"ended its process ({died})"
            raise ToolError("bad_request", f"Reading the document {what}.") from None
        try:
            found: dict[str, Any] = orjson.loads(reply)
        except orjson.JSONDecodeError:
            raise ToolError("bad_request", "Reading the document gave no reply.") from None
        if "fault" in found:
            raise ToolError("bad_request", f"The document cannot be read. {found['fault']}"[:1000])
        if "elsewhere" in found:
            return str(found["elsewhere"])
        return Listing(cast("list[Definition]", found["tools"]), found["warnings"])

    async def __aenter__(self) -> Self:
        await self._children.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._children.__aexit__(None, None, None)
