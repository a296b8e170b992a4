"""Links: the address that a text leads to, after its words."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from adapters.documents.formats.parsed import one_line

_ADDRESS = re.compile(r"(?:https?|ftps?|sftp|mailto|tel|sms|geo|magnet|doi):", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z\d+.-]{0,30}:", re.IGNORECASE)
_FILE = re.compile(r"\.\w{1,8}(?:[?#]|$)")
_LONGEST_ADDRESS = 500
_WRAPPED = re.compile(r"https?://(?:www\.google\.[a-z.]{2,6}/url|[\w.-]{1,60}\.safelinks\.protection\.outlook\.com/)\?")


def target(address: str | None) -> str:
    """The address of a link as it is kept: "" for places in the same document and pages of the same site."""
    address = _unwrapped(one_line(address or ""))
    if not address or address.startswith("#") or len(address) > _LONGEST_ADDRESS:
        return ""
    if address.lower().startswith(("mailto:", "tel:")):
        return address.partition(":")[2].partition("?")[0]
    if _ADDRESS.match(address):
        return address
    return address if not _SCHEME.match(address) and _FILE.search(address) else ""


def _unwrapped(address: str) -> str:
    """The address behind one of a service that checks or counts clicks, as office programs and mails have it."""
    query = parse_qs(address.partition("?")[2]) if _WRAPPED.match(address) else {}
    return next((query[name][0] for name in ("url", "q") if name in query), address)


def linked(words: str, address: str | None) -> str:
    """The words of a link with its address after them, unless they are the address."""
    kept = target(address)
    bare = kept.partition("://")[2] or kept
    return f"{words} ({kept})" if kept and bare.rstrip("/") not in words else words
