"""Dispatches a command: parse, load, decide, append, and record the outcome."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import takewhile
from weakref import WeakValueDictionary

import orjson

from domain.access.account import Account
from domain.access.door import month
from domain.access.register import Key
from domain.access.tenant import HOUSE, TENANT, Tenant
from domain.aggregate import Aggregate, Rejection
from domain.chat.app import App
from domain.log import NOT_FINAL, Metadata, Outcome, Subject
from domain.models.model_call import ModelCall
from handlers.access.may import judge, scope, within
from handlers.access.quota import Quota, of_chat
from handlers.commands.fields import MAX_PAYLOAD, Command, is_uuid, named, parse
from handlers.commands.preparation import Ports, Preparation, not_found
from handlers.models.grants import Grants
from handlers.ports.log import Frozen, Outcomes, TooLarge
from handlers.repository import Change
from handlers.routes import ROUTES, Route, is_private

EXCERPT = 1000
"""Maximum characters of a rejected payload, of the sentence and of the field that an outcome keeps."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A command as it arrived: `name` is `<noun>.<verb>`, `at` the time at which the log took it."""

    name: str
    payload: bytes
    metadata: Metadata
    at: datetime
    fault: Rejection | None = None
    """The error of its subject or headers."""
    retried: bool = False
    """An operator retries it, after a failure of ours: limits do not hold."""


class Dispatch:
    def __init__(
        self, ports: Ports, outcomes: Outcomes, quota: Quota | None = None, grants: Grants | None = None
    ) -> None:
        """Without a quota, nothing is limited; without grants, no quota holds."""
        self._ports = ports
        self._outcomes = outcomes
        self._quota = quota
        self._grants = grants
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, delivery: Delivery) -> Outcome:
        """Record and return the outcome; the earlier one if the command was already decided.

        A command that was sent several times at once is decided once: its deliveries take turns in this process.
        Raises: Unavailable, when the command must be delivered again.
        """
        metadata = delivery.metadata
        async with self._turns.setdefault((metadata.tenant, metadata.id), asyncio.Lock()):
            return await self._dispatch(delivery)

    async def _dispatch(self, delivery: Delivery) -> Outcome:
        metadata = delivery.metadata
        # At the first delivery, too: the sender may have sent it before. What was rejected then could be accepted now.
        known = await self._outcomes.get(metadata.tenant, metadata.id)
        if known and known.code != NOT_FINAL:
            return known
        delivery = replace(delivery, retried=known is not None)
        try:
            outcome = await self._decide(delivery)
        except Rejection as rejection:
            outcome = rejected(delivery, rejection)
        except Frozen as frozen:
            outcome = rejected(delivery, Rejection("quarantined", str(frozen)))
        except TooLarge as error:
            outcome = rejected(delivery, Rejection("too_large", f"The events of this command are too large. {error}"))
        await self._outcomes.put(outcome)
        return outcome

    async def _decide(self, delivery: Delivery) -> Outcome:
        if delivery.fault:
            raise delivery.fault
        metadata, at = delivery.metadata, delivery.at
        route = ROUTES.get(delivery.name)
        if route is None:
            raise Rejection("unknown_command", f"There is no command {delivery.name!r}; {_known(delivery.name)}.")
        if route.house is not None and route.house != (metadata.tenant == HOUSE):
            where = f"the tenant {HOUSE}" if route.house else "a tenant of their own, not the house"
            raise Rejection("invalid", f"Commands of {route.noun.TOPIC} go to {where}.", "subject")
        try:
            command = parse(route.command, delivery.payload)
        except Rejection as fault:
            raise without_words(fault) if route.private else fault from None
        target = str((route.target and getattr(command, route.target)) or metadata.id)
        if route.target in ("user", "email"):
            target, _ = await self._ports.people.last_person(metadata.tenant, target)
        change: Change[Aggregate] | None
        try:
            change = await self._change(route, command, target, delivery)
        except Rejection:
            # It may have been accepted before, with its outcome lost, and be against a rule by now.
            change = await self._ports.repository.done(route.noun, target, _cause(metadata, route, target))
            if change is None:
                raise
        noun = route.gives or delivery.name.partition(".")[0]
        subject = metadata.id if route.gives else str(getattr(command, noun, metadata.id))
        return Outcome(
            command=metadata.id,
            name=delivery.name,
            status="accepted",
            metadata=metadata,
            at=at,
            position=change.position,
            version=change.version,
            ids={noun: subject, route.noun.TOPIC: change.aggregate.id},
        )

    async def _change(self, route: Route, command: Command, target: str, delivery: Delivery) -> Change[Aggregate]:
        tenant, id, actor = delivery.metadata.tenant, delivery.metadata.id, delivery.metadata.actor
        key = await self._judge(route, target, delivery.metadata)
        found = await asyncio.gather(
            *(
                self._named(tenant, place, kind, known)
                for path, kind in route.references.items()
                for place, known in named(command, path, kind)
            )
        )
        if key:
            known = target != id and await self._ports.repository.get(route.noun, tenant, target)
            within(key, (*dict(found).values(), *([known] if known else [])))
        person = await self._person(tenant, route, command, delivery.at)
        if route.target in ("user", "email") and person:
            target = person  # a new one, where the last one was erased
        cause = replace(_cause(delivery.metadata, route, target), person=person)
        if self._grants and "tokens" in route.counts and not delivery.retried:
            subjects = {"tenant": "", "key": actor, **await of_chat(self._ports.repository, cause, command)}
            await self._grants.admit(tenant, subjects | _model(command, dict(found)), type(command).model_fields)
        if self._quota and route.counts and not delivery.retried:
            await self._quota.take(cause, route.counts, command, delivery.at)
        given = Preparation(self._ports, tenant, id, actor, dict(found), person)
        decide = await route.prepare(command, given)
        return await self._ports.repository.change(
            route.noun, target, cause, lambda aggregate: decide(aggregate, target, delivery.at), new=target == id
        )

    async def _judge(self, route: Route, target: str, sender: Metadata) -> Key | None:
        """The API key that sent the command, if one did. Raises: Rejection, unless the actor may; Unavailable."""
        whose = target if route.noun is Tenant else sender.tenant
        about = target if route.noun is Account else ""
        register = await self._ports.registry.now()
        try:
            judge(register, whose, sender.actor, route.permission, about, datetime.now(UTC))
        except Rejection:  # for ever: what allows it may be new
            register = await self._ports.registry.again()
            judge(register, whose, sender.actor, route.permission, about, datetime.now(UTC))
        return scope(register, sender.tenant, sender.actor)

    async def _person(self, tenant: str, route: Route, command: Command, at: datetime) -> str | None:
        """The data subject of the command's words; None where there is none, or the aggregate has one."""
        if route.person is None:
            return None
        given = getattr(command, route.person)
        if route.person == "account":
            account = (await self._ports.registry.now()).accounts.get(given or "")
            # A service is no person. Persons of accounts are in the house.
            known = account is not None and account.kind == "person" and tenant == HOUSE
            return str(given) if known else await self._ports.people.person(tenant, month(at))
        if given is None:
            return None
        if route.person in ("user", "email"):
            return await self._ports.people.person(tenant, given)
        first = await self._ports.repository.first(route.references[route.person], tenant, given)
        return first.metadata.person if first else None

    async def _named(self, tenant: str, place: str, kind: type[Aggregate], id: str) -> tuple[str, Aggregate]:
        aggregate = await self._ports.repository.get(kind, tenant, id)
        if aggregate is None or aggregate.deleted:
            raise not_found(kind, id, place)
        return place, aggregate


