"""Randomly generated graphs give the same on our engine and on that of Dify."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.plugins.interpreters import interpreter
from tests.domain.workflows.golden import Case, Seen, World, begin, plain, play
from tests.domain.workflows.graphs import Maker

PACKAGE = "graphon==0.8.0"
PYTHON = asyncio.run(interpreter("3.12"))
THEIRS = Path(__file__).with_name("theirs.py")

pytestmark = pytest.mark.skipif(PYTHON is None, reason="there is no Python 3.12 for the engine of Dify")


@pytest.fixture(scope="module")
def python() -> Path:
    """An environment of its own with that engine, kept for the next run of the tests."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace-tests" / PACKAGE
    found = kept / "bin" / "python"
    if not (kept / "ready").exists():
        made = kept.with_name(f"{kept.name}.{os.getpid()}")
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--python", str(PYTHON), made], check=True)
        wanted = [PACKAGE, "jinja2"]
        subprocess.run([*uv, "pip", "install", "-q", "--python", made / "bin" / "python", *wanted], check=True)
        (made / "ready").touch()
        made.rename(kept)
    return found


def made(seeds: range) -> list[Case]:
    return [Maker(seed).case() for seed in seeds]


def ours(case: Case) -> dict[str, Any]:
    world, seen = World({**case, "models": {}}), Seen()
    run = begin({**case, "models": {}}, world)
    play(run, world, seen)
    done = run.status in ("succeeded", "partial-succeeded")
    return {
        "status": run.status,
        "outputs": {name: plain(each.data) for name, each in run.outputs.items()} if done else {},
        "nodes": {id: sorted(statuses) for id, statuses in seen.nodes.items()},
        "conversation": {name: plain(each.data) for name, each in run.conversation.items()},
    }


def theirs(python: Path, cases: list[Case]) -> Iterator[dict[str, Any]]:
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run([python, THEIRS], input=lines, capture_output=True, text=True, check=True)
    yield from map(json.loads, done.stdout.splitlines())


def compare(python: Path, seeds: range) -> None:
    cases = made(seeds)
    statuses = set()
    for case, want in zip(cases, theirs(python, cases), strict=True):
        got = ours(case)
        statuses.add(want["status"])
        if want["status"] not in ("succeeded", "partial-succeeded"):
            assert (got["status"], got["outputs"]) == (want["status"], want["outputs"]), (case["id"], want)
        else:
            assert got == want, case["id"]
    assert {"succeeded", "partial-succeeded", "failed"} <= statuses


def test_forty_graphs(python: Path) -> None:
    compare(python, range(40))


@pytest.mark.long
def test_three_hundred_graphs(python: Path) -> None:
    compare(python, range(40, 340))
