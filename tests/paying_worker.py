"""A worker process whose toolsets of kind `openapi` have two tools with effects that can be counted: `python -m
tests.paying_worker worker --role answer`.

`pay` may not be made again, `look` may. An effect is a line in the file that PAID names. A call waits before its effect
while there is a file `<PAID>.before`, and after it while there is a file `<PAID>.after`; then `<PAID>.waits` appears.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from adapters.tools.registry import KindsOfToolboxes, Make
from domain.tools.tool import Definition
from domain.tools.toolset import Toolset
from handlers.ports.tools import Invocation, Listing, Result, Toolbox
from ops.roles import answer

SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"], "additionalProperties": False}


def tool(name: str, *, idempotent: bool) -> Definition:
    return Definition(
        name=name,
        label="",
        description=f"To {name}.",
        parameters=SCHEMA,
        destructive=not idempotent,
        idempotent=idempotent,
    )


class Paying:
    server = ""

    async def list(self) -> Listing:
        return Listing([tool("pay", idempotent=False), tool("look", idempotent=True)])

    async def call(self, invocation: Invocation) -> Result:
        paid = Path(os.environ["PAID"])
        name = invocation.tool["name"]
        await _gate(paid, "before", name)
        _note(paid, f"{name} {invocation.id}\n")
        await _gate(paid, "after", name)
        return Result(f"{name} is done for {invocation.arguments['to']}.")


def _note(paid: Path, line: str) -> None:
    with paid.open("a") as ledger:
        ledger.write(line)


async def _gate(paid: Path, where: str, name: str) -> None:
    """Wait while the gate of this tool is shut."""
    gate = paid.with_suffix(f".{where}")
    while gate.exists() and gate.read_text() == name:
        paid.with_suffix(".waits").touch()
        await asyncio.sleep(0.02)


class WithPaying(KindsOfToolboxes):
    def __init__(self, builtin: Toolbox, kinds: Mapping[str, Make]) -> None:
        super().__init__(builtin, {**kinds, "openapi": self._paying})

    def _paying(self, tenant: str, toolset: Toolset) -> Toolbox:
        return Paying()


if __name__ == "__main__":
    from ops.cli import main

    setattr(answer, "KindsOfToolboxes", WithPaying)  # noqa: B010
    main()
