"""API keys and the secrets of invitations: made at a door, shown once, and sent as their SHA-256."""

from __future__ import annotations

import secrets
import string
from hashlib import sha256
from typing import Literal

SIGNS = string.ascii_letters + string.digits
LENGTH = 24
"""Number of signs after the prefix: 143 bits, which need no salt and no slow hash."""

Kind = Literal["app", "dataset"]


def new(kind: Kind) -> str:
    """A new key: `app-` or `dataset-`, and 24 letters and digits, as Dify's clients and scanners of secrets expect."""
    return f"{kind}-{''.join(secrets.choice(SIGNS) for _ in range(LENGTH))}"


def hint(key: str) -> str:
    """The last characters of a key, to recognize it by."""
    return key[-4:]


def new_invitation() -> str:
    """The secret of a new invitation."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """The SHA-256 of a key or a secret, in hex."""
    return sha256(secret.encode()).hexdigest()
