"""The vault: secrets of tenants under AES-256-GCM, with a key for each tenant derived from one master secret."""

from __future__ import annotations

import base64
import binascii
import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = "v1:"
NONCE = 12
"""Bytes; random for every sealed secret."""


class AesVault:
    """Seals to `v1:` and base64 of the nonce and the ciphertext; the tenant is part of what is authenticated."""

    def __init__(self, master: bytes) -> None:
        if len(master) != 32:
            raise ValueError(f"The master secret must be 32 bytes long; it is {len(master)}.")
        self._master = master

    def seal(self, tenant: str, secret: str) -> str:
        nonce = os.urandom(NONCE)
        sealed = self._cipher(tenant).encrypt(nonce, secret.encode(), _bound(tenant))
        return VERSION + base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, tenant: str, sealed: str) -> str:
        """Raises: ValueError when it was not sealed for this tenant with this master secret, or was changed since."""
        if not sealed.startswith(VERSION):
            raise ValueError(f"A sealed secret begins with {VERSION!r}; this one does not.")
        try:
            raw = base64.urlsafe_b64decode(sealed[len(VERSION) :])
            if VERSION + base64.urlsafe_b64encode(raw).decode() != sealed:
                raise binascii.Error("not the one spelling")
            return self._cipher(tenant).decrypt(raw[:NONCE], raw[NONCE:], _bound(tenant)).decode()
        except (binascii.Error, InvalidTag, ValueError):
            failure = ValueError(
                f"The secret cannot be opened for tenant {tenant!r}: it was sealed for another tenant or with another "
                "master secret, or was changed. Register it again."
            )
        raise failure

    def _cipher(self, tenant: str) -> AESGCM:
        return AESGCM(HKDF(SHA256(), 32, salt=None, info=b"headrace vault key " + _bound(tenant)).derive(self._master))


def _bound(tenant: str) -> bytes:
    return f"{VERSION}{tenant}".encode()


def parse_master(text: str) -> bytes:
    """The master secret written as 64 hexadecimal digits or in base64. Raises: ValueError."""
    text = text.strip()
    with suppress(ValueError):
        if len(raw := bytes.fromhex(text)) == 32:
            return raw
    with suppress(ValueError):
        if len(raw := base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)) == 32:
            return raw
    raise ValueError("The master secret must be 32 bytes, written as 64 hexadecimal digits or in base64.")


def master_file(path: Path) -> bytes:
    """The master secret kept in a file that only its owner can read; the first caller makes it, all get the same.

    Raises: ValueError when the file holds something else.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{uuid4().hex}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(os.urandom(32).hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    try:
        return parse_master(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
