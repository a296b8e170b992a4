"""Files on their way: encrypted by the sender, who gives the key in the command, so that no copy is stored in plain.

A packed file is a random nonce of 12 bytes, then the ciphertext of AES-256-GCM with its tag; the key is base64.
"""

from __future__ import annotations

import binascii
import os
from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12


def pack(plain: bytes) -> tuple[str, bytes]:
    """A new key, and the file encrypted with it."""
    key, nonce = AESGCM.generate_key(256), os.urandom(NONCE)
    return b64encode(key).decode(), nonce + AESGCM(key).encrypt(nonce, plain, None)


def unpack(key: str, packed: bytes) -> bytes:
    """The file. Raises: ValueError when the key is not that of these bytes."""
    try:
        return AESGCM(b64decode(key, validate=True)).decrypt(packed[:NONCE], packed[NONCE:], None)
    except (binascii.Error, InvalidTag, ValueError):
        raise ValueError("The key does not decrypt the file.") from None
