"""An end user of a tenant's apps: the person who goes by a name.

A person's words are sealed with a key of their own, which `end_user.erase` destroys. The next user of the same name is
another person.
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from typing import Annotated
from uuid import NAMESPACE_OID, uuid5

from domain import aggregate
from domain.aggregate import Aggregate


@lru_cache(maxsize=4096)
def person_id(key: bytes, tenant: str, user: str, erasures: int = 0) -> str:
    """The id of the person who goes by a name in a tenant, after this number of erasures of that name.

    `key` is the installation's: without it, names cannot be tried.
    """
    name = hmac.new(key, f"{tenant}\0{user}\0{erasures}".encode(errors="surrogatepass"), "sha256")
    return str(uuid5(NAMESPACE_OID, name.hexdigest()))


@lru_cache(maxsize=4096)
def earlier_person_id(user: str, erasures: int = 0) -> str:
    """The id that earlier versions gave: who knows it can try names. Persons of theirs keep it."""
    first = uuid5(NAMESPACE_OID, f"end_user/{user}")
    return str(uuid5(first, str(erasures)) if erasures else first)


class EndUser(Aggregate):
    """An erased person; its id is the person's. There is no aggregate for other persons."""

    TOPIC = "end_user"
    known: bool

    class Event(aggregate.Event):
        pass

    class Erased(Event, aggregate.Created):
        """The person's key was destroyed: their words in the log can no longer be read."""

        TOPIC = "end_user.erased.v1"
        known: Annotated[bool, "True if the name had ever been used."]
