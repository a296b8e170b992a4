"""The keys that encrypt the words of people, one per person, in the bucket `keys`: made once, and erased for good.

A key is wrapped by the vault. For a person, the bucket holds the key, the mark that it was erased, which stays, or
nothing; nothing where a message of the log needs a key means that the bucket has lost it. One more key, of the
installation, makes the ids of people from their names.
"""

from __future__ import annotations

import asyncio
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import ClassVar

import nats.errors
import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import APIError

from adapters.jetstream.bulk import Stored, tenant_of
from adapters.jetstream.codec import NotAuthentic
from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.macs import MAC, STREAM, Macs
from adapters.jetstream.macs import SUBJECT as STATEMENT_SUBJECT
from adapters.jetstream.streams import KEYS, NOT_LAST
from adapters.privacy.packed import unpack
from adapters.privacy.vault import PEOPLE, AesVault, UnknownKey
from domain.access.end_user import earlier_person_id, person_id
from domain.access.tenant import HOUSE
from domain.log import Position
from handlers.ports.log import Unavailable
from handlers.ports.people import Erased

HELD_S = 5.0
"""Time after which a cached key is read again, in seconds: the notice of an erasure may have been lost."""

HELD = 50_000
"""Maximum number of cached keys."""

NAMES = "names"
"""The entry of the house with the key that makes ids from names."""

ERASURES = 100
"""Maximum number of people of one name that are compared with an id."""

_ASKED = 1000
_NONCE = 12

Person = tuple[str, str]
"""Tenant and id."""


def people(messages: Iterable[Msg | Stored]) -> set[Person]:
    """The people whose words the messages of EVENTS hold."""
    found = set()
    for message in messages:
        if person := (message.headers or {}).get("Headrace-Person"):
            found.add((tenant_of(message), person))
    return found


class MissingKey(Unavailable):
    """Words are sealed with a key that the bucket has lost: restore it from the archive or a backup."""

    def __init__(self, tenant: str, person: str) -> None:
        super().__init__(f"The key of person {person} of {tenant} is missing: restore it from the archive.")


class Key:
    """Seals to base64 of a nonce and the ciphertext under AES-256-GCM; `about` is authenticated, too.

    A blob is sealed deterministically, under AES-256-SIV with a key that is derived from this one.
    """

    erased: ClassVar[bool] = False

    __slots__ = ("_cipher", "_key", "_siv")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._cipher = AESGCM(key)
        self._siv: AESSIV | None = None

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

    def seal_blob(self, tenant: str, kind: str, plain: bytes) -> bytes:
        """Equal bytes of a tenant and kind give equal sealed ones, and so one name; `plain` must not be empty."""
        return self._of_blobs().encrypt(plain, [tenant.encode(), kind.encode()])

    def open_blob(self, tenant: str, kind: str, sealed: bytes) -> bytes:
        """Raises: ValueError when it was sealed with another key, tenant or kind, or was changed since."""
        try:
            return self._of_blobs().decrypt(sealed, [tenant.encode(), kind.encode()])
        except InvalidTag:
            raise ValueError(f"A sealed blob of {tenant} ({kind}) was changed, or belongs to another.") from None

    def of_names(self) -> bytes:
        """The key that makes ids from names, which is derived from this one."""
        return HKDF(SHA256(), 32, salt=None, info=b"headrace names").derive(self._key)

    def _of_blobs(self) -> AESSIV:
        if self._siv is None:
            self._siv = AESSIV(HKDF(SHA256(), 64, salt=None, info=b"headrace blobs").derive(self._key))
        return self._siv


class ErasedKey:
    """The cipher of an erased person: it seals to nothing, and opens nothing."""

    erased: ClassVar[bool] = True

    __slots__ = ()

    def seal(self, about: str, plain: bytes) -> str:
        return ""

    def open(self, about: str, sealed: str) -> bytes | None:
        return None

    def seal_blob(self, tenant: str, kind: str, plain: bytes) -> bytes:
        return b""

    def open_blob(self, tenant: str, kind: str, sealed: bytes) -> bytes | None:
        return None


ERASED = ErasedKey()

Held = Key | ErasedKey


