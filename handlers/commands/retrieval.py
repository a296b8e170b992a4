"""Retrieval settings, and the command that tests them."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, model_validator

from domain.aggregate import Rejection
from domain.builtin import BUILTIN
from domain.chat.app import RetrievalSettings
from domain.knowledge.dataset_query import DatasetQuery
from handlers.commands.fields import (
    Command,
    DatasetId,
    FieldName,
    Name,
    Part,
    ProviderName,
    not_blank,
)
from handlers.commands.preparation import Make, Preparation

WEIGHT = 0.7
"""Default share of meaning in a hybrid score."""

Texts = Annotated[list[Annotated[str, Field(max_length=1000)]], Field(min_length=1, max_length=100)]


class RerankFields(Part):
    """A model that scores each hit together with the question; `builtin` is the cross-encoder that the workers run."""

    provider: ProviderName = BUILTIN
    model: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="Model of the provider; null for the one of `builtin`"
    )
    top_n: Annotated[int, Field(ge=1, le=200)] = Field(50, description="Number of best hits to rerank")

    @model_validator(mode="after")
    def _of_the_provider(self) -> RerankFields:
        if self.provider != BUILTIN and self.model is None:
            raise ValueError("model must name a model of the provider")
        return self


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


class ConditionFields(Part):
    """A condition for the metadata of a document."""

    name: FieldName = Field(description="Name of the metadata field")
    comparison_operator: Literal[
        "contains",
        "not contains",
        "start with",
        "end with",
        "is",
        "is not",
        "empty",
        "not empty",
        "in",
        "not in",
        "=",
        "≠",
        ">",
        "<",
        "≥",
        "≤",
        "before",
        "after",
    ] = Field(description="Comparison of the field's value")
    value: Annotated[str, Field(max_length=1000)] | float | Texts | None = Field(
        None, description="Number for = ≠ > < ≥ ≤, ISO 8601 time for before and after, else text; null for empty"
    )

    @model_validator(mode="after")
    def _of_its_type(self) -> ConditionFields:
        operator, value = self.comparison_operator, self.value
        wanted, fits = "a text", isinstance(value, str)
        if operator in ("empty", "not empty"):
            wanted, fits = "null", value is None
        elif operator in ("in", "not in"):
            wanted, fits = "a list of texts", isinstance(value, list)
        elif operator in ("=", "≠", ">", "<", "≥", "≤"):
            wanted, fits = "a finite number", isinstance(value, float) and math.isfinite(value)
        elif operator in ("before", "after"):
            wanted, fits = "an ISO 8601 time", isinstance(value, str) and _is_time(value)
        if not fits:
            raise ValueError(f"value must be {wanted} for the operator {operator!r}")
        return self


class MetadataFilterFields(Part):
    """Restriction of a search to documents with certain metadata."""

    mode: Literal["disabled", "manual", "automatic"] = Field(
        "disabled", description="With `automatic`, the model of the app derives the conditions from the question"
    )
    logical_operator: Literal["and", "or"] = Field(
        "and", description="Documents must meet all conditions (`and`), or one (`or`)"
    )
    conditions: Annotated[list[ConditionFields], Field(max_length=32)] = Field(
        [], description="Conditions for the metadata of a document"
    )

    @model_validator(mode="after")
    def _something(self) -> MetadataFilterFields:
        if (self.mode == "manual") != bool(self.conditions):
            raise ValueError("conditions must be given in mode manual, and in no other")
        return self


class RetrievalFields(Part):
    """Settings of a search for segments."""

    mode: Literal["hybrid", "semantic", "full_text"] = Field(
        "hybrid", description="Search by meaning (`semantic`), by words (`full_text`), or by both"
    )
    weight: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        WEIGHT, description="Share of meaning in a hybrid score; null for reciprocal rank fusion, and in other modes"
    )
    top_k: Annotated[int, Field(ge=1, le=50)] = Field(4, description="Maximum number of segments given to the model")
    score_threshold: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None, description="Minimum score of a hit; null for none. Scores of two modes do not compare"
    )
    metadata_filter: MetadataFilterFields = Field(
        MetadataFilterFields(), description="Restriction to documents with certain metadata"
    )
    neighbours: Annotated[int, Field(ge=0, le=3)] = Field(
        0, description="Segments before and after each hit that are given to the model with it"
    )
    rerank: RerankFields | None = Field(None, description="Reranker of the hits; null for none")

    @model_validator(mode="before")
    @classmethod
    def _unweighed(cls, given: Any) -> Any:
        """The default weight is of mode hybrid only."""
        if isinstance(given, dict) and given.get("mode", "hybrid") != "hybrid":
            return {"weight": None, **given}
        return given

    @model_validator(mode="after")
    def _weighs_something(self) -> RetrievalFields:
        if self.weight is not None and self.mode != "hybrid":
            raise ValueError("weight requires mode hybrid")
        if self.rerank and self.rerank.top_n < self.top_k:
            raise ValueError("rerank.top_n must be at least top_k")
        return self


class TestDatasets(Command):
    """Search knowledge bases for a question, and record the hits and their ranks (hit testing)."""

    datasets: Annotated[list[DatasetId], Field(min_length=1, max_length=32)] = Field(
        description="Knowledge bases to search"
    )
    query: Annotated[str, Field(max_length=10_000), AfterValidator(not_blank)] = Field(description="Question")
    retrieval: RetrievalFields = Field(RetrievalFields(top_k=10), description="Retrieval settings")
    user: Name = Field("anonymous", description="End user who asks, as the operator names them")

    @model_validator(mode="after")
    def _without_an_app(self) -> TestDatasets:
        if self.retrieval.metadata_filter.mode == "automatic":
            raise ValueError("The filter of retrieval cannot be automatic: only an app has a model to make it")
        return self


def check_reranker(retrieval: RetrievalFields, given: Preparation) -> None:
    """Check that the workers run the built-in reranker, if one is used. Raises: Rejection `unknown_model`."""
    rerank, known = retrieval.rerank, given.ports.rerank_model
    if rerank and rerank.provider == BUILTIN and rerank.model != known:
        if not known:
            raise Rejection("unknown_model", "The workers run no reranker.", "retrieval.rerank.provider")
        if rerank.model:
            sentence = f"The workers run the reranker {known}, not {rerank.model!r}."
            raise Rejection("unknown_model", sentence, "retrieval.rerank.model")


async def query(command: TestDatasets, given: Preparation) -> Make[DatasetQuery]:
    check_reranker(command.retrieval, given)
    retrieval = cast("RetrievalSettings", command.retrieval.model_dump())
    return lambda id, at: DatasetQuery.begin(
        DatasetQuery.Requested, id, at, query=command.query, datasets=command.datasets, retrieval=retrieval
    )
