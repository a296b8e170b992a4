"""Metadata fields of knowledge bases: the table `dataset_metadata`."""

from __future__ import annotations

from sqlalchemy import Text

from domain.knowledge.dataset import Dataset
from domain.log import Recorded
from projections.datasets import datasets
from projections.engine.columns import Id, Time, key, required
from projections.engine.read_model import ReadModel, Row, originator

dataset_metadata = ReadModel(
    "dataset_metadata",
    "Fields that the documents of knowledge bases have values of, in doc_metadata of documents. A removed one has no "
    "row.",
    key("id", "Field."),
    required("dataset_id", Id, "Dataset, in datasets."),
    required("name", Text, "Name: the key in doc_metadata."),
    required("type", Text, "Type of its values: string, number or time."),
    required("created_by", Text, "Actor who defined it."),
    required("created_at", Time, "When it was defined."),
    required("updated_at", Time, "Time of the last change."),
)
dataset_metadata.clears(Dataset.MetadataFieldRemoved, pick=lambda event, message: event.field)
dataset_metadata.clears(Dataset.Deleted, column="dataset_id")


@dataset_metadata.makes(Dataset.MetadataFieldAdded, within=(datasets, originator))
def added(event: Dataset.MetadataFieldAdded, message: Recorded, dataset: Row) -> Row:
    return {
        "id": event.field,
        "dataset_id": event.originator_id,
        "name": event.name,
        "type": event.type,
        "created_by": message.metadata.actor,
    }


@dataset_metadata.changes(Dataset.MetadataFieldRenamed, pick=lambda event, message: event.field)
def renamed(row: Row, event: Dataset.MetadataFieldRenamed, message: Recorded) -> Row:
    return {"name": event.new_name}
