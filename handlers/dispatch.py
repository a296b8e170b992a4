"""Dispatches a command: validate, load, decide, append, and put the outcome on record."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import datetime

from domain.aggregate import Aggregate, Rejection
from handlers.commands import parse, references
from handlers.ports import Blobs, Metadata, Outcome, Outcomes, Vault, commit_id
from handlers.repository import Repository
from handlers.routes import ROUTES, Preparation, not_found

EXCERPT = 1000
"""Characters of a rejected payload that its outcome keeps."""

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
    def __init__(self, repository: Repository, outcomes: Outcomes, blobs: Blobs, vault: Vault) -> None:
        self._repository = repository
        self._outcomes = outcomes
        self._blobs = blobs
        self._vault = vault

    async def __call__(self, delivery: Delivery) -> Outcome:
        """The outcome, which is on record when this returns: the known one if the command was seen before.

        Raises: Unavailable, and then the command must come again.
        """
        metadata = delivery.metadata
        if not delivery.fresh and (known := await self._outcomes.get(metadata.tenant, metadata.id)):
            return known
        try:
            outcome = await self._decide(delivery)
        except Rejection as rejection:
            outcome = rejected(delivery, rejection)
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
        others = [reference for reference in references(command) if reference[0] != route.target]
        named = dict(await asyncio.gather(*(self._named(metadata.tenant, *reference) for reference in others)))
        preparation = Preparation(metadata.tenant, metadata.id, self._blobs, self._vault, named)
        fields = await route.prepare(command, preparation)
        change = await self._repository.change(
            route.noun,
            target,
            metadata.caused(commit_id(metadata.id, target)),
            lambda aggregate: route.decide(aggregate, target, at, fields),
            new=target == metadata.id,
        )
        noun = delivery.name.partition(".")[0]
        ids = {route.noun.TOPIC: target}
        if noun not in ids:
            ids[noun] = fields[noun]
        return Outcome(
            command=metadata.id,
            name=delivery.name,
            status="accepted",
            metadata=metadata,
            at=at,
            position=change.position,
            version=change.version,
            ids=ids,
        )

    async def _named(self, tenant: str, path: str, kind: type[Aggregate], id: str) -> tuple[str, Aggregate]:
        aggregate = await self._repository.get(kind, tenant, id)
        if aggregate is None or aggregate.deleted:
            raise not_found(kind, id, path)
        return path, aggregate


def rejected(delivery: Delivery, rejection: Rejection) -> Outcome:
    """The outcome of a command that broke a rule; secrets are not kept."""
    secret = delivery.name == "provider.register"
    excerpt = None if secret else delivery.payload[: 4 * EXCERPT].decode(errors="replace")[:EXCERPT].replace("\0", "�")
    return Outcome(
        command=delivery.metadata.id,
        name=delivery.name,
        status="rejected",
        metadata=delivery.metadata,
        at=delivery.at,
        code=rejection.code,
        message=rejection.message,
        field=rejection.field,
        excerpt=excerpt,
    )
