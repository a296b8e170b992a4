"""Interpreters of Python on this machine, for plugins that need another version than the workers have."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Iterator
from pathlib import Path

RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"
"""Version of this Python."""

WITHIN_S = 10.0
"""Time limit of the question for a version, in seconds."""

_ASK = "import sys; print(sys.version_info[0], sys.version_info[1], sep='.')"


async def interpreter(version: str, given: str = "") -> Path | None:
    """An interpreter of this version, like `3.12`: this one, one of the paths in `given`, which `:` separates, or one
    that is in the path of programs, or that pyenv or uv has installed. None where there is none."""
    if version in ("", RUNNING):
        return Path(sys._base_executable)  # type: ignore[attr-defined]  # of a virtual environment, its own
    for path in await asyncio.to_thread(lambda: list(_candidates(version, given))):
        if await _version(path) == version:
            return path.resolve()
    return None


def _candidates(version: str, given: str) -> Iterator[Path]:
    for each in filter(None, given.split(os.pathsep)):
        yield Path(each)
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    user = Path.home()
    roots = {
        Path(os.environ.get("PYENV_ROOT") or user / ".pyenv") / "versions": f"{version}.*",
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or user / ".local/share/uv/python"): f"cpython-{version}.*",
    }
    for root, pattern in roots.items():
        folders = sorted(root.glob(pattern), key=lambda folder: [*map(int, re.findall(r"\d+", folder.name))])
        yield from (folder / "bin" / f"python{version}" for folder in reversed(folders))


async def _version(path: Path) -> str:
    """The version of an interpreter; empty for a file that is none."""
    try:
        process = await asyncio.create_subprocess_exec(
            str(path), "-I", "-S", "-c", _ASK, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(WITHIN_S):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    return said.decode(errors="replace").strip()
