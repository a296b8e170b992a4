"""Retrieval settings, and the command that tries them out."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from domain.aggregate import Rejection
from domain.models.provider import BUILTIN, Provider
from handlers.commands.fields import (
    Command,
    DatasetId,
    FieldName,
    Fields,
    Name,
    Part,
    Preparation,
    ProviderName,
    Ref,
    not_blank,
)

Texts = Annotated[list[Annotated[str, Field(max_length=1000)]], Field(min_length=1, max_length=100)]


class RerankFields(Part):
    """A model that reads the question with each hit and puts them into a better order; `builtin` is the cross-encoder
    of `HEADRACE_RERANK_MODEL`."""

    provider: Annotated[ProviderName, Ref(Provider)] = BUILTIN
    model: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="Model of the provider; null: the one that `builtin` has"
    )
    top_n: Annotated[int, Field(ge=1, le=200)] = Field(50, description="So many of the best hits are reranked")

    @model_validator(mode="after")
    def _of_the_provider(self) -> RerankFields:
        if self.provider != BUILTIN and self.model is None:
            raise ValueError("model must name one of the provider's")
        return self


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


class ConditionFields(Part):
    """What the metadata of a document must say."""

    name: FieldName
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
    ]
    value: Annotated[str, Field(max_length=1000)] | float | Texts | None = Field(
        None, description="A number for = ≠ > < ≥ ≤, an ISO 8601 time for before and after, else a text"
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
    """Which documents are searched, by their metadata; `automatic`: the model of the app makes the conditions."""

    mode: Literal["disabled", "manual", "automatic"] = "disabled"
    logical_operator: Literal["and", "or"] = "and"
    conditions: Annotated[list[ConditionFields], Field(max_length=32)] = []

    @model_validator(mode="after")
    def _something(self) -> MetadataFilterFields:
        if (self.mode == "manual") != bool(self.conditions):
            raise ValueError("conditions must be given in mode manual, and in no other")
        return self


class RetrievalFields(Part):
    """How segments are looked for."""

    mode: Literal["hybrid", "semantic", "full_text"] = "hybrid"
    weight: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None, description="Share of the meaning in a hybrid score, or null for reciprocal rank fusion"
    )
    top_k: Annotated[int, Field(ge=1, le=50)] = 4
    score_threshold: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None, description="The least score of a hit, or null to take the best whatever they score"
    )
    metadata_filter: MetadataFilterFields = MetadataFilterFields()
    neighbours: Annotated[int, Field(ge=0, le=3)] = Field(
        0, description="So many segments before and after each hit are given to the model with it"
    )
    rerank: RerankFields | None = None

    @model_validator(mode="after")
    def _weighs_something(self) -> RetrievalFields:
        if self.weight is not None and self.mode != "hybrid":
            raise ValueError("weight is for the mode hybrid")
        if self.rerank and self.rerank.top_n < self.top_k:
            raise ValueError("rerank.top_n must be at least top_k")
        return self


class TestDatasets(Command):
    """Look for a question in knowledge bases, and put on record what is found and where it ranks (hit testing)."""

    datasets: Annotated[list[DatasetId], Field(min_length=1, max_length=32)]
    query: Annotated[str, Field(max_length=10_000), AfterValidator(not_blank)]
    retrieval: RetrievalFields = RetrievalFields(top_k=10)
    user: Name = Field("anonymous", description="Whose words the query is")

    @model_validator(mode="after")
    def _without_an_app(self) -> TestDatasets:
        if self.retrieval.metadata_filter.mode == "automatic":
            raise ValueError("retrieval.metadata_filter.mode must not be automatic, which takes the model of an app")
        return self


def check_reranker(retrieval: RetrievalFields, preparation: Preparation) -> None:
    """Make sure of the built-in reranker, where the retrieval is to use it. Raises: Rejection `unknown_model`."""
    rerank, known = retrieval.rerank, preparation.rerank_model
    if rerank and rerank.provider == BUILTIN and rerank.model != known:
        if not known:
            sentence = "no worker runs a reranker; set HEADRACE_RERANK_MODEL of all workers first."
            raise Rejection("unknown_model", f"retrieval.rerank.provider: {sentence}", "retrieval.rerank.provider")
        if rerank.model:
            sentence = f"retrieval.rerank.model: no worker runs the reranker {rerank.model!r}; they run {known}."
            raise Rejection("unknown_model", sentence, "retrieval.rerank.model")


async def tested(command: TestDatasets, preparation: Preparation) -> Fields:
    """Who asks is known by the key that the words are kept under."""
    check_reranker(command.retrieval, preparation)
    return command.model_dump(exclude={"user"})
