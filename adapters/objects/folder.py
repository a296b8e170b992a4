"""Named objects as files of a folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from adapters.objects.objects import Found
from handlers.ports.log import Unavailable

T = TypeVar("T")

PARTIAL = "partial"
"""Subfolder of files that are not complete yet."""

_AT_ONCE = 1000


class Folder:
    """Every file is written under another name, synced, and then renamed: a power cut leaves no partial one.

    A folder that is missing is created by the first write, if `make`. Else nothing is read or written: its disk may not
    be mounted.
    """

    def __init__(self, root: Path, what: str, *, make: bool) -> None:
        self._root = root
        self._what = what
        self._make = make

    async def list(self, prefix: str) -> AsyncGenerator[Sequence[Found]]:
        files = _files(self._root, self._root / prefix)
        while some := await self._do(lambda: [*islice(files, _AT_ONCE)]):
            yield some

    async def find(self, name: str) -> Found | None:
        return await self._do(lambda: _found(self._root, self._root / name))

    async def get(self, name: str, limit: int | None = None) -> bytes | None:
        return await self._do(lambda: _read(self._root / name, limit))

    async def create(self, name: str, data: bytes) -> bool:
        return await self._do(lambda: self._write(name, data, new=True))

    async def replace(self, name: str, data: bytes) -> None:
        await self._do(lambda: self._write(name, data, new=False))

    async def remove(self, names: Sequence[str]) -> None:
        def unlink() -> None:
            for name in names:
                (self._root / name).unlink(missing_ok=True)

        await self._do(unlink)

    async def _do(self, act: Callable[[], T]) -> T:
        def there() -> T:
            if not self._make and not self._root.is_dir():
                raise FileNotFoundError(f"there is no folder {self._root}; create it, or mount its disk")
            return act()

        try:
            return await asyncio.to_thread(there)
        except OSError as error:
            raise Unavailable(f"{self._what} cannot be reached: {error}") from error

    def _write(self, name: str, data: bytes, *, new: bool) -> bool:
        target, partial = self._root / name, self._root / PARTIAL / uuid4().hex
        missing = [parent for parent in target.parents if not parent.exists()]
        for parent in (target.parent, partial.parent):
            parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if new:
                os.link(partial, target)
            else:
                partial.replace(target)
        except FileExistsError:
            return False
        finally:
            with suppress(OSError):
                partial.unlink()
        for folder in {target.parent, *(parent.parent for parent in missing)}:
            _sync(folder)
        return True


def _files(root: Path, folder: Path) -> Iterator[Found]:
    for parent, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            if found := _found(root, Path(parent, name)):
                yield found


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _found(root: Path, path: Path) -> Found | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return Found(path.relative_to(root).as_posix(), stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))


def _read(path: Path, limit: int | None) -> bytes | None:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if limit is not None and size > limit:
                raise ValueError(f"has {size:,} bytes, and at most {limit:,} are read")
            return file.read()
    except FileNotFoundError:
        return None


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
