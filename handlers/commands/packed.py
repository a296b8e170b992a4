"""Files in commands: blobs that a sender has stored, those of a user encrypted with a key that is in the command."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

from domain.aggregate import Rejection
from handlers.commands.preparation import Preparation
from handlers.files import Files
from handlers.ports.people import Erased

PACKING = 28
"""Bytes of a nonce and a tag, by which an encrypted file is longer."""


def file_name(given: str, field: str) -> str:
    """The last part of a path. Raises: Rejection `invalid` when there is none."""
    name = PurePosixPath(PureWindowsPath(given).as_posix()).name
    if name in ("", ".", ".."):
        raise Rejection("invalid", "Must end in a file name.", field)
    return name


async def kept_blob(given: Preparation, digest: str, field: str) -> int:
    """The size of a blob, which a sweep spares from now on. Raises: Rejection `not_found`."""
    size = await given.ports.blobs.keep(given.tenant, digest)
    if size is None:
        sentence = f"There is no blob {given.tenant}/{digest}; put it into the object store first."
        raise Rejection("not_found", sentence, field)
    return size


async def unpacked(given: Preparation, digest: str, key: str, most: int, at: str = "") -> bytes:
    """The file in an encrypted blob of at most `most` bytes; `at` is the path of the fields `digest` and `key`.

    Raises: Rejection `not_found`, `too_large` or `invalid`.
    """
    if await kept_blob(given, digest, f"{at}digest") > most + PACKING:
        raise Rejection("too_large", f"A user's file must not exceed {most // 2**20} MiB.", f"{at}digest")
    try:
        return given.ports.people.unpack(key, await given.ports.blobs.get(given.tenant, digest))
    except ValueError:
        raise Rejection("invalid", "Must be the key that the blob is encrypted with.", f"{at}key") from None


async def store_file(given: Preparation, data: bytes) -> str:
    """Store a file, sealed with the key of the command's person if it has one, and return its digest.

    Raises: Rejection `erased`.
    """
    try:
        return await Files(given.ports.blobs, given.ports.people).put(given.tenant, given.person, "file", data)
    except Erased:
        raise Rejection("erased", "The user was erased meanwhile: send it again.", "user") from None
