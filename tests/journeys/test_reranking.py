"""Hits in a better order: by the built-in reranker and by a provider's, and without one that fails."""

from __future__ import annotations

import json

import pytest

from tests.chat_servers import Behaviour, Exchange, fails, faulty_server
from tests.journeys.stack import Row, Stack

KEY = "sk-never-to-be-seen-2718281828"
QUESTION = "At what pressure does the Larkspur valve open?"
RIGHT = "The Larkspur valve does open at a pressure of 4.2 bar."
TEXTS = {
    "near.txt": "Pressure valve, Larkspur. Larkspur pressure. Valve pressure!",
    "far.txt": "The weir was built of stone in 1824.",
    "right.txt": RIGHT,
}


@pytest.fixture(scope="module")
async def dataset(headrace: Stack) -> str:
    dataset = await headrace.make("dataset.create", name="gatehouse")
    await headrace.send("dataset.add_metadata_field", dataset=dataset, name="author", type="string")
    made = [
        await headrace.make("document.upload", dataset=dataset, name=name, text=text, metadata={"author": name})
        for name, text in TEXTS.items()
    ]
    await headrace.ended(made)
    return dataset


async def retrieved(headrace: Stack, dataset: str, rerank: Row, **more: object) -> tuple[str, Row, list[str]]:
    """The message of a question, its retrieval, and the names of the documents that the model was given."""
    app = await headrace.make("app.create", name="ranker")
    how = {"rerank": rerank, "top_k": 2, **more.pop("retrieval", {})}  # type: ignore[dict-item]
    await headrace.send("app.configure", app=app, datasets=[dataset], retrieval=how, **more)
    frames = await headrace.ask(app, QUESTION)
    assert frames[-1]["type"] == "answered", frames[-1]
    message = str(frames[0]["message"])
    [found] = await headrace.until("SELECT * FROM headrace.retrievals WHERE cause_id = %(id)s", id=message)
    kept = sorted((hit for hit in found["hits"] if hit["rank"]), key=lambda hit: hit["rank"])
    rows = await headrace.sql("SELECT id, name FROM headrace.documents WHERE dataset_id = %(id)s", id=dataset)
    names = {row["id"]: row["name"] for row in rows}
    return message, found, [names[hit["document"]] for hit in kept]


async def the_calls(headrace: Stack, message: str, status: str, count: int = 1) -> list[Row]:
    """The tries of a rerank, in order."""
    statement = """
        SELECT * FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'rerank' AND status = %(status)s
        ORDER BY try
    """
    return await headrace.until(statement, lambda rows: len(rows) == count, id=message, status=status)


async def test_the_built_in_reranker_is_part_of_the_search(headrace: Stack, dataset: str) -> None:
    message, found, names = await retrieved(headrace, dataset, {"provider": "builtin"})
    assert names[0] == "right.txt"
    assert found["faults"] == []
    [call] = await the_calls(headrace, message, "completed")
    assert (call["provider"], call["model"], call["cost"]) == ("builtin", "lexical-2", 0)
    assert call["request"]["query"] == QUESTION
    scores = dict(zip(call["request"]["segments"], json.loads(call["response"]), strict=True))
    best = next(hit for hit in found["hits"] if hit["rank"] == 1)
    assert (best["rerank_rank"], best["rerank_score"]) == (1, scores[best["segment"]])
    statement = """
        SELECT span.kind, span.status, above.kind AS above, span.attributes->>'gen_ai.operation.name' AS sort
        FROM headrace.spans span JOIN headrace.spans above ON above.id = span.parent_id
        WHERE span.id = %(id)s AND span.status = 'ok'
    """
    [span] = await headrace.until(statement, id=call["id"])
    assert span == {"kind": "rerank", "status": "ok", "above": "retrieval", "sort": "rerank"}


async def prefers_the_long(exchange: Exchange) -> None:
    """A reranker that takes the longest text for the best."""
    lengths = [len(text) for text in exchange.body["documents"]]
    results = [{"index": index, "relevance_score": length / 100} for index, length in enumerate(lengths)]
    usage = {"total_tokens": sum(lengths)}
    await exchange.answer(200, {"id": "rerank-1", "model": "long-1", "usage": usage, "results": results})


async def test_a_providers_reranker_is_called_with_its_key(headrace: Stack, dataset: str) -> None:
    async with faulty_server(prefers_the_long) as server:
        await headrace.send("provider.register", name="ranks", base_url=server.url, key=KEY)
        message, found, names = await retrieved(headrace, dataset, {"provider": "ranks", "model": "long"})
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert (names, found["faults"]) == (["near.txt", "right.txt"], [])
    [call] = await the_calls(headrace, message, "completed")
    assert (call["provider"], call["response_id"], call["response_model"]) == ("ranks", "rerank-1", "long-1")
    assert f"//{call['server']}/" in server.url
    assert (call["tokens_estimated"], call["prompt_tokens"]) == (False, sum(map(len, TEXTS.values())))


async def test_without_its_reranker_a_search_goes_on_and_says_so(headrace: Stack, dataset: str) -> None:
    async with faulty_server(fails) as server:
        await headrace.send("provider.register", name="broken", base_url=server.url, key=KEY)
        message, found, names = await retrieved(headrace, dataset, {"provider": "broken", "model": "any"})
    assert len(names) == 2
    [fault] = found["faults"]
    assert (fault["step"], fault["code"]) == ("rerank", "server_error")
    assert all(hit["rerank_rank"] is None for hit in found["hits"])
    tries = await the_calls(headrace, message, "failed", 2)
    assert [(call["try"], call["error_code"]) for call in tries] == [(1, "server_error"), (2, "server_error")]


def says(conditions: list[Row]) -> Behaviour:
    """A chat model that makes these conditions, and answers everything else with a sentence."""

    async def behaviour(exchange: Exchange) -> None:
        asked = "metadata fields" in exchange.body["messages"][0]["content"]
        answer = {"logical_operator": "and", "conditions": conditions}
        await exchange.finish(json.dumps(answer) if asked else "It opens at 4.2 bar [1].")

    return behaviour


@pytest.mark.parametrize(
    ("conditions", "documents", "faults"),
    [
        ([{"name": "author", "comparison_operator": "is", "value": "far.txt"}], {"far.txt"}, []),
        (
            [{"name": "secret", "comparison_operator": "is", "value": "x"}],
            {"near.txt", "right.txt"},
            ["invalid_filter"],
        ),
    ],
)
async def test_the_apps_model_makes_the_filter_out_of_the_question(
    headrace: Stack, dataset: str, conditions: list[Row], documents: set[str], faults: list[str]
) -> None:
    async with faulty_server(says(conditions)) as server:
        await headrace.send("provider.register", name="filters", base_url=server.url, key=KEY)
        message, found, names = await retrieved(
            headrace,
            dataset,
            {"provider": "builtin"},
            model={"provider": "filters", "name": "tiny"},
            retrieval={"metadata_filter": {"mode": "automatic"}},
        )
    assert (set(names), [fault["code"] for fault in found["faults"]]) == (documents, faults)
    rows = await headrace.until(
        "SELECT span.name, above.kind AS above FROM headrace.spans span JOIN headrace.spans above "
        "ON above.id = span.parent_id WHERE span.noun_id = %(id)s AND span.kind = 'chat' ORDER BY span.sequence",
        lambda rows: len(rows) == 2,
        id=message,
    )
    assert [row["above"] for row in rows] == ["retrieval", "handler"]
