"""An end user of a tenant's apps, as the person behind a name.

The words of a person are kept under a key of its own, which `end_user.erase` throws away. Who comes back under the same
name is another person: the next one of that name.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Self
from uuid import NAMESPACE_OID, uuid5

from domain import aggregate
from domain.aggregate import Aggregate


@lru_cache(maxsize=4096)
def person_id(user: str, erasures: int = 0) -> str:
    """The id of the person who goes by this name after so many of that name were erased.

    Within one tenant; the name cannot be had back from it but by trying names.
    """
    first = uuid5(NAMESPACE_OID, f"end_user/{user}")
    return str(uuid5(first, str(erasures)) if erasures else first)


class EndUser(Aggregate):
    """There is an aggregate only of a person who was erased; its id is the person's."""

    TOPIC = "end_user"
    known: bool

    class Event(aggregate.Event):
        pass

    class Erased(Event, aggregate.Created):
        """The person's key is thrown away: what the log holds of its words is no longer readable by anybody.

        `known` is false when nobody had ever asked under the name.
        """

        TOPIC = "end_user.erased.v1"
        known: bool

    @classmethod
    def erase(cls, id: str, at: datetime, *, known: bool) -> Self:
        return cls._create(cls.Erased, id=id, timestamp=at, known=known)
