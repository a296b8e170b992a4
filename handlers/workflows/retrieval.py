"""Searches in knowledge bases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from domain.chat.app import Condition, MetadataFilter, ModelSettings, RerankSettings, RetrievalSettings
from domain.knowledge.dataset import Dataset
from domain.workflows.needs import last_part
from domain.workflows.node_type import NODE_ERROR, Trouble, mapping, sequence, text
from domain.workflows.requests import RetrievalRequest
from handlers.ports.index import Hit
from handlers.repository import Repository
from handlers.retrieval.retrieve import Question, Retrieve
from handlers.workflows.execution import Execution
from handlers.workflows.model import WINDOW

TOP_K: Final = 4
"""Number of segments, where a node does not say."""

NUMBERS: Final = frozenset({"=", "≠", ">", "<", "≥", "≤"})
EMPTY: Final = frozenset({"empty", "not empty"})
LISTS: Final = frozenset({"in", "not in"})


@dataclass(frozen=True, slots=True)
class SearchKnowledge:
    repository: Repository
    retrieve: Retrieve

    async def __call__(self, execution: Execution) -> list[dict[str, Any]] | Trouble:
        """The segments, the best first. Raises: ModelError; Unavailable."""
        request: RetrievalRequest = execution.request
        found = await self.repository.all(Dataset, execution.tenant, request.datasets)
        datasets = {id: dataset for id, dataset in found.items() if not dataset.deleted}
        if not datasets:
            return Trouble("There is no such knowledge base any more.", NODE_ERROR)
        try:
            how = _settings(request)
        except ValueError as error:
            return Trouble(str(error), NODE_ERROR)
        cause = execution.cause
        if cause.attempt > 1:
            cause = await self.retrieve.take_over(cause)
        question = Question(
            cause.call("retrieve"), cause, request.query, list(datasets), how, _model(request.automatic)
        )
        retrieved = await self.retrieve.find(question)
        await retrieved.record()
        return [_segment(number, hit, retrieved.names) for number, hit in enumerate(retrieved.hits, start=1)]


def _settings(request: RetrievalRequest) -> RetrievalSettings:
    """Raises: ValueError for a condition that does not fit its operator."""
    given = request.settings
    weights = mapping(mapping(given.get("weights")).get("vector_setting")).get("vector_weight")
    weighted = given.get("reranking_mode") == "weighted_score" and isinstance(weights, int | float)
    top_k = int(given.get("top_k") or TOP_K)
    threshold = given.get("score_threshold")
    return RetrievalSettings(
        mode="hybrid",
        weight=float(weights or 0.0) if weighted else None,
        top_k=top_k,
        score_threshold=float(threshold) if threshold is not None else None,
        metadata_filter=_filter(request),
        neighbours=0,
        rerank=None if weighted else _rerank(given, top_k),
    )


def _rerank(given: Mapping[str, Any], top_k: int) -> RerankSettings | None:
    model = mapping(given.get("reranking_model"))
    owner = model.get("provider") or model.get("reranking_provider_name")
    name = model.get("model") or model.get("reranking_model_name")
    if given.get("reranking_enable") is False or not owner or not name:
        return None
    return RerankSettings(provider=last_part(owner), model=str(name), top_n=max(top_k, 10))


def _filter(request: RetrievalRequest) -> MetadataFilter:
    if request.automatic is not None:
        return MetadataFilter(mode="automatic", logical_operator="and", conditions=[])
    if request.filter is None:
        return MetadataFilter(mode="disabled", logical_operator="and", conditions=[])
    conditions = [_condition(mapping(each)) for each in sequence(request.filter["conditions"])]
    return MetadataFilter(mode="manual", logical_operator=request.filter["logical_operator"], conditions=conditions)


def _condition(given: Mapping[str, Any]) -> Condition:
    operator, value = text(given.get("comparison_operator")), given.get("value")
    if operator in EMPTY:
        value = None
    elif operator in NUMBERS:
        value = float(value) if value not in (None, "") else 0.0
    elif operator in LISTS and not isinstance(value, list):
        value = [each.strip() for each in text(value).split(",")]
    return Condition(name=text(given.get("name")), comparison_operator=operator, value=value)


def _model(given: Mapping[str, Any] | None) -> ModelSettings | None:
    """The model that writes the filter."""
    if given is None:
        return None
    plain = {name: each for name, each in mapping(given.get("completion_params")).items() if name != "max_tokens"}
    owner, name = last_part(given.get("provider")), text(given.get("name"))
    return ModelSettings(provider=owner, name=name, max_tokens=512, context_window=WINDOW, parameters=plain)


def _segment(number: int, hit: Hit, names: Mapping[str, str]) -> dict[str, Any]:
    name = names.get(hit.document, "")
    content = f"{hit.entry.content}\n{hit.entry.answer}" if hit.entry.answer else hit.entry.content
    metadata = {
        "_source": "knowledge",
        "position": number,
        "dataset_id": hit.dataset,
        "document_id": hit.document,
        "document_name": name,
        "segment_id": hit.id,
        "segment_position": hit.entry.position,
        "score": hit.score,
        "page": hit.entry.page,
        "heading": hit.entry.heading,
        "retriever_from": "workflow",
    }
    return {"content": content, "title": name, "url": "", "icon": "", "summary": "", "files": [], "metadata": metadata}
