"""Reports of doors: the table `door_events`."""

from __future__ import annotations

from sqlalchemy import Integer, Text, text

from domain.access.actor import account as actor_of
from domain.access.door import Door
from domain.access.end_user import EndUser
from domain.log import Recorded
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row

door_events = ReadModel(
    "door_events",
    "Reports of the doors of people and programs: sign-ins, refusals, first uses and searches.",
    key("id", "Report; commands name it as their origin."),
    required("event", Text, "signed_in, refused, used or searched."),
    optional("account_id", Id, "Account that signed in; null: none is known."),
    optional("actor", Text, "Actor who came or searched; null for refusals, and for sign-ins without an account."),
    optional("door", Text, "Door: viewer or operator."),
    optional("credential", Text, "password, token, link or key; null for uses and searches."),
    optional("address", Text, "Address of the client, or its network; null when erased, and for several."),
    optional("browser", Text, "Browser or program, as it names itself; null when erased or unknown."),
    optional("search", Text, "Path of the page and its query; null when erased, and for all but searches."),
    optional("count", Integer, "Number of refusals; null for other events."),
    person(),
    required("created_at", Time, "When it was reported."),
)
door_events.sorted_by("time", "created_at")
door_events.sorted_by("use", "actor", postgresql_where=text("event = 'used'"))
door_events.sets(EndUser.Erased, {"address": None, "browser": None, "search": None}, column="person_id")


def _row(event: str, id: str, message: Recorded, **columns: object) -> Row:
    origin = {"id": id, "event": event, "door": message.metadata.door, "person_id": message.metadata.person}
    return {**origin, **columns}


@door_events.makes(Door.SignedIn)
def signed_in(event: Door.SignedIn, message: Recorded) -> Row:
    return _row(
        "signed_in",
        event.originator_id,
        message,
        account_id=event.account,
        actor=actor_of(event.account) if event.account else None,
        credential=event.credential,
        address=event.address or None,
        browser=event.browser or None,
    )


@door_events.makes(Door.Refused)
def refused(event: Door.Refused, message: Recorded) -> Row:
    of = {"credential": event.credential, "address": event.address or None, "count": event.count}
    return _row("refused", event.originator_id, message, **of)


@door_events.makes(Door.Used)
def used(event: Door.Used, message: Recorded) -> Row:
    of = {"actor": event.actor, "address": event.address or None, "browser": event.browser or None}
    return _row("used", event.originator_id, message, **of)


@door_events.makes(Door.TracesSearched)
def searched(event: Door.TracesSearched, message: Recorded) -> Row:
    return _row("searched", event.originator_id, message, actor=message.metadata.actor, search=event.search or None)
