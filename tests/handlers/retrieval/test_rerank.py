"""Reranked hits, and the recorded calls, with the reranker of a provider."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest
from nats.aio.client import Client

from adapters.model_files import model_name
from adapters.models.kinds import RERANKERS
from adapters.models.registry import OfProviders, TenantRerankers
from adapters.models.server import Patience
from domain.aggregate import new_id
from domain.chat.app import RerankSettings
from domain.log import Metadata
from domain.models.model_call import ModelCall
from domain.models.provider import Provider
from handlers.cause import Cause
from handlers.models.model_calls import ModelCalls
from handlers.ports.index import Entry, Hit
from handlers.retrieval.rerank import Rerank, text_of
from tests.chat_servers import LOOPBACK, Exchange, fails, faulty_server, hangs, in_clear, provider
from tests.handlers.desk import Desk
from tests.handlers.fakes import choosing
from tests.memory import Memory

QUERY = "At what pressure does the Larkspur valve open?"
BUILTIN = RerankSettings(provider="builtin", model=None, top_n=3)
LAB = RerankSettings(provider="lab", model="tiny", top_n=50)
PATIENCE = Patience(connect=2, first_token=5, total=5)


def hit(id: str, content: str, heading: str | None = None, answer: str | None = None) -> Hit:
    return Hit("set", "doc", Entry(id, 3, content, 2, heading, answer=answer), 0.5, 1)


HITS = [
    hit("weir", "The weir was built of stone in 1824."),
    hit("cows", "Cows graze."),
    hit("valve", "It opens at a pressure of 4.2 bar.", "The Larkspur valve"),
    hit("last", QUERY),
]


class Library:
    """A library for reranking, with or without a provider `lab` at this address."""

    def __init__(self, server: Memory | Client, tenant: str, model: str, url: str = "") -> None:
        self.desk = Desk(server, tenant)
        self.cause = Cause(Metadata(new_id(), tenant, new_id()), "message", new_id(), 1)

        async def registered(of: str, name: str) -> Provider | None:
            return provider(url, "key") if url and (of, name) == (tenant, "lab") else None

        self.providers = OfProviders(RERANKERS, "rerankers", registered, in_clear, LOOPBACK, PATIENCE)
        rerankers = TenantRerankers(cast("Client", server), model, self.providers)
        choose = replace(choosing(self.desk.repository, rerankers), tries=2)
        self.rerank = Rerank(ModelCalls(self.desk.repository), choose, model_name(model) if model else "")

    async def recorded(self, number: int = 1) -> tuple[ModelCall.Requested, ModelCall.Event]:
        requested, ended = await self.desk.events("model_call", self.cause.call("rerank", number=number))
        assert isinstance(requested, ModelCall.Requested)
        assert isinstance(ended, ModelCall.Event)
        return requested, ended


async def test_a_providers_reranker_is_asked_and_equals_stay_in_their_order(memory: Memory, tenant: str) -> None:
    async def scores(exchange: Exchange) -> None:
        assert exchange.body["documents"][2] == "The Larkspur valve\n\nIt opens at a pressure of 4.2 bar."
        results = [{"index": index, "relevance_score": score} for index, score in enumerate((0.1, 0.7, 0.7, 0.9))]
        await exchange.answer(200, {"results": results})

    async with faulty_server(scores) as server:
        library = Library(memory, tenant, "", server.url)
        reranked = await library.rerank(library.cause, LAB, QUERY, HITS)
        await library.providers.close()
    assert [each.id for each in reranked.hits] == ["last", "cows", "valve", "weir"]
    requested, completed = await library.recorded()
    assert f"//{requested.server}/" in server.url
    assert isinstance(completed, ModelCall.Completed)
    assert completed.usage["estimated"]
    assert completed.usage["prompt_tokens"] > 40


async def test_hits_stay_as_they_were_when_the_reranker_fails_and_the_record_says_so(
    memory: Memory, tenant: str
) -> None:
    async with faulty_server(fails) as server:
        library = Library(memory, tenant, "", server.url)
        reranked = await library.rerank(library.cause, LAB, QUERY, HITS)
        await library.providers.close()
    assert (reranked.hits, reranked.code) == (HITS, "server_error")
    assert "failed (500)" in str(reranked.reason)
    requested, failed = await library.recorded()
    assert isinstance(failed, ModelCall.Failed)
    assert (requested.route, failed.code) == (None, "server_error")
    again, failed = await library.recorded(2)
    assert again.route == {"name": "", "try": 2, "after": {"call": requested.originator_id, "code": "server_error"}}
    assert await library.desk.events("model_call", library.cause.call("rerank", number=3)) == []


@pytest.mark.parametrize(
    ("model", "how"),
    [
        ("", BUILTIN),
        ("", LAB),
        ("some/model", RerankSettings(provider="builtin", model="another", top_n=3)),
        ("some/model", RerankSettings(provider="other", model="tiny", top_n=3)),
    ],
)
async def test_a_reranker_that_is_none_is_not_called(
    memory: Memory, tenant: str, model: str, how: RerankSettings
) -> None:
    library = Library(memory, tenant, model)
    reranked = await library.rerank(library.cause, how, QUERY, HITS)
    assert (reranked.hits, reranked.code) == (HITS, "not_found")
    assert await library.desk.events("model_call", library.cause.call("rerank")) == []


async def test_a_call_that_is_cancelled_has_an_end(memory: Memory, tenant: str) -> None:
    async with faulty_server(hangs) as server:
        library = Library(memory, tenant, "", server.url)
        task = asyncio.create_task(library.rerank(library.cause, LAB, QUERY, HITS))
        await server.asked.wait()
        task.cancel()
        await asyncio.wait((task,))
        await library.providers.close()
    _, cancelled = await library.recorded()
    assert isinstance(cancelled, ModelCall.Cancelled)


async def test_all_tries_together_have_a_limit_of_time(memory: Memory, tenant: str) -> None:
    async with faulty_server(hangs) as server:
        library = Library(memory, tenant, "", server.url)
        choose = replace(choosing(library.desk.repository, library.providers), tries=2)
        reranked = await Rerank(ModelCalls(library.desk.repository), choose, limit_s=0.3)(
            library.cause, LAB, QUERY, HITS
        )
        await library.providers.close()
    assert (reranked.hits, reranked.code) == (HITS, "timeout")
    _, cancelled = await library.recorded()
    assert isinstance(cancelled, ModelCall.Cancelled)


def test_a_question_is_read_with_its_answer() -> None:
    assert text_of(hit("q", "When?", "Hours", "At six.").entry) == "Hours\n\nWhen?\n\nAt six."
