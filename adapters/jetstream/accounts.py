"""Accounts of NATS: the users of each, and the subjects that pass from one to another.

An account is a boundary, permissions inside one are not: NATS checks where a user publishes, but not the reply subject
that the user names, to which JetStream and the workers answer with rights of their own. So the account with the streams
holds only users that are trusted with the log. Every other account reaches the log through requests that it imports:
their replies end in it.

With a callout, the server asks a worker about every user that is not listed here: see `callout`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from adapters.jetstream.nats_py import API, IMPORTED_API
from adapters.jetstream.streams import (
    BLOBS,
    COMMANDS,
    CONSUMERS,
    DEAD,
    EXPORTS,
    FAILURES,
    KEY_USES,
    KEYS,
    OUTAGES,
    SESSIONS,
    SNAPSHOTS,
)
from domain.access.actor import ANON, service
from domain.access.permissions import OF_SERVICES
from domain.access.register import SUBJECTS
from domain.access.tenant import TENANT
from domain.log import EVENTS, OUTCOMES
from handlers.access.connect import commands

HEADRACE, SYSTEM = "HEADRACE", "SYS"
"""The account of the streams, and that of the server itself. The account of a tenant has its name, in lower case."""

INBOXES = ("_INBOX.>", "_R_.>")
"""Reply subjects of requests: of the same account, and of another."""

SETUP, WORKER, ADMIN, SYS = "setup", "worker", "admin", "sys"
VIEW, ARCHIVE, EXPORT = "view", "archive", "export"

_KEY_STREAM, _BLOB_STREAM, _EXPORT_STREAM = f"KV_{KEYS}", f"OBJ_{BLOBS}", f"KV_{EXPORTS}"
_SESSION_STREAM, _USE_STREAM = f"KV_{SESSIONS}", f"KV_{KEY_USES}"


@dataclass(frozen=True, slots=True)
class User:
    """A user, and the subjects it may use (None: all)."""

    name: str
    publish: tuple[str, ...] | None = None
    subscribe: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Guest:
    """An account without streams, and its users.

    `requests` and `hears` are subjects of the account with the streams, `api` requests to its JetStream, without the
    prefix. `serves` are subjects on which this account answers that one. `commands` are those that users of a tenant
    may send, each as its own actor.
    """

    account: str
    users: tuple[str, ...]
    commands: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    api: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()

    def imports(self) -> Iterator[tuple[str, str, str]]:
        """Kind, subject in the account with the streams, and subject in this one."""
        sent = (f"cmd.{self.account}.*.*.*",) if self.commands else ()
        yield from (("service", subject, subject) for subject in (*sent, *self.requests))
        yield from (("service", f"{API}.{request}", f"{IMPORTED_API}.{request}") for request in self.api)
        yield from (("stream", subject, subject) for subject in self.hears)

    def members(self) -> list[User]:
        """The users of this account, who may all do the same, each as its own actor."""
        return [self.user(name, actor_of(name), self.commands) for name in self.users]

    def user(self, name: str, actor: str, commands: Sequence[str]) -> User:
        """A user of this account that sends these commands as an actor."""
        asks = (*self.requests, *(f"{IMPORTED_API}.{request}" for request in self.api))
        look = (f"{API}.INFO",) if self.api else ()
        answers = (*self.serves, *INBOXES) if self.serves else ()
        subscribe = (*self.hears, *self.serves, INBOXES[0])
        sends = (f"cmd.{self.account}.{actor}.{command}" for command in commands)
        return User(name, (*sends, *asks, *look, *answers), subscribe)


INSIDERS = (
    User(
        SETUP,
        (
            *(f"{API}.{request}" for request in ("INFO", "STREAM.INFO.*", "STREAM.NAMES", "STREAM.CREATE.*")),
            f"{API}.STREAM.UPDATE.{COMMANDS}",
            *(f"{API}.CONSUMER.{request}.>" for request in ("INFO", "CREATE", "DURABLE.CREATE")),
        ),
        (INBOXES[0],),
    ),
    User(
        WORKER,
        (
            *("cmd.>", "evt.>", "out.>", "dead.>", "live.>", "embed.>", "rerank.>", "preview.>", "worker.>", *INBOXES),
            *("count.>", "waiting.>"),
            f"$O.{BLOBS}.>",
            *(f"$KV.{bucket}.>" for bucket in (SNAPSHOTS, FAILURES, EXPORTS, SESSIONS, KEYS, KEY_USES, OUTAGES)),
            *(f"{API}.{request}" for request in ("INFO", "STREAM.INFO.*", "STREAM.NAMES", "STREAM.MSG.GET.*")),
            *(f"{API}.STREAM.MSG.DELETE.{stream}" for stream in (DEAD, _KEY_STREAM)),
            *(f"{API}.{request}" for request in ("DIRECT.GET.>", "CONSUMER.INFO.>", "CONSUMER.LIST.*")),
            *(f"{API}.CONSUMER.{request}.>" for request in ("CREATE", "DURABLE.CREATE", "MSG.NEXT")),
            *("$JS.ACK.>", "$JS.FC.>"),
        ),
        (
            *("cmd.>", "evt.>", "out.>", "live.>", "embed.>", "rerank.>", "preview.>", "worker.>"),
            *(f"$KV.{bucket}.>" for bucket in (KEYS, OUTAGES)),
            *("waiting.>", INBOXES[0]),
        ),
    ),
    User(ADMIN),
)
"""The users of the account with the streams, which are trusted with the log. `worker` is every role but those of
`GUESTS`, and operators' commands such as `headrace doctor`; `admin` is for repairs and restores."""


