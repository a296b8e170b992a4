"""An actor: the sender of a command, as a token of its subject `cmd.<tenant>.<actor>.<noun>.<verb>`.

The subject proves the actor. On the bus, a service and an API key may publish under their own actor only. Every other
actor is published by a door of ours, which has checked who it is, or by the operator.

A door sends for any account, so it needs a wildcard, and those of NATS stand for whole tokens. It therefore publishes
`cmd.<tenant>.a.<account>.<noun>.<verb>`. Its permissions name this form, so that a door that was taken over can pose as
an account, but not as a service or a key.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Self

ANON = "anon"
"""The actor of a command whose sender has no identity: the operator, or a machine without accounts."""

ACTOR = re.compile(r"[aks]_[A-Za-z0-9][A-Za-z0-9_-]{0,62}|anon")
"""`a_<account>`, `k_<key>`, `s_<service>` or `anon`."""

_ACCOUNT, _KEY = "a_", "k_"

BUS, OPERATOR, VIEWER = "bus", "operator", "viewer"
"""The doors of commands."""


def service(name: str) -> str:
    """The actor of a service, by the name of its bus login."""
    return f"s_{name}"


def account(id: str) -> str:
    """The actor of an account."""
    return f"{_ACCOUNT}{id}"


def account_of(actor: str) -> str:
    """The account of an actor, empty for one that is none."""
    return actor.removeprefix(_ACCOUNT) if actor.startswith(_ACCOUNT) else ""


def key(id: str) -> str:
    """The actor of an API key."""
    return f"{_KEY}{id}"


def key_of(actor: str) -> str:
    """The API key of an actor, empty for one that is none."""
    return actor.removeprefix(_KEY) if actor.startswith(_KEY) else ""


def tokens(actor: str) -> str:
    """The actor as a door or a service publishes it: two tokens for an account, else one."""
    return f"a.{id}" if (id := account_of(actor)) else actor


def door(actor: str, named: str | None) -> str:
    """The door of a command. The sender may name it, unless the actor is a service or an API key.

    These can publish any header, but no actor of another kind.
    """
    if actor.startswith("s_") or key_of(actor):
        return BUS
    return named if named in (VIEWER, BUS) else OPERATOR


class CommandSubject(NamedTuple):
    """The subject of a command, `cmd.<tenant>.<actor>.<noun>.<verb>`; without an actor, `actor` is empty.

    `actor` is a single token, also where the subject has two.
    """

    tenant: str
    actor: str
    name: str

    @classmethod
    def of(cls, subject: str) -> Self:
        _, tenant, actor, name = (*subject.split(".", 3), "", "", "")[:4]
        id, _, rest = name.partition(".")
        if actor == "a" and ACTOR.fullmatch(account(id)):
            return cls(tenant, account(id), rest)
        if ACTOR.fullmatch(actor):
            return cls(tenant, actor, name)
        return cls(tenant, "", f"{actor}.{name}" if name else actor)

    @property
    def is_old(self) -> bool:
        """True for the form of earlier versions: `cmd.<tenant>.<noun>.<verb>`."""
        return not self.actor and self.name.count(".") == 1

    def __str__(self) -> str:
        return f"cmd.{self.tenant}.{tokens(self.actor)}.{self.name}"
