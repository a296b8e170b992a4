"""An actor: the sender of a command, as a token of its subject `cmd.<tenant>.<actor>.<noun>.<verb>`.

The subject proves the actor. On the bus, a service and an API key may publish under their own actor only. Every other
actor is published by a door of ours, which has checked who it is, or by the operator.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Self

ANON = "anon"
"""The actor of a command whose sender has no identity: the operator, or a machine without accounts."""

ACTOR = re.compile(r"[aks]_[A-Za-z0-9][A-Za-z0-9_-]{0,62}|anon")
"""`a_<account>`, `k_<key>`, `s_<service>` or `anon`."""

BUS, OPERATOR, VIEWER = "bus", "operator", "viewer"
"""The doors of commands."""


def service(name: str) -> str:
    """The actor of a service, by the name of its bus login."""
    return f"s_{name}"


def door(actor: str, named: str | None) -> str:
    """The door of a command. The sender may name it, unless the actor is a service or an API key.

    These can publish any header, but no actor of another kind.
    """
    if actor.startswith(("s_", "k_")):
        return BUS
    return named if named in (VIEWER, BUS) else OPERATOR


class CommandSubject(NamedTuple):
    """The subject of a command, `cmd.<tenant>.<actor>.<noun>.<verb>`; without an actor, `actor` is empty."""

    tenant: str
    actor: str
    name: str

    @classmethod
    def of(cls, subject: str) -> Self:
        _, tenant, actor, name = (*subject.split(".", 3), "", "", "")[:4]
        if ACTOR.fullmatch(actor):
            return cls(tenant, actor, name)
        return cls(tenant, "", f"{actor}.{name}" if name else actor)

    @property
    def is_old(self) -> bool:
        """True for the form of earlier versions: `cmd.<tenant>.<noun>.<verb>`."""
        return not self.actor and self.name.count(".") == 1

    def __str__(self) -> str:
        return f"cmd.{self.tenant}.{self.actor}.{self.name}"
