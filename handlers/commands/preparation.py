"""The ports that commands are decided with, and what is loaded for one command."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from domain.aggregate import Aggregate, Rejection
from domain.chat.file import LIMITS, FileLimits
from handlers.abilities import Abilities
from handlers.graphs import Graphs
from handlers.ports.access import Registry
from handlers.ports.log import Blobs
from handlers.ports.people import People, Vault
from handlers.repository import Repository

A = TypeVar("A", bound=Aggregate)

Make = Callable[[str, datetime], A]
"""Makes an aggregate with an id, at a time."""

Change = Callable[[A, datetime], None]
"""Changes an aggregate, at a time."""

MakeOrChange = Callable[[A | None, str, datetime], A]
"""Changes an aggregate, or makes it where there is none yet."""


@dataclass(frozen=True, slots=True)
class Ports:
    """`embedding_models` are those that the workers run, `rerank_model` is the built-in one, empty for none.

    `file_limits` are those of files of questions.
    """

    repository: Repository
    blobs: Blobs
    vault: Vault
    people: People
    registry: Registry
    embedding_models: Collection[str] = ()
    rerank_model: str = ""
    file_limits: FileLimits = LIMITS
    graphs: Graphs = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "graphs", Graphs(self.blobs))

    @property
    def abilities(self) -> Abilities:
        return Abilities(self.repository)

    async def owned(self, account: str) -> Sequence[str]:
        """The tenants that an account owns."""
        return (await self.registry.now()).owned(account)

    async def is_member(self, tenant: str, account: str) -> bool:
        """True for an active account with a role in the tenant."""
        return (await self.registry.now()).role(tenant, account) is not None


@dataclass(frozen=True, slots=True)
class Preparation:
    """A command's tenant, id and actor, the aggregates that it names, by field, and the data subject of its words."""

    ports: Ports
    tenant: str
    id: str
    actor: str
    named: Mapping[str, Aggregate]
    person: str | None = None

    def the(self, kind: type[A], field: str) -> A:
        """The aggregate that the field names."""
        found = self.named[field]
        assert isinstance(found, kind)
        return found

    async def get(self, kind: type[A], id: str) -> A | None:
        """The aggregate with this id, None when there is none."""
        return await self.ports.repository.get(kind, self.tenant, id)


def not_found(noun: type[Aggregate], id: str, field: str) -> Rejection:
    return Rejection("not_found", f"There is no {noun.TOPIC} {id}.", field)
