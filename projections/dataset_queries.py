"""Queries of datasets: the table `dataset_queries`."""

from __future__ import annotations

from sqlalchemy import Text

from domain.access.end_user import EndUser
from domain.knowledge.retrieval import Retrieval
from domain.log import Recorded, derived_id
from projections.engine.columns import Id, Time, key, person, required
from projections.engine.read_model import ReadModel, Row

dataset_queries = ReadModel(
    "dataset_queries",
    "Queries of datasets, one row a dataset: what was found is in retrievals. They outlive the dataset.",
    key("id", "Query of this dataset."),
    required("dataset_id", Id, "Dataset that was searched."),
    required("content", Text, "Question; empty when the person was erased."),
    required("source", Text, "hit_testing for a test of the dataset, app for an app's answer to a message."),
    required("retrieval_id", Id, "Result, in retrievals."),
    required("created_by", Text, "Actor who asked for it."),
    person(),
    required("created_at", Time, "When it ended."),
)
dataset_queries.looked_up("dataset_id")
dataset_queries.sets(EndUser.Erased, {"content": ""}, column="person_id")


@dataset_queries.makes(Retrieval.Made)
def made(event: Retrieval.Made, message: Recorded) -> list[Row]:
    return [
        {
            "id": derived_id(f"{event.originator_id}/{dataset}"),
            "dataset_id": dataset,
            "content": event.query,
            "source": "hit_testing" if event.cause_noun == "dataset" else "app",
            "retrieval_id": event.originator_id,
            "created_by": message.metadata.actor,
            "person_id": message.metadata.person,
        }
        for dataset in dict.fromkeys(event.datasets)
    ]