def _cause(sender: Metadata, route: Route, target: str) -> Metadata:
    """The metadata of the commit that a command has on an aggregate."""
    return sender.on(Subject(sender.tenant, route.noun.TOPIC, target))


def _model(command: Command, found: Mapping[str, Aggregate]) -> dict[str, str | None]:
    """The provider and the model that a command leads to, as far as that is known before: a route chooses later."""
    model = getattr(command, "model", None)
    match found.get("app"), found.get("call"):
        case App(configuration=configuration), _ if configuration and not configuration["model"].get("route"):
            return {"provider": configuration["model"]["provider"], "model": configuration["model"]["name"]}
        case _, ModelCall() as call:
            return {
                "provider": model.provider if model else call.provider,
                "model": model.name if model else call.model,
            }
        case _:
            return {}


def _known(name: str) -> str:
    """The commands of the noun in a name, or the nouns."""
    noun = name.partition(".")[0]
    if commands := [known for known in ROUTES if known.partition(".")[0] == noun]:
        return f"the commands of {noun} are: {', '.join(commands)}"
    return f"there are commands of: {', '.join(dict.fromkeys(known.partition('.')[0] for known in ROUTES))}"


def without_words(fault: Rejection) -> Rejection:
    """The rejection with its field up to the first part that may be words: no name such as a program gives."""
    path = ".".join(takewhile(_NAME.fullmatch, (fault.field or "").split(".")))
    return Rejection(fault.code, str(fault), path or None, fault.details)


def rejected(delivery: Delivery, rejection: Rejection) -> Outcome:
    """The outcome of a command that broke a rule, for ever: without secrets, and without words of people."""
    excerpt = None
    if not is_private(delivery.name):
        excerpt = delivery.payload[: 4 * EXCERPT].decode(errors="replace")[:EXCERPT].replace("\0", "�")
    return Outcome(
        command=delivery.metadata.id,
        name=delivery.name,
        status="rejected",
        metadata=delivery.metadata,
        at=delivery.at,
        code=rejection.code,
        message=rejection.message[:EXCERPT],
        field=rejection.field and rejection.field[:EXCERPT],
        ids=_target(delivery),
        excerpt=excerpt,
        details=rejection.details,
    )


def _target(delivery: Delivery) -> dict[str, str]:
    """The aggregate that a rejected command names as its target, for the audit. Where it may hold secrets, any other
    than a UUID is left out."""
    route = ROUTES.get(delivery.name)
    if route is None or not route.target or len(delivery.payload) > MAX_PAYLOAD:
        return {}
    with suppress(ValueError):
        match orjson.loads(delivery.payload):
            case {route.target: str(id)} if is_uuid(id) or (TENANT.fullmatch(id) and not route.private):
                return {route.noun.TOPIC: id}
    return {}
