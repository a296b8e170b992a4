"""Tells failures apart by what went wrong, not by what it happened to."""

from __future__ import annotations

import re
from hashlib import blake2b

LONGEST = 2000
"""Characters of an error that count."""

_QUOTED = re.compile(r"'[^'\n]{1,500}+'|\"[^\"\n]{1,500}+\"|`[^`\n]{1,500}+`|“[^“”\n]{1,500}+”|«[^«»\n]{1,500}+»")
_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b(?=\w*\d)(?:0x)?[0-9a-f]{8,}\b")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


def fingerprint(kind: str, code: str, error: str) -> str:
    """Twelve hex digits, equal for failures of a kind whose texts differ in ids, numbers and quoted parts alone."""
    text = error[:LONGEST].lower()
    for pattern, stands_for in ((_QUOTED, "'…'"), (_ID, "#"), (_NUMBER, "#")):
        text = pattern.sub(stands_for, text)
    return blake2b(f"{kind}\n{code}\n{' '.join(text.split())}".encode(), digest_size=6).hexdigest()
