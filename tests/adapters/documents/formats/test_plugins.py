"""Extractors of other packages: real ones, installed into a folder that Python looks into."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from adapters.documents.extract import FileExtractor
from adapters.documents.formats.plugins import BrokenPlugin
from adapters.sandbox.child import Sandbox
from handlers.ports.documents import Block, Text, Unreadable

READER = """
import os

from adapters.documents.formats.parsed import Parsed, Piece, Refused


class Extractor:
    media_types = ["application/x-weir"]
    suffixes = [".WEIR", ".pdf"]
    memory = None
    seconds = 5.0

    def read(self, data, media_type, name):
        if data == b"locked":
            raise Refused("encrypted_file", "It is locked.")
        if data == b"slow":
            while True:
                pass
        if data == b"crash":
            os.abort()
        if data == b"error":
            raise ValueError("It is broken.")
        words = data.decode() + f" from {name} ({media_type})\\0"
        return Parsed([Piece(words, 2, "Weirs")], 3, str(os.environ.get("HEADRACE_SECRET_KEY")))


extractor = Extractor()
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an installed package that reads weirs."""
    (tmp_path / "weir_reader.py").write_text(READER)
    info = tmp_path / "weir_reader-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weir-reader\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[headrace.extractors]\nweirs = weir_reader:extractor\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


async def test_a_plugin_reads_what_it_names_in_a_process_of_its_own(
    sandbox: Sandbox, install: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_SECRET_KEY", "topsecret-key")
    async with FileExtractor(sandbox, children=1) as files:
        text = await files.extract("acme", b"Water", "application/x-weir; v=1", "a")
        block = Block("Water from a (application/x-weir; v=1)", 2, "Weirs")
        assert text == Text([block], 3, "None")
        assert (await files.extract("acme", b"Oil", "", "b.Weir")).blocks == [Block("Oil from b.Weir ()", 2, "Weirs")]
        assert (await files.extract("acme", b"PDF", "application/pdf", "c.pdf")).pages == 3
        (plugged,) = files.pids
        assert (await files.extract("acme", b"plain", "text/plain", "")).blocks == [Block("plain")]
        assert plugged in files.pids
        assert len(files.pids) == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"locked", "encrypted_file"), (b"crash", "broken_file"), (b"error", "broken_file"), (b"slow", "too_slow")],
)
async def test_a_plugin_that_fails_costs_one_document(sandbox: Sandbox, install: Path, data: bytes, code: str) -> None:
    if code == "too_slow":
        (install / "weir_reader.py").write_text(READER.replace("seconds = 5.0", "seconds = 2.0"))
    async with FileExtractor(sandbox, children=1) as files:
        with pytest.raises(Unreadable) as caught:
            await files.extract("acme", data, "application/x-weir", "a")
        assert caught.value.code == code
        assert (await files.extract("acme", b"Water", "application/x-weir", "a")).pages == 3


async def test_a_plugin_that_cannot_be_loaded_is_named(sandbox: Sandbox, install: Path) -> None:
    (install / "weir_reader.py").write_text("import a_package_that_is_not_there")
    sys.modules.pop("weir_reader", None)
    with pytest.raises(BrokenPlugin, match=r"weirs \(weir_reader:extractor\) cannot be used: ModuleNotFoundError"):
        FileExtractor(sandbox)


@pytest.fixture(autouse=True)
def forget() -> None:
    sys.modules.pop("weir_reader", None)
