"""Sessions of the viewer, and one-time codes that begin one: kept by the hash of their secret, for all viewers."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js.errors import APIError, BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from adapters.jetstream.streams import NOT_LAST, SESSION_S, SESSIONS
from domain.access.actor import ACTOR, ANON, account_of
from domain.access.door import BROWSER
from handlers.ports.log import Unavailable

CODE_S = 600
"""Lifetime of a one-time code, in seconds."""

USED_S = 60.0
"""Time after which the last use of a session is written again, in seconds."""

_AT_ONCE = 32
"""Maximum number of sessions that are read at a time."""


@dataclass(frozen=True, slots=True)
class Session:
    """A login. `id` is the hash of its secret and the actor.

    `token` is the fingerprint of the viewer's token, with which the session ends. `since` is the time (ISO 8601) of the
    account's last sign-out everywhere, when this session began.
    """

    id: str
    began_at: datetime
    ends_at: datetime
    used_at: datetime
    address: str
    browser: str
    token: str
    since: str = ""

    @property
    def actor(self) -> str:
        """The actor of its commands: an account, or `anon` for a login by the token or a link."""
        return self.id.partition(".")[2]

    @property
    def account(self) -> str:
        """The account, empty for a login by the token or a link."""
        return account_of(self.actor)


class Sessions:
    """Raises: Unavailable."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._bucket: KeyValue | None = None

    async def begin(
        self, token: str, address: str = "", browser: str = "", *, actor: str = ANON, since: str = ""
    ) -> str:
        """Begin a session, and return its secret."""
        secret, now = f"{secrets.token_urlsafe(32)}.{actor}", datetime.now(UTC)
        fields = {
            "began_at": now,
            "ends_at": now + timedelta(seconds=SESSION_S),
            "used_at": now,
            "address": address,
            "browser": browser[:BROWSER],
            "token": token,
            "since": since,
        }
        await self._put(f"session.{_id(secret)}", fields)
        return secret

    async def find(self, secret: str) -> Session | None:
        """The session with this secret, if it has not ended. It counts as a use, noted each `USED_S` seconds."""
        id = _id(secret)
        if not id or not (entry := await self._get(f"session.{id}")):
            return None
        session, now = _session(id, entry), datetime.now(UTC)
        if session.ends_at <= now:
            return None
        if (now - session.used_at).total_seconds() > USED_S:
            # Not written where the entry has changed, or was deleted, since.
            await self._put(f"session.{id}", _fields(entry) | {"used_at": now}, entry.revision)
            session = replace(session, used_at=now)
        return session

    async def end(self, id: str) -> None:
        """End a session."""
        await self._delete(f"session.{id}")

    async def end_all(self, actor: str, before: str | None = None, but: Collection[str] = ()) -> None:
        """End the sessions of an actor: all, or those that a sign-out at this time (ISO 8601) ends; `but` go on."""
        for session in await self.open(actor):
            if session.id not in but and (before is None or session.since < before):
                await self.end(session.id)

    async def open(self, actor: str = "*") -> list[Session]:
        """The sessions of an actor, or of all, that have not ended, oldest first."""
        now, turn = datetime.now(UTC), asyncio.Semaphore(_AT_ONCE)

        async def one(key: str) -> Session | None:
            async with turn:
                entry = await self._get(key)
            return _session(key.partition(".")[2], entry) if entry else None

        found = await asyncio.gather(*map(one, await self._keys(f"session.*.{actor}")))
        return sorted((each for each in found if each and each.ends_at > now), key=lambda each: each.began_at)

    async def link(self, viewer: str) -> str:
        """An address that begins one session at the viewer with this address, within `CODE_S`."""
        code = secrets.token_urlsafe(24)
        await self._put(f"code.{_hash(code)}", {"ends_at": datetime.now(UTC) + timedelta(seconds=CODE_S)})
        return f"{viewer.rstrip('/')}/login?code={code}"

    async def redeem(self, code: str) -> bool:
        """Return True for a code that is valid; it is not valid again."""
        key = f"code.{_hash(code)}"
        if not code or not (entry := await self._get(key)):
            return False
        valid = datetime.fromisoformat(_fields(entry)["ends_at"]) > datetime.now(UTC)
        return await self._delete(key, entry.revision) and valid

    async def _opened(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._nc.jetstream().key_value(SESSIONS)
        return self._bucket

    async def _keys(self, pattern: str) -> list[str]:
        """The keys that match, with those that were deleted lately. Needs no consumer, which a guest may not make."""
        try:
            prefix = f"$KV.{SESSIONS}."
            info = await self._nc.jetstream().stream_info(f"KV_{SESSIONS}", subjects_filter=f"{prefix}{pattern}")
        except nats.errors.Error as error:
            raise _unavailable(error) from error
        return [subject.removeprefix(prefix) for subject in info.state.subjects or {}]

    async def _get(self, key: str) -> KeyValue.Entry | None:
        try:
            return await (await self._opened()).get(key)
        except KeyNotFoundError:
            return None
        except nats.errors.Error as error:
            raise _unavailable(error) from error

    async def _put(self, key: str, fields: dict[str, Any], revision: int | None = None) -> None:
        """Write, but for a `revision` only where the entry is still that one."""
        body = orjson.dumps(fields)
        try:
            bucket = await self._opened()
            await (bucket.put(key, body) if revision is None else bucket.update(key, body, revision))
        except KeyWrongLastSequenceError:
            return
        except APIError as error:
            if error.err_code not in NOT_LAST:
                raise _unavailable(error) from error
        except nats.errors.Error as error:
            raise _unavailable(error) from error

    async def _delete(self, key: str, revision: int | None = None) -> bool:
        """False when the entry is not the one of this revision any more."""
        try:
            await (await self._opened()).delete(key, revision)
        except APIError as error:
            if error.err_code in NOT_LAST:
                return False
            raise _unavailable(error) from error
        except nats.errors.Error as error:
            raise _unavailable(error) from error
        return True


_SECRET = re.compile(rf"([A-Za-z0-9_-]{{43}})\.({ACTOR.pattern})")


def _id(secret: str) -> str:
    """The id of the session with this secret; empty for what is no secret."""
    found = _SECRET.fullmatch(secret)
    return f"{_hash(found[1])}.{found[2]}" if found else ""


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()


def _fields(entry: KeyValue.Entry) -> dict[str, Any]:
    return dict(orjson.loads(entry.value or b"{}"))


def _session(id: str, entry: KeyValue.Entry) -> Session:
    fields = _fields(entry)
    times = {name: datetime.fromisoformat(fields[name]) for name in ("began_at", "ends_at", "used_at")}
    return Session(id, **fields | times)


def _unavailable(error: nats.errors.Error) -> Unavailable:
    if isinstance(error, BucketNotFoundError):
        return Unavailable(f"NATS has no bucket {SESSIONS}: run the setup again.")
    return Unavailable(f"The sessions cannot be reached: {error!r}")
