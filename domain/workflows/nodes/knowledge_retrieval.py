"""Knowledge-retrieval: segments of knowledge bases that fit a question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from domain.workflows import values
from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import (
    NODE_ERROR,
    Done,
    Failed,
    NodeType,
    Trouble,
    Values,
    mapping,
    selector,
    sequence,
    text,
)
from domain.workflows.rendering import render
from domain.workflows.requests import RetrievalRequest
from domain.workflows.values import File, Value


def prepare(node: Node, view: Values) -> Done | RetrievalRequest:
    about, attached = (selector(node.data.get(f"query_{each}_selector")) for each in ("variable", "attachment"))
    if not about and not attached:
        return Done()
    query = view.find(about) if about else values.Value(values.STRING, "")
    if query is None or not isinstance(query.data, str):
        raise Failed("The question is no text.", NODE_ERROR)
    mode = text(node.data.get("retrieval_mode")) or "multiple"
    filtering = text(node.data.get("metadata_filtering_mode")) or "disabled"
    return RetrievalRequest(
        query.data,
        _files(view.find(attached)),
        tuple(map(str, sequence(node.data.get("dataset_ids")))),
        mode,
        mapping(node.data.get(f"{mode}_retrieval_config")),
        _filter(mapping(node.data.get("metadata_filtering_conditions")), view) if filtering == "manual" else None,
        mapping(node.data.get("metadata_model_config")) if filtering == "automatic" else None,
    )


def conclude(node: Node, request: RetrievalRequest, answer: Sequence[Mapping[str, Any]] | Trouble) -> Done:
    if isinstance(answer, Trouble):
        raise Failed(answer.message, answer.type or NODE_ERROR)
    return Done({"result": Value(values.array(values.OBJECT), list(answer))})


def check(node: Node) -> Iterator[Problem]:
    if not sequence(node.data.get("dataset_ids")):
        yield Problem(node.id, "dataset_ids", "Name at least one knowledge base.")


def _files(value: Value | None) -> tuple[File, ...]:
    if value is None:
        return ()
    found = value.data if isinstance(value.data, list) else [value.data]
    return tuple(file for file in found if isinstance(file, File))


def _filter(spec: Mapping[str, Any], view: Values) -> dict[str, Any]:
    conditions = []
    for condition in map(mapping, sequence(spec.get("conditions"))):
        value = condition.get("value")
        conditions.append({**condition, "value": render(value, view.find) if isinstance(value, str) else value})
    return {"logical_operator": text(spec.get("logical_operator")) or "and", "conditions": conditions}


TYPE = NodeType(
    "knowledge-retrieval",
    {
        "query_variable_selector": "The question.",
        "query_attachment_selector": "Files to look for.",
        "dataset_ids": "Knowledge bases.",
        "retrieval_mode": "multiple or single.",
        "multiple_retrieval_config": "`top_k`, `score_threshold`, reranking.",
        "single_retrieval_config": "The model that chooses the knowledge base.",
        "metadata_filtering_mode": "disabled, automatic or manual.",
        "metadata_filtering_conditions": "Conditions on metadata.",
        "metadata_model_config": "The model that writes the conditions.",
    },
    {"result": "Segments: `content`, `title`, `metadata`."},
    prepare=prepare,
    conclude=conclude,
    check=check,
)
