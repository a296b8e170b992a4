"""Sessions of the viewer, and one-time codes that begin one: kept by the hash of their secret, for all viewers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js.errors import APIError, BucketNotFoundError, KeyNotFoundError
from nats.js.kv import KeyValue

from adapters.jetstream.streams import NOT_LAST, SESSION_S, SESSIONS
from handlers.ports.log import Unavailable

CODE_S = 600
"""Lifetime of a one-time code, in seconds."""

_BROWSER = 200
"""Maximum length of the name of a browser, in characters."""


@dataclass(frozen=True, slots=True)
class Session:
    """A login: `id` is the hash of its secret, `token` the fingerprint of the token that it ends with."""

    id: str
    began_at: datetime
    ends_at: datetime
    address: str
    browser: str
    token: str


class Sessions:
    """Raises: Unavailable."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._bucket: KeyValue | None = None

    async def begin(self, token: str, address: str = "", browser: str = "") -> str:
        """Begin a session, and return its secret."""
        secret, now = secrets.token_urlsafe(32), datetime.now(UTC)
        fields = {
            "began_at": now,
            "ends_at": now + timedelta(seconds=SESSION_S),
            "address": address,
            "browser": browser[:_BROWSER],
            "token": token,
        }
        await self._put(f"session.{_id(secret)}", fields)
        return secret

    async def find(self, secret: str) -> Session | None:
        """The session with this secret, if it has not ended."""
        if not secret or not (entry := await self._get(f"session.{_id(secret)}")):
            return None
        session = _session(_id(secret), entry)
        return session if session.ends_at > datetime.now(UTC) else None

    async def end(self, id: str) -> None:
        """End a session."""
        await self._delete(f"session.{id}")

    async def open(self) -> list[Session]:
        """The sessions that have not ended, oldest first."""
        now = datetime.now(UTC)
        try:
            watcher = await (await self._opened()).watch("session.*", ignore_deletes=True)
            found = []
            async for entry in watcher:
                if entry is None:
                    break
                found.append(_session(entry.key.partition(".")[2], entry))
            await watcher.stop()  # type: ignore[no-untyped-call]
        except nats.errors.Error as error:
            raise _unavailable(error) from error
        return sorted((each for each in found if each.ends_at > now), key=lambda each: each.began_at)

    async def link(self, viewer: str) -> str:
        """An address that begins one session at the viewer with this address, within `CODE_S`."""
        code = secrets.token_urlsafe(24)
        await self._put(f"code.{_id(code)}", {"ends_at": datetime.now(UTC) + timedelta(seconds=CODE_S)})
        return f"{viewer.rstrip('/')}/login?code={code}"

    async def redeem(self, code: str) -> bool:
        """Return True for a code that is valid; it is not valid again."""
        key = f"code.{_id(code)}"
        if not code or not (entry := await self._get(key)):
            return False
        valid = datetime.fromisoformat(_fields(entry)["ends_at"]) > datetime.now(UTC)
        return await self._delete(key, entry.revision) and valid

    async def _opened(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._nc.jetstream().key_value(SESSIONS)
        return self._bucket

    async def _get(self, key: str) -> KeyValue.Entry | None:
        try:
            return await (await self._opened()).get(key)
        except KeyNotFoundError:
            return None
        except nats.errors.Error as error:
            raise _unavailable(error) from error

    async def _put(self, key: str, fields: dict[str, Any]) -> None:
        try:
            await (await self._opened()).put(key, orjson.dumps(fields))
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


def _id(secret: str) -> str:
    return sha256(secret.encode("utf-8", "replace")).hexdigest()


def _fields(entry: KeyValue.Entry) -> dict[str, Any]:
    return dict(orjson.loads(entry.value or b"{}"))


def _session(id: str, entry: KeyValue.Entry) -> Session:
    fields = _fields(entry)
    times = {name: datetime.fromisoformat(fields[name]) for name in ("began_at", "ends_at")}
    return Session(id, **fields | times)


def _unavailable(error: nats.errors.Error) -> Unavailable:
    if isinstance(error, BucketNotFoundError):
        return Unavailable(f"NATS has no bucket {SESSIONS}: run the setup again.")
    return Unavailable(f"The sessions cannot be reached: {error!r}")
