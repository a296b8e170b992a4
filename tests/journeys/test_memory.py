"""Libraries in a running worker: each takes megabytes."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from ops.supervisor import answers
from tests.journeys.stack import Stack


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list what a process maps")
async def test_the_embedding_worker_loads_nothing_that_only_training_uses(headrace: Stack) -> None:
    card = await answers(headrace.client, "embed", within=30)
    assert card is not None
    maps = await asyncio.to_thread(Path(f"/proc/{card['pid']}/maps").read_text)
    packages = set(re.findall(r"site-packages/(\w+)/", maps))
    assert {"tokenizers", "torch"} < packages
    unused = {"scipy", "sklearn"} if "libcuda.so" in maps else {"scipy", "sklearn", "triton"}
    assert not unused & packages
