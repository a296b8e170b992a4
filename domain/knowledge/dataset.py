"""A dataset: a knowledge base, the documents that answers come from.

It is searched with one embedding model; a newly chosen one serves once the index is rebuilt with it. Its documents are
split into segments by its rules, unless they have rules of their own.
"""

from __future__ import annotations

from dataclasses import field
from datetime import date, datetime
from typing import Annotated, Any, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate, ErrorCode, ErrorMessage, Rejection
from domain.embedding import Chosen, ChosenOrDefault, EmbeddingModel, of_workers

MOST_FIELDS = 64
"""Maximum number of metadata fields of a dataset."""

FieldId = Annotated[str, "Field, in `dataset_metadata`."]


class MetadataField(TypedDict):
    """A field of the metadata of a dataset's documents; its `type` is string, number or time."""

    id: str
    type: str


class Dataset(Aggregate):
    TOPIC = "dataset"
    class_version = 2
    embedding: EmbeddingModel | None = None
    """The embedding model that was chosen, which serves; None for the default of the workers."""
    next_embedding: EmbeddingModel | None = field(default=None, init=False)
    segmentation: dict[str, Any] | None = field(default=None, init=False)
    """The segmentation rules of its documents; None for the automatic ones."""
    metadata_fields: dict[str, MetadataField] = field(default_factory=dict, init=False)
    """By name."""

    class Event(aggregate.Event):
        pass

    class Created(Event, aggregate.Created):
        """An empty knowledge base was created."""

        TOPIC = "dataset.created.v2"
        class_version = 2
        name: Annotated[str, "Name, for people."]
        description: Annotated[str, "Description, for people."]
        embedding: ChosenOrDefault = None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["embedding"] = None

    class Configured(Event):
        """Another embedding model was chosen; it serves once the index is rebuilt with it."""

        TOPIC = "dataset.configured.v2"
        class_version = 2
        embedding: Chosen

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["embedding"] = of_workers(state.pop("embedding_model"))

        def apply(self, dataset: Dataset) -> None:
            dataset.next_embedding = self.embedding

    class Reindexed(Event):
        """The index of the knowledge base is rebuilt with this embedding model, which serves from now on."""

        TOPIC = "dataset.reindexed.v2"
        class_version = 2
        embedding: Chosen

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["embedding"] = of_workers(state.pop("embedding_model"))

        def apply(self, dataset: Dataset) -> None:
            dataset.embedding = self.embedding
            dataset.next_embedding = None

    class ReindexFailed(Event):
        """The index cannot be rebuilt with the embedding model that was chosen; the one before serves on."""

        TOPIC = "dataset.reindex_failed.v1"
        embedding: Chosen
        code: ErrorCode
        reason: ErrorMessage

        def apply(self, dataset: Dataset) -> None:
            dataset.next_embedding = None

    class SegmentationChosen(Event):
        """Other segmentation rules were chosen; existing documents keep their segments until they are reprocessed."""

        TOPIC = "dataset.segmentation_chosen.v1"
        segmentation: Annotated[dict[str, Any], "Segmentation rules: see [segmenting](segmenting.md)."]

        def apply(self, dataset: Dataset) -> None:
            dataset.segmentation = self.segmentation

    class Reprocessed(Event):
        """All documents are reprocessed from their files, by the current rules."""

        TOPIC = "dataset.reprocessed.v1"

    class MetadataFieldAdded(Event):
        """A metadata field was defined for the documents."""

        TOPIC = "dataset.metadata_field_added.v1"
        field: FieldId
        name: Annotated[str, "Name of the field."]
        type: Annotated[str, "`string`, `number` or `time` (ISO 8601, or seconds since 1970)."]

        def apply(self, dataset: Dataset) -> None:
            dataset.metadata_fields[self.name] = MetadataField(id=self.field, type=self.type)

    class MetadataFieldRenamed(Event):
        """A metadata field was renamed, with the values that documents have of it."""

        TOPIC = "dataset.metadata_field_renamed.v1"
        field: FieldId
        name: Annotated[str, "Previous name of the field."]
        new_name: Annotated[str, "New name of the field."]

        def apply(self, dataset: Dataset) -> None:
            dataset.metadata_fields[self.new_name] = dataset.metadata_fields.pop(self.name)

    class MetadataFieldRemoved(Event):
        """A metadata field was removed, with the values that documents had of it."""

        TOPIC = "dataset.metadata_field_removed.v1"
        field: FieldId
        name: Annotated[str, "Name of the field."]

        def apply(self, dataset: Dataset) -> None:
            del dataset.metadata_fields[self.name]

    class Deleted(Event):
        """The knowledge base and all of its documents were deleted."""

        TOPIC = "dataset.deleted.v1"

        def apply(self, dataset: Dataset) -> None:
            dataset.deleted = True

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        """Convert a snapshot, whose embedding models are those of the workers."""
        for name in ("embedding", "next_embedding"):
            state[name] = of_workers(state.pop(f"{name}_model"))

    @property
    def intended_embedding(self) -> EmbeddingModel | None:
        """The embedding model that was chosen last, None before the first choice."""
        return self.next_embedding or self.embedding

    def configure(
        self,
        at: datetime,
        *,
        embedding: EmbeddingModel | None = None,
        segmentation: dict[str, Any] | None = None,
    ) -> None:
        """Choose another embedding model or other segmentation rules; None changes nothing."""
        if embedding and embedding != self.intended_embedding:
            self.record(self.Configured, at, embedding=embedding)
        if segmentation and segmentation != self.segmentation:
            self.record(self.SegmentationChosen, at, segmentation=segmentation)

    def reprocess(self, at: datetime) -> None:
        self.record(self.Reprocessed, at)

    def reindexed(self, at: datetime, *, embedding: EmbeddingModel) -> None:
        """Record that the index is rebuilt with this model, unless another was chosen meanwhile."""
        if embedding == self.next_embedding and not self.deleted:
            self.record(self.Reindexed, at, embedding=embedding)

    def fail_reindex(self, at: datetime, *, embedding: EmbeddingModel, code: str, reason: str) -> None:
        """Record why the index cannot be rebuilt with this model, unless another was chosen meanwhile."""
        if embedding == self.next_embedding and not self.deleted:
            self.record(self.ReindexFailed, at, embedding=embedding, code=code, reason=reason)

    def delete(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Deleted, at)

    # --- metadata fields ---

    def add_metadata_field(self, at: datetime, *, field: str, name: str, type: str) -> None:
        known = self.metadata_fields.get(name)
        if known and known["type"] != type:
            raise Rejection("already_defined", f"Field {name!r} is already defined, as a {known['type']}.", "name")
        if len(self.metadata_fields) >= MOST_FIELDS:
            raise Rejection("too_many", f"A dataset has at most {MOST_FIELDS} fields; remove one first.", "name")
        if not known:
            self.record(self.MetadataFieldAdded, at, field=field, name=name, type=type)

    def rename_metadata_field(self, at: datetime, *, name: str, new_name: str) -> None:
        id = self._field(name)["id"]
        if new_name == name:
            return
        if new_name in self.metadata_fields:
            raise Rejection("already_defined", f"Field {new_name!r} is already defined.", "new_name")
        self.record(self.MetadataFieldRenamed, at, field=id, name=name, new_name=new_name)

    def remove_metadata_field(self, at: datetime, *, name: str) -> None:
        self.record(self.MetadataFieldRemoved, at, field=self._field(name)["id"], name=name)

    def check_metadata(self, metadata: dict[str, Any]) -> None:
        """Check the types of defined fields; other values may have any. Raises: Rejection `wrong_type`."""
        for name, value in metadata.items():
            if (known := self.metadata_fields.get(name)) and value is not None and not _fits(value, known["type"]):
                sentence = f"Must be {_EXPECTED[known['type']]}: the field is a {known['type']}."
                raise Rejection("wrong_type", sentence, f"metadata.{name}")

    def _field(self, name: str) -> MetadataField:
        if name not in self.metadata_fields:
            known = ", ".join(map(repr, self.metadata_fields)) or "none"
            raise Rejection("not_found", f"There is no field {name!r}; the dataset has: {known}.", "name")
        return self.metadata_fields[name]


_EXPECTED = {
    "string": "a text",
    "number": "a number",
    "time": "a time: ISO 8601 as in '2026-05-04' or '2026-05-04T12:30:00Z', or seconds since 1970",
}


def _fits(value: object, kind: str) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    return kind == "time" and isinstance(value, str) and _is_time(value)


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
        date.fromisoformat(value[:10])
    except ValueError:
        return False
    return value[4] == value[7] == "-"
