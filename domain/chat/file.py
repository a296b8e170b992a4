"""Files of questions: images, documents and recordings, each in a blob sealed like the words of who asked."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, NotRequired, TypedDict, cast
from uuid import UUID, uuid5

Kind = Literal["image", "document", "audio"]

Method = Literal["local_file", "remote_url"]
"""The sender stored the file, or a worker fetches it from its address."""


class File(TypedDict):
    """A file of a question."""

    id: Annotated[str, "File."]
    type: Annotated[str, "`image`, `document` or `audio`."]
    transfer_method: Annotated[str, "`local_file` for one that the sender stored, `remote_url` for one to be fetched."]
    name: Annotated[str, "File name."]
    url: Annotated[str | None, "Address that it is fetched from; null for one that the sender stored."]
    digest: Annotated[str | None, "Blob with the file, sealed; null before it is fetched."]
    media_type: Annotated[str | None, "Media type by its content; null before it is fetched."]
    size: Annotated[int | None, "Size in bytes; null before it is fetched."]
    segments: NotRequired[Annotated[str | None, "Blob with its segments, sealed; missing or null before it is read."]]


class FileLimits(NamedTuple):
    """Maximum sizes of files of questions, in bytes, and the maximum number of files of one question."""

    image: int = 10 * 2**20
    document: int = 15 * 2**20
    audio: int = 30 * 2**20
    number: int = 10

    def of(self, kind: str) -> int:
        """The maximum size of a file of this type."""
        return cast("int", getattr(self, kind))


LIMITS = FileLimits()
"""The default limits."""


def file_id(message: str, number: int) -> str:
    """The id of file `number` (from 0) of a message."""
    return str(uuid5(UUID(message), f"file:{number}"))


def mistaken(type: str) -> str:
    """Why a file is not of the type that it is given as."""
    formats = {"image": "a PNG, JPEG, GIF or WebP image", "audio": "an MP3, WAV, Ogg, FLAC, MP4, WebM or AMR recording"}
    return f"The file is not {formats.get(type, 'a document, but an image or a recording')}."
