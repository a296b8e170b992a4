"""Presidio as a further masking, where it is installed, with a language that knows one name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from adapters.privacy.presidio import Presidio, PresidioMissing
from ops.settings import InvalidSetting, Settings
from ops.values import masking


def test_it_says_what_is_not_installed() -> None:
    with pytest.raises(PresidioMissing, match="headrace\\[presidio\\]"):
        Presidio("en", "no_such_model")


def test_names_are_masked_too(tmp_path: Path) -> None:
    spacy: Any = pytest.importorskip("spacy", reason="pip install 'headrace[presidio]'")
    pytest.importorskip("presidio_analyzer", reason="pip install 'headrace[presidio]'")
    language = spacy.blank("en")
    language.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ada Lovelace"}])
    language.to_disk(tmp_path / "model")
    presidio = Presidio("en", str(tmp_path / "model"))
    masked = presidio("I am Ada Lovelace, see ‹email› or 192.168.0.17.")
    assert masked == "I am ‹person›, see ‹email› or ‹ip_address›."
    assert presidio(masked) == masked
    assert presidio.version.startswith("presidio ")


def test_the_settings_say_what_is_masked(tmp_path: Path) -> None:
    file = tmp_path / "patterns"
    file.write_text("# ours\nbadge = B-[0-9]{4}\n")
    assert masking(Settings.load(home=tmp_path, mask_patterns=file))("B-1234") == "‹badge›"
    file.write_text("badge = (\n")
    with pytest.raises(ValueError, match="patterns, line 1: "):
        masking(Settings.load(home=tmp_path, mask_patterns=file))
    if find_spec("presidio_analyzer") is None:
        with pytest.raises(PresidioMissing):
            masking(Settings.load(home=tmp_path, mask_presidio="en:en_core_web_lg"))
    with pytest.raises(InvalidSetting, match="en:en_core_web_lg"):
        Settings.load(home=tmp_path, mask_presidio="english")
