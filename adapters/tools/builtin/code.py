"""The tool `code`: what a Python program prints, which runs where it reaches nothing."""

from __future__ import annotations

from dataclasses import dataclass

from domain.tools.tool import Definition
from handlers.ports.code import Code, CodeError, Kind
from handlers.ports.tools import Invocation, Result, ToolError
from handlers.tools.offer import CODE

LONGEST, LONGEST_RESULT, LAST = 50_000, 20_000, 400
"""Maximum length of a program, of what it prints, and of the end of that where it fails, in characters."""

CODE_TOOL = Definition(
    name=CODE,
    label="Python",
    description="Run a Python program and return what it prints: print every result. It has the standard library, no "
    "network, no files, and some seconds; nothing is kept for the next program.",
    parameters={
        "type": "object",
        "properties": {
            "code": {
                "type": "string",
                "minLength": 1,
                "maxLength": LONGEST,
                "description": "Program, like print(sum(range(10)))",
            }
        },
        "required": ["code"],
        "additionalProperties": False,
    },
    destructive=False,
    idempotent=True,
)

_MAIN = "\n\n\ndef main():\n    return {}\n"
"""The end of a program, which prints its results, and needs none that it returns."""

_CODES: dict[Kind, str] = {
    "timeout": "timeout",
    "memory": "too_large",
    "output_too_large": "too_large",
    "sandbox_unavailable": "unsupported",
}


@dataclass(frozen=True, slots=True)
class RunCode:
    code: Code

    async def missing(self) -> str:
        """Why no program can be run here; empty if one can."""
        try:
            await self.code.adapter("python3")
        except CodeError as error:
            return error.reason
        return ""

    async def __call__(self, invocation: Invocation) -> Result:
        """Raises: ToolError, Unavailable."""
        try:
            ran = await self.code.run(invocation.tenant, "python3", invocation.arguments["code"] + _MAIN, {})
        except CodeError as error:
            raise ToolError(_CODES.get(error.kind, "invalid_arguments"), _said(error)) from None
        printed = _cut(ran.printed) or "The program printed nothing: print its results."
        return Result(printed, parts=[{"type": "json", "value": {"adapter": ran.adapter}}])


def _said(error: CodeError) -> str:
    """The reason, with the place and what was printed before."""
    where = f"Line {error.line}: " if error.line else ""
    before = f"\nIt printed before:\n{error.printed[-LAST:]}" if error.printed else ""
    return f"{where}{error.reason}{before}"


def _cut(text: str) -> str:
    cut = len(text) - LONGEST_RESULT
    return text if cut <= 0 else f"{text[:LONGEST_RESULT]}\n[{cut:,} characters are left out.]"
