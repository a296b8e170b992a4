"""Five rounds of the storm, which `make chaos` runs for as long as anyone likes."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.chaos.trial import trial

SEED, ROUNDS = 5204, 5


@pytest.mark.timeout(420)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the NATS client drops lost sockets
async def test_a_storm_loses_nothing_and_doubles_nothing() -> None:
    home = Path(mkdtemp(prefix="headrace-chaos-"))
    report = await trial(home, SEED, ROUNDS, say=print)
    assert report.findings == [], f"kept in {home}; again: make chaos ROUNDS={ROUNDS} SEED={SEED}\n{report.line()}"
    assert report.acknowledged > 20
    assert {target for target, _ in report.blows} >= {"postgres"}
    assert {kind for _, kind in report.blows} == {"kill", "pause", "cut"}
    shutil.rmtree(home)
