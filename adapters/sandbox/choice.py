"""The strongest sandbox that works on this machine, found out by running a child in it."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from typing import Literal, NamedTuple

from adapters.sandbox.bubblewrap import Bubblewrap
from adapters.sandbox.child import Limits, Sandbox, python
from adapters.sandbox.restricted import Restricted

Wanted = Literal["auto", "bubblewrap", "limits"]

_PATIENCE_S = 30.0

_CHOSEN: dict[str, Choice] = {}


class NoSandbox(Exception):
    """The wanted sandbox does not work on this machine."""


class Choice(NamedTuple):
    """A sandbox, the forbidden actions that a child in it can take, and the reasons against stronger ones."""

    sandbox: Sandbox
    open: tuple[str, ...]
    because: str


async def choose(wanted: Wanted = "auto") -> Choice:
    """Try once in a process. Raises: NoSandbox."""
    if wanted not in _CHOSEN:
        _CHOSEN[wanted] = await _strongest(wanted)
    return _CHOSEN[wanted]


async def _strongest(wanted: Wanted) -> Choice:
    """The first that keeps a child from everything, or else the one that keeps it from most."""
    reasons: dict[str, str] = {}
    best: Choice | None = None
    for sandbox in candidates(wanted):
        try:
            could = await tried(sandbox)
        except (OSError, TimeoutError, ValueError) as error:
            reasons[sandbox.kind] = str(error) or repr(error)
            continue
        because = " ".join(f"{kind}: {why}" for kind, why in reasons.items() if kind != sandbox.kind)
        if best is None or len(could) < len(best.open):
            best = Choice(sandbox, could, because)
        if not could:
            break
    if best:
        return best
    raise NoSandbox(" ".join(f"{kind} does not work: {why}" for kind, why in reasons.items()))


def candidates(wanted: Wanted) -> Iterator[Sandbox]:
    """The sandboxes, the strongest first."""
    users = (True, False) if os.geteuid() == 0 else (False,)
    if wanted != "limits":
        yield from (Bubblewrap(own_user=user) for user in users)
    if wanted != "bubblewrap":
        yield from (Restricted(own_user=user) for user in users)


async def tried(sandbox: Sandbox) -> tuple[str, ...]:
    """The forbidden actions that a child could take. Raises: OSError, TimeoutError or ValueError if none runs."""
    with tempfile.NamedTemporaryFile() as file:
        program = python("adapters.sandbox.probe", file.name, str(os.getpid()))
        child = await sandbox.start(program, Limits(cpu_s=10, scratch=2**20))
        try:
            async with asyncio.timeout(_PATIENCE_S):
                said = await child.stdout.read()
        finally:
            ending = await child.end()
    if not said:
        raise OSError(ending.said.decode(errors="replace").strip().rpartition("\n")[2] or f"status {ending.status}")
    return tuple(json.loads(said))
