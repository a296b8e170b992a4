"""The choice of a sandbox, by trying."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.sandbox import choice
from adapters.sandbox.choice import NoSandbox, choose


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_CHOSEN", {})


async def test_the_strongest_that_works_is_chosen_and_nothing_is_open() -> None:
    chosen = await choose()
    assert chosen.sandbox.kind in ("bubblewrap", "limits")
    assert (chosen.sandbox.kind == "bubblewrap") == (not chosen.because)
    assert await choose() is chosen


async def test_without_bubblewrap_there_are_limits_and_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen = await choose()
    assert (chosen.sandbox.kind, chosen.because) == ("limits", "bubblewrap: The program bwrap is not installed.")


async def test_a_bubblewrap_that_may_not_make_namespaces_is_not_used_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen = await choose()
    assert chosen.sandbox.kind == "limits"
    assert chosen.because == "bubblewrap: bwrap: No permissions to create new namespace"


async def test_what_is_demanded_is_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoSandbox, match="bwrap is not installed"):
        await choose("bubblewrap")


async def test_limits_can_be_chosen() -> None:
    chosen = await choose("limits")
    assert (chosen.sandbox.kind, chosen.because) == ("limits", "")


async def test_what_a_process_can_do_nevertheless_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.sandbox.restricted.entrance", lambda *_, **__: [])
    chosen = await choose("limits")
    assert set(chosen.open) == {
        "read the files of the worker",
        "open a connection",
        "start a process",
        "signal the worker",
    }
