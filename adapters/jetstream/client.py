"""The client of the bus: send commands, store files, ask, search and watch."""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import nats.errors
import orjson
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.errors import MaxPayloadError, NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from adapters.jetstream import nats_py
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.codec import references, whole
from adapters.privacy.packed import pack
from domain.access.actor import ACTOR, ANON, OPERATOR, CommandSubject
from domain.aggregate import new_id, sentence
from handlers.media_types import kind_by_bytes
from handlers.ports.log import ListedBlobs, Unavailable

Outcome = dict[str, Any]
"""The outcome of a command, as published on `out.<tenant>.<command id>`."""

Frame = dict[str, Any]
"""A step of an answer: `accepted` first, then `retrieved`, `token`s, and last `answered`, `failed` or `stopped`; after
`restarted` the answer begins again, and `replaced` withdraws what was shown. Steps of an agent are `thought`, `tool`,
`question`, `observation` and `held`."""

LAST_FRAMES = ("answered", "failed", "stopped")
LAST_OF_AUDIO = ("transcribed", "spoken", "failed")
POLL = 2.0
"""Silence, in seconds, after which the log is read for frames that a live subject may have lost."""


class Unreachable(Unavailable):
    """NATS does not answer, or lacks the streams of Headrace."""


class NotSent(Exception):
    """The command was not stored; nothing has happened. `code` is stable, for programs."""

    def __init__(self, message: str, code: str = "not_sent") -> None:
        super().__init__(message)
        self.code = code


class NoOutcome(Exception):
    """The command is stored, but has no outcome yet: it follows when a worker runs."""


def rejection(outcome: Outcome) -> str:
    """The field and message of a rejected outcome."""
    return sentence(str(outcome["message"]), outcome.get("field"))


