"""The master secrets of this installation: from the settings, or from a file in the home."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Masters(Protocol):
    """A source of master secrets; one that asks a key management service has the same method."""

    def read(self) -> Sequence[bytes]:
        """The master secrets, the current one first; the others only open what was sealed under them."""
        ...


class LocalMasters:
    """The secret that was given, else the first line of a file, which is created at the first call; then the others."""

    def __init__(self, file: Path, given: str = "", further: Sequence[str] = ()) -> None:
        self.file = file
        self.given = given
        self.further = further

    def read(self) -> Sequence[bytes]:
        own = [self.given] if self.given else self._lines()
        return [master.encode() for master in dict.fromkeys([*own, *self.further])]

    def renew(self, master: str) -> None:
        """Make this secret the first line of the file, above the earlier ones."""
        replace(self.file, "\n".join(dict.fromkeys([master, *self._lines()])) + "\n")

    def _lines(self) -> list[str]:
        secret(self.file)
        return [line.strip() for line in self.file.read_text("utf-8").splitlines() if line.strip()]


def secret(path: Path) -> str:
    """The secret kept in a file that only its owner can read; created at the first call."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = _written(path, secrets.token_hex(32))
        with suppress(FileExistsError):
            os.link(partial, path)
        partial.unlink()
    return path.read_text("utf-8").strip()


def replace(path: Path, text: str) -> None:
    """Write a file that only its owner can read, complete and synced before it replaces the one there is."""
    _written(path, text).replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def owners(path: str, flags: int) -> int:
    """Open a file for its owner alone."""
    return os.open(path, flags, 0o600)


def _written(path: Path, text: str) -> Path:
    """A complete file with this text next to `path`, for its owner only."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    try:
        with open(partial, "x", encoding="utf-8", opener=owners) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # such as a full disk
        partial.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise
    return partial
