"""The vault: secrets of tenants under AES-256-GCM, with keys derived from master secrets, of which one is current."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from handlers.ports.log import Unavailable

NONCE = 12
"""Length of a nonce, in bytes; random for every sealed secret."""

TENANTS, PEOPLE = "tenants", "people"
"""Purposes of sealing: secrets of tenants, such as providers' keys, and the keys of people."""

_FIRST = "v1:"
"""Beginning of what earlier versions sealed, without the id of the key."""

_SEALED = re.compile(r"v2:([0-9a-f]{8}):(.*)", re.DOTALL)


class UnknownKey(Unavailable):
    """A value is sealed under a master secret that this process does not have."""

    def __init__(self, id: str) -> None:
        super().__init__(f"This worker lacks key {id}: restart it with the master secret that has this id.")
        self.id = id


class AesVault:
    """Seals to `v2:<id of the master secret>:` and base64 of the nonce and the ciphertext.

    Tenant and purpose are authenticated, too. The first master secret is current: it seals. All of them open.
    """

    def __init__(self, *masters: bytes) -> None:
        for master in masters:
            if len(master) < 16:
                raise ValueError(f"A master secret must have 16 bytes or more; one has {len(master)}.")
        self._masters = {key_id(master): master for master in masters}
        self.current = next(iter(self._masters))
        """The id of the current master secret."""

    @property
    def ids(self) -> Sequence[str]:
        """The ids of the master secrets, the current one first."""
        return list(self._masters)

    def derive(self, purpose: str) -> bytes:
        """The key of the current master secret for a purpose, 32 bytes; purposes have unrelated keys."""
        return _derive(self._masters[self.current], purpose)

    def derived(self, purpose: str) -> Mapping[str, bytes]:
        """The keys for a purpose by the id of their master secret, the current one first."""
        return {id: _derive(master, purpose) for id, master in self._masters.items()}

    def seal(self, tenant: str, secret: str, purpose: str = TENANTS) -> str:
        nonce, prefix = os.urandom(NONCE), f"v2:{self.current}:"
        cipher = AESGCM(self.derive(_sealing(tenant, purpose)))
        return prefix + _spelled(nonce + cipher.encrypt(nonce, secret.encode(), _bound(prefix, tenant, purpose)))

    def open(self, tenant: str, sealed: str, purpose: str = TENANTS) -> str:
        """Raises: UnknownKey; ValueError when it was sealed for another tenant or purpose, or was changed since."""
        if sealed.startswith(_FIRST):
            found = self._opened_first(tenant, sealed)
        elif match := _SEALED.fullmatch(sealed):
            if match[1] not in self._masters:
                raise UnknownKey(match[1])
            key = _derive(self._masters[match[1]], _sealing(tenant, purpose))
            found = _opened(AESGCM(key), match[2], _bound(f"v2:{match[1]}:", tenant, purpose))
        else:
            raise ValueError("A sealed secret begins with 'v2:' and a key's id, or with 'v1:'; this one does not.")
        if found is None:
            raise ValueError(
                f"The secret cannot be opened for tenant {tenant!r}: it was sealed for another tenant or with another "
                "master secret, or was changed. Register it again."
            )
        return found

    def is_current(self, sealed: str) -> bool:
        """True if the current master secret has sealed it."""
        return sealed.startswith(f"v2:{self.current}:")

    def sealed_by(self, tenant: str, sealed: str) -> str:
        """The id of the master secret that has sealed it. Raises: ValueError."""
        if match := _SEALED.fullmatch(sealed):
            return match[1]
        for id, master in self._masters.items():
            if AesVault(master)._opened_first(tenant, sealed) is not None:
                return id
        raise ValueError("It is sealed under a master secret that is not there.")

    def _opened_first(self, tenant: str, sealed: str) -> str | None:
        bound = f"{_FIRST}{tenant}".encode()
        for master in self._masters.values():
            cipher = AESGCM(HKDF(SHA256(), 32, salt=None, info=b"headrace vault key " + bound).derive(master))
            if (found := _opened(cipher, sealed.removeprefix(_FIRST), bound)) is not None:
                return found
        return None


def key_id(master: bytes) -> str:
    """The id of a master secret, 8 hex digits; it reveals nothing of the secret."""
    return sha256(_derive(master, "id")).hexdigest()[:8]


def _derive(master: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=f"headrace {purpose}".encode()).derive(master)


def _sealing(tenant: str, purpose: str) -> str:
    return f"seal/{purpose}/{tenant}"


def _bound(prefix: str, tenant: str, purpose: str) -> bytes:
    return f"{prefix}{purpose}/{tenant}".encode()


def _spelled(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


def _opened(cipher: AESGCM, text: str, bound: bytes) -> str | None:
    """The secret, or None when another key sealed it, or it was changed."""
    try:
        raw = base64.urlsafe_b64decode(text)
        if _spelled(raw) != text:
            return None
        return cipher.decrypt(raw[:NONCE], raw[NONCE:], bound).decode()
    except (binascii.Error, InvalidTag, ValueError):
        return None
