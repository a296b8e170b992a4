"""Files of questions, in commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, model_validator

from domain.aggregate import Rejection
from domain.chat.app import App, ModelSettings
from domain.chat.file import File, Kind, file_id, mistaken
from domain.models.abilities import incapable
from handlers.commands.fields import BlobKey, Name, Part, Sha256
from handlers.commands.packed import file_name, store_file, unpacked
from handlers.commands.preparation import Preparation
from handlers.media_types import media_type_as

LONGEST_NAME = 200
"""Maximum characters of a file name; a longer one is cut."""


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or parts.username or parts.password or not url.isprintable() or " " in url:
        raise ValueError("Must be an address like https://host/file.pdf, without a login")
    return url


class FileFields(Part):
    """A file of a question: a blob by its digest and key, or an address that a worker fetches it from."""

    type: Kind = Field(description="Type; the bytes must be of it")
    digest: Sha256 | None = Field(None, description="SHA-256 in hex of a blob in the object store")
    key: BlobKey | None = Field(
        None,
        description="Key of the blob in base64: the blob is a nonce of 12 bytes and the file under AES-256-GCM",
    )
    url: Annotated[str, Field(max_length=2048), AfterValidator(_address)] | None = Field(
        None, description="Address to fetch the file from, once, before the answer"
    )
    name: Name | None = Field(None, description="File name; null for that in the address, or none")

    @model_validator(mode="after")
    def _one_source(self) -> FileFields:
        if (self.digest is None) == (self.url is None):
            raise ValueError("Give exactly one of digest and url")
        if (self.key is None) != (self.digest is None):
            raise ValueError("Give a key with digest, and only then: a user's file must be encrypted")
        return self

    @property
    def method(self) -> str:
        return "local_file" if self.url is None else "remote_url"

    @property
    def own_name(self) -> str:
        """The file's name; where none is given, that in the address."""
        return self.name or (unquote(urlsplit(self.url).path).rpartition("/")[2] if self.url else "") or self.type


async def asked_files(files: Sequence[FileFields], given: Preparation, app: App) -> list[File] | None:
    """The files of a question, of which the stored ones are sealed for its person; None for none.

    Raises: Rejection.
    """
    limits, most = given.ports.file_limits, given.ports.file_limits.number
    if len(files) > most:
        raise Rejection("too_many", f"A question has at most {most} files.", "files")
    if not app.has_graph:  # whose nodes say what they read
        app.check_files([(file.type, file.method) for file in files])
    if app.configuration:
        await _check_abilities(files, given, app.configuration["model"])
    return [
        await stored_file(file, number, given, limits.of(file.type), f"files.{number}.")
        for number, file in enumerate(files)
    ] or None


async def _check_abilities(files: Sequence[FileFields], given: Preparation, model: ModelSettings) -> None:
    """Raises: Rejection `unsupported` when the model cannot take a file, as far as is known."""
    if any(file.type != "document" for file in files):  # documents are read here
        able = await given.ports.abilities.of(given.tenant, model["provider"], model["name"])
        for file in files:
            if reason := incapable(able, model["provider"], model["name"], file.type):
                raise Rejection("unsupported", reason, "files")


async def stored_file(file: FileFields, number: int, given: Preparation, most: int, at: str) -> File:
    """A file that is sealed for its person, if its sender has stored it; `at` is the path of its fields.

    Raises: Rejection.
    """
    name = _short(file_name(file.own_name, f"{at}name"))
    stored = File(
        id=file_id(given.id, number),
        type=file.type,
        transfer_method=file.method,
        name=name,
        url=file.url,
        digest=None,
        media_type=None,
        size=None,
    )
    if file.digest and file.key:
        data = await unpacked(given, file.digest, file.key, most, at)
        media_type = media_type_as(file.type, data, name)
        if media_type is None:
            raise Rejection("unsupported_type", mistaken(file.type), f"{at}type")
        stored.update({"digest": await store_file(given, data), "media_type": media_type, "size": len(data)})
    return stored


def _short(name: str) -> str:
    """The name, cut to `LONGEST_NAME` characters before its suffix."""
    if len(name) <= LONGEST_NAME:
        return name
    suffix = PurePosixPath(name).suffix[-20:]
    return name[: LONGEST_NAME - len(suffix)] + suffix
