"""Message authentication codes: they tell messages of this installation from all others in its streams.

A code is HMAC-SHA256 with a key that is derived from the master secret. It covers the stream, the subject, the id, the
expected sequence, the headers `Headrace-*` and the stored body; not `Headrace-Time`, which a restored message gets.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Mapping

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js.errors import APIError

from adapters.jetstream.codec import TIME, NotAuthentic
from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.streams import KEYS, NOT_LAST
from adapters.privacy.vault import AesVault, UnknownKey
from domain.access.tenant import HOUSE
from domain.log import EVENTS, OUTCOMES, Position
from handlers.ports.log import Unavailable

MAC = "Headrace-MAC"
"""Header of a code: `<key id>:<value>`."""

STREAM = f"KV_{KEYS}"
STATEMENT = f"{HOUSE}/installation"
"""Name of the statement in an archive."""

SUBJECT = f"$KV.{KEYS}.{HOUSE}.installation"
"""Subject of the statement."""
_SEALED = re.compile(rb'"v2:([0-9a-f]{8}):')
_NOT_COVERED = {MAC, TIME}
_COVERED = {"Nats-Msg-Id", "Nats-Expected-Last-Subject-Sequence"}
_UNKNOWN = 100
"""Maximum number of unknown key ids for which the statement is read again."""


class Macs:
    """Signs and checks messages.

    The statement of the installation, in the bucket of keys, is sealed by the vault. It holds the keys that ever
    signed, so that a master secret may be removed, and for each stream the last sequence up to which messages without
    a code are accepted: those of a version that wrote none.
    """

    def __init__(self, nc: Client, vault: AesVault, *, timeout_s: float = 5.0) -> None:
        self._js = nc.jetstream(timeout=timeout_s)
        self._reader = DirectReader(nc, timeout_s=timeout_s)
        self._vault = vault
        self._keys = dict(vault.derived("mac"))
        self._own = vault.current
        self._stated: set[str] = set()
        self._sealed_by = ""
        self._accepted: dict[str, int] = {}
        self._loaded = False
        self._unknown: set[str] = set()

    # --- messages ------------------------------------------------------------------------------------------------

    def sign(self, stream: str, subject: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return the headers with the code."""
        return {**headers, MAC: f"{self._own}:{_code(self._keys[self._own], stream, subject, headers, body)}"}

    def check(self, position: Position, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        """Raises: NotAuthentic; Unavailable, when it was signed with a key that this process does not have yet."""
        given = headers.get(MAC, "")
        id, _, code = given.partition(":")
        if key := self._keys.get(id):
            if hmac.compare_digest(code.encode(), _code(key, position.stream, subject, headers, body).encode()):
                return
            raise NotAuthentic("its authentication code is wrong")
        if position.sequence <= self._accepted.get(position.stream, 0):
            return
        if not given:
            raise NotAuthentic("it has no authentication code")
        if self.knows(id):
            raise UnknownKey(id)
        if id not in self._unknown and len(self._unknown) < _UNKNOWN:
            self._unknown.add(id)
            self.forget()
            raise Unavailable("A message was signed with an unknown key: the keys in use are read again.")
        raise NotAuthentic("its authentication code is of an unknown key")

    def knows(self, id: str) -> bool:
        """True if a master secret with this id may be one of the installation, though this process lacks it."""
        return id == self._sealed_by or id in self._keys

    # --- the statement -------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Read the statement again before the next check."""
        self._loaded = False

    async def load(self) -> None:
        """Read the statement, unless it is known. Raises: UnknownKey, Unavailable."""
        if not self._loaded:
            await self._find()
            self._loaded = True

    async def establish(self, *, accepted: Mapping[str, int] | None = None) -> None:
        """Make the statement where there is none, or name this key in it; with `accepted`, replace it.

        Processes may do so at the same time. Raises: UnknownKey, Unavailable.
        """
        last = await self._find()
        if last and accepted is None:
            if self._own in self._stated:
                return
            accepted = self._accepted
        elif accepted is None:
            accepted = {stream: await self._last(stream) for stream in (EVENTS, OUTCOMES, STREAM)}
        keys = {id: b64encode(key).decode() for id, key in self._keys.items()}
        fields = {"keys": keys, "accepted": dict(accepted)}
        body = orjson.dumps({"installation": self._vault.seal(HOUSE, orjson.dumps(fields).decode())})
        headers = {"Nats-Expected-Last-Subject-Sequence": str(last)}
        try:
            await self._js.publish(SUBJECT, body, stream=STREAM, headers=headers)
        except APIError as error:
            if error.err_code not in NOT_LAST:
                raise Unavailable(f"The bucket of keys takes nothing: {error.description}") from error
            await self.establish()  # another process was faster
        except nats.errors.Error as error:
            raise Unavailable(f"The bucket of keys takes nothing: {error!r}") from error
        else:
            self._take(body)

    async def _find(self) -> int:
        """Read the last statement that is authentic; return the sequence of the last message, 0 for none."""
        last = await self._reader.last(STREAM, SUBJECT)
        if last is None:
            return 0
        self._sealed_by = _sealed_by(last.data)
        earlier = [] if self._take(last.data) else await self._reader.messages(STREAM, SUBJECT)
        if earlier and not any(self._take(message.data) for message in reversed(earlier)) and self._sealed_by:
            raise UnknownKey(self._sealed_by)
        return sequence(last)

    async def restore(self, archived: bytes | None, ends: Mapping[str, int], *, other_secret: bool = False) -> bool:
        """Establish the archived statement. Return True if the archived bucket may hold marks without a code.

        Messages up to `ends` are accepted as they are where the archive has no statement, or, with `other_secret`, one
        that cannot be read. Raises: UnknownKey, Unavailable.
        """
        own = archived is not None and self._take(archived)
        if archived and not own and not other_secret:
            raise UnknownKey(_sealed_by(archived))
        accepted = dict(self._accepted if own else ends)
        unmarked = accepted.pop(STREAM, 0) > 0 or not own
        await self.establish(accepted=accepted)
        return unmarked

    async def _last(self, stream: str) -> int:
        try:
            return int((await self._js.stream_info(stream)).state.last_seq)
        except nats.errors.Error as error:
            raise Unavailable(f"Stream {stream} cannot be read: {error!r}") from error

    def _take(self, data: bytes) -> bool:
        """Take the statement; False for one that the vault did not seal."""
        try:
            fields = orjson.loads(self._vault.open(HOUSE, orjson.loads(data)["installation"]))
        except (ValueError, KeyError, TypeError, UnknownKey):
            return False
        self._keys |= {id: b64decode(key) for id, key in fields["keys"].items()}
        self._stated, self._accepted = set(fields["keys"]), fields["accepted"]
        return True


def _sealed_by(statement: bytes) -> str:
    """The id of the master secret that has sealed it; empty for what is no statement."""
    match = _SEALED.search(statement)
    return match[1].decode() if match else ""


def _code(key: bytes, stream: str, subject: str, headers: Mapping[str, str], body: bytes) -> str:
    covered = sorted(
        f"{name}: {value.strip()}"
        for name, value in headers.items()
        if name in _COVERED or (name.startswith("Headrace-") and name not in _NOT_COVERED)
    )
    # No subject and no header holds a line break, and the body comes last.
    text = "\n".join((stream, subject, *covered)).encode() + b"\n\n" + body
    return urlsafe_b64encode(hmac.digest(key, text, "sha256")).decode().rstrip("=")
