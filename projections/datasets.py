"""Knowledge bases: the table `datasets`."""

from __future__ import annotations

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.embedding import EmbeddingModel
from domain.knowledge.dataset import Dataset
from domain.log import Recorded
from projections.engine.columns import Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator

datasets = ReadModel(
    "datasets",
    "Knowledge bases: each holds documents that apps answer from. A deleted one has no row.",
    key("id", "Dataset."),
    required("name", Text, "Name, as given."),
    required("description", Text, "Description, as given; empty when none was."),
    optional(
        "embedding_model",
        Text,
        "Embedding model that it is searched with, once one was chosen; null: the default of the workers.",
    ),
    optional("embedding_model_provider", Text, "Provider of that model; `builtin`: the workers run it."),
    optional(
        "next_embedding_model",
        Text,
        "Embedding model that its index is being built with; `headrace index show` says how far. Null when none is.",
    ),
    optional("next_embedding_model_provider", Text, "Provider of that model."),
    optional(
        "embedding_error_code",
        Text,
        "Why its index could not be rebuilt with the model that was chosen last, see codes; null when it could.",
    ),
    optional("embedding_error", Text, "Error message of that."),
    optional("segmentation", JSONB, "Rules by which its documents are split; null: the automatic ones."),
    required("created_by", Text, "Actor who created it."),
    required("created_at", Time, "When it was created."),
    required("updated_at", Time, "Time of the last change."),
)
datasets.clears(Dataset.Deleted)


@datasets.makes(Dataset.Created, new=originator)
def created(event: Dataset.Created, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "name": event.name,
        "description": event.description,
        **_embedding("", event.embedding),
        "created_by": message.metadata.actor,
    }


@datasets.changes(Dataset.Configured)
def configured(row: Row, event: Dataset.Configured, message: Recorded) -> Row:
    return {**_embedding("next_", event.embedding), **_error(None, None)}


@datasets.changes(Dataset.SegmentationChosen)
def segmentation_chosen(row: Row, event: Dataset.SegmentationChosen, message: Recorded) -> Row:
    return {"segmentation": event.segmentation}


@datasets.changes(Dataset.Reindexed)
def reindexed(row: Row, event: Dataset.Reindexed, message: Recorded) -> Row:
    return {**_embedding("", event.embedding), **_embedding("next_", None)}


@datasets.changes(Dataset.ReindexFailed)
def reindex_failed(row: Row, event: Dataset.ReindexFailed, message: Recorded) -> Row:
    return {**_embedding("next_", None), **_error(event.code, event.reason)}


def _embedding(which: str, chosen: EmbeddingModel | None) -> Row:
    return {
        f"{which}embedding_model": chosen and chosen["model"],
        f"{which}embedding_model_provider": chosen and chosen["provider"],
    }


def _error(code: str | None, reason: str | None) -> Row:
    return {"embedding_error_code": code, "embedding_error": reason}
