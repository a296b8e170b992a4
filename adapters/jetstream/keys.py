"""The keys that encrypt the words of people, one per person, in the bucket `keys`: made once, and erased for good.

A key is wrapped by the vault. For a person, the bucket holds the key, the mark that it was erased, which stays, or
nothing; nothing where a message of the log needs a key means that the bucket has lost it.
"""

from __future__ import annotations

import os
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime

import nats.errors
import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import APIError

from adapters.jetstream.bulk import Stored
from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.streams import KEYS
from adapters.privacy.vault import PEOPLE, AesVault
from domain.access.end_user import person_id
from handlers.ports.log import Unavailable

STREAM = f"KV_{KEYS}"

HELD_S = 5.0
"""Time after which a cached key is read again, in seconds: the notice of an erasure may have been lost."""

HELD = 50_000
"""Maximum number of cached keys."""

_ASKED = 1000
_NONCE = 12
NOT_LAST = {10071, 10164}
"""JetStream error codes when the last sequence is another than the expected one."""

Person = tuple[str, str]
"""Tenant and id."""


def people(messages: Iterable[Msg | Stored]) -> set[Person]:
    """The people whose words the messages of EVENTS hold."""
    found = set()
    for message in messages:
        headers = message.headers or {}
        if person := headers.get("Headrace-Person"):
            found.add(((headers.get("Nats-Subject") or message.subject).split(".", 2)[1], person))
    return found


class MissingKey(Unavailable):
    """Words are sealed with a key that the bucket has lost: restore it from the archive or a backup."""

    def __init__(self, tenant: str, person: str) -> None:
        super().__init__(f"The key of person {person} of {tenant} is missing: restore it from the archive.")


