"""Checks answers by JSON Schemas in contained processes: the patterns in schemas are a tenant's."""

from __future__ import annotations

import json
from typing import Any, Self

from adapters.sandbox.child import Limits, Sandbox, python
from adapters.sandbox.pool import Children, Died, TooSlow
from handlers.ports.models import ModelError

LIMITS = Limits(memory=512 * 2**20, cpu_s=600)

AT_ONCE = 2
"""Number of answers of a tenant that are checked at a time."""

SECONDS = 2.0
"""Time limit of a check, of which a hundredth is usual."""


class ContainedSchemas:
    """The port Schemas. Use it as a context manager."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._children = Children(
            sandbox, python("adapters.models.schemas_child"), LIMITS, most=AT_ONCE, most_reply=2**16
        )

    def prepare(self, tenant: str) -> None:
        self._children.prepare(tenant)

    async def fault(self, tenant: str, schema: dict[str, Any], answer: str) -> str | None:
        data = json.dumps([schema, answer], ensure_ascii=False).encode(errors="surrogatepass")
        try:
            reply = await self._children.ask(tenant, {}, data, seconds=SECONDS)
        except TooSlow:
            reason = f"The check by the response_schema took longer than {SECONDS:g} s: simplify its patterns."
            raise ModelError("timeout", reason) from None
        except Died as died:
            raise ModelError("server_error", f"The check by the response_schema ended the process ({died}).") from None
        return reply.decode(errors="replace") or None

    async def __aenter__(self) -> Self:
        await self._children.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._children.__aexit__(None, None, None)
