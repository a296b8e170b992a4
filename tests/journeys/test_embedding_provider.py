"""A knowledge base whose embedding model is a provider's: ingest, a cited answer, another model, no provider."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ops.demo import is_right
from tests.embedding_server import HALF, WHOLE, embedding_server
from tests.journeys.stack import Stack
from tests.journeys.test_handbook import HANDBOOK, QUESTIONS

KEY = "sk-never-to-be-seen-1414213562"
PROVIDER = "vectors"


@pytest.fixture(scope="module")
async def provider(headrace: Stack) -> AsyncIterator[str]:
    async with embedding_server(KEY) as base_url:
        await headrace.send("provider.register", name=PROVIDER, base_url=base_url, key=KEY)
        yield base_url


async def calls(headrace: Stack, cause: str, model: str = WHOLE) -> list[dict[str, object]]:
    """The calls of a model of the provider for a cause, once one has ended."""
    statement = """
        SELECT provider, model, server, status, prompt_tokens, tokens_estimated FROM headrace.model_calls
        WHERE cause_id = %(id)s AND kind = 'embedding' AND model = %(model)s AND status <> 'requested'
    """
    return await headrace.until(statement, id=cause, model=model)


async def right(headrace: Stack, app: str) -> str:
    """Ask a question whose answer must be right and cited; return its message."""
    frames = await headrace.ask(app, QUESTIONS[0]["question"])
    assert frames[-1]["type"] == "answered", frames[-1]
    assert is_right(QUESTIONS[0], frames[-1]), frames[-1]
    assert frames[-1]["citations"]
    return str(frames[0]["message"])


async def test_from_a_file_to_a_cited_answer_and_on_with_another_model(headrace: Stack, provider: str) -> None:
    host = provider.removeprefix("http://").removesuffix("/v1")
    dataset = await headrace.make("dataset.create", name="handbook", embedding_provider=PROVIDER, embedding_model=WHOLE)
    documents = await headrace.upload(dataset, *HANDBOOK)
    rows = await headrace.ended(documents)
    assert {row["indexing_status"] for row in rows.values()} == {"completed"}, rows
    made = await calls(headrace, documents[0])
    assert {(call["provider"], call["model"], call["server"]) for call in made} == {(PROVIDER, WHOLE, host)}
    assert {(call["status"], call["tokens_estimated"]) for call in made} == {("completed", False)}
    assert all(int(str(call["prompt_tokens"])) > 0 for call in made)
    app = await headrace.make("app.create", name="assistant")
    await headrace.send("app.configure", app=app, datasets=[dataset])
    [asked] = await calls(headrace, await right(headrace, app))
    assert (asked["provider"], asked["model"], asked["status"]) == (PROVIDER, WHOLE, "completed")

    await headrace.send("dataset.configure", dataset=dataset, embedding_provider=PROVIDER, embedding_model=HALF)
    statement = "SELECT * FROM headrace.datasets WHERE id = %(id)s AND embedding_model = %(model)s"
    [row] = await headrace.until(statement, id=dataset, model=HALF)
    assert (row["embedding_model_provider"], row["next_embedding_model"], row["embedding_error"]) == (
        PROVIDER,
        None,
        None,
    )
    [asked] = await calls(headrace, await right(headrace, app), HALF)
    assert asked["status"] == "completed"

    await headrace.send("dataset.configure", dataset=dataset, embedding_provider=PROVIDER, embedding_model="nothing")
    statement = "SELECT * FROM headrace.datasets WHERE id = %(id)s AND embedding_error_code IS NOT NULL"
    [row] = await headrace.until(statement, id=dataset)
    assert (row["embedding_model"], row["embedding_error_code"]) == (HALF, "not_found")
    assert KEY not in str(row)
    await right(headrace, app)

    await headrace.send("provider.remove", provider=PROVIDER)
    frames = await headrace.ask(app, QUESTIONS[0]["question"])
    assert (frames[-1]["type"], frames[-1]["code"]) == ("failed", "not_found")
    late = await headrace.make("document.upload", dataset=dataset, name="late.txt", text="The late gate opens at dawn.")
    [row] = (await headrace.ended([late])).values()
    assert (row["indexing_status"], row["error_code"]) == ("error", "not_found"), row
