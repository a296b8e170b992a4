"""Passwords for logins to PostgreSQL, and their SCRAM-SHA-256 verifiers (RFC 5803), which do not reveal them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets

ITERATIONS = 4096
"""PostgreSQL's default. More would slow down a guess; these passwords have 192 bits."""


def new_password() -> str:
    """A random password of 32 characters that need no quoting in an address."""
    return secrets.token_urlsafe(24)


def verifier(password: str) -> str:
    """A verifier of an ASCII password, with a random salt, in PostgreSQL's form."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    first, second, third = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${ITERATIONS}:{first}${second}:{third}"
