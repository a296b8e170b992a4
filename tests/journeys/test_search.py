"""Datasets are tested, and an app finds by what it was configured to: filters, neighbours and weights."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest

from tests.journeys.stack import Stack

PARTS = [
    "The oil boom of the harbour is 240 metres long and lies in shed four.",
    "In a storm the boom is brought in by two tugs before the wind reaches force eight.",
    "The harbour master hears by radio on channel twelve as soon as oil is seen.",
]


@pytest.fixture(scope="module")
async def dataset(headrace: Stack) -> str:
    dataset = await headrace.make("dataset.create", name="harbour")
    documents = [
        await headrace.make(
            "document.upload", dataset=dataset, name=f"harbour-{year}.txt", text=text, metadata={"year": year}
        )
        for year, text in ((2024, "\n\n".join(PARTS)), (2025, f"{PARTS[0]}\n\nNobody swims there."), (2026, "Cranes."))
    ]
    await headrace.ended(documents)
    return dataset


async def search(headrace: Stack, dataset: str, query: str, **retrieval: Any) -> dict[str, Any]:
    made = await headrace.client.search([dataset], query, retrieval={"top_k": 5, **retrieval})
    assert (made["code"], made["faults"]) == (None, [])
    return made


@pytest.mark.parametrize("how", [{}, {"weight": 0.6}, {"weight": None}, {"mode": "semantic"}, {"mode": "full_text"}])
async def test_a_test_says_what_is_found_and_where_it_ranks(headrace: Stack, dataset: str, how: dict[str, Any]) -> None:
    made = await search(headrace, dataset, "How long is the oil boom?", **how)
    best, *others = made["hits"]
    assert (best["rank"], best["fusion_rank"], best["dropped"]) == (1, 1, None)
    assert (best["semantic_rank"] is None) == (how.get("mode") == "full_text")
    assert (best["full_text_rank"] is None) == (how.get("mode") == "semantic")
    assert [hit["rank"] or hit["dropped"] for hit in others].count("beyond_top_k") == 0
    [row] = await headrace.until("SELECT * FROM headrace.retrievals WHERE id = %(id)s", id=made["id"])
    assert (row["cause_noun"], row["query"], row["hits"]) == ("dataset", "How long is the oil boom?", made["hits"])
    weight = how.get("weight", None if "mode" in how else 0.7)
    assert (row["mode"], row["weight"], row["top_k"]) == (how.get("mode", "hybrid"), weight, 5)
    [asked] = await headrace.until("SELECT * FROM headrace.dataset_queries WHERE retrieval_id = %(id)s", id=made["id"])
    assert (asked["dataset_id"], asked["source"], asked["content"]) == (dataset, "hit_testing", row["query"])


async def test_a_filter_by_metadata(headrace: Stack, dataset: str) -> None:
    condition = {"name": "year", "comparison_operator": "≥", "value": 2025}
    made = await search(
        headrace, dataset, "How long is the oil boom?", metadata_filter={"mode": "manual", "conditions": [condition]}
    )
    names = await headrace.until(
        "SELECT name FROM headrace.documents WHERE id = ANY (%(ids)s)", ids=[hit["document"] for hit in made["hits"]]
    )
    assert made["documents"] == 2
    assert made["hits"]
    assert {row["name"] for row in names} <= {"harbour-2025.txt", "harbour-2026.txt"}


async def test_what_is_wrong_with_a_test_is_said(headrace: Stack, dataset: str) -> None:
    for retrieval, field in (
        ({"weight": 0.5, "mode": "semantic"}, "retrieval"),
        ({"neighbours": 4}, "retrieval.neighbours"),
        ({"metadata_filter": {"mode": "automatic"}}, "retrieval.metadata_filter.mode"),
    ):
        outcome = await headrace.client.send(
            "dataset.test", {"datasets": [dataset], "query": "x", "retrieval": retrieval}
        )
        assert (outcome["status"], outcome["code"]) == ("rejected", "invalid")
        assert str(outcome["field"]).startswith(field.partition(".")[0])
        assert outcome["excerpt"] is None, "it may hold words of people"


async def test_the_command_line_prints_the_ranks(headrace: Stack, dataset: str) -> None:
    environment = os.environ | {
        "HEADRACE_HOME": str(headrace.settings.home),
        "HEADRACE_NATS_URL": headrace.nats_url,
        "HEADRACE_POSTGRES_URL": headrace.postgres_url,
        "COLUMNS": "200",
    }
    arguments = ("search", dataset, "How long is the oil boom?", "--top-k", "1", "--set", "weight:=0.5")
    for more, expected in (((), "240 metres"), (("--json",), '"fusion_rank": 1')):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", *arguments, *more),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0, printed.decode()
        assert expected in printed.decode()
