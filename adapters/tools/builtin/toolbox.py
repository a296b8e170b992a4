"""The built-in toolset: a table of tools, a line each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from adapters.tools.builtin.calculator import CALCULATE, calculate
from adapters.tools.builtin.clock import TIME, tell
from adapters.tools.builtin.code import CODE_TOOL, RunCode
from adapters.tools.builtin.page import FETCH, FetchPage
from adapters.tools.builtin.search import SEARCH_KNOWLEDGE, SearchKnowledge
from domain.tools.tool import Definition
from handlers.ports.tools import Invocation, Listing, Result, ToolError

Call = Callable[[Invocation], Awaitable[Result]]

DEFINITIONS: Sequence[Definition] = (TIME, CALCULATE, FETCH, SEARCH_KNOWLEDGE, CODE_TOOL)


@dataclass(frozen=True, slots=True)
class BuiltinToolbox:
    """The Toolbox of the tools that need no registration."""

    page: FetchPage
    search: SearchKnowledge
    code: RunCode
    server = ""

    async def list(self) -> Listing:
        if why := await self.code.missing():
            return Listing(DEFINITIONS[:-1], [why])
        return Listing(DEFINITIONS)

    async def call(self, invocation: Invocation) -> Result:
        calls: dict[str, Call] = {
            TIME["name"]: tell,
            CALCULATE["name"]: calculate,
            FETCH["name"]: self.page,
            SEARCH_KNOWLEDGE["name"]: self.search,
            CODE_TOOL["name"]: self.code,
        }
        if (call := calls.get(invocation.tool["name"])) is None:
            raise ToolError("not_found", f"There is no built-in tool {invocation.tool['name']!r}.")
        return await call(invocation)
