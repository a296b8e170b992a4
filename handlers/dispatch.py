"""Dispatches a command: validate, load, decide, append, and put the outcome on record."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from domain.access.end_user import EndUser
from domain.aggregate import Aggregate, Rejection
from domain.chat.conversation import Conversation
from domain.log import NOT_FINAL, Metadata, Outcome, Subject, commit_id
from domain.models.model_call import ModelCall
from handlers.commands.chat import SendMessage
from handlers.commands.fields import Command, Preparation, not_found, parse, references
from handlers.commands.retrieval import TestDatasets
from handlers.ports.log import Blobs, Outcomes, TooLarge, Unavailable
from handlers.ports.people import People, Vault
from handlers.repository import Change, Repository
from handlers.routes import ROUTES, Route

EXCERPT = 1000
"""Characters of a rejected payload, of the sentence and of the field that an outcome keeps."""

PRIVATE = ("provider", "message", "conversation", "end_user", "dataset.test")
"""What the names of commands begin with of whose payload nothing is kept when they are rejected."""

TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A command as it came: `name` is `<noun>.<verb>`, `at` when the log took it."""

    name: str
    payload: bytes
    metadata: Metadata
    at: datetime
    fault: Rejection | None = None
    """What is already wrong with it before anyone looks inside."""
    fresh: bool = False
    """It cannot have come before, so that nobody has to look."""


class Dispatch:
    def __init__(
        self,
        repository: Repository,
        outcomes: Outcomes,
        blobs: Blobs,
        vault: Vault,
        embedding_models: Collection[str] = (),
        people: People | None = None,
        rerank_model: str = "",
    ) -> None:
        """`rerank_model` is the name of the built-in one; empty when there is none."""
        self._repository = repository
        self._outcomes = outcomes
        self._blobs = blobs
        self._vault = vault
        self._embedding_models = embedding_models
        self._people = people
        self._rerank_model = rerank_model

    async def __call__(self, delivery: Delivery) -> Outcome:
        """The outcome, which is on record when this returns: the known one if the command was decided before.

        Raises: Unavailable, and then the command must come again.
        """
        metadata = delivery.metadata
        if not delivery.fresh:
            known = await self._outcomes.get(metadata.tenant, metadata.id)
            if known and known.code != NOT_FINAL:
                return known
        try:
            outcome = await self._decide(delivery)
        except Rejection as rejection:
            outcome = rejected(delivery, rejection)
        except TooLarge as error:
            outcome = rejected(delivery, Rejection("too_large", f"What this would write is too large. {error}"))
        await self._outcomes.put(outcome)
        return outcome

    async def _decide(self, delivery: Delivery) -> Outcome:
        if delivery.fault:
            raise delivery.fault
        metadata, at = delivery.metadata, delivery.at
        route = ROUTES.get(delivery.name)
        if route is None:
            known = ", ".join(ROUTES)
            raise Rejection("unknown_command", f"There is no command {delivery.name!r}; there are: {known}.")
        command = parse(route.command, delivery.payload)
        target = str((route.target and getattr(command, route.target)) or metadata.id)
        if route.noun is EndUser:
            if self._people is None:
                raise Unavailable("Nobody keeps the keys of people here.")
            target, _ = await self._people.last_person(metadata.tenant, target)
        cause = metadata.caused(commit_id(metadata.id, str(Subject(metadata.tenant, route.noun.TOPIC, target))))
        change: Change[Aggregate] | None
        try:
            change = await self._change(route, command, target, cause, delivery)
        except Rejection:
            # It may have been accepted before, and then the world changed, and the outcome was lost.
            change = await self._repository.done(route.noun, target, cause)
            if change is None:
                raise
        noun = delivery.name.partition(".")[0]
        named = {route.gives: metadata.id} if route.gives else {noun: str(getattr(command, noun, metadata.id))}
        return Outcome(
            command=metadata.id,
            name=delivery.name,
            status="accepted",
            metadata=metadata,
            at=at,
            position=change.position,
            version=change.version,
            ids={**named, route.noun.TOPIC: target},
        )

    async def _change(
        self, route: Route, command: Command, target: str, cause: Metadata, delivery: Delivery
    ) -> Change[Aggregate]:
        tenant, id = cause.tenant, delivery.metadata.id
        others = [reference for reference in references(command) if reference[0] != route.target]
        named = dict(await asyncio.gather(*(self._named(tenant, *reference) for reference in others)))
        cause = replace(cause, person=await self._person(tenant, command, others))
        preparation = Preparation(
            tenant,
            id,
            self._repository,
            self._blobs,
            self._vault,
            named,
            self._embedding_models,
            self._people,
            self._rerank_model,
        )
        fields = await route.prepare(command, preparation)
        return await self._repository.change(
            route.noun,
            target,
            cause,
            lambda aggregate: route.decide(aggregate, target, delivery.at, fields),
            new=target == id,
        )

    async def _person(
        self, tenant: str, command: Command, named: Sequence[tuple[str, type[Aggregate], str]]
    ) -> str | None:
        """Whose words the command carries: those of what it goes on from, else those of the user that it names.

        What it changes keeps the person that it has.
        """
        for _, kind, id in named:
            if kind in (Conversation, ModelCall):
                first = await self._repository.first(kind, tenant, id)
                return first.metadata.person if first else None
        if self._people and isinstance(command, SendMessage | TestDatasets):
            return await self._people.person(tenant, command.user)
        return None

    async def _named(self, tenant: str, path: str, kind: type[Aggregate], id: str) -> tuple[str, Aggregate]:
        aggregate = await self._repository.get(kind, tenant, id)
        if aggregate is None or aggregate.deleted:
            raise not_found(kind, id, path)
        return path, aggregate


def rejected(delivery: Delivery, rejection: Rejection) -> Outcome:
    """The outcome of a command that broke a rule; secrets are not kept, nor are words of people: it stays for ever."""
    secret = delivery.name.lower().startswith(PRIVATE)
    excerpt = None if secret else delivery.payload[: 4 * EXCERPT].decode(errors="replace")[:EXCERPT].replace("\0", "�")
    return Outcome(
        command=delivery.metadata.id,
        name=delivery.name,
        status="rejected",
        metadata=delivery.metadata,
        at=delivery.at,
        code=rejection.code,
        message=rejection.message[:EXCERPT],
        field=rejection.field and rejection.field[:EXCERPT],
        excerpt=excerpt,
    )
