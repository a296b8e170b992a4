"""The processes that prepare words of texts."""

from __future__ import annotations

import os

import pytest

from adapters.postgres import words
from adapters.postgres.words import WordsAhead
from projections.engine.values import BUILT_IN


async def test_a_process_that_masks_texts_has_an_empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SECRET_KEY", "0123456789abcdef")
    monkeypatch.setattr(words, "WORTH", 0)
    async with WordsAhead(BUILT_IN, 1) as ahead:
        await ahead.prepare([])
        assert ahead._pool is not None
        for name in ("HEADRACE_SECRET_KEY", "PATH"):
            assert name in os.environ
            assert ahead._pool.submit(os.getenv, name).result(60) is None
