"""Runs code in contained processes, one for each tenant and language, which fork for each call."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import TypeAdapter, ValidationError

from adapters.code.data import read
from adapters.code.ending import ENDING, FAULT, READ, VALUE, Ending
from adapters.sandbox.child import Limits, python
from adapters.sandbox.choice import Choice
from adapters.sandbox.pool import Children, Died, TooSlow
from handlers.ports.code import LANGUAGES, LONGEST_REASON, PRINTED, CallLimits, CodeError, Language, Ran
from handlers.ports.log import Unavailable

INPUTS = 16 * 2**20
"""Maximum size of the inputs and the code of a call, in bytes."""

GRACE_S = 2.0
"""Seconds after the limit of a call after which its process is killed from outside: it has ended, unless it resists."""

LIFE_CPU_S = 3600
"""Time of a processor of the process that forks, in seconds: what it does itself takes little."""

OWN_TASKS = 2
"""The process that forks, and the one that it forks."""

_LARGE = 2**16
"""Results of more bytes are read in a thread."""

_ENGINES: Mapping[Language, str] = {
    "python3": "cpython " + ".".join(map(str, sys.version_info[:3])),
    "javascript": f"quickjs-ng {version('quickjs-ng')}",
    "jinja2": f"jinja2 {version('jinja2')}",
}

_TRIALS: Mapping[Language, tuple[str, Any]] = {
    "python3": (
        "import os\ndef main():\n    try:\n        os.fork()\n    except OSError:\n        return {'works': True}\n",
        {"works": True},
    ),
    "javascript": ("const main = () => ({works: true})", {"works": True}),
    "jinja2": ("{{ 'wor' + 'ks' }}", "works"),
}
"""Code that shows that a language works, and its result; Python must not start processes."""

_Stated = Literal["raised", "not_json", "memory", "output_too_large"]

_FAULT = TypeAdapter[tuple[_Stated, str, int | None]](tuple[_Stated, str, int | None])


class Allowance(NamedTuple):
    """Resources of code: limits of a call, bytes of its folder, threads, calls of a tenant at once, and packages."""

    call: CallLimits = CallLimits()
    scratch: int = 16 * 2**20
    tasks: int = 16
    at_once: int = 4
    packages: Path | None = None


class ContainedCode:
    """The port Code. Use it as a context manager. What fails is tried again by the next call."""

    def __init__(self, choice: Choice, allowance: Allowance) -> None:
        self._choice = choice
        self._most = allowance.call
        self._works = set[Language]()
        self._trying = {language: asyncio.Lock() for language in LANGUAGES}
        self._open = AsyncExitStack()
        packages = [allowance.packages.resolve()] if allowance.packages else []
        limits = Limits(
            memory=allowance.call.memory,
            cpu_s=LIFE_CPU_S,
            tasks=allowance.tasks + OWN_TASKS,
            forks=True,
            scratch=allowance.scratch,
        )
        most = str(allowance.call.output)
        self._children: dict[Language, Children] = {
            language: Children(
                choice.sandbox,
                python("adapters.code.child", language, most, *map(str, packages)),
                limits,
                most=allowance.at_once,
                readable=packages,
                most_reply=ENDING.size + PRINTED + allowance.call.output + len(READ + VALUE),
            )
            for language in LANGUAGES
        }

    async def __aenter__(self) -> Self:
        for children in self._children.values():
            await self._open.enter_async_context(children)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def adapter(self, language: Language) -> str:
        async with self._trying[language]:
            if language not in self._works and (why := await self._fault(language)):
                raise CodeError("sandbox_unavailable", f"No {language} can be run here: {why}. See docs/code.md.")
            self._works.add(language)
        return f"{_ENGINES[language]}, {self._choice.sandbox.kind}"

    async def _fault(self, language: Language) -> str:
        """Why the language cannot be run; empty if it can."""
        if self._choice.open:
            return f"contained processes can {', '.join(self._choice.open)}"
        code, expected = _TRIALS[language]
        try:
            value = (await self._run("", language, code, {}, self._most)).value
        except (CodeError, Unavailable) as error:
            return str(error).removesuffix(".")
        return "" if value == expected else "code can start processes"

    async def report(self) -> dict[str, dict[str, str]]:
        """The `adapter` of each language, or the reason why there is none, as `because`."""

        async def one(language: Language) -> dict[str, str]:
            try:
                return {"adapter": await self.adapter(language)}
            except CodeError as error:
                return {"because": error.reason}

        return dict(zip(LANGUAGES, await asyncio.gather(*map(one, LANGUAGES)), strict=True))

    def pids(self, language: Language) -> list[int]:
        """The processes that wait for further calls in this language."""
        return self._children[language].pids

    async def run(
        self, tenant: str, language: Language, code: str, inputs: Mapping[str, Any], limits: CallLimits | None = None
    ) -> Ran:
        adapter = await self.adapter(language)
        try:
            ran = await self._run(tenant, language, code, inputs, self._most.lower(limits) if limits else self._most)
        except CodeError as error:
            error.adapter = adapter
            raise
        return ran._replace(adapter=adapter)

    async def _run(
        self, tenant: str, language: Language, code: str, inputs: Mapping[str, Any], limits: CallLimits
    ) -> Ran:
        """Raises: CodeError, Unavailable."""
        head = {**limits._asdict(), "code": code}
        data = json.dumps(inputs, ensure_ascii=False).encode(errors="replace")
        if (size := len(data) + len(code)) > INPUTS:
            raise CodeError("memory", f"Code and inputs have {size:,} bytes, at most {INPUTS:,} are taken.")
        try:
            reply = await self._children[language].ask(tenant, head, data, seconds=limits.seconds + GRACE_S)
        except TooSlow:
            raise CodeError("timeout", _too_slow(limits)) from None
        except Died as died:
            raise CodeError("memory", f"The process that runs code ended ({died}).") from None
        ending = Ending.of(reply)
        value = await asyncio.to_thread(_value, ending, limits) if len(reply) > _LARGE else _value(ending, limits)
        return Ran(value, ending.printed, "")


def _value(ending: Ending, limits: CallLimits) -> Any:
    """Raises: CodeError."""
    try:
        return _result(ending, limits)
    except CodeError as error:
        error.printed = ending.printed
        raise


def _result(ending: Ending, limits: CallLimits) -> Any:
    """Raises: CodeError."""
    mark, result = ending.result[1:2], ending.result[2:]
    if ending.too_much or len(result) > limits.output:
        raise CodeError("output_too_large", f"The code wrote more than {limits.output:,} bytes.")
    if mark == FAULT:
        try:
            kind, reason, line = _FAULT.validate_json(result)
        except ValidationError:
            raise CodeError("raised", "The code ended with a fault that cannot be read.") from None
        raise CodeError(kind, reason[:LONGEST_REASON], line)
    if mark != VALUE:
        raise _ended(ending, limits)
    try:
        return read(result)
    except ValueError as error:
        raise CodeError("not_json", f"The result cannot be used. {error}") from None


def _ended(ending: Ending, limits: CallLimits) -> CodeError:
    """The fault of a process that ended without a result."""
    killed = -ending.status
    if killed in (signal.SIGALRM, signal.SIGXCPU) or (killed and ending.cpu_ms >= 1000 * limits.cpu_s):
        return CodeError("timeout", _too_slow(limits))
    if killed == signal.SIGKILL or ending.result[:1] != READ:
        return CodeError("memory", "The code takes more memory than there is.")
    how = f" by {signal.Signals(killed).name}" if killed > 0 else ""
    return CodeError("raised", f"The code ended its process{how} before it had a result.")


def _too_slow(limits: CallLimits) -> str:
    return f"The code took longer than {limits.seconds:g} s, or {limits.cpu_s} s of a processor."
