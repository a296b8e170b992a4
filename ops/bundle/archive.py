"""The archive of a bundle: files with fixed times, owners and order, so that the same files give the same bytes."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from ops.bundle.packages import Failed
from ops.install import ROOT

SUMS = "SHA256SUMS"
TIME = 315532800
"""Time of change of every file: 1980-01-01, the earliest that a wheel can hold."""

CHUNK = 1 << 20


def code() -> dict[str, Path]:
    """The files of the work tree that git tracks, by path. Raises: Failed."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise Failed(f"git does not list the files of {ROOT}: {listed.stderr.strip()}")
    return {name: ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


def write(path: Path, contents: Mapping[str, Path | bytes], advance: Callable[[str, int, int], None]) -> str:
    """Write an archive whose only folder is named like it, with a file of digests. Return the archive's SHA-256."""
    total = sum(map(size, contents.values())) * 3
    done = 0

    def count(data: bytes) -> None:
        nonlocal done
        done += len(data)
        advance("write     MB", done >> 20, total >> 20)

    sums = {name: digest(content, count) for name, content in contents.items()}
    listing = "".join(f"{found}  {name}\n" for name, found in sorted(sums.items())).encode()
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        for name, content in sorted({**contents, SUMS: listing}.items()):
            entry = tarfile.TarInfo(f"{path.stem}/{name}")
            entry.size, entry.mtime = size(content), TIME
            entry.mode = 0o755 if isinstance(content, Path) and os.access(content, os.X_OK) else 0o644
            with _opened(content) as data:
                archive.addfile(entry, _Watched(data, count))
    partial.rename(path)
    return digest(path, count)


def size(content: Path | bytes) -> int:
    """Size in bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _opened(content: Path | bytes) -> IO[bytes]:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def digest(content: Path | bytes, watch: Callable[[bytes], None] = lambda data: None) -> str:
    """SHA-256 in hexadecimal; `watch` gets every piece that is read."""
    found = hashlib.sha256()
    with _opened(content) as data:
        while chunk := data.read(CHUNK):
            found.update(chunk)
            watch(chunk)
    return found.hexdigest()


class _Watched:
    """A file that passes all that is read to a function as well."""

    def __init__(self, file: IO[bytes], watch: Callable[[bytes], None]) -> None:
        self.file = file
        self.watch = watch

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.watch(data)
        return data
