"""The role that sends traces to a collector."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ops.roles import export
from ops.settings import InvalidSetting, Settings
from ops.wiring import Wiring


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "gopher://127.0.0.1:9"])
async def test_a_proxy_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    settings: Any = {"home": tmp_path, "otlp_endpoint": "http://192.0.2.1:4318"}
    wiring = cast("Wiring", SimpleNamespace(settings=Settings.load(**settings)))
    with pytest.raises(InvalidSetting, match=r"ALL_PROXY.*NO_PROXY"):
        await export.begin(wiring)
