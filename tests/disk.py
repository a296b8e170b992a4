"""A small disk of its own for a folder, and what fills it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import disk_usage

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int, mode: str = "0700") -> Iterator[None]:
    """Mount a tmpfs on a new folder. The test is skipped where this machine does not allow it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    mounted = mount("-t", "tmpfs", "-o", f"size={megabytes}m,mode={mode}", "tmpfs", str(folder))
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a small disk needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


@contextmanager
def ballast(disk: Path, leaving: int = 0) -> Iterator[None]:
    """A file of another program that leaves this number of bytes of the disk free, or none."""
    file = disk / "ballast"
    with file.open("wb", buffering=0) as heavy, suppress(OSError):
        for size in (2**16, 2**10, 1):
            with suppress(OSError):
                while (not leaving or disk_usage(disk).free >= leaving + size) and heavy.write(bytes(size)) == size:
                    pass
    try:
        yield
    finally:
        file.unlink()
