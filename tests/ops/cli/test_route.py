"""`headrace route`, where it needs no server."""

from __future__ import annotations

import pytest

from ops.cli.route import _group, _parsed
from tests.ops.cli.test_cli import Cli


def test_a_group_is_written_in_short() -> None:
    assert _parsed("local/qwen3:8b") == {
        "strategy": "weighted",
        "members": [{"provider": "local", "name": "qwen3:8b"}],
    }
    assert _parsed("fastest:cloud/a/b*3,other/c*d") == {
        "strategy": "fastest",
        "members": [{"provider": "cloud", "name": "a/b", "weight": 3}, {"provider": "other", "name": "c*d"}],
    }


def test_a_group_is_shown_as_it_is_written() -> None:
    members = [
        {"provider": "cloud", "model": "a", "weight": 3, "context_window": None},
        {"provider": "b", "model": "c", "weight": 1, "context_window": None},
    ]
    assert _group({"strategy": "fastest", "members": members}) == "fastest: cloud/a*3, b/c"  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [(("fast", "small"), "is not like local/qwen3-8b"), (("fast", "a/b", "--reaction", "stop"), "like timeout=stop")],
)
async def test_what_is_no_route_is_not_sent(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], rule: str
) -> None:
    result = await Cli(capsys)("route", "set", *arguments)
    assert result.code == 2
    assert rule in " ".join(result.err.replace("│", "").split())