class Rejected(Exception):
    """The command broke the rule that `outcome` names."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(rejection(outcome))
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Commit:
    """A message of the log: the events of one cause on one aggregate."""

    sequence: int
    at: str | None
    noun: str
    id: str
    events: list[dict[str, Any]]
    headers: dict[str, str]


class Client:
    """Commands and answers of one tenant over a connection, which may be shared.

    `actor` sends the commands: a login of the bus may send its own only, `s_<name of the login>`. `door` is the one of
    an actor that is no service, and `origin` the report of the door that names its address.
    """

    def __init__(
        self, connection: Connection, tenant: str, actor: str = ANON, *, door: str = OPERATOR, origin: str = ""
    ) -> None:
        self.connection = connection
        self.tenant = tenant
        self.actor = actor
        self.door = door
        self.origin = origin
        self.stream: JetStreamContext = connection.jetstream()
        self.blobs: ListedBlobs = JetStreamBlobs(connection)

    @classmethod
    async def connect(
        cls,
        url: str,
        tenant: str = "default",
        actor: str = ANON,
        *,
        credentials: Path | None = None,
        ca: Path | None = None,
        within: float = 5.0,
    ) -> Self:
        """Connect to NATS at `url`, or at any of several separated by commas; `ca` verifies its certificate.

        Raises: Unreachable.
        """
        options: dict[str, Any] = {"user_credentials": str(credentials)} if credentials else {}
        try:
            if ca:
                options["tls"] = ssl.create_default_context(cafile=ca)
            async with asyncio.timeout(within):
                connection = await nats_py.connect(
                    [part.strip() for part in url.split(",")],
                    name="headrace client",
                    inbox_prefix=f"_INBOX.{tenant}",
                    error_cb=_ignore,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.25,
                    **options,
                )
        except (OSError, TimeoutError, nats.errors.Error) as error:
            reason = str(error) or f"no answer within {within:.0f} s"
            if "authorization" in reason.lower():
                reason += ": check the user and the password"
            raise Unreachable(f"NATS does not answer at {_without_secrets(url)} ({reason}).") from error
        return cls(connection, tenant, actor)

    async def close(self) -> None:
        await self.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- commands ------------------------------------------------------------------------------------------------

    async def send(self, name: str, payload: Mapping[str, Any], id: str | None = None, wait: float = 10.0) -> Outcome:
        """Send the command `<noun>.<verb>` and wait for its outcome, accepted or rejected.

        The same `id` again changes nothing and returns the same outcome. While the queue is full, sending is retried
        for `wait` seconds. Raises: NotSent, NoOutcome, Unreachable.
        """
        id = _command_id(name, id)
        if not ACTOR.fullmatch(self.actor):
            raise NotSent(f"{self.actor!r} is not an actor: a_<account>, k_<key>, s_<service> or {ANON}.")
        deadline = asyncio.get_running_loop().time() + wait
        try:
            subscription = await self.connection.subscribe(f"out.{self.tenant}.{id}", max_msgs=1)
            try:
                await self._publish(name, id, orjson.dumps(payload), deadline)
                pause = 0.25
                while True:
                    left = max(0.0, deadline - asyncio.get_running_loop().time())
                    message = await _next(subscription.next_msg, min(pause, left))
                    outcome = orjson.loads(message.data) if message else await self.outcome(id)
                    if outcome is not None:
                        return dict(outcome)
                    if not left:
                        raise NoOutcome(
                            f"Command {id} is stored, but has no outcome after {wait:.0f} s: is a worker running?"
                        )
                    pause = min(2 * pause, POLL)
            finally:
                await subscription.unsubscribe()
        except nats.errors.Error as error:
            raise Unreachable(f"NATS does not answer: {error!r}") from error

    async def post(self, name: str, payload: Mapping[str, Any], id: str | None = None, wait: float = 5.0) -> str:
        """Send a command without waiting for its outcome. Return its id, once it is stored.

        Raises: NotSent, Unreachable.
        """
        id = _command_id(name, id)
        try:
            await self._publish(name, id, orjson.dumps(payload), asyncio.get_running_loop().time() + wait)
        except nats.errors.Error as error:
            raise Unreachable(f"NATS does not answer: {error!r}") from error
        return id

    async def outcome(self, id: str) -> Outcome | None:
        """The outcome of a command sent at any time, or None while there is none."""
        try:
            message = await self.stream.get_last_msg("OUTCOMES", f"out.{self.tenant}.{id}", direct=True)
        except (NotFoundError, NatsTimeout):
            return None
        except NoRespondersError as error:
            raise Unreachable(_NO_STREAM.format("OUTCOMES")) from error
        return dict(orjson.loads(message.data or b"null"))

    async def _publish(self, name: str, id: str, payload: bytes, deadline: float) -> None:
        """Publish until the command is stored: perhaps twice, which is the same as once."""
        subject = str(CommandSubject(self.tenant, self.actor, name))
        headers = {"Headrace-Id": id, "Headrace-Door": self.door}
        if self.origin:
            headers["Headrace-Origin"] = self.origin
        pause = 0.1
        while True:
            try:
                await self.stream.publish(subject, payload, timeout=5, headers=headers)
                return
            except MaxPayloadError as error:
                said = f"The command has {len(payload)} bytes, more than the bus takes."
                raise NotSent(said, code="too_large") from error
            except NoStreamResponseError as error:
                raise Unreachable(_NO_STREAM.format("COMMANDS")) from error
            except APIError as error:
                refusal = _refusal(error)
                if refusal.code in ("not_sent", "too_large") or asyncio.get_running_loop().time() + pause > deadline:
                    raise refusal from error
            except NatsTimeout as error:
                if asyncio.get_running_loop().time() > deadline:
                    why = f"NATS has not confirmed the command. It is busy, or the login may not send as {self.actor}."
                    raise Unreachable(why) from error
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, POLL)

    # --- files ---------------------------------------------------------------------------------------------------

    async def upload_blob(self, data: bytes) -> str:
        """Store a file unless it is stored already. Return its SHA-256 in hex. Raises: NotSent, Unreachable."""
        try:
            return await self.blobs.put(self.tenant, data)
        except Unavailable as error:
            if isinstance(error.__cause__, APIError):
                raise _refusal(error.__cause__) from error
            raise Unreachable(str(error)) from error

    async def upload_packed(self, data: bytes) -> tuple[str, str]:
        """As `upload_blob`, for a file of an end user: encrypted with a new key. Return the digest and the key."""
        key, packed = pack(data)
        return await self.upload_blob(packed), key

    async def pack_file(self, data: bytes, name: str) -> dict[str, Any]:
        """As `upload_packed`, for a file of a question. Return its entry in `files`: its type is that of its bytes."""
        digest, key = await self.upload_packed(data)
        return {"type": kind_by_bytes(data)[0], "name": name, "digest": digest, "key": key}

    async def preview(self, request: dict[str, Any], within: float = 120.0) -> dict[str, Any]:
        """Preview the segments of a text: a request on `preview.<tenant>`, which changes nothing.

        Raises: NotSent when the request is too large, Unreachable when no worker answers.
        """
        try:
            answer = await self.connection.request(f"preview.{self.tenant}", orjson.dumps(request), timeout=within)
        except MaxPayloadError as error:
            raise NotSent("The request is larger than the bus takes: give a digest.", code="too_large") from error
        except (NoRespondersError, NatsTimeout) as error:
            raise Unreachable("No worker with the role ingest answers, which makes previews.") from error
        return dict(orjson.loads(answer.data))

    # --- answers -------------------------------------------------------------------------------------------------

    def ask(
        self,
        app: str,
        query: str,
        *,
        conversation: str | None = None,
        after: str | None = None,
        inputs: dict[str, str] | None = None,
        user: str = "anonymous",
        files: Sequence[Mapping[str, Any]] = (),
        id: str | None = None,
        wait: float = 10.0,
        patience: float = 300.0,
    ) -> AsyncGenerator[Frame, None]:
        """Ask an app, with files as `pack_file` gives them. Yield the frames of its answer as they arrive, to the last.

        `after` is the message of the conversation to continue after, by default the newest. `id` is that of the
        message, by default a new one: with the same id again, the answer is the same.

        The first is `{"type": "accepted", "conversation": id, "message": id}`. When `attempt` of a token grows, the
        answer starts over. After a frame `held` it goes on once a person has decided. Raises: Rejected, NotSent,
        Unreachable, NoOutcome: also after `patience` seconds of silence.
        """
        message = id or new_id()
        payload = {
            "app": app,
            "query": query,
            "inputs": inputs or {},
            "user": user,
            "conversation": conversation,
            "files": [*files] or None,
        }
        if after:  # workers of an earlier version do not know the field
            payload["parent_message"] = after
        return self._answer("message.send", payload, message, conversation or message, message, wait, patience)

    def retry(
        self, conversation: str, message: str, *, wait: float = 10.0, patience: float = 300.0
    ) -> AsyncGenerator[Frame, None]:
        """Retry a failed answer; frames and errors are those of `ask`."""
        payload = {"conversation": conversation, "message": message}
        return self._answer("message.retry", payload, new_id(), conversation, message, wait, patience)

    async def _answer(
        self,
        name: str,
        payload: dict[str, Any],
        id: str,
        conversation: str,
        message: str,
        wait: float,
        patience: float,
    ) -> AsyncGenerator[Frame, None]:
        """Send the command that starts the answer, and yield the frames of the answer."""
        live = await self.connection.subscribe(f"live.{self.tenant}.*.{message}")
        try:
            outcome = await self.send(name, payload, id, wait)
            if outcome["status"] == "rejected":
                raise Rejected(outcome)
            yield {"type": "accepted", "conversation": conversation, "message": message}
            after, silence, held = int(outcome["sequence"]), 0.0, False
            while silence < patience:
                received = await _next(live.next_msg, POLL)
                if received is None:
                    silence += POLL
                    frame, after = await self._missed(conversation, message, after)
                else:
                    silence = 0.0
                    frame = orjson.loads(received.data)
                if frame is not None:
                    held = frame["type"] == "held"
                    yield frame
                    if frame["type"] in LAST_FRAMES:
                        return
            why = "is a worker running?" if not held else "it waits for a person to release calls of tools."
            raise NoOutcome(f"Message {message} has no answer after {patience:.0f} s of silence: {why}")
        finally:
            await live.unsubscribe()

    async def audio(self, name: str, payload: dict[str, Any], *, wait: float = 10.0, patience: float = 300.0) -> Frame:
        """Send `audio.transcribe` or `audio.speak`; return the last frame: `transcribed`, `spoken` or `failed`.

        Raises: Rejected, NotSent, Unreachable, NoOutcome: also after `patience` seconds of silence.
        """
        id, silence = new_id(), 0.0
        live = await self.connection.subscribe(f"live.{self.tenant}.*.{id}")
        try:
            outcome = await self.send(name, payload, id, wait)
            if outcome["status"] == "rejected":
                raise Rejected(outcome)
            while silence < patience:
                received = await _next(live.next_msg, POLL)
                frame: Frame = orjson.loads(received.data) if received else {}
                silence = 0.0 if received else silence + POLL
                if frame.get("type") in LAST_OF_AUDIO:
                    return frame
            raise NoOutcome(f"{name} {id} has no result after {patience:.0f} s of silence: is a worker running?")
        finally:
            await live.unsubscribe()

    async def _missed(self, conversation: str, message: str, after: int) -> tuple[Frame | None, int]:
        """The last frame of an answer, read from the log, and the sequence up to which it was read."""
        subject = f"evt.{self.tenant}.conversation.{conversation}"
        while True:
            try:
                stored = await self.stream.get_msg("EVENTS", after + 1, subject, direct=True, next=True)
            except (NotFoundError, NatsTimeout, NoRespondersError):
                return None, after
            after = int(stored.seq or after + 1)
            events = await self._whole(stored.data or b"[]")
            for event in (event for event in reversed(events) if event["state"].get("message") == message):
                kind = event["type"].split(".")[1]
                if kind in LAST_FRAMES:
                    return {"type": kind, **event["state"]}, after
                break  # an answer that failed and is retried has not ended

    # --- searches ------------------------------------------------------------------------------------------------

    async def search(
        self,
        datasets: list[str],
        query: str,
        *,
        retrieval: dict[str, Any] | None = None,
        user: str = "anonymous",
        wait: float = 10.0,
        patience: float = 60.0,
    ) -> dict[str, Any]:
        """Search datasets; the log records it. Return the retrieval's `id` and the fields of `retrieval.made`.

        Raises: Rejected, NotSent, Unreachable, NoOutcome: also after `patience` seconds without a result.
        """
        payload = {"datasets": datasets, "query": query, "retrieval": retrieval or {"top_k": 10}, "user": user}
        outcome = await self.send("dataset.test", payload, wait=wait)
        if outcome["status"] == "rejected":
            raise Rejected(outcome)
        id = outcome["ids"]["retrieval"]
        deadline, pause = asyncio.get_running_loop().time() + patience, 0.01
        while asyncio.get_running_loop().time() < deadline:
            try:
                stored = await self.stream.get_last_msg("EVENTS", f"evt.{self.tenant}.retrieval.{id}", direct=True)
                [made] = await self._whole(stored.data or b"[]")
                return {"id": id, **made["state"], "query": query}
            except (NotFoundError, NatsTimeout, NoRespondersError):
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.5)
        raise NoOutcome(f"Query {id} has no result after {patience:.0f} s: is a worker with the role answer running?")

    # --- the log -------------------------------------------------------------------------------------------------

    async def commits(self, noun: str = "*", *, since: int | None = None) -> AsyncGenerator[Commit, None]:
        """Yield the tenant's commits, from sequence `since` or from now on, with large values in place.

        Sealed texts stay as they are stored. Raises: Unreachable.
        """
        policy = DeliverPolicy.NEW if since is None else DeliverPolicy.BY_START_SEQUENCE
        try:
            subscription = await self.stream.subscribe(
                f"evt.{self.tenant}.{noun}.*",
                stream="EVENTS",
                ordered_consumer=True,
                config=ConsumerConfig(deliver_policy=policy, opt_start_seq=since),
            )
        except (NotFoundError, NoRespondersError, NoStreamResponseError) as error:
            raise Unreachable(_NO_STREAM.format("EVENTS")) from error
        try:
            async for message in subscription.messages:
                yield _commit(message, await self._whole(message.data))
        finally:
            await subscription.unsubscribe()

    async def _whole(self, body: bytes) -> list[dict[str, Any]]:
        """The events of a stored commit, with large values in place. Raises: Unreachable."""
        try:
            named = references(body, sealed=False)
            large = {(self.tenant, digest): await self.blobs.get(self.tenant, digest) for digest in named}
        except (KeyError, ValueError, Unavailable) as error:
            raise Unreachable(f"A large value of a commit cannot be read: {error}") from error
        return whole(body, self.tenant, large)


_FULL, _TOO_LARGE, _NO_ROOM = (10077, 10167), 10054, (10002, 10023)
"""JetStream's error codes: the stream is full or behind; the message is too large; the account or the server has no
room."""

_NO_STREAM = "NATS has no {}: the streams of Headrace are not set up."


def _refusal(error: APIError) -> NotSent:
    """Translate an error of JetStream."""
    said = error.description or ""
    if error.err_code in _FULL and "per subject" in said:
        advice = "wait for their outcomes, then send it again"
        return NotSent(f"Too many of your commands of this name wait already ({said}): {advice}.", code="over_quota")
    if error.err_code in _FULL:
        return NotSent(f"Too many commands wait already ({said}): try again later.", code="queue_full")
    if error.err_code == _TOO_LARGE:
        return NotSent("The command is larger than the queue takes: store files as blobs.", code="too_large")
    if error.err_code in _NO_ROOM:
        return NotSent("The disk of NATS is full: free some space, then try again.", code="disk_full")
    return NotSent(f"The log refused it: {said}.")


def _command_id(name: str, id: str | None) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*", name):
        raise NotSent(f"{name!r} is not the name of a command, such as app.create.")
    try:
        return str(UUID(id)) if id else new_id()
    except ValueError as error:
        raise NotSent(f"{id!r} is not the id of a command, which is a UUID.") from error


def _commit(message: Msg, events: list[dict[str, Any]]) -> Commit:
    _, _, noun, id = message.subject.split(".", 3)
    headers = dict(message.headers or {})
    at = message.metadata.timestamp
    return Commit(
        sequence=message.metadata.sequence.stream,
        at=at.isoformat() if at else None,
        noun=noun,
        id=id,
        events=events,
        headers=headers,
    )


async def _next(receive: Callable[[float], Awaitable[Msg]], within: float) -> Msg | None:
    try:
        return await receive(max(within, 0.001))
    except NatsTimeout:
        return None


async def _ignore(error: Exception) -> None:
    """Drop errors of the connection: the calls that they concern raise them too."""


def _without_secrets(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)
