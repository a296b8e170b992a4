"""The vault: secrets of tenants under AES-256-GCM, with a key for each tenant derived from one master secret."""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = "v1:"
NONCE = 12
"""Length of a nonce, in bytes; random for every sealed secret."""


class AesVault:
    """Seals to `v1:` and base64 of the nonce and the ciphertext; the tenant is authenticated, too."""

    def __init__(self, master: bytes) -> None:
        if len(master) < 16:
            raise ValueError(f"The master secret must have 16 bytes or more; it has {len(master)}.")
        self._master = master

    def seal(self, tenant: str, secret: str) -> str:
        nonce = os.urandom(NONCE)
        sealed = self._cipher(tenant).encrypt(nonce, secret.encode(), _bound(tenant))
        return VERSION + base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, tenant: str, sealed: str) -> str:
        """Raises: ValueError when another tenant or master secret sealed it, or it was changed since."""
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

    def derived(self, purpose: str) -> list[bytes]:
        """Keys of 32 bytes for another purpose than sealing, the current one first."""
        return [HKDF(SHA256(), 32, salt=None, info=f"headrace {purpose} key".encode()).derive(self._master)]

    def _cipher(self, tenant: str) -> AESGCM:
        return AESGCM(HKDF(SHA256(), 32, salt=None, info=b"headrace vault key " + _bound(tenant)).derive(self._master))


def _bound(tenant: str) -> bytes:
    return f"{VERSION}{tenant}".encode()
