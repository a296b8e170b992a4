"""The main job: documents in, cited answers out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ops.demo import EXAMPLES, GENERATED, GENERATOR, is_right
from ops.servers.model import EmbeddedModel
from ops.supervisor import PROVIDER
from tests.journeys.stack import PATIENCE_S, Stack

HANDBOOK = sorted((EXAMPLES / "handbook").iterdir())
QUESTIONS = json.loads((EXAMPLES / "questions.json").read_text())


@pytest.fixture(scope="module")
async def dataset(headrace: Stack) -> str:
    return await headrace.make("dataset.create", name="handbook")


@pytest.fixture(scope="module")
async def documents(headrace: Stack, dataset: str) -> list[str]:
    return await headrace.upload(dataset, *HANDBOOK)


@pytest.fixture(scope="module")
async def app(headrace: Stack, dataset: str, documents: list[str]) -> str:
    app = await headrace.make("app.create", name="assistant")
    await headrace.send("app.configure", app=app, datasets=[dataset])
    await headrace.ended(documents)
    return app


async def test_every_document_is_completed_with_its_times(headrace: Stack, documents: list[str]) -> None:
    rows = await headrace.ended(documents)
    for row in rows.values():
        assert row["indexing_status"] == "completed", row
        assert row["completed_segments"] == row["total_segments"] > 0
        times = ["processing_started_at", "parsing_completed_at", "splitting_completed_at", "completed_at"]
        assert [row[name] for name in times] == sorted(row[name] for name in times)
    segments = await headrace.sql(
        "SELECT document_id, count(*) FROM headrace.document_segments WHERE document_id = ANY(%(ids)s) GROUP BY 1",
        ids=documents,
    )
    assert {str(row["document_id"]): row["count"] for row in segments} == {
        id: row["total_segments"] for id, row in rows.items()
    }


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["question"][:40])
async def test_the_answer_is_right_and_cites_its_place(headrace: Stack, app: str, question: dict[str, str]) -> None:
    frames = await headrace.ask(app, question["question"])
    assert frames[-1]["type"] == "answered", frames[-1]
    assert is_right(question, frames[-1]), frames[-1]
    tokens = [frame for frame in frames if frame["type"] == "token"]
    assert "".join(frame["text"] for frame in tokens) == frames[-1]["answer"]


async def test_an_answer_is_recorded_with_its_calls(headrace: Stack, app: str) -> None:
    frames = await headrace.ask(app, QUESTIONS[0]["question"], user="ada")
    message = frames[0]["message"]
    [row] = await headrace.until(
        "SELECT * FROM headrace.messages WHERE id = %(id)s AND status = 'answered'", id=message
    )
    assert row["answer"] == frames[-1]["answer"]
    calls = await headrace.sql(
        "SELECT kind, status FROM headrace.model_calls WHERE cause_id = %(id)s ORDER BY kind", id=message
    )
    assert calls == [{"kind": "chat", "status": "completed"}, {"kind": "embedding", "status": "completed"}]
    sources = await headrace.sql(
        "SELECT * FROM headrace.dataset_retriever_resources WHERE message_id = %(id)s", id=message
    )
    assert len(sources) == len(frames[-1]["citations"]) > 0


async def test_a_small_model_generates_a_cited_answer(
    headrace: Stack, dataset: str, documents: list[str], small_model: EmbeddedModel
) -> None:
    """The last question of the demo: the words are the model's own, with a fact of one passage."""
    await headrace.send("provider.register", name=PROVIDER, base_url=small_model.url, key=small_model.key)
    app = await headrace.make("app.create", name="generator")
    await headrace.send("app.configure", app=app, datasets=[dataset], **GENERATOR)
    await headrace.ended(documents)
    frames = await headrace.ask(app, GENERATED)
    assert frames[-1]["type"] == "answered", frames[-1]
    [question] = [question for question in QUESTIONS if question["question"] == GENERATED]
    assert any(fact in frames[-1]["answer"] for fact in question["answer"]), frames[-1]
    assert question["document"] in {each["document_name"] for each in frames[-1]["citations"]}, frames[-1]
    assert frames[-1]["answer"] not in frames[-1]["citations"][0]["content"]
    assert len([frame for frame in frames if frame["type"] == "token"]) > 5
    [call] = await headrace.until(
        "SELECT * FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat' AND status = 'completed'",
        id=frames[0]["message"],
    )
    assert (call["provider"], call["model"], call["finish_reason"]) == (PROVIDER, small_model.name, "stop")
    assert call["prompt_tokens"] > 100
    assert not call["tokens_estimated"]


async def test_a_conversation_goes_on(headrace: Stack, app: str) -> None:
    first = (await headrace.ask(app, QUESTIONS[0]["question"], user="eve"))[0]
    second = (await headrace.ask(app, QUESTIONS[1]["question"], user="eve", conversation=first["conversation"]))[0]
    assert second["conversation"] == first["conversation"]
    rows = await headrace.until(
        "SELECT id, parent_message_id FROM headrace.messages WHERE conversation_id = %(id)s ORDER BY created_at",
        lambda rows: len(rows) == 2,
        id=first["conversation"],
    )
    assert [str(row["id"]) for row in rows] == [first["message"], second["message"]]
    assert str(rows[1]["parent_message_id"]) == first["message"]


async def test_a_deleted_document_is_never_found_again(headrace: Stack, tmp_path: Path) -> None:
    dataset = await headrace.make("dataset.create", name="secrets")
    fact = tmp_path / "vault.txt"
    fact.write_text("The combination of the vault in the mill house is 4417.")
    [document] = await headrace.upload(dataset, fact)
    app = await headrace.make("app.create", name="vault keeper")
    await headrace.send("app.configure", app=app, datasets=[dataset])
    await headrace.ended([document])
    question = "What is the combination of the vault in the mill house?"
    assert "4417" in (await headrace.ask(app, question))[-1]["answer"]
    [segment] = await headrace.sql("SELECT id FROM headrace.document_segments WHERE document_id = %(id)s", id=document)
    await headrace.send("document.delete", document=document)
    assert "4417" not in (await headrace.ask(app, question))[-1]["answer"]
    async with asyncio.timeout(PATIENCE_S):
        while segment["id"] in await headrace.indexed():
            await asyncio.sleep(0.1)
