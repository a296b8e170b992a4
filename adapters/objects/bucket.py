"""Named objects in a bucket of S3, or of a store that speaks its protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from adapters.objects.objects import Found
from handlers.ports.log import Unavailable

if TYPE_CHECKING:
    from obstore import ObjectMeta

_PATIENCE = timedelta(seconds=20)


class Bucket:
    """The variables AWS_* hold the credentials and the address of the store."""

    def __init__(self, url: str, what: str) -> None:
        self._url = url
        self._what = what

    @cached_property
    def _store(self) -> S3Store:
        return S3Store.from_url(self._url, retry_config={"max_retries": 3, "retry_timeout": _PATIENCE})

    async def list(self, prefix: str) -> AsyncGenerator[Sequence[Found]]:
        with self._reached():
            async for some in obstore.list(self._store, prefix):
                yield [_found(each) for each in some]

    async def find(self, name: str) -> Found | None:
        with self._reached():
            try:
                return _found(await obstore.head_async(self._store, name))
            except FileNotFoundError:
                return None

    async def get(self, name: str, limit: int | None = None) -> bytes | None:
        with self._reached():
            try:
                found = await obstore.get_async(self._store, name)
            except FileNotFoundError:
                return None
            if limit is not None and found.meta["size"] > limit:
                raise ValueError(f"has {found.meta['size']:,} bytes, and at most {limit:,} are read")
            return bytes(await found.bytes_async())

    async def create(self, name: str, data: bytes) -> bool:
        with self._reached():
            try:
                await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    async def replace(self, name: str, data: bytes) -> None:
        with self._reached():
            await obstore.put_async(self._store, name, data, use_multipart=False)

    async def remove(self, names: Sequence[str]) -> None:
        with self._reached():
            await obstore.delete_async(self._store, list(names))

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Raises: Unavailable."""
        try:
            yield
        except (BaseError, OSError) as error:
            said = " ".join(str(error).partition("Debug source")[0].split())
            raise Unavailable(f"{self._what} cannot be reached: {said or type(error).__name__}") from error


def _found(meta: ObjectMeta) -> Found:
    return Found(meta["path"], meta["size"], meta["last_modified"])
