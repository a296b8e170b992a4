"""Recorded calls that are made again, on a real log, by the built-in model and by servers that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.models.extractive import Extractive
from adapters.models.registry import TenantModels
from adapters.models.server import Patience
from domain.aggregate import new_id
from domain.chat.app import settings
from domain.knowledge.retrieval import Retrieval
from domain.log import Metadata
from domain.models.model_call import ModelCall
from domain.models.piece import content
from domain.models.provider import Provider
from domain.models.replay import Replay
from handlers.cause import Cause
from handlers.models.model_calls import PARTIAL, ModelCalls
from handlers.models.prompt import Origin, build_prompt
from handlers.models.recorded import read
from handlers.models.replay import ReplayCall
from handlers.ports.index import Entry, Hit
from handlers.ports.models import ChatRequest
from handlers.retrieval.select import Selection, choose
from tests.chat_servers import LOOPBACK, Behaviour, breaks_off, faulty_server, floods, in_clear, provider, works
from tests.handlers.desk import Desk
from tests.handlers.fakes import choosing
from tests.memory import Memory

QUERY = "When does the sluice open?"
LONG = "The sluice opens at six.\n" + "It closes at dusk. " * 20


@dataclass
class Past:
    """An app with two configurations, and a call by which it answered `QUERY`."""

    app: str
    call: str
    request: ChatRequest


@pytest.fixture
def desk(memory: Memory, tenant: str) -> Desk:
    return Desk(memory, tenant)


@pytest.fixture
async def past(desk: Desk) -> Past:
    app = await desk.done("app.create", name="Guide")
    tone, season = {"name": "tone", "default": "calm"}, {"name": "season", "default": "summer"}
    await desk.done("app.configure", app=app, prompt="Be {{tone}}.", variables=[tone])
    message = await desk.done("message.send", app=app, query=QUERY, inputs={"tone": "stern"})
    await desk.done("app.configure", app=app, prompt="In {{season}} be {{tone}}!", variables=[tone, season])
    hits = [
        Hit("set", "doc", Entry("s1", 0, "Opening hours of the mill.", None, "The mill"), 0.9, 1),
        Hit("set", "doc", Entry("s2", 1, LONG, 3, "Sluice"), 0.8, 2, 1),
    ]
    prompt = build_prompt(
        instructions="Be {{tone}}.",
        inputs={"tone": "stern"},
        passages=hits,
        history={},
        query=QUERY,
        origin=Origin(app, 1, message, message),
        max_tokens=64,
        context_window=8192,
    )
    cause = Cause(Metadata(new_id(), desk.tenant, message), "message", message, 1)
    await retrieved(desk, cause, hits)
    await desk.calls.record_passages(cause, prompt.record.passages)
    sent = {"messages": prompt.record.messages, "max_tokens": 64, "parameters": {"seed": 7}}
    call = await desk.called(request=sent, cause=cause)
    passages = [f"{hit.entry.heading}\n\n{hit.entry.content}" for hit in hits]
    return Past(app, call, ChatRequest("extractive", prompt.messages, 64, {"seed": 7}, passages))


async def retrieved(desk: Desk, cause: Cause, hits: list[Hit]) -> None:
    """Record that the hits were found."""
    how = settings({"mode": "hybrid", "top_k": 4, "score_threshold": None})
    found = [Selection(hit, rank) for rank, hit in enumerate(hits, 1)]
    choose(found, how)
    retrieval = Retrieval.begin(
        Retrieval.Made,
        cause.call("retrieve"),
        datetime.now(UTC),
        query=QUERY,
        datasets=["set"],
        retrieval=how,
        cause_noun=cause.noun,
        cause_id=cause.id,
        attempt=cause.attempt,
        hits=[selection.candidate for selection in found],
        duration_ms=1.0,
    )
    await desk.repository.change(
        Retrieval, retrieval.id, Metadata(new_id(), desk.tenant, cause.id), lambda _: retrieval
    )


@asynccontextmanager
async def lab(desk: Desk, behaviour: Behaviour) -> AsyncIterator[ReplayCall]:
    """A handler that makes calls again where provider `lab` behaves like this."""
    async with faulty_server(behaviour) as server:

        async def registered(tenant: str, name: str) -> Provider | None:
            return provider(server.url) if name == "lab" else None

        models = TenantModels(registered, in_clear, LOOPBACK, Patience(first_token=2, between_tokens=2))
        yield ReplayCall(desk.repository, ModelCalls(desk.repository), choosing(desk.repository, models), desk.files)
        await models.close()


LAB = {"provider": "lab", "name": "small"}


async def played(desk: Desk, replaying: ReplayCall, **fields: Any) -> str:
    """A replay that was requested and made."""
    id = await desk.done("replay.request", **fields)
    await replaying((await desk.commits("replay", id))[-1])
    return id


async def last(desk: Desk, replay: str) -> Any:
    return (await desk.events("replay", replay))[-1]


async def call_of(desk: Desk, replay: str) -> tuple[ModelCall.Requested, ModelCall.Event]:
    """Return the request of the call of a replay, and its end."""
    requested, ended = await desk.events("model_call", (await last(desk, replay)).model_call)
    assert isinstance(requested, ModelCall.Requested)
    assert isinstance(ended, ModelCall.Event)
    return requested, ended


async def test_the_same_call_again_is_an_ordinary_call_with_the_same_answer(desk: Desk, past: Past) -> None:
    async with lab(desk, works) as replaying:
        id = await played(desk, replaying, call=past.call)
    assert isinstance(await last(desk, id), Replay.Completed)
    requested, completed = await call_of(desk, id)
    [original] = await desk.events("model_call", past.call)
    assert isinstance(original, ModelCall.Requested)
    assert requested.request["messages"] == original.request["messages"]
    assert (requested.cause_noun, requested.cause_id, requested.attempt) == ("replay", id, 1)
    assert isinstance(completed, ModelCall.Completed)
    assert completed.response == await Extractive().answer(past.request)
    assert "six" in completed.response
    [commit, _] = await desk.commits("model_call", (await last(desk, id)).model_call)
    assert commit.metadata.correlation == id


async def test_another_model_with_other_parameters(desk: Desk, past: Past) -> None:
    await desk.send("provider.register", name="lab", base_url="http://127.0.0.1:9/v1")
    async with lab(desk, works) as replaying:
        id = await played(desk, replaying, call=past.call, model=LAB, parameters={"top_p": 0.5}, max_tokens=9)
    requested, completed = await call_of(desk, id)
    assert (requested.provider, requested.model, requested.server[:10]) == ("lab", "small", "127.0.0.1:")
    assert requested.request["parameters"] == {"top_p": 0.5}
    assert requested.request["max_tokens"] == 9
    assert isinstance(completed, ModelCall.Completed)
    assert (completed.response, completed.usage["raw"]["total_tokens"]) == ("Fine.", 9)


async def test_the_instructions_of_another_configuration_are_filled_in_with_what_was_given_then(
    desk: Desk, past: Past
) -> None:
    async with lab(desk, works) as replaying:
        id = await played(desk, replaying, call=past.call, configuration=2)
    requested, _ = await call_of(desk, id)
    [system, question] = await read(desk.repository, desk.tenant, requested.request["messages"])
    assert content(system).startswith("In summer be stern!\n\n[1] doc")
    assert content(question) == QUERY
    texts = {piece.get("from"): piece["text"] for piece in system["pieces"]}
    assert texts["input"] == "stern"
    assert texts["segment"] == LONG


async def test_a_value_that_was_not_given(desk: Desk, past: Past) -> None:
    await desk.done("app.configure", app=past.app, prompt="{{x}}", variables=[{"name": "x", "required": True}])
    async with lab(desk, works) as replaying:
        failed = await last(desk, await played(desk, replaying, call=past.call, configuration=3))
    assert (failed.code, failed.model_call) == ("missing_input", None)


async def test_a_model_that_does_not_answer_and_another_try(desk: Desk, past: Past) -> None:
    await desk.send("provider.register", name="lab", base_url="http://127.0.0.1:9/v1")
    async with lab(desk, breaks_off) as replaying:
        id = await played(desk, replaying, call=past.call, model=LAB)
    assert isinstance(failed := await last(desk, id), Replay.Failed)
    _, ended = await call_of(desk, id)
    assert isinstance(ended, ModelCall.Failed)
    assert (failed.code, ended.code, ended.response) == ("broken_off", "broken_off", "Half of ")
    await desk.change("replay", id, lambda replay: replay.retry(datetime.now(UTC)))
    async with lab(desk, works) as replaying:
        await replaying((await desk.commits("replay", id))[-1])
    requested, ended = await call_of(desk, id)
    assert isinstance(ended, ModelCall.Completed)
    assert requested.attempt == 2


async def test_an_answer_that_is_too_large(desk: Desk, past: Past) -> None:
    await desk.send("provider.register", name="lab", base_url="http://127.0.0.1:9/v1")
    async with lab(desk, floods) as replaying:
        id = await played(desk, replaying, call=past.call, model=LAB)
    assert isinstance(failed := await last(desk, id), Replay.Failed)
    _, ended = await call_of(desk, id)
    assert isinstance(ended, ModelCall.Failed)
    assert (failed.code, ended.code, len(ended.response)) == ("too_large", "too_large", PARTIAL)


async def test_instructions_with_which_a_prompt_is_too_large(desk: Desk, past: Past) -> None:
    whole = {"name": "x", "default": "\x01" * 10_000}
    await desk.done("app.configure", app=past.app, prompt="{{x}} " * 700, variables=[whole])
    await desk.send("provider.register", name="lab", base_url="http://127.0.0.1:9/v1")
    async with lab(desk, works) as replaying:
        failed = await last(desk, await played(desk, replaying, call=past.call, model=LAB, configuration=3))
    assert (failed.code, failed.model_call) == ("too_large", None)


async def test_a_provider_that_is_gone(desk: Desk, past: Past) -> None:
    call = await desk.called(provider="mill", model="small")
    async with lab(desk, works) as replaying:
        failed = await last(desk, await played(desk, replaying, call=call))
    assert (failed.code, failed.model_call) == ("not_found", None)


async def test_what_was_erased_meanwhile(desk: Desk) -> None:
    id, call = new_id(), await desk.called(request={})
    replay = Replay.begin(
        Replay.Requested,
        id,
        datetime.now(UTC),
        call=call,
        provider="lab",
        model="m",
        max_tokens=1,
        parameters={},
        app=None,
        configuration=None,
    )
    await desk.repository.change(Replay, id, Metadata(new_id(), desk.tenant, id), lambda _: replay)
    async with lab(desk, works) as replaying:
        await replaying((await desk.commits("replay", id))[-1])
    assert (await last(desk, id)).code == "erased"


async def test_a_call_whose_worker_died_is_lost_and_made_again(desk: Desk, past: Past) -> None:
    id = await desk.done("replay.request", call=past.call)
    [commit] = await desk.commits("replay", id)
    cause = Cause(commit.metadata, "replay", id, 1)
    in_flight = await desk.called(cause=cause)
    async with lab(desk, works) as replaying:
        await replaying(commit)
    [_, lost] = await desk.events("model_call", in_flight)
    assert isinstance(lost, ModelCall.Failed)
    assert lost.code == "lost"
    requested, _ = await call_of(desk, id)
    assert requested.attempt == 2


async def test_a_call_that_completed_before_its_worker_died_is_not_made_again(desk: Desk, past: Past) -> None:
    async with lab(desk, works) as replaying:
        first = await played(desk, replaying, call=past.call)
        [_, completed] = await desk.events("model_call", (await last(desk, first)).model_call)
        assert isinstance(completed, ModelCall.Completed)
        id = await desk.done("replay.request", call=past.call)
        [commit] = await desk.commits("replay", id)
        call = await desk.called(cause=Cause(commit.metadata, "replay", id, 1))
        await desk.change(
            "model_call",
            call,
            lambda it: it.complete(
                datetime.now(UTC),
                response="Before.",
                finish_reason="stop",
                usage=completed.usage,
                first_token_ms=1.0,
                duration_ms=2.0,
            ),
        )
        await replaying(commit)
    assert (await last(desk, id)).model_call == call


async def test_a_commit_that_comes_again_changes_nothing(desk: Desk, past: Past) -> None:
    async with lab(desk, works) as replaying:
        id = await played(desk, replaying, call=past.call)
        before = await desk.commits("replay", id)
        await asyncio.gather(*(replaying(before[0]) for _ in range(2)))
    assert await desk.commits("replay", id) == before


async def test_two_workers_at_once_complete_it_once(desk: Desk, past: Past) -> None:
    async with lab(desk, works) as one, lab(Desk(desk.server, desk.tenant), works) as other:
        id = await desk.done("replay.request", call=past.call)
        [commit] = await desk.commits("replay", id)
        await asyncio.gather(one(commit), other(commit))
    assert await desk.types("replay", id) == ["replay.requested.v1", "replay.completed.v1"]
    _, ended = await call_of(desk, id)
    assert isinstance(ended, ModelCall.Completed)
