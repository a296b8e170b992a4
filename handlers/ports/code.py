"""Port of code: functions and templates that strangers wrote, for data that anybody sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol, get_args

Language = Literal["python3", "javascript", "jinja2"]

LANGUAGES: tuple[Language, ...] = get_args(Language)

Kind = Literal["timeout", "memory", "output_too_large", "raised", "not_json", "sandbox_unavailable"]

PRINTED = 64 * 1024
"""Bytes of what a call prints that are kept."""

LONGEST_REASON = 2000
"""Characters of a reason that are kept."""


class CallLimits(NamedTuple):
    """Limits of a call: time, time of a processor, memory in bytes, and output in bytes, of the result and printed."""

    seconds: float = 15.0
    cpu_s: int = 10
    memory: int = 512 * 2**20
    output: int = 8 * 2**20

    def lower(self, other: CallLimits) -> CallLimits:
        """The lower one of each."""
        seconds, cpu_s = min(self.seconds, other.seconds), min(self.cpu_s, other.cpu_s)
        return CallLimits(seconds, cpu_s, min(self.memory, other.memory), min(self.output, other.output))


class Ran(NamedTuple):
    """The result of a call, what was printed, and what ran it.

    The value is JSON data: the object that `main` returned, or the text of a template. It can be stored as it is: no
    lone surrogate, no NaN, and of limited depth.
    """

    value: Any
    printed: str
    adapter: str


class CodeError(Exception):
    """A call gave no result.

    `raised`: the code raised an exception, or cannot be read. `line` counts from 1 in the code, where it is known.
    `adapter` is empty where nothing ran. The reason is for the author of the code, and may have words of the inputs.
    """

    def __init__(self, kind: Kind, reason: str, line: int | None = None, printed: str = "", adapter: str = "") -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.line = line
        self.printed = printed
        self.adapter = adapter


class Code(Protocol):
    """Runs code where it reaches nothing, and leaves nothing behind."""

    async def adapter(self, language: Language) -> str:
        """The name of what runs this language here, for the record; found out by running some.

        Raises: CodeError `sandbox_unavailable`, with the reason.
        """
        ...

    async def run(
        self, tenant: str, language: Language, code: str, inputs: Mapping[str, Any], limits: CallLimits | None = None
    ) -> Ran:
        """Call the function `main` of some code with these inputs, or render a template with them.

        Python gets a keyword each, JavaScript one object. `limits` may be lower than those of the installation.
        Raises: CodeError, Unavailable.
        """
        ...
