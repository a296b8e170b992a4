"""The wire format of the log: commits and outcomes as messages, JSON that any language reads."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import Any, ClassVar, Protocol

import orjson

from domain.aggregate import Event, Snapshot
from domain.log import EVENTS, OUTCOMES, Commit, Metadata, Outcome, Position, Quarantined, Recorded, Subject, Verdict
from domain.nouns import NOUNS
from handlers.ports.log import Unavailable

SCHEMA, WITH_BLOBS, COMPRESSED = "1", "2", "3"
"""Versions of the envelope: of commits, of those with values that are blobs, and of those with compressed ones."""

WORTH = 256
"""Bytes of JSON from which it is compressed."""

LARGE = 16 * 1024
"""Bytes of a value, in UTF-8, up to which it stays in its commit; a larger one becomes a blob."""

Name = tuple[str, str]
"""Tenant and digest of a blob."""

Fetched = Mapping[Name, bytes]
"""The blobs that hold large values of commits."""

TIME = "Headrace-Time"
"""Time of the first storing of a message, in a restored log, where the stream's own time is later."""


class UnknownEvent(Exception):
    """An event of a type that this version does not know: a newer version wrote it. Upgrade."""


class NotAuthentic(ValueError):
    """This installation did not write the message, or it was changed since."""


class MissingBlob(Unavailable):
    """A value of a commit is in a blob that is missing or was changed: restore it from the archive."""

    def __init__(self, tenant: str, digest: str) -> None:
        super().__init__(f"Blob {digest} of {tenant} is missing or was changed: restore it from the archive.")


@cache
def event_types() -> dict[str, type[Event]]:
    """Every event class by its stored names, including those of older versions."""
    found: dict[str, type[Event]] = {}
    for noun in NOUNS.values():
        for event in vars(noun).values():
            if isinstance(event, type) and issubclass(event, Event) and "TOPIC" in vars(event):
                stem = event.TOPIC.rpartition(".v")[0]
                found |= {f"{stem}.v{version}": event for version in range(1, event.class_version + 1)}
    return found


class Cipher(Protocol):
    """The key of a person, or the mark of an erased one."""

    erased: ClassVar[bool]

    def seal(self, about: str, plain: bytes) -> str:
        """Encrypt to text, bound to `about`."""
        ...

    def open(self, about: str, sealed: str) -> bytes | None:
        """Decrypt; None when the person was erased. Raises: ValueError."""
        ...

    def seal_blob(self, tenant: str, kind: str, plain: bytes) -> bytes:
        """Encrypt to bytes that follow from the plain ones, bound to the tenant and the kind."""
        ...

    def open_blob(self, tenant: str, kind: str, sealed: bytes) -> bytes | None:
        """Decrypt; None when the person was erased. Raises: ValueError."""
        ...


