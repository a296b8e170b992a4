"""Files in messages: a blob holds each, sealed like the words of its person, and a prompt names its digest."""

from __future__ import annotations

from typing import Any, cast

from domain.aggregate import Rejection
from domain.models.piece import Piece
from handlers.files import Files
from handlers.ports.models import Attachment


async def stored(files: Files, tenant: str, person: str | None, attachment: Attachment) -> Attachment:
    """The attachment with the digest of a blob that holds it. Raises: Erased; Unavailable."""
    return attachment._replace(digest=await files.put(tenant, person, "file", attachment.data))


def file_piece(attachment: Attachment) -> Piece:
    """The record of an attachment that is stored."""
    if not attachment.digest:
        raise ValueError(f"Attachment {attachment.name!r} is not stored.")
    piece = {"file": attachment.digest, "kind": attachment.kind, "media_type": attachment.media_type}
    return cast("Piece", piece | {name: value for name in ("name", "detail") if (value := getattr(attachment, name))})


async def loaded(files: Files, tenant: str, person: str | None, piece: Piece) -> Attachment:
    """The attachment of a recorded piece. Raises: Rejection `erased`; Unavailable."""
    digest = piece["file"]
    try:
        data = await files.get(tenant, person, "file", digest)
    except (KeyError, ValueError):
        raise Rejection("erased", f"What the model call sent was erased: file {digest} is not there.", "call") from None
    kind = cast("Any", piece["kind"])
    return Attachment(kind, piece["media_type"], data, piece.get("name", ""), piece.get("detail", ""), digest)