class Key:
    """Seals to base64 of a nonce and the ciphertext under AES-256-GCM; `about` is authenticated, too."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, about: str, plain: bytes) -> str:
        nonce = os.urandom(_NONCE)
        return b64encode(nonce + self._cipher.encrypt(nonce, plain, about.encode())).decode()

    def open(self, about: str, sealed: str) -> bytes | None:
        """Raises: ValueError when another key or `about` sealed it, or it was changed since."""
        raw = b64decode(sealed)
        if not raw:  # written when the person was erased
            return None
        try:
            return self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], about.encode())
        except InvalidTag:
            raise ValueError(f"The sealed text about {about} was changed, or belongs to another.") from None


class ErasedKey:
    """The cipher of an erased person: it seals to nothing, and opens nothing."""

    __slots__ = ()

    def seal(self, about: str, plain: bytes) -> str:
        return ""

    def open(self, about: str, sealed: str) -> bytes | None:
        return None


ERASED = ErasedKey()

Held = Key | ErasedKey


class JetStreamKeys:
    """Reads, makes and caches keys. Every method raises: Unavailable, when the bucket does not answer."""

    def __init__(self, nc: Client, vault: AesVault, *, timeout_s: float = 5.0) -> None:
        self._nc = nc
        self._vault = vault
        self._js = nc.jetstream(timeout=timeout_s)
        self._reader = DirectReader(nc, timeout_s=timeout_s)
        self._held: dict[Person, tuple[Held, float]] = {}
        self._erased: set[Person] = set()
        self.on_erased: Callable[[], None] = _nothing
        """Callback for the first notice that a key was erased."""

    async def start(self) -> None:
        """Listen for erased keys: writes to the bucket also pass on plain NATS."""
        await self._nc.subscribe(f"$KV.{KEYS}.>", cb=self._hear)

    async def load(self, wanted: Iterable[Person]) -> None:
        """Load these keys for `get`. Raises: MissingKey, Unavailable."""
        now = time.monotonic()
        lacking = [each for each in set(wanted) if each not in self._erased and self._held.get(each, _NEVER)[1] <= now]
        missing: list[Person] = []
        for begin in range(0, len(lacking), _ASKED):
            some = lacking[begin : begin + _ASKED]
            found = await self._reader.latest(STREAM, [_subject(*each) for each in some])
            for each in some:
                # A follower may lag behind; the leader does not.
                if message := found.get(_subject(*each)) or await self._reader.last(STREAM, _subject(*each)):
                    self._hold(each, message.data)
                else:
                    self._held.pop(each, None)
                    missing.append(each)
        if missing:
            raise MissingKey(*missing[0])

    def get(self, tenant: str, person: str) -> Held:
        """A key that was loaded. Raises: MissingKey."""
        each = (tenant, person)
        if each in self._erased:
            return ERASED
        if each not in self._held:
            raise MissingKey(tenant, person)
        return self._held[each][0]

    async def of(self, tenant: str, person: str) -> Held:
        await self.load([(tenant, person)])
        return self.get(tenant, person)

    # --- people --------------------------------------------------------------------------------------------------

    async def person(self, tenant: str, user: str) -> str:
        """The id of the person with this name now; their key is made when there is none."""
        erasures = 0
        while True:
            person = person_id(user, erasures)
            with suppress(MissingKey):
                if isinstance(await self.of(tenant, person), Key):
                    return person
                erasures += 1
                continue
            await self.make(tenant, person)

    async def last_person(self, tenant: str, user: str) -> tuple[str, bool]:
        """The id of the last person with this name, and True if there ever was one."""
        erasures = 0
        while True:
            try:
                if isinstance(await self.of(tenant, person_id(user, erasures)), Key):
                    return person_id(user, erasures), True
            except MissingKey:
                return person_id(user, max(0, erasures - 1)), erasures > 0
            erasures += 1

    async def erase(self, tenant: str, person: str) -> None:
        """Erase the key: write the mark first, then delete the key, overwriting it on the disk."""
        subject = _subject(tenant, person)
        last = await self._reader.last(STREAM, subject)
        if last is None or "erased" not in entry(last.data):
            mark = {"erased": datetime.now(UTC).isoformat()}
            try:
                await self._js.publish(subject, orjson.dumps(mark), stream=STREAM)
            except nats.errors.Error as error:
                raise Unavailable(f"The keys cannot be erased: {error!r}") from error
        self.forget(tenant, person)
        for message in await self._reader.messages(STREAM, subject):
            if "erased" not in entry(message.data):
                try:
                    await delete(self._js, self._reader, sequence(message))
                except nats.errors.Error as error:
                    raise Unavailable(f"The keys cannot be erased: {error!r}") from error

    async def put_back(self, tenant: str, person: str, kept: bytes) -> None:
        """Restore a person's key from the archive, where the bucket has nothing."""
        await self._create(_subject(tenant, person), kept)

    def forget(self, tenant: str, person: str) -> None:
        """Stop reading the person's words: the log or the bucket has the erasure."""
        if (tenant, person) not in self._erased:
            self._erased.add((tenant, person))
            self._held.pop((tenant, person), None)
            self.on_erased()

    async def make(self, tenant: str, person: str) -> None:
        """Make a key unless there is one, or the mark of its erasure."""
        secret = f"{person} {b64encode(os.urandom(32)).decode()}"
        await self._create(_subject(tenant, person), orjson.dumps({"key": self._vault.seal(tenant, secret, PEOPLE)}))

    async def _create(self, subject: str, body: bytes) -> None:
        """Write under a subject that has nothing yet; the first writer wins."""
        headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
        try:
            await self._js.publish(subject, body, stream=STREAM, headers=headers)
        except APIError as error:
            if error.err_code not in NOT_LAST:
                raise Unavailable(f"A key cannot be stored: {error.description}") from error
        except nats.errors.Error as error:
            raise Unavailable(f"A key cannot be stored: {error!r}") from error

    def _hold(self, each: Person, data: bytes) -> None:
        tenant, person = each
        fields = entry(data)
        if "erased" in fields:
            self.forget(tenant, person)
            return
        if "key" not in fields:
            raise Unavailable(f"The entry of person {person} of {tenant} in the bucket of keys is no key.")
        try:
            owner, _, key = self._vault.open(tenant, fields["key"], PEOPLE).partition(" ")
        except ValueError as error:
            raise Unavailable(f"The key of person {person} of {tenant} cannot be unwrapped: {error}") from error
        if owner != person:
            raise Unavailable(f"The key of person {person} of {tenant} is the key of {owner}.")
        if len(self._held) >= HELD:
            del self._held[next(iter(self._held))]
        self._held[each] = (Key(b64decode(key)), time.monotonic() + HELD_S)

    async def _hear(self, message: Msg) -> None:
        with suppress(ValueError):
            _, _, tenant, person = message.subject.split(".")
            if "erased" in entry(message.data):
                self.forget(tenant, person)


async def delete(js: JetStreamContext, reader: DirectReader, sequence: int) -> None:
    """Delete an entry of the bucket, overwriting it on the disk, unless another process was faster.

    Raises: nats.errors.Error, Unavailable.
    """
    try:
        await js.delete_msg(STREAM, sequence)
    except APIError:  # NATS has several codes for a message that is not there
        if await reader.at(STREAM, sequence):
            raise


def entry(data: bytes) -> dict[str, str]:
    """An entry of the bucket: the `key`, or the time at which it was `erased`; neither for anything else."""
    with suppress(ValueError):
        match orjson.loads(data):
            case {"key": str(key)}:
                return {"key": key}
            case {"erased": str(at)}:
                return {"erased": at}
    return {}


_NEVER = (ERASED, 0.0)


def _nothing() -> None:
    """Ignore the notice."""


def _subject(tenant: str, person: str) -> str:
    return f"$KV.{KEYS}.{tenant}.{person}"
