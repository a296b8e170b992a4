"""A call that is broken off at any moment is not left open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import cast

import orjson
import pytest

from domain.aggregate import Rejection, new_id
from domain.log import Metadata
from domain.models.model_call import ModelCall
from handlers.cause import Cause
from handlers.models.attachments import loaded, stored
from handlers.models.model_calls import MESSAGE_TOKENS, MOST_CALLS, PARTIAL, Chat, ModelCalls, beginning
from handlers.models.prompt import Record, likely, literal
from handlers.models.recorded import tools
from handlers.models.replay import ReplayCall
from handlers.ports.log import Unavailable
from handlers.ports.models import (
    Access,
    Attachment,
    ChatMessage,
    ChatModel,
    ChatRequest,
    ChatUsage,
    Delta,
    ModelError,
    Reranker,
    Tool,
    ToolCall,
)
from handlers.work.audit import named_blobs
from tests.handlers.desk import Desk
from tests.handlers.fakes import Only, choosing
from tests.memory import Memory

UNSAID = Record([], {})

ASKED = [ChatMessage("user", "Well?")]


class Echo:
    """A model that says one word and is done."""

    server = ""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        yield Delta("word", "stop")


async def drain(chat: Chat) -> None:
    async for _ in chat.texts():
        pass


@pytest.mark.parametrize("turns", range(1, 12))
async def test_a_call_that_is_cancelled_at_any_moment_has_an_end(memory: Memory, tenant: str, turns: int) -> None:
    desk, id = Desk(memory, tenant), new_id()
    cause = Cause(Metadata(new_id(), tenant, id), "message", id, 1)
    request = ChatRequest(model="m", messages=[], max_tokens=1, parameters={}, passages=[])
    chat = ModelCalls(desk.repository).chat(cause, Only("lab", Echo()), request, UNSAID)
    speaking = asyncio.create_task(drain(chat))
    for _ in range(turns):
        await asyncio.sleep(0)
    speaking.cancel()
    await asyncio.wait((speaking,))
    call = await desk.repository.get(ModelCall, tenant, chat.id)
    assert call is not None
    assert call.status in ("cancelled", "completed")
    assert speaking.cancelled() or chat.usage is not None


class Boaster(Echo):
    """A model whose server says much about itself."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        yield Delta("word", "stop", ChatUsage(1, 1, raw={"note": "x" * 9_000_000}))


async def test_an_end_that_is_too_large_is_a_failure_of_the_call(memory: Memory, tenant: str) -> None:
    desk, id = Desk(memory, tenant), new_id()
    cause = Cause(Metadata(new_id(), tenant, id), "message", id, 1)
    chat = ModelCalls(desk.repository).chat(cause, Only("lab", Boaster()), ChatRequest("m", [], 1), UNSAID)
    with pytest.raises(ModelError) as caught:
        await drain(chat)
    _, failed = await desk.events("model_call", chat.id)
    assert isinstance(failed, ModelCall.Failed)
    assert (failed.code, failed.response, failed.reason) == ("too_large", "word", caught.value.reason)


class Unheard(Echo):
    """A model that is asked, and whose worker ends before the answer is recorded."""

    def __init__(self) -> None:
        self.asked = 0

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        self.asked += 1
        yield Delta("word")
        raise Unavailable("NATS does not answer.")


async def test_a_call_that_is_never_recorded_is_not_made_without_end(memory: Memory, tenant: str) -> None:
    desk, id, model = Desk(memory, tenant), new_id(), Unheard()
    calls = ModelCalls(desk.repository)

    async def attempt(number: int, correlation: str) -> None:
        cause = await calls.take_over(Cause(Metadata(new_id(), tenant, correlation), "message", id, number), "chat")
        await drain(calls.chat(cause, Only("lab", model), ChatRequest("m", [], 1), UNSAID))

    for number in range(1, MOST_CALLS + 1):
        with pytest.raises(Unavailable):
            await attempt(number, id)
    with pytest.raises(ModelError, match="10 times") as caught:
        await attempt(MOST_CALLS + 1, id)
    assert (caught.value.code, model.asked) == ("lost", MOST_CALLS)
    assert (
        await desk.events("model_call", Cause(Metadata(id, tenant, id), "message", id, MOST_CALLS + 1).call("chat"))
        == []
    )
    with pytest.raises(Unavailable):  # a person asked again
        await attempt(MOST_CALLS + 2, new_id())


async def test_a_query_that_is_too_large_is_not_reranked(memory: Memory, tenant: str) -> None:
    desk, id = Desk(memory, tenant), new_id()
    cause = Cause(Metadata(new_id(), tenant, id), "message", id, 1)
    reranker = cast("Reranker", Echo())
    with pytest.raises(ModelError) as caught:
        await ModelCalls(desk.repository).rerank(cause, Only("lab", reranker), "x" * 9_000_000, ["s"], ["text"])
    assert caught.value.code == "too_large"
    assert await desk.events("model_call", cause.call("rerank")) == []


