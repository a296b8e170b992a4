"""API keys and the secrets of invitations: made at a door, shown once, and sent as their SHA-256."""

from __future__ import annotations

import secrets
import string
from hashlib import sha256
from urllib.parse import urlencode

from domain.access.api_key import Kind

SIGNS = string.ascii_letters + string.digits
LENGTH = 24
"""Number of signs after the prefix: 143 bits, which need no salt and no slow hash."""


def new(kind: Kind) -> str:
    """A new key: `dataset-` or, of the other kinds, `app-`, and 24 letters and digits.

    Dify's clients and scanners of secrets expect this form.
    """
    prefix = "dataset" if kind == "dataset" else "app"
    return f"{prefix}-{''.join(secrets.choice(SIGNS) for _ in range(LENGTH))}"


def fields(key: str) -> dict[str, str]:
    """The fields of a command about a key: its SHA-256, and its last characters, to recognize it by."""
    return {"digest": digest(key), "hint": key[-4:]}


def new_invitation() -> str:
    """The secret of a new invitation."""
    return secrets.token_urlsafe(32)


def invitation_link(viewer: str, tenant: str, secret: str) -> str:
    """The address at a viewer where an invitation to a tenant is accepted."""
    return f"{viewer.rstrip('/')}/invitation?{urlencode({'of': tenant, 'secret': secret})}"


def digest(secret: str) -> str:
    """The SHA-256 of a key or a secret, in hex."""
    return sha256(secret.encode()).hexdigest()