class JetStreamKeys:
    """Reads, makes and caches keys. Every method raises: Unavailable, when the bucket does not answer."""

    def __init__(self, nc: Client, vault: AesVault, *, timeout_s: float = 5.0) -> None:
        self._nc = nc
        self._vault = vault
        self.macs = Macs(nc, vault, timeout_s=timeout_s)
        self._js = nc.jetstream(timeout=timeout_s)
        self._reader = DirectReader(nc, timeout_s=timeout_s)
        self._held: dict[Person, tuple[Held, float]] = {}
        self._erased: set[Person] = set()
        self._named: dict[tuple[str, str], str] = {}
        self._names: bytes | None = None
        self.on_erased: Callable[[], None] = _nothing
        """Callback for the first notice that a key was erased."""

    async def start(self) -> None:
        """Listen for erased keys: writes to the bucket also pass on plain NATS."""
        await self._nc.subscribe(f"$KV.{KEYS}.>", cb=self._hear)

    async def load(self, wanted: Iterable[Person]) -> None:
        """Load these keys for `get`, and what `check` needs. Raises: MissingKey, Unavailable."""
        await self.macs.load()
        now = time.monotonic()
        lacking = [each for each in set(wanted) if each not in self._erased and self._held.get(each, _NEVER)[1] <= now]
        missing: list[Person] = []
        for begin in range(0, len(lacking), _ASKED):
            some = lacking[begin : begin + _ASKED]
            found = await self._reader.latest(STREAM, [_subject(*each) for each in some])
            for each in some:
                # A follower may lag behind; the leader does not.
                last = found.get(_subject(*each)) or await self._reader.last(STREAM, _subject(*each))
                if last is None:
                    self._held.pop(each, None)
                    missing.append(each)
                elif not self._hold(each, last):
                    await self._hold_earlier(each)
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

    def check(self, position: Position, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        """As `Macs.check`."""
        self.macs.check(position, subject, headers, body)

    async def of(self, tenant: str, person: str) -> Held:
        await self.load([(tenant, person)])
        return self.get(tenant, person)

    # --- people --------------------------------------------------------------------------------------------------

    async def person(self, tenant: str, user: str) -> str:
        """The id of the person with this name now; their key is made when there is none."""
        if known := self._named.get((tenant, user)):
            with suppress(MissingKey):
                if isinstance(await self.of(tenant, known), Key):
                    return known
        while True:
            person, alive, following = await self._last(tenant, user)
            if alive:
                if len(self._named) >= HELD:
                    del self._named[next(iter(self._named))]
                self._named[tenant, user] = person
                return person
            await self.make(tenant, following)

    async def last_person(self, tenant: str, user: str) -> tuple[str, bool]:
        """The id of the last person with this name, and True if there ever was one."""
        person, _, following = await self._last(tenant, user)
        return person or following, bool(person)

    async def seal(self, tenant: str, person: str, kind: str, plain: bytes) -> bytes:
        """As the port."""
        held = _living(await self.of(tenant, person), person)
        return await asyncio.to_thread(held.seal_blob, tenant, kind, plain)

    async def open(self, tenant: str, person: str, kind: str, sealed: bytes) -> bytes:
        """As the port."""
        held = _living(await self.of(tenant, person), person)
        return await asyncio.to_thread(held.open_blob, tenant, kind, sealed)

    def unpack(self, key: str, packed: bytes) -> bytes:
        """As the port."""
        return unpack(key, packed)

    async def is_person(self, tenant: str, user: str, person: str) -> bool:
        """True if the person with this id goes by this name, or went by it."""
        key = await self.key_of_names()
        numbers = range(ERASURES)
        return any(person in (earlier_person_id(user, n), person_id(key, tenant, user, n)) for n in numbers)

    async def _last(self, tenant: str, user: str) -> tuple[str, bool, str]:
        """The last person with this name, empty for none; True unless erased; and the id of the one who follows.

        A person with an id of an earlier version comes before all others.
        """
        key = await self.key_of_names()
        last = ""
        for id_of in (partial(earlier_person_id, user), partial(person_id, key, tenant, user)):
            for erasures in count():
                person = id_of(erasures)
                try:
                    held = await self.of(tenant, person)
                except MissingKey:
                    break
                last = person
                if isinstance(held, Key):
                    return last, True, ""
        return last, False, person

    async def key_of_names(self) -> bytes:
        """The installation's key that makes ids from names; it is made when there is none."""
        if self._names is None:
            try:
                held = await self.of(HOUSE, NAMES)
            except MissingKey:
                await self.make(HOUSE, NAMES)
                held = await self.of(HOUSE, NAMES)
            assert isinstance(held, Key)
            self._names = held.of_names()
        return self._names

    async def erase(self, tenant: str, person: str) -> None:
        """Erase the key: write the mark first, then delete the key, overwriting it on the disk."""
        subject = _subject(tenant, person)
        last = await self._reader.last(STREAM, subject)
        if last is None or not self._is_mark(subject, sequence(last), last.data):
            mark = self._mark(subject, datetime.now(UTC).isoformat())
            try:
                await self._js.publish(subject, mark, stream=STREAM)
            except nats.errors.Error as error:
                raise Unavailable(f"The keys cannot be erased: {error!r}") from error
        self.forget(tenant, person)
        for message in await self._reader.messages(STREAM, subject):
            if "erased" not in entry(message.data):
                try:
                    await delete(self._js, self._reader, sequence(message))
                except nats.errors.Error as error:
                    raise Unavailable(f"The keys cannot be erased: {error!r}") from error

    async def put_back(self, tenant: str, person: str, kept: bytes, *, unmarked: bool) -> None:
        """Restore a person's entry from the archive, where the bucket has nothing.

        With `unmarked`, a mark without an authentication code gets one: an earlier version wrote it.
        """
        subject, fields = _subject(tenant, person), entry(kept)
        if "erased" in fields and "mac" not in fields and unmarked:
            kept = self._mark(subject, fields["erased"])
        await self._create(subject, kept)

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

    def _mark(self, subject: str, at: str) -> bytes:
        """The mark that a person was erased, with its authentication code."""
        return orjson.dumps({"erased": at, "mac": self.macs.sign(STREAM, subject, {}, _marked(at))[MAC]})

    def _is_mark(self, subject: str, sequence: int, data: bytes) -> bool:
        """True for an authentic mark. Raises: Unavailable, while that cannot be known."""
        fields = entry(data)
        try:
            code = {MAC: fields.get("mac", "")}
            self.macs.check(Position(STREAM, sequence), subject, code, _marked(fields["erased"]))
        except (KeyError, NotAuthentic):
            return False
        return True

    def _hold(self, each: Person, message: Msg) -> bool:
        """Take the entry; False for one that is neither an authentic mark nor the person's key."""
        tenant, person = each
        if self._is_mark(_subject(*each), sequence(message), message.data):
            self.forget(tenant, person)
            return True
        try:
            owner, _, key = self._vault.open(tenant, entry(message.data)["key"], PEOPLE).partition(" ")
            if owner != person:
                return False
            held = Key(b64decode(key))
        except UnknownKey as unknown:
            if self.macs.knows(unknown.id):
                raise
            return False
        except (KeyError, ValueError):
            return False
        if len(self._held) >= HELD:
            del self._held[next(iter(self._held))]
        self._held[each] = (held, time.monotonic() + HELD_S)
        return True

    async def _hold_earlier(self, each: Person) -> None:
        """Take the last authentic entry, since another program wrote the last one. Raises: Unavailable."""
        messages = await self._reader.messages(STREAM, _subject(*each))
        if not any(self._hold(each, message) for message in reversed(messages)):
            tenant, person = each
            raise Unavailable(
                f"No entry of person {person} of {tenant} in the bucket of keys is a mark or this person's key: "
                "it was changed, or sealed with another secret key."
            )

    async def _hear(self, message: Msg) -> None:
        with suppress(ValueError):
            _, _, tenant, person = message.subject.split(".")
            if message.subject == STATEMENT_SUBJECT:
                self.macs.forget()
            elif self._is_mark(message.subject, _NEWEST, message.data):
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
    """An entry of the bucket: the `key`, or the time at which it was `erased` with a `mac`; nothing for others."""
    with suppress(ValueError):
        match orjson.loads(data):
            case {"key": str(key)}:
                return {"key": key}
            case {"erased": str(at), "mac": str(mac)}:
                return {"erased": at, "mac": mac}
            case {"erased": str(at)}:
                return {"erased": at}
    return {}


def _living(held: Held, person: str) -> Key:
    """Raises: Erased."""
    if isinstance(held, ErasedKey):
        raise Erased(person)
    return held


def _marked(at: str) -> bytes:
    return orjson.dumps({"erased": at})


_NEWEST = 2**63
"""Stands for the sequence of a message that just arrives."""

_NEVER = (ERASED, 0.0)


def _nothing() -> None:
    """Ignore the notice."""


def _subject(tenant: str, person: str) -> str:
    return f"$KV.{KEYS}.{tenant}.{person}"