class Ciphers(Protocol):
    """Keys that are loaded."""

    def get(self, tenant: str, person: str) -> Cipher:
        """Raises: Unavailable, when it is missing."""
        ...

    def check(self, position: Position, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        """Raises: NotAuthentic; Unavailable, when that cannot be known yet."""
        ...


class NoCiphers:
    """The keys of a reader without any: sealed fields cannot be read."""

    def get(self, tenant: str, person: str) -> Cipher:
        raise Unavailable(f"Words of person {person} of {tenant} are sealed, and no keys are configured.")

    def check(self, position: Position, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        """Accept every message: a reader without keys cannot check them."""


NO_CIPHERS = NoCiphers()

_NO_BLOBS: Fetched = {}


def encode_commit(
    events: Sequence[Event],
    metadata: Metadata,
    cipher: Cipher | None = None,
    blobs: dict[str, bytes] | None = None,
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of the message that commits these events.

    `cipher` is that of the person whose words it holds. Large values are added to `blobs` by their digests, and must be
    stored before the message; without `blobs`, they stay in the body. Raises: Unavailable when the cipher is needed
    and missing.
    """
    body = [_encode_event(event) for event in events]
    large: dict[str, bytes] = {}
    compressed = False
    if metadata.person:
        for event, fields in zip(events, body, strict=True):
            if event.PERSONAL:
                cipher = cipher or NO_CIPHERS.get(metadata.tenant, metadata.person)
                about = _about(metadata.tenant, metadata.person, metadata.id, fields)
                into = None if blobs is None else large
                compressed |= _seal(fields, event.PERSONAL, cipher, about, metadata.tenant, into)
    if blobs is not None:
        compressed |= any([_pack(fields, event.PACKED) for event, fields in zip(events, body, strict=True)])
    data = orjson.dumps(body)
    if blobs is not None and len(data) > LARGE:
        for fields in body:
            _move_out(fields, large)
        data = orjson.dumps(body)
    if blobs is not None:
        blobs |= large
    types = ",".join(fields["type"] for fields in body)
    schema = COMPRESSED if compressed else WITH_BLOBS if large else SCHEMA
    found = {**headers(metadata), "Headrace-Types": types}
    return data, found if schema == SCHEMA else {**found, "Headrace-Schema": schema}


def _encode_event(event: Event) -> dict[str, Any]:
    """As the library's mapper, in a third of the time; the state stays a dict, since a commit is encoded as a whole."""
    state = dict(vars(event))
    del state["originator_id"]
    version = state.pop("originator_version")
    if event.class_version > 1:
        state["class_version"] = event.class_version
    return {"type": event.TOPIC, "version": version, "state": state}


def _about(tenant: str, person: str, commit: str, event: Mapping[str, Any]) -> str:
    """The binding of a sealed field to its event."""
    return f"{tenant}/{person}/{commit}/{event['version']}"


def _seal(
    event: dict[str, Any],
    personal: frozenset[str],
    cipher: Cipher,
    about: str,
    tenant: str,
    large: dict[str, bytes] | None,
) -> bool:
    """Move personal fields out of the state, and leave empty values of their types in their place.

    Return whether they are compressed.
    """
    state = event["state"]
    secret = {name: state[name] for name in sorted(personal) if state[name]}
    if not secret:
        return False
    event["state"] = state | {name: type(value)() for name, value in secret.items()}
    plain = orjson.dumps(secret)
    if large is not None and len(plain) > LARGE:
        event["sealed"] = _reference(cipher.seal_blob(tenant, event["type"], plain), large)
        return False
    compressed = len(plain) > WORTH and not cipher.erased
    event["sealed"] = cipher.seal(about, zlib.compress(plain, 1) if compressed else plain)
    return compressed


def _pack(event: dict[str, Any], packed: frozenset[str]) -> bool:
    """Compress these fields, where they are long lists, and leave empty ones in their place; return whether."""
    state = event["state"]
    lists = {name: state[name] for name in sorted(packed) if state[name]}
    if not lists or len(plain := orjson.dumps(lists)) <= WORTH:
        return False
    event["state"] = state | {name: [] for name in lists}
    event["packed"] = b64encode(zlib.compress(plain, 1)).decode()
    return True


def _reference(data: bytes, large: dict[str, bytes]) -> dict[str, Any]:
    """The reference to a large value, which is added to the others."""
    digest = sha256(data).hexdigest()
    large[digest] = data
    return {"blob": digest, "bytes": len(data)}


def _move_out(event: dict[str, Any], large: dict[str, bytes]) -> None:
    """Put references in the place of the large strings of a state, and list their paths (JSON Pointer, RFC 6901)."""
    paths: list[str] = []

    def without(value: Any, path: str) -> Any:
        match value:
            case str() if 4 * len(value) > LARGE and len(data := value.encode()) > LARGE:
                paths.append(path)
                return _reference(data, large)
            case dict():
                return {name: without(part, f"{path}/{_escaped(name)}") for name, part in value.items()}
            case list() | tuple():
                return [without(part, f"{path}/{index}") for index, part in enumerate(value)]
        return value

    state = without(event["state"], "")
    if paths:
        event["state"], event["blobs"] = state, paths


def _escaped(name: Any) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")


def _put_back(event: dict[str, Any], tenant: str, blobs: Fetched) -> None:
    """Put large strings in the place of the references to them. Raises: MissingBlob."""
    for path in event.pop("blobs", ()):
        place, key = _at(event["state"], path)
        place[key] = _fetched(place[key], tenant, blobs).decode()


def _at(state: Any, path: str) -> tuple[Any, Any]:
    """The container of the value at a path, and its key there."""
    *before, last = (part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:])
    for part in before:
        state = state[_key(state, part)]
    return state, _key(state, last)


def _key(container: Any, part: str) -> int | str:
    return int(part) if isinstance(container, list) else part


def _fetched(reference: Mapping[str, Any], tenant: str, blobs: Fetched) -> bytes:
    if (found := blobs.get((tenant, reference["blob"]))) is None:
        raise MissingBlob(tenant, reference["blob"])
    return found


def whole(body: bytes, tenant: str, blobs: Fetched) -> list[dict[str, Any]]:
    """The stored events with large strings and packed fields in place; sealed texts stay as they are.

    Raises: MissingBlob.
    """
    events: list[dict[str, Any]] = orjson.loads(body)
    for event in events:
        _put_back(event, tenant, blobs)
        if packed := event.pop("packed", None):
            event["state"] |= orjson.loads(zlib.decompress(b64decode(packed)))
    return events


def references(body: bytes, *, sealed: bool = True) -> dict[str, int]:
    """The digests of the blobs that hold values of a stored commit, or only plain ones, with their sizes in bytes."""
    if b'"blob":' not in body:
        return {}
    found: dict[str, int] = {}
    with suppress(ValueError, LookupError, TypeError, AttributeError):  # decoding it says why
        for event in orjson.loads(body):
            large = [event["sealed"]] if sealed and isinstance(event.get("sealed"), dict) else []
            for path in event.get("blobs", ()):
                place, key = _at(event["state"], path)
                large.append(place[key])
            found |= {reference["blob"]: reference["bytes"] for reference in large}
    return found


def decode_commit(
    subject: str,
    body: bytes,
    header: Mapping[str, str],
    position: Position,
    at: datetime,
    ciphers: Ciphers = NO_CIPHERS,
    blobs: Fetched = _NO_BLOBS,
) -> Commit:
    """Decode the events; sealed fields are decrypted, and stay empty when the person was erased.

    `blobs` are those of `references`. Raises: UnknownEvent; Unavailable when a key or a blob is missing; ValueError
    when a sealed field was changed.
    """
    _, tenant, noun, id = subject.split(".", 3)
    schema = header.get("Headrace-Schema", SCHEMA)
    if schema not in (SCHEMA, WITH_BLOBS, COMPRESSED):
        raise UnknownEvent(f"an envelope of version {schema}")
    stored = whole(body, tenant, blobs)
    for event in stored:
        if event.get("sealed"):
            person = header.get("Headrace-Person", "")
            about = _about(tenant, person, header.get("Nats-Msg-Id", ""), event)
            if (opened := _opened(event, tenant, about, ciphers.get(tenant, person), blobs)) is not None:
                event["state"] |= orjson.loads(opened)
    events = [_decode_event(id, event) for event in stored]
    large = references(body) if schema != SCHEMA else {}
    size = len(body) + sum(large.values())
    return Commit(Subject(tenant, noun, id), events, metadata(header, tenant), position, _stored(header, at), size)


def _opened(event: Mapping[str, Any], tenant: str, about: str, cipher: Cipher, blobs: Fetched) -> bytes | None:
    """The sealed text of an event; None when the person was erased, whose blobs are not needed."""
    if cipher.erased:
        return None
    if isinstance(event["sealed"], str):
        opened = cipher.open(about, event["sealed"])
        return zlib.decompress(opened) if opened and not opened.startswith(b"{") else opened
    return cipher.open_blob(tenant, event["type"], _fetched(event["sealed"], tenant, blobs))


def _decode_event(originator: str, stored: dict[str, Any]) -> Event:
    """As the library's mapper, in half the time."""
    kind = event_types().get(stored["type"])
    if kind is None:
        raise UnknownEvent(stored["type"])
    state = stored["state"]
    state["timestamp"] = datetime.fromisoformat(state["timestamp"])
    state["originator_id"], state["originator_version"] = originator, stored["version"]
    for version in range(state.pop("class_version", 1), kind.class_version):
        getattr(kind, f"upcast_v{version}_v{version + 1}")(state)
    event = object.__new__(kind)
    event.__dict__.update(state)
    return event


def decode(
    subject: str,
    body: bytes,
    header: Mapping[str, str],
    position: Position,
    at: datetime,
    ciphers: Ciphers = NO_CIPHERS,
    blobs: Fetched = _NO_BLOBS,
) -> Recorded:
    """Decode a message of the log; one that is not authentic or cannot be decoded is in quarantine.

    Raises: Unavailable, without a key or a blob.
    """
    try:
        ciphers.check(position, subject, header, body)
        if position.stream == OUTCOMES:
            return decode_verdict(subject, body, header, position, at)
        return decode_commit(subject, body, header, position, at, ciphers, blobs)
    except Unavailable:
        raise
    except Exception as error:
        return _quarantined(subject, position, at, error)


def _quarantined(subject: str, position: Position, at: datetime, error: Exception) -> Quarantined:
    _, tenant, *noun, id = f"{subject}...".split(".")[: 4 if position.stream == EVENTS else 3]
    about = Subject(tenant, noun[0] if noun else "command", id)
    if isinstance(error, UnknownEvent):
        reason = f"has an event that a newer version wrote: {error}."
    else:
        fault = str(error) if isinstance(error, NotAuthentic) else f"{type(error).__name__}: {error}"
        reason = f"is no {'commit' if position.stream == EVENTS else 'outcome'} ({fault})."
    return Quarantined(about, Metadata("", tenant, ""), position, at, reason, isinstance(error, UnknownEvent))


def encode_outcome(outcome: Outcome) -> tuple[bytes, dict[str, str]]:
    metadata = outcome.metadata
    stream, sequence = outcome.position or (None, None)
    fields = {
        "command": outcome.command,
        "name": outcome.name,
        "status": outcome.status,
        "at": outcome.at,
        "stream": stream,
        "sequence": sequence,
        "version": outcome.version,
        "ids": outcome.ids,
        "code": outcome.code,
        "message": outcome.message,
        "field": outcome.field,
        "excerpt": outcome.excerpt,
        "correlation": metadata.correlation,
        "actor": metadata.actor,
        "door": metadata.door,
    }
    if outcome.details:
        fields["details"] = outcome.details
    # The stream drops a message with the id of an earlier one, even of another tenant.
    return orjson.dumps(fields), {**headers(metadata), "Nats-Msg-Id": f"{metadata.tenant}.{outcome.command}"}


def decode_outcome(body: bytes, header: Mapping[str, str], tenant: str) -> Outcome:
    fields = orjson.loads(body)
    stream, sequence = fields.pop("stream"), fields.pop("sequence")
    for name in ("correlation", "actor", "door"):  # they are in the headers
        fields.pop(name, None)
    fields["at"] = datetime.fromisoformat(fields["at"])
    position = Position(stream, sequence) if stream else None
    return Outcome(**fields, metadata=metadata(header, tenant, fields["command"]), position=position)


def decode_verdict(subject: str, body: bytes, header: Mapping[str, str], position: Position, at: datetime) -> Verdict:
    _, tenant, command = subject.split(".", 2)
    outcome = decode_outcome(body, header, tenant)
    about = Subject(tenant, "command", command)
    return Verdict(about, (outcome,), outcome.metadata, position, _stored(header, at), len(body))


def _stored(header: Mapping[str, str], at: datetime) -> datetime:
    return datetime.fromisoformat(header[TIME]) if TIME in header else at


def encode_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    return vars(snapshot)


def decode_snapshot(fields: dict[str, Any]) -> Snapshot:
    for name in ("_created_on", "_modified_on"):
        fields["state"][name] = datetime.fromisoformat(fields["state"][name])
    return Snapshot(**fields | {"timestamp": datetime.fromisoformat(fields["timestamp"])})


def headers(metadata: Metadata) -> dict[str, str]:
    """The headers of a message."""
    found = {
        "Nats-Msg-Id": metadata.id,
        "Headrace-Correlation": metadata.correlation,
        "Headrace-Actor": metadata.actor,
    }
    if metadata.causation:
        found["Headrace-Causation"] = metadata.causation
    if metadata.traceparent:
        found["traceparent"] = metadata.traceparent
    if metadata.person:
        found["Headrace-Person"] = metadata.person
    if metadata.door:
        found["Headrace-Door"] = metadata.door
    if metadata.origin:
        found["Headrace-Origin"] = metadata.origin
    return found


def metadata(header: Mapping[str, str], tenant: str, id: str | None = None) -> Metadata:
    """Metadata from the headers of a message; the subject names the tenant, and may name the id."""
    id = id or header.get("Nats-Msg-Id", "")
    return Metadata(
        id=id,
        tenant=tenant,
        correlation=header.get("Headrace-Correlation") or id,
        causation=header.get("Headrace-Causation"),
        actor=header.get("Headrace-Actor") or "anonymous",
        traceparent=header.get("traceparent"),
        person=header.get("Headrace-Person"),
        door=header.get("Headrace-Door"),
        origin=header.get("Headrace-Origin"),
    )