def test_the_beginning_of_an_answer_ends_at_a_character() -> None:
    assert beginning("short") == "short"
    assert beginning("x" * PARTIAL + "y") == "x" * PARTIAL
    assert beginning("a" + "水" * PARTIAL) == "a" + "水" * ((PARTIAL - 1) // 3)


class Slow(Echo):
    """A model that says two words, and then nothing, or that it has failed."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        yield Delta("two words")
        if self.fails:
            raise ModelError("broken_off", "It broke off.")
        await asyncio.Event().wait()


async def spent(desk: Desk, model: Echo, *, stop: bool = False) -> int:
    """The tokens that a call of 10 tokens has counted for its app."""
    await desk.done("limits.set", quantity="tokens", period="day", scope="key", most=10**6)
    cause = Cause(Metadata(new_id(), desk.tenant, new_id(), actor="k_1"), "message", new_id(), 1)
    chat = desk.calls.chat(cause, Only("lab", model), ChatRequest("m", ASKED, 1), UNSAID)
    assert isinstance(desk.server, Memory)
    before = sum(desk.server.counters.values())
    async with aclosing(chat.texts()) as texts:
        with suppress(ModelError):
            async for _ in texts:
                if stop:
                    break
    return sum(desk.server.counters.values()) - before


class Counting(Echo):
    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        yield Delta("word", "stop", ChatUsage(100, 7))


class Refusing(Echo):
    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        raise ModelError("refused", "No.")
        yield Delta()


async def test_the_tokens_of_a_call_are_counted_or_estimated_when_it_did_not_end(memory: Memory, tenant: str) -> None:
    desk = Desk(memory, tenant)
    assert await spent(desk, Counting()) == 107
    estimated = likely("Well?") + MESSAGE_TOKENS + likely("two words")
    assert await spent(desk, Slow(), stop=True) == estimated
    assert await spent(desk, Slow(fails=True)) == estimated
    assert await spent(desk, Refusing()) == 0


class Thinking(Echo):
    """A model that thinks, says two words, and then nothing, or that it has failed."""

    def __init__(self, *, usage: ChatUsage | None = None, end: str = "") -> None:
        self.usage = usage
        self.end = end

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        yield Delta(reasoning="Let me see. ")
        yield Delta(reasoning="I see.")
        if self.end == "early":
            raise ModelError("broken_off", "It broke off.")
        yield Delta("two words", usage=self.usage)
        if self.end == "failed":
            raise ModelError("broken_off", "It broke off.")
        if self.end != "stop":
            await asyncio.Event().wait()
        yield Delta(finish_reason="stop")


THOUGHT = likely("Let me see. I see.")


@pytest.mark.parametrize("end", ["", "early", "failed", "stop"])
@pytest.mark.parametrize("usage", [None, ChatUsage(11, 222, reasoning_tokens=200)])
async def test_reasoning_is_recorded_and_counted_however_a_call_ends(
    memory: Memory, tenant: str, end: str, usage: ChatUsage | None
) -> None:
    desk, id = Desk(memory, tenant), new_id()
    cause = Cause(Metadata(new_id(), tenant, id), "message", id, 1)
    chat = desk.calls.chat(cause, Only("lab", Thinking(usage=usage, end=end)), ChatRequest("m", ASKED, 1), UNSAID)
    said = ""
    async with aclosing(chat.texts()) as texts:
        with suppress(ModelError):
            async for text in texts:
                said += text
                if not end:
                    break
    _, ended = await desk.events("model_call", chat.id)
    expected = {"": ModelCall.Cancelled, "stop": ModelCall.Completed}.get(end, ModelCall.Failed)
    assert isinstance(ended, expected)
    assert isinstance(ended, ModelCall.Cancelled | ModelCall.Completed | ModelCall.Failed)
    assert (ended.reasoning, ended.response) == ("Let me see. I see.", said)
    assert said == ("" if end == "early" else "two words")
    assert ended.usage is not None
    counted = ended.usage["prompt_tokens"], ended.usage["completion_tokens"], ended.usage["reasoning_tokens"]
    if usage and said:
        assert counted == (11, 222, 200)
    else:
        assert counted == (likely("Well?") + MESSAGE_TOKENS, likely(said) + THOUGHT, THOUGHT)
    assert ended.usage["estimated"] == (not (usage and said))


async def test_a_call_to_which_nothing_came_has_no_tokens(memory: Memory, tenant: str) -> None:
    desk, id = Desk(memory, tenant), new_id()
    cause = Cause(Metadata(new_id(), tenant, id), "message", id, 1)
    chat = desk.calls.chat(cause, Only("lab", Refusing()), ChatRequest("m", ASKED, 1), UNSAID)
    with pytest.raises(ModelError):
        await drain(chat)
    _, ended = await desk.events("model_call", chat.id)
    assert isinstance(ended, ModelCall.Failed)
    assert ended.usage is None


async def test_a_call_that_is_not_repeated_is_not_counted_again(memory: Memory, tenant: str) -> None:
    desk = Desk(memory, tenant)
    await desk.done("limits.set", quantity="tokens", period="day", most=10**6)
    cause = Cause(Metadata(new_id(), tenant, new_id()), "message", new_id(), 1)
    for attempt in (1, 2):
        cause = await desk.calls.take_over(replace(cause, attempt=attempt), "chat")
        await drain(desk.calls.chat(cause, Only("lab", Counting()), ChatRequest("m", [], 1), UNSAID))
    assert sum(memory.counters.values()) == 107


ASKS = ToolCall("call_1", "tide", '{"lock": "Mill"}')


class Sees(Echo):
    """A model that asks for a tool; `asked` are the requests that it got."""

    def __init__(self) -> None:
        self.asked: list[ChatRequest] = []

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        self.asked.append(request)
        yield Delta("Look: ")
        yield Delta(
            finish_reason="tool_calls",
            tool_calls=[ASKS],
            state={"signature": "c2ln"},
            logprobs=[{"token": "Look", "logprob": -0.1}],
        )


PICTURE = Attachment("image", "image/png", b"\x89PNG picture", "gate.png", "low")
TIDE = Tool("tide", "The tide at a lock.", {"type": "object", "properties": {"lock": {"type": "string"}}})


@pytest.mark.parametrize("person", [None, "p"])
async def test_files_and_tools_are_recorded_once_and_sent_again_by_a_replay(
    memory: Memory, tenant: str, person: str | None
) -> None:
    desk, model = Desk(memory, tenant), Sees()
    name = person and await desk.keys.person(tenant, person)
    cause = Cause(Metadata(new_id(), tenant, new_id(), person=name), "message", new_id(), 1)
    picture = await stored(desk.files, tenant, name, PICTURE)
    messages = [
        ChatMessage("user", "Is it open?", (picture,)),
        ChatMessage("assistant", "", tool_calls=(ToolCall("call_0", "tide", "{}"),), state={"signature": "YQ"}),
        ChatMessage("tool", "High.", tool_call_id="call_0"),
    ]
    schema = {"type": "object"}
    request = ChatRequest("m", messages, 9, {}, [], [TIDE], "required", schema=schema, context_window=4096)
    record = Record([literal(message, {}) for message in messages], {})
    chat = desk.calls.chat(cause, Only("lab", model), request, record)
    await drain(chat)
    assert (list(chat.tool_calls), chat.state) == ([ASKS], {"signature": "c2ln"})

    requested, completed = await desk.events("model_call", chat.id)
    assert isinstance(requested, ModelCall.Requested)
    assert isinstance(completed, ModelCall.Completed)
    assert completed.tool_calls == [ASKS._asdict()]
    assert (completed.state, completed.logprobs) == ({"signature": "c2ln"}, [{"token": "Look", "logprob": -0.1}])
    assert b"PNG" not in orjson.dumps(requested.request)
    assert requested.request["messages"][0]["pieces"][1] == {
        "file": picture.digest,
        "kind": "image",
        "media_type": "image/png",
        "name": "gate.png",
        "detail": "low",
    }
    assert (memory.blobs[tenant, picture.digest] == PICTURE.data) == (person is None)
    assert named_blobs(requested) == [("file", picture.digest)]

    again = await calls_again(desk, model, chat.id)
    assert model.asked[1] == replace(request, model="m", passages=[])
    assert again.request | {"max_tokens": 9} == requested.request
    taken = await desk.calls.take_over(replace(cause, attempt=2), "chat")
    same = desk.calls.chat(taken, Only("lab", model), request, record)
    await drain(same)
    assert (same.id, same.tool_calls, same.state) == (chat.id, chat.tool_calls, chat.state)


async def calls_again(desk: Desk, model: ChatModel, call: str) -> ModelCall.Requested:
    """The request of a replay of the call."""

    class Models:
        async def get(self, tenant: str, provider: str, name: str) -> Sequence[Access[ChatModel]]:
            return [Access(model)]

    id = await desk.done("replay.request", call=call)
    [commit] = await desk.commits("replay", id)
    await ReplayCall(desk.repository, desk.calls, choosing(desk.repository, Models()), desk.files)(commit)
    [made, _] = await desk.events("model_call", Cause(commit.metadata, "replay", id, 1).call("chat"))
    assert isinstance(made, ModelCall.Requested)
    return made


async def test_a_file_and_a_list_of_tools_that_are_gone_are_erased(memory: Memory, tenant: str) -> None:
    desk = Desk(memory, tenant)
    person = await desk.keys.person(tenant, "ada")
    picture = await stored(desk.files, tenant, person, PICTURE)
    [piece] = literal(ChatMessage("user", "", [picture]), {})["pieces"]
    assert await loaded(desk.files, tenant, person, piece) == picture
    await desk.keys.erase(tenant, person)
    with pytest.raises(Rejection, match=picture.digest) as caught:
        await loaded(desk.files, tenant, person, piece)
    assert caught.value.code == "erased"
    with pytest.raises(Rejection, match="passage/gone"):
        await tools(desk.repository, tenant, {"tools": "passage/gone"})


async def test_a_file_that_is_not_stored_is_not_recorded() -> None:
    with pytest.raises(ValueError, match=r"gate\.png"):
        literal(ChatMessage("user", "", [PICTURE]), {})
