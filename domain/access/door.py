"""A door: an entrance of people and programs, and its reports for the audit.

Addresses, browsers and searches are personal data. They are sealed with the key of a person: the account where one is
known, else the month, whose key is destroyed some months later.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from domain import aggregate
from domain.aggregate import Aggregate

ORIGIN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The origin of a command: the id of the report that names the address and the browser of its sender."""

MONTH = re.compile(r"door/\d{4}-\d{2}")
"""The name of a month, see `month`."""

BROWSER = 200
"""Maximum length of the name of a browser, in characters."""

Account = Annotated[str | None, "Account; null: none is known."]
Credential = Annotated[str, "Credential: `password`, `token`, `link` or `key`."]
Address = Annotated[str, "Address of the client; for a refusal over IPv6, its network; empty for several."]
Browser = Annotated[str, "Browser or program, as it names itself."]


def month(at: datetime) -> str:
    """The name of the person whose key seals what is reported in a month without an account."""
    return f"door/{at:%Y-%m}"


class Door(Aggregate):
    """A report of a door. Each is an aggregate of one event."""

    TOPIC = "door"

    class Event(aggregate.Event):
        pass

    class SignedIn(Event, aggregate.Created):
        """A person signed in."""

        TOPIC = "door.signed_in.v1"
        PERSONAL = frozenset({"address", "browser"})
        account: Account
        credential: Credential
        address: Address
        browser: Browser

    class Refused(Event, aggregate.Created):
        """Credentials were refused, in about a minute, for one address."""

        TOPIC = "door.refused.v1"
        PERSONAL = frozenset({"address"})
        credential: Credential
        address: Address
        count: Annotated[int, "Number of refusals."]

    class Used(Event, aggregate.Created):
        """An actor came from this address and browser for the first time. Commands name the report as their origin."""

        TOPIC = "door.used.v1"
        PERSONAL = frozenset({"address", "browser"})
        actor: Annotated[str, "Actor."]
        address: Address
        browser: Browser

    class TraceOpened(Event, aggregate.Created):
        """A person opened a trace."""

        TOPIC = "door.trace_opened.v1"
        trace: Annotated[str, "Trace."]

    class TracesSearched(Event, aggregate.Created):
        """A person searched, listed or queried what is recorded."""

        TOPIC = "door.traces_searched.v1"
        PERSONAL = frozenset({"search"})
        search: Annotated[str, "Path of the page, and its query."]