ON_ONE_MACHINE = tuple(
    replace(user, publish=(*(user.publish or ()), f"{API}.STREAM.PURGE.{COMMANDS}")) if user.name == WORKER else user
    for user in INSIDERS
)
"""The same on the embedded server, where an erasure also purges the files of handled commands."""


def _read(*streams: str) -> tuple[str, ...]:
    """Requests that read streams and change nothing."""
    return tuple(f"{verb}.{stream}" for stream in streams for verb in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET"))


GUESTS = (
    Guest(
        "VIEW",
        (VIEW,),
        requests=(f"cmd.*.{ANON}.*.*", "cmd.*.a.*.*.*", f"$KV.{SESSIONS}.>"),
        api=(
            *_read(EVENTS, OUTCOMES, DEAD, COMMANDS, _KEY_STREAM, _BLOB_STREAM, _EXPORT_STREAM, _SESSION_STREAM),
            *_read(_USE_STREAM),
            f"DIRECT.GET.{OUTCOMES}.>",
            *(f"CONSUMER.INFO.{stream}.{name}" for name, (stream, _) in CONSUMERS.items()),
        ),
        hears=("out.>", f"$KV.{KEYS}.>", *SUBJECTS),
        serves=("worker.view",),
    ),
    Guest(
        "ARCHIVE",
        (ARCHIVE,),
        api=_read(EVENTS, OUTCOMES, DEAD, _KEY_STREAM, _BLOB_STREAM),
        serves=("worker.archive",),
    ),
    Guest(
        "EXPORT",
        (EXPORT,),
        requests=(f"$KV.{EXPORTS}.>",),
        api=_read(_EXPORT_STREAM),
        serves=("worker.export",),
    ),
)
"""The roles that append nothing to the log, each in an account of its own."""


def login(tenant: str, name: str = "") -> str:
    """The user of a tenant's login; without a name, of the one that is not from the log."""
    return f"tenant-{tenant}.{name}" if name else f"tenant-{tenant}"


def actor_of(user: str) -> str:
    """The actor of a tenant's login; that of the one that is not from the log has the tenant's name."""
    tenant, _, name = user.removeprefix("tenant-").partition(".")
    return service(name or tenant)


COMMANDS_OF_A_LOGIN = commands(OF_SERVICES)
"""The commands that a login of the bus may send: not those of the operator, nor those that need a sign-in."""


def tenant(name: str, users: Sequence[str]) -> Guest:
    """The account of a tenant's services: its commands, their outcomes, and its answers as they grow.

    It may have no users: those whom a callout lets in are not listed. Raises: ValueError for a name that no tenant can
    have, which might be that of another account.
    """
    if not TENANT.fullmatch(name):
        raise ValueError(f"{name!r} is not a tenant (a-z, 0-9, _ and -).")
    reads = (f"{EVENTS}.evt.{name}.document.*", f"{EVENTS}.evt.{name}.retrieval.*", f"{OUTCOMES}.out.{name}.*")
    return Guest(
        name,
        (*users,),
        commands=COMMANDS_OF_A_LOGIN,
        requests=(f"preview.{name}", *(f"{API}.DIRECT.GET.{subject}" for subject in reads)),
        hears=(f"out.{name}.>", f"live.{name}.>"),
    )


class Callout(NamedTuple):
    """The public keys of the worker that a server asks about users."""

    issuer: str
    exchange: str


CALLOUT_TIMEOUT_S = 5
"""Maximum wait of a server for the answer about a user, in seconds.

It is longer than clients wait, which then try again while no worker answers. A server that refused them would end some
clients for good.
"""


def configuration(
    password: Callable[[str], str],
    tenants: Mapping[str, Sequence[str]],
    *,
    insiders: Sequence[User] = INSIDERS,
    callout: Callout | None = None,
) -> dict[str, Any]:
    """The blocks `accounts`, `system_account` and, with a callout, `authorization` of a server's configuration.

    `password` returns that of a user, `tenants` has the users of each tenant with an account. The server is never asked
    about users in this configuration; it takes no reload that changes who they are.
    """
    guests = (*GUESTS, *(tenant(name, users) for name, users in sorted(tenants.items())))
    headrace = {
        "jetstream": "enabled",
        "users": [_user(user, password) for user in insiders],
        "exports": _exports(guests),
        "imports": [
            {"service": {"account": guest.account, "subject": subject}} for guest in guests for subject in guest.serves
        ],
    }
    accounts = {HEADRACE: headrace, **{guest.account: _account(guest, password) for guest in guests}}
    found: dict[str, Any] = {"system_account": SYSTEM}
    system = [User(SYS)]
    if callout:
        system.append(CALLOUT)
        listed = [*insiders, *(user for guest in guests for user in guest.members()), *system]
        asks = {
            "issuer": callout.issuer,
            "account": SYSTEM,
            "auth_users": [user.name for user in listed],
            "xkey": callout.exchange,
        }
        found["authorization"] = {"timeout": CALLOUT_TIMEOUT_S, "auth_callout": asks}
    accounts[SYSTEM] = {"users": [_user(user, password) for user in system]}
    return {"accounts": accounts, **found}


CALLOUT = User(
    "callout",
    (
        *("$SYS._INBOX.>", "$SYS.REQ.SERVER.PING.CONNZ"),
        *(f"$SYS.REQ.SERVER.*.{request}" for request in ("CONNZ", "KICK")),
    ),
    ("$SYS.REQ.USER.AUTH", INBOXES[0]),
)
"""The user in the server's own account that answers who may connect, and disconnects who may not stay."""


def _user(user: User, password: Callable[[str], str]) -> dict[str, Any]:
    found: dict[str, Any] = {"user": user.name, "password": password(user.name)}
    if user.publish is not None and user.subscribe is not None:
        found["permissions"] = {"publish": [*user.publish], "subscribe": [*user.subscribe]}
    return found


def _exports(guests: Sequence[Guest]) -> list[dict[str, Any]]:
    """The exports of the account with the streams, each to the accounts that import it."""
    approved: dict[tuple[str, str], list[str]] = {}
    for guest in guests:
        for kind, subject, _ in guest.imports():
            approved.setdefault((kind, subject), []).append(guest.account)
    return [
        {kind: subject, **({"response_type": "stream"} if _BATCHES.fullmatch(subject) else {}), "accounts": accounts}
        for (kind, subject), accounts in approved.items()
    ]


_BATCHES = re.compile(r"\$JS\.API\.DIRECT\.GET\.\w+")
"""A request for several messages has as many replies."""


def _account(guest: Guest, password: Callable[[str], str]) -> dict[str, Any]:
    return {
        "users": [_user(user, password) for user in guest.members()],
        "exports": [{"service": subject, "accounts": [HEADRACE]} for subject in guest.serves],
        "imports": [
            {kind: {"account": HEADRACE, "subject": subject}, **({"to": local} if local != subject else {})}
            for kind, subject, local in guest.imports()
        ],
    }


def password(key: bytes, user: str, issue: str = "") -> str:
    """The password of a user, which follows from a key of the operator; each issue has another."""
    return hmac.new(key, f"user {user} {issue}".encode(), hashlib.sha256).hexdigest()


_VARIABLE = re.compile(r'"(\$NATS_[A-Z0-9_]+)"')
_WIDTH = 116


def written(configured: dict[str, Any]) -> str:
    """The text of a configuration, as a server reads it; a password like `$NATS_WORKER_PASSWORD` is a variable."""
    lines = (f"{json.dumps(name)}: {_text(value, '')}\n" for name, value in configured.items())
    return _VARIABLE.sub(r"\1", "".join(lines))


def _text(value: Any, indent: str) -> str:
    """JSON with what fits into a line on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent + line) <= _WIDTH or not isinstance(value, dict | list):
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {_text(part, deeper)}" for name, part in value.items()]
    else:
        parts = [_text(part, deeper) for part in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + "".join(f"{deeper}{part},\n" for part in parts)[:-2] + f"\n{indent}{closing}"
