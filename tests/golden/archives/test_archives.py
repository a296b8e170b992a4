"""Archives of versions that people run are kept as they are, and have what they are kept for."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from tests.golden.archives import make
from tests.golden.make import sums

HERE = Path(__file__).parent
ARCHIVES = sorted(HERE.glob("*.tar.xz"))


def test_an_archive_is_never_edited() -> None:
    written = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in ARCHIVES]
    assert written == (HERE / "SHA256SUMS").read_text().splitlines()


@pytest.mark.parametrize("file", ARCHIVES, ids=lambda file: file.name)
async def test_its_events_are_those_that_have_golden_files(file: Path, tmp_path: Path) -> None:
    with tarfile.open(file) as tar:
        tar.extractall(tmp_path, filter="data")
    found = await make.kinds(str(tmp_path / "archive"))
    assert found <= set(sums())
    assert len(found) >= 70
