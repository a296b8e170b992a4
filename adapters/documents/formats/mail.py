"""Mails and saved pages (MIME): sender, receivers, date and subject, and the text, plain before HTML."""

from __future__ import annotations

from collections.abc import Iterator
from email import policy
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser

from adapters.documents.formats import html, plain
from adapters.documents.formats.encodings import decode
from adapters.documents.formats.parsed import Outline, Parsed, Piece, Refused, clean, counted, one_line

_NAMED = ("From", "To", "Cc", "Date", "Subject")


def read(data: bytes) -> Parsed:
    message = BytesParser(EmailMessage, policy=policy.default).parsebytes(data.lstrip())
    if not message.keys():
        raise Refused("broken_file", "The file is not an email: it has no header.")
    warnings: list[str] = []
    head = "\n".join(f"{name}: {value}" for name in _NAMED if (value := _header(message, name)))
    body = message.get_body(("plain", "html"))
    text = list(_text(body, warnings)) if body is not None else []
    attached = sum(bool(part.get_filename()) for part in message.iter_attachments()) if message.is_multipart() else 0
    warnings += counted(attached, "attachment left out", "attachments left out")
    return Parsed([*([Piece(head)] if head else []), *text], None, _header(message, "Subject") or None, warnings)


def _header(message: EmailMessage, name: str) -> str:
    return one_line(clean(str(message.get(name, ""))))


def _text(part: MIMEPart, warnings: list[str]) -> Iterator[Piece]:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return
    text, remarks = decode(payload, part.get_content_charset())
    warnings += remarks
    if part.get_content_subtype() == "html":
        yield from html.page(text.encode(), Outline(), warnings)[0]
    else:
        yield from plain.read(text.encode()).pieces
