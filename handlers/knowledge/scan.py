"""Scan of the log for the facts that a build of the index needs before and during its work."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from domain.embedding import full_name
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.log import Commit

Key = tuple[str, str]
"""Tenant and id."""


@dataclass(slots=True)
class Scan:
    """Facts from the commits up to `sequence`."""

    default: str
    sequence: int = 0
    chosen: dict[Key, str] = field(default_factory=dict)
    """The full name of the model of each dataset with one of its own."""
    deleted: dict[Key, str] = field(default_factory=dict)
    """The deleted documents, and the dataset of each."""
    closed: set[Key] = field(default_factory=set)
    """The deleted datasets."""
    begun: dict[Key, int] = field(default_factory=dict)
    """Documents in progress, with the number of segments indexed so far."""
    replaced: set[tuple[str, str, str]] = field(default_factory=set)
    """Former revisions of documents, which must not be found: tenant, document, blob."""
    edited: dict[Key, int] = field(default_factory=dict)
    """Documents with searchable edits, and the sequence of the last one."""
    disabled: set[Key] = field(default_factory=set)
    archived: set[Key] = field(default_factory=set)

    def note(self, commit: Commit) -> None:
        self.sequence = commit.position.sequence
        key = commit.subject.tenant, commit.subject.id
        for event in commit.events:
            if isinstance(event, Document.CHANGES):
                self.edited[key] = self.sequence
            match event:
                case Document.Disabled():
                    self.disabled.add(key)
                case Document.Enabled():
                    self.disabled.discard(key)
                case Document.Archived():
                    self.archived.add(key)
                case Document.Unarchived():
                    self.archived.discard(key)
                case Document.Started():
                    self.begun[key] = 0
                case Document.Indexed():
                    self.replaced.discard((*key, event.segments))
                    if key in self.begun:
                        self.begun[key] = event.first + event.count
                case Document.Replaced():
                    self.replaced.add((*key, event.segments))
                case Document.Completed() | Document.Failed():
                    self.begun.pop(key, None)
                case Document.Deleted():
                    self.begun.pop(key, None)
                    self.deleted[key] = event.dataset
                case Dataset.Created() if event.embedding:
                    self.chosen[key] = full_name(key[0], event.embedding)
                case Dataset.Reindexed():
                    self.chosen[key] = full_name(key[0], event.embedding)
                case Dataset.Deleted():
                    self.chosen.pop(key, None)
                    self.closed.add(key)

    @property
    def plan(self) -> str:
        """The model of each dataset."""
        return json.dumps([self.default, sorted((*key, model) for key, model in self.chosen.items())])

    def model(self, tenant: str, dataset: str) -> str:
        return self.chosen.get((tenant, dataset), self.default)

    def gone(self, tenant: str, dataset: str, document: str) -> bool:
        return (tenant, dataset) in self.closed or (tenant, document) in self.deleted

    def hidden(self, tenant: str, document: str) -> bool:
        """True if a document is hidden from searches until it is shown again."""
        return (tenant, document) in self.disabled or (tenant, document) in self.archived

    def forbidden(self) -> list[tuple[str, str, str | None]]:
        """Deleted for good: tenant, dataset, and document or None for all of it."""
        documents = [(tenant, dataset, document) for (tenant, document), dataset in self.deleted.items()]
        return [*documents, *((*key, None) for key in self.closed)]
