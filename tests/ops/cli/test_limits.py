"""`headrace limits`, where it needs no server: the journey of limits has the rest."""

from __future__ import annotations

import pytest

from tests.ops.cli.test_cli import Cli


@pytest.mark.parametrize(
    ("limit", "rule"),
    [
        ("messages", "is not like"),
        ("messages/hour=1", "The period of messages"),
        ("messages/day=1,tokens/day=1", "exactly one limit"),
        ("", "exactly one limit"),
    ],
)
async def test_what_is_no_limit_is_not_sent(capsys: pytest.CaptureFixture[str], limit: str, rule: str) -> None:
    result = await Cli(capsys)("limits", "set", limit)
    assert result.code == 2
    assert rule in " ".join(result.err.replace("│", "").split())
