"""A dataset: a knowledge base, the documents that questions are answered from.

It is searched with one embedding model. When another is chosen, that one serves until the index is built anew. Its
documents are cut into segments by its rules, unless they have rules of their own.
"""

from __future__ import annotations

from dataclasses import field
from datetime import date, datetime
from typing import Any, Self, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

MOST_FIELDS = 64
"""Metadata fields that a dataset may define."""


class MetadataField(TypedDict):
    """What the documents of a dataset have a value of: its `type` is string, number or time."""

    id: str
    type: str


class Dataset(Aggregate):
    TOPIC = "dataset"
    embedding_model: str | None = field(default=None, init=False)
    next_embedding_model: str | None = field(default=None, init=False)
    segmentation: dict[str, Any] | None = field(default=None, init=False)
    """The rules by which its documents are cut; None: the automatic ones."""
    metadata_fields: dict[str, MetadataField] = field(default_factory=dict, init=False)
    """By name."""

    class Event(aggregate.Event):
        pass

    class Created(Event, aggregate.Created):
        """A knowledge base was created, empty."""

        TOPIC = "dataset.created.v1"
        name: str
        description: str

    class Configured(Event):
        """Another embedding model was chosen; it serves once the index has been built anew with it."""

        TOPIC = "dataset.configured.v1"
        embedding_model: str

        def apply(self, dataset: Dataset) -> None:
            dataset.next_embedding_model = self.embedding_model

    class Reindexed(Event):
        """The whole index of the knowledge base is of this embedding model; it serves from now on."""

        TOPIC = "dataset.reindexed.v1"
        embedding_model: str

        def apply(self, dataset: Dataset) -> None:
            dataset.embedding_model = self.embedding_model
            dataset.next_embedding_model = None

    class SegmentationChosen(Event):
        """Documents are cut by these rules from now on; those that are there stay as they are until processed anew."""

        TOPIC = "dataset.segmentation_chosen.v1"
        segmentation: dict[str, Any]

        def apply(self, dataset: Dataset) -> None:
            dataset.segmentation = self.segmentation

    class Reprocessed(Event):
        """Every document is to be processed anew from its file, by the rules of now."""

        TOPIC = "dataset.reprocessed.v1"

    class MetadataFieldAdded(Event):
        """Documents have a field in their metadata, whose values are of this type: string, number or time."""

        TOPIC = "dataset.metadata_field_added.v1"
        field: str
        name: str
        type: str

        def apply(self, dataset: Dataset) -> None:
            dataset.metadata_fields[self.name] = MetadataField(id=self.field, type=self.type)

    class MetadataFieldRenamed(Event):
        """The field `field` has the name `new_name`, and the values that documents have of it have it too."""

        TOPIC = "dataset.metadata_field_renamed.v1"
        field: str
        name: str
        new_name: str

        def apply(self, dataset: Dataset) -> None:
            dataset.metadata_fields[self.new_name] = dataset.metadata_fields.pop(self.name)

    class MetadataFieldRemoved(Event):
        """The field `field` is gone, and with it the values that documents had of it."""

        TOPIC = "dataset.metadata_field_removed.v1"
        field: str
        name: str

        def apply(self, dataset: Dataset) -> None:
            del dataset.metadata_fields[self.name]

    class Deleted(Event):
        """The knowledge base and all of its documents are gone from tables and index."""

        TOPIC = "dataset.deleted.v1"

        def apply(self, dataset: Dataset) -> None:
            dataset.deleted = True

    @classmethod
    def create(cls, id: str, at: datetime, *, name: str, description: str) -> Self:
        return cls._create(cls.Created, id=id, timestamp=at, name=name, description=description)

    @property
    def intended_model(self) -> str | None:
        """The embedding model that was chosen last, None when nobody has chosen one."""
        return self.next_embedding_model or self.embedding_model

    def configure(
        self, at: datetime, *, embedding_model: str | None = None, segmentation: dict[str, Any] | None = None
    ) -> None:
        """None leaves all as it is."""
        if embedding_model and embedding_model != self.intended_model:
            self.record(self.Configured, at, embedding_model=embedding_model)
        if segmentation and segmentation != self.segmentation:
            self.record(self.SegmentationChosen, at, segmentation=segmentation)

    def reprocess(self, at: datetime) -> None:
        self.record(self.Reprocessed, at)

    def reindexed(self, at: datetime, *, embedding_model: str) -> None:
        """It counts only if no other model was chosen meanwhile."""
        if embedding_model == self.next_embedding_model and not self.deleted:
            self.record(self.Reindexed, at, embedding_model=embedding_model)

    def delete(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Deleted, at)

    # --- metadata fields ---

    def add_metadata_field(self, at: datetime, *, field: str, name: str, type: str) -> None:
        known = self.metadata_fields.get(name)
        if known and known["type"] != type:
            raise Rejection("already_defined", f"name: field {name!r} is there, with type {known['type']}.", "name")
        if len(self.metadata_fields) >= MOST_FIELDS:
            raise Rejection("too_many", f"name: a dataset has at most {MOST_FIELDS} fields; remove one first.", "name")
        if not known:
            self.record(self.MetadataFieldAdded, at, field=field, name=name, type=type)

    def rename_metadata_field(self, at: datetime, *, name: str, new_name: str) -> None:
        id = self._field(name)["id"]
        if new_name == name:
            return
        if new_name in self.metadata_fields:
            raise Rejection("already_defined", f"new_name: field {new_name!r} is there already.", "new_name")
        self.record(self.MetadataFieldRenamed, at, field=id, name=name, new_name=new_name)

    def remove_metadata_field(self, at: datetime, *, name: str) -> None:
        self.record(self.MetadataFieldRemoved, at, field=self._field(name)["id"], name=name)

    def check_metadata(self, metadata: dict[str, Any]) -> None:
        """Values of the fields that are defined must be of their types; other names may have any.

        Raises: Rejection `wrong_type`.
        """
        for name, value in metadata.items():
            if (known := self.metadata_fields.get(name)) and value is not None and not _fits(value, known["type"]):
                sentence = f"metadata.{name}: must be {_EXPECTED[known['type']]}, as field {name!r} has it."
                raise Rejection("wrong_type", sentence, f"metadata.{name}")

    def _field(self, name: str) -> MetadataField:
        if name not in self.metadata_fields:
            known = ", ".join(map(repr, self.metadata_fields)) or "none"
            raise Rejection("not_found", f"name: there is no field {name!r}; there are: {known}.", "name")
        return self.metadata_fields[name]


_EXPECTED = {
    "string": "a text",
    "number": "a number",
    "time": "a time: ISO 8601 as in '2026-05-04' or '2026-05-04T12:30:00Z', or seconds since 1970",
}


def _fits(value: object, type: str) -> bool:
    if type == "string":
        return isinstance(value, str)
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    return type == "time" and isinstance(value, str) and _is_time(value)


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
        date.fromisoformat(value[:10])
    except ValueError:
        return False
    return value[4] == value[7] == "-"
