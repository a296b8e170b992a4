"""An end user of a tenant's apps: the person who goes by a name.

A person's words are sealed with a key of their own, which `end_user.erase` destroys. The next user of the same name is
another person.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated
from uuid import NAMESPACE_OID, uuid5

from domain import aggregate
from domain.aggregate import Aggregate


@lru_cache(maxsize=4096)
def person_id(user: str, erasures: int = 0) -> str:
    """The id, within a tenant, of the person who goes by a name after this number of erasures of that name.

    It does not reveal the name, except to one who tries names.
    """
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
