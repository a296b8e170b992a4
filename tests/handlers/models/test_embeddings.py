"""Recorded calls of embedding models of providers, and what becomes of their errors."""

from __future__ import annotations

from typing import cast

import pytest

from domain.aggregate import new_id
from domain.log import Metadata
from domain.models.model_call import ModelCall
from handlers.cause import Cause
from handlers.models.embeddings import BATCH, LONGEST, Embeddings, is_later
from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError
from tests.handlers.desk import Desk
from tests.handlers.fakes import OneModel, Vectorizer, Words, embedding_models
from tests.memory import Memory


class Lab:
    """A desk whose embedding models are those of one provider."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.vectorizer = Vectorizer()
        self.models: Embeddings = embedding_models(desk.repository, OneModel(Words()), self.vectorizer)
        self.cause = Cause(Metadata(new_id(), desk.tenant, new_id()), "document", new_id(), 1)

    def name(self, provider: str = "lab") -> str:
        return f"{self.desk.tenant}/{provider}/BAAI/bge-m3"

    async def embed(self, *texts: str) -> list[list[float]]:
        embedding = await self.models.get(self.name())
        inputs = [embedding.input(text) for text in texts]
        vectors, recorded = await embedding.embed(self.cause, "embed", inputs)
        await recorded
        return cast("list[list[float]]", vectors.tolist())

    async def calls(self) -> list[tuple[ModelCall.Requested, str]]:
        """The calls of the step in order, and how each ended."""
        found = []
        for number in range(1, 20):
            commits = await self.desk.commits("model_call", self.cause.call("embed", number=number))
            if not commits:
                break
            [requested, *_] = commits[0].events
            assert isinstance(requested, ModelCall.Requested)
            found.append((requested, commits[-1].events[0].TOPIC.split(".")[1]))
        return found


@pytest.fixture
def lab(memory: Memory, tenant: str) -> Lab:
    return Lab(Desk(memory, tenant))


async def test_a_call_is_recorded_with_its_provider_model_server_and_tokens(lab: Lab) -> None:
    assert len(await lab.embed("one", "two words")) == 2
    [(call, end)] = await lab.calls()
    assert (call.kind, call.provider, call.model, call.server) == ("embedding", "lab", "BAAI/bge-m3", "vectors:443")
    assert (call.request["texts"], call.route, end) == (2, None, "completed")
    [*_, completed] = await lab.desk.events("model_call", call.originator_id)
    assert isinstance(completed, ModelCall.Completed)
    assert (completed.usage["prompt_tokens"], completed.usage["estimated"], completed.response_model) == (
        7,
        False,
        "m-1",
    )


async def test_texts_go_in_batches_that_every_server_takes_each_recorded(lab: Lab) -> None:
    vectors = await lab.embed(*(f"text {number}" for number in range(2 * BATCH + 3)))
    assert len(vectors) == 2 * BATCH + 3
    assert [len(texts) for _, texts in lab.vectorizer.asked] == [BATCH, BATCH, 3]
    assert [(call.request["texts"], end) for call, end in await lab.calls()] == [
        (BATCH, "completed"),
        (BATCH, "completed"),
        (3, "completed"),
    ]


async def test_every_try_is_recorded_with_the_one_before(lab: Lab) -> None:
    lab.vectorizer.errors = [ModelError("server_error", "On fire.", passing=True)]
    await lab.embed("one")
    (first, failed), (second, completed) = await lab.calls()
    assert (failed, completed) == ("failed", "completed")
    assert second.route == {"name": "", "try": 2, "after": {"call": first.originator_id, "code": "server_error"}}


async def test_a_fault_that_lasts_is_tried_three_times(lab: Lab) -> None:
    lab.vectorizer.error = ModelError("server_error", "On fire.", passing=True)
    with pytest.raises(ModelError, match="On fire") as caught:
        await lab.embed("one")
    assert is_later(caught.value)
    assert [end for _, end in await lab.calls()] == ["failed"] * 3


async def test_a_key_that_rests_is_not_called_while_the_server_asks_for_it(lab: Lab) -> None:
    lab.vectorizer.error = ModelError("rate_limited", "Slow down.", passing=True, pause_s=600)
    for _ in range(2):
        with pytest.raises(ModelError, match="Slow down") as caught:
            await lab.embed("one")
        assert is_later(caught.value)
    assert len(lab.vectorizer.asked) == 1


async def test_what_the_server_refuses_is_tried_once_and_not_later(lab: Lab) -> None:
    lab.vectorizer.error = ModelError("context_length_exceeded", "Too long.")
    with pytest.raises(ModelError) as caught:
        await lab.embed("one")
    assert not is_later(caught.value)
    assert [end for _, end in await lab.calls()] == ["failed"]


async def test_the_beginning_of_a_long_text_is_embedded(lab: Lab) -> None:
    await lab.embed("x" * (LONGEST + 1))
    [(_, [text])] = lab.vectorizer.asked
    assert len(text) == LONGEST


async def test_vectors_of_two_lengths_within_one_text_list_are_refused(lab: Lab) -> None:
    class Grows(Vectorizer):
        async def embed(self, model: str, texts: object) -> object:  # type: ignore[override]
            self.dimension += 1
            return await super().embed(model, texts)  # type: ignore[arg-type]

    lab.models = embedding_models(lab.desk.repository, OneModel(Words()), Grows())
    with pytest.raises(ModelError) as caught:
        await lab.embed(*"x" * (BATCH + 1))
    assert caught.value.code == "embedding_changed"


async def test_a_model_of_the_workers_has_its_own_name(lab: Lab) -> None:
    assert (await lab.models.get("words")).identity == "words/1"
    with pytest.raises(Unavailable):
        await lab.models.get("nothing")


async def test_the_length_of_vectors_is_asked_for_by_a_recorded_call(lab: Lab) -> None:
    embedding = await lab.models.get(lab.name())
    assert await embedding.dimension(lab.cause, "embed") == lab.vectorizer.dimension
    assert [end for _, end in await lab.calls()] == ["completed"]
