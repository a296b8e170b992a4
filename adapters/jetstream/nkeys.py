"""Keys of NATS: an issuer signs what a server trusts, and an exchange seals what passes between it and a server."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import orjson
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey

ACCOUNT, EXCHANGE = 0, 23 << 3
"""Prefixes of public keys; in base32, they begin with `A` and `X`."""

_SEALED = b"xkv1"
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


def derived(key: bytes, purpose: str) -> bytes:
    """Seed of 32 bytes that follows from a key of the operator."""
    return hmac.digest(key, purpose.encode(), "sha256")


class Issuer:
    """Signs claims."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.public = _text(ACCOUNT, bytes(self._key.verify_key))

    def signed(self, claims: Mapping[str, Any]) -> str:
        """A JWT with these claims; the issuer and the id are added."""
        claims = {**claims, "iss": self.public}
        claims["jti"] = base64.b32encode(hashlib.sha256(orjson.dumps(claims)).digest()).rstrip(b"=").decode()
        text = b".".join(_base64(orjson.dumps(part)) for part in (_HEADER, claims))
        return b".".join((text, _base64(self._key.sign(text).signature))).decode()


class Exchange:
    """Opens what was sealed for it, and seals for others."""

    def __init__(self, seed: bytes) -> None:
        self._key = PrivateKey(seed)
        self.public = _text(EXCHANGE, bytes(self._key.public_key))

    def open(self, sealed: bytes, sender: str) -> bytes:
        """Raises: ValueError for what was not sealed by the sender, for this key."""
        if not sealed.startswith(_SEALED):
            raise ValueError("not sealed")
        try:
            return Box(self._key, PublicKey(_raw(sender))).decrypt(sealed.removeprefix(_SEALED))
        except CryptoError as error:
            raise ValueError(str(error)) from error

    def seal(self, plain: bytes, receiver: str) -> bytes:
        """Raises: ValueError when the receiver is no public key."""
        return _SEALED + Box(self._key, PublicKey(_raw(receiver))).encrypt(plain)


def claims(token: str) -> dict[str, Any]:
    """The claims of a JWT, whose signature is not checked. Raises: ValueError."""
    _, body, _ = token.split(".")
    found = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    if not isinstance(found, dict):
        raise ValueError("no claims")
    return found


def _text(prefix: int, key: bytes) -> str:
    data = bytes([prefix]) + key
    return base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).rstrip(b"=").decode()


def _raw(public: str) -> bytes:
    data = base64.b32decode(public + "=" * (-len(public) % 8))
    if len(data) != 35 or binascii.crc_hqx(data[:-2], 0).to_bytes(2, "little") != data[-2:]:
        raise ValueError("not a public key")
    return data[1:-2]


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
