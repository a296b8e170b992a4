"""Filters of plugins around calls of models that are no chat: embeddings, reranks, and audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.log import Metadata
from domain.models.model_call import ModelCall
from handlers.cause import Cause
from handlers.ports.models import Access, ModelError, Reranking
from tests.handlers.chat.test_audio import SAID, Studio
from tests.handlers.desk import Desk
from tests.handlers.fakes import Handler, Installed, choosing
from tests.handlers.models.test_embeddings import Lab
from tests.memory import Memory

Call = Mapping[str, Any]


class Scorer:
    """A reranker whose score is the length of each text."""

    server = "scorer:1"

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[Any]]:
        return [Access(self)]

    async def rerank(self, model: str, query: str, texts: Sequence[str]) -> Reranking:
        self.asked.append((query, list(texts)))
        return Reranking([float(len(text)) for text in texts])


def installed(*kinds: str, **hooks: Handler) -> Installed:
    plugins = Installed()
    plugins.add("mask", {"match": {"kinds": list(kinds)}}, **hooks)
    return plugins


def refuses(call: Call) -> dict[str, Any]:
    return {"action": "refuse", "reason": "No names."}


def masks(call: Call) -> dict[str, Any]:
    return {"action": "replace", "texts": [text.replace("Ada", "#") for text in call["texts"]]}


@pytest.fixture
def lab(memory: Memory, tenant: str) -> Lab:
    return Lab(Desk(memory, tenant))


async def events(desk: Desk, call: str) -> list[Any]:
    return await desk.events("model_call", call)


async def test_texts_are_embedded_as_the_filter_leaves_them(lab: Lab) -> None:
    lab.models.calls.plugins = installed("embedding", before_invoke=masks)
    await lab.embed("Ada swims.", "Bo swims.")
    assert lab.vectorizer.asked == [("BAAI/bge-m3", ["# swims.", "Bo swims."])]
    [(call, end)] = await lab.calls()
    assert end == "completed"
    [filtered] = [each for each in await events(lab.desk, call.originator_id) if isinstance(each, ModelCall.Filtered)]
    assert [(run["hook"], run["changed"]) for run in filtered.plugins] == [("before_invoke", True)]
    assert filtered.original


async def test_a_refused_call_is_recorded_and_not_sent(lab: Lab) -> None:
    lab.models.calls.plugins = installed("embedding", before_invoke=refuses)
    with pytest.raises(ModelError) as refused:
        await lab.embed("Ada swims.")
    assert (refused.value.code, lab.vectorizer.asked) == ("plugin_refused", [])
    [(call, end)] = await lab.calls()
    assert (call.server, end) == ("", "failed")


async def test_a_filter_that_names_no_kinds_gets_none_of_them(lab: Lab) -> None:
    plugins = lab.models.calls.plugins = installed(before_invoke=refuses)
    assert len(await lab.embed("Ada swims.")) == 1
    assert plugins.asked == []


@pytest.mark.parametrize(
    "reply",
    [
        {"action": "replace", "texts": ["one"]},
        {"action": "replace", "texts": "one"},
        {"action": "replace", "texts": [1, 2]},
        {"action": "answer", "response": "x"},
    ],
)
async def test_a_reply_must_keep_the_number_of_texts(lab: Lab, reply: dict[str, Any]) -> None:
    lab.models.calls.plugins = installed("embedding", before_invoke=lambda call: reply)
    with pytest.raises(ModelError) as failed:
        await lab.embed("Ada swims.", "Bo swims.")
    assert failed.value.code == "plugin_failed"


async def test_the_error_of_a_call_is_a_hook(lab: Lab) -> None:
    plugins = lab.models.calls.plugins = installed("embedding", on_error=lambda call: {"action": "continue"})
    lab.vectorizer.error = ModelError("unauthorized", "The key is not known.")
    with pytest.raises(ModelError):
        await lab.embed("Ada swims.")
    [(_, hook, call)] = plugins.asked
    assert (hook, call["code"], call["kind"]) == ("on_error", "unauthorized", "embedding")


async def test_a_rerank_is_recorded_and_sent_as_the_filter_leaves_it(memory: Memory, tenant: str) -> None:
    desk, scorer = Desk(memory, tenant), Scorer()
    desk.calls.plugins = installed(
        "rerank", before_invoke=lambda call: {**masks(call), "query": call["query"].replace("Ada", "#")}
    )
    cause = Cause(Metadata(new_id(), tenant, new_id()), "message", new_id(), 1)
    course = choosing(desk.repository, scorer).of(tenant, "lab", "m", 10)
    scores = await desk.calls.rerank(cause, course, "Where is Ada?", ["s1", "s2"], ["Ada swims.", "Bo."])
    assert (scores, scorer.asked) == ([8.0, 3.0], [("Where is #?", ["# swims.", "Bo."])])
    [requested, *_] = await events(desk, cause.call("rerank"))
    assert requested.request == {"query": "Where is #?", "segments": ["s1", "s2"]}


async def test_a_transcription_is_as_the_filter_leaves_it(memory: Memory, tenant: str) -> None:
    studio = Studio(memory, tenant)
    await studio.opened()
    studio.desk.calls.plugins = installed(
        "transcription", after_invoke=lambda call: {"action": "replace", "response": call["response"].upper()}
    )
    commit = await studio.recording()
    await studio.hearing()(commit)
    last = await studio.last(commit)
    assert last.text == SAID.upper()
    [completed] = [each for each in await studio.call(last.model_call) if isinstance(each, ModelCall.Completed)]
    assert completed.response == SAID.upper()


async def test_a_text_is_spoken_as_the_filter_leaves_it(memory: Memory, tenant: str) -> None:
    studio = Studio(memory, tenant)
    await studio.opened()
    studio.desk.calls.plugins = installed(
        "speech", before_invoke=lambda call: {"action": "replace", "text": call["text"].replace("six", "#")}
    )
    commit = await studio.text()
    await studio.speaking()(commit)
    assert studio.asked[0][1] == SAID.replace("six", "#")
    [call] = (await studio.last(commit)).model_calls
    [requested, *_] = await studio.call(call)
    assert requested.request["text"] == SAID.replace("six", "#")
