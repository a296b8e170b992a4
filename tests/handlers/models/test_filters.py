"""Filters of plugins: what they do to a call is what is recorded and sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from domain.aggregate import Event, new_id
from domain.log import Metadata
from domain.models.model_call import ModelCall
from handlers.cause import Cause
from handlers.models.model_calls import Chat, ModelCalls
from handlers.models.prompt import Record, literal
from handlers.ports.filters import Check, Finding
from handlers.ports.models import Attachment, ChatMessage, ChatRequest, ModelError, ToolCall
from handlers.ports.plugins import PluginFailed
from tests.handlers.desk import Desk
from tests.handlers.fakes import Installed, Only, Speaker
from tests.memory import Memory

Call = Mapping[str, Any]
ASKED = [ChatMessage("system", "Be brief."), ChatMessage("user", "I am Ada.")]


class World:
    """A chat model behind filters."""

    def __init__(self, memory: Memory, tenant: str) -> None:
        self.desk = Desk(memory, tenant)
        self.plugins = Installed()
        self.calls = ModelCalls(self.desk.repository)
        self.calls.plugins = self.plugins
        self.model = Speaker("Hello Ada. ", "You are ", "well.")
        self.chat: Chat
        self.checked = ""

    def begin(self, messages: list[ChatMessage] = ASKED, noun: str = "message") -> Chat:
        id = new_id()
        cause = Cause(Metadata(new_id(), self.desk.tenant, id), noun, id, 1, app="the-app")
        record = Record([literal(each, {}) for each in messages], {})
        self.chat = self.calls.chat(cause, Only("lab", self.model), ChatRequest("m", messages, 64), record)
        return self.chat

    async def ask(self, messages: list[ChatMessage] = ASKED) -> list[str]:
        return [text async for text in self.begin(messages).texts()]

    async def events(self) -> list[Event]:
        return await self.desk.events("model_call", self.chat.id)

    async def runs(self) -> list[tuple[str, str, str, bool]]:
        return [
            (run["name"], run["hook"], run["action"], run["changed"])
            for event in await self.events()
            if isinstance(event, ModelCall.Filtered)
            for run in event.plugins
        ]


@pytest.fixture
def world(memory: Memory, tenant: str) -> World:
    return World(memory, tenant)


def masking(word: str, mark: str = "[name]") -> Callable[[Call], dict[str, Any]]:
    def before(call: Call) -> dict[str, Any]:
        messages = [{**each, "content": each["content"].replace(word, mark)} for each in call["messages"]]
        return {"action": "replace", "messages": messages}

    return before


def nothing(call: Call) -> None:
    return None


async def test_without_filters_nothing_is_recorded_of_them(world: World) -> None:
    assert await world.ask() == ["Hello Ada. ", "You are ", "well."]
    assert [event.TOPIC for event in await world.events()] == ["model_call.requested.v3", "model_call.completed.v5"]


async def test_what_is_recorded_is_what_is_sent(world: World) -> None:
    world.plugins.add("mask", before_invoke=masking("Ada"))
    await world.ask()
    requested, filtered, _ = await world.events()
    assert isinstance(requested, ModelCall.Requested)
    assert isinstance(filtered, ModelCall.Filtered)
    [sent] = world.model.asked
    assert [message.content for message in sent.messages] == ["Be brief.", "I am [name]."]
    assert [piece["text"] for message in requested.request["messages"] for piece in message["pieces"]] == [
        "Be brief.",
        "I am [name].",
    ]
    assert "Ada" not in str(requested.request)
    assert await world.runs() == [("mask", "before_invoke", "replace", True)]
    assert len(str(filtered.original)) == 64
    assert filtered.plugins[0]["version"] == "1.0.0"


async def test_a_filter_that_changes_nothing_leaves_the_record_as_it_is(world: World) -> None:
    world.plugins.add("mask", before_invoke=masking("Bo"))
    await world.ask()
    _, filtered, _ = await world.events()
    assert isinstance(filtered, ModelCall.Filtered)
    assert filtered.original is None
    assert await world.runs() == [("mask", "before_invoke", "replace", False)]


async def test_filters_run_in_order_and_after_it_in_reverse(world: World) -> None:
    for name, order in (("b", 0), ("a", 0), ("first", -1), ("last", 9)):
        world.plugins.add(name, {"order": order, "window": "whole"}, before_invoke=nothing, after_invoke=nothing)
    await world.ask()
    names = ["first", "a", "b", "last"]
    assert [name for name, hook, _ in world.plugins.asked if hook == "before_invoke"] == names
    assert [name for name, hook, _ in world.plugins.asked if hook == "after_invoke"] == names[::-1]


async def test_each_filter_gets_what_the_one_before_has_left(world: World) -> None:
    world.plugins.add("a", before_invoke=masking("Ada", "Bo"))
    world.plugins.add("b", before_invoke=masking("Bo", "Cy"))
    await world.ask()
    assert world.model.asked[0].messages[1].content == "I am Cy."


async def test_the_answer_is_held_back_by_sentences(world: World) -> None:
    world.plugins.add("mask", after_invoke=lambda call: {"action": "replace", "response": call["response"].upper()})
    assert await world.ask() == ["HELLO ADA. ", "YOU ARE WELL."]
    assert world.chat.said == "HELLO ADA. YOU ARE WELL."
    *_, completed, filtered = await world.events()
    assert isinstance(completed, ModelCall.Completed)
    assert isinstance(filtered, ModelCall.Filtered)
    assert completed.response == "HELLO ADA. YOU ARE WELL."
    assert filtered.original == hashlib.sha256(b"Hello Ada. You are well.").hexdigest()
    assert await world.runs() == [("mask", "after_invoke", "replace", True)]


async def test_a_filter_can_take_the_whole_answer(world: World) -> None:
    world.plugins.add("mask", {"window": "whole"}, after_invoke=nothing)
    assert await world.ask() == ["Hello Ada. You are well."]
    assert [call["last"] for *_, call in world.plugins.asked] == [True]


async def test_a_filter_can_answer_in_place_of_the_model(world: World) -> None:
    world.plugins.add("cache", before_invoke=lambda call: {"action": "answer", "response": "From the cache."})
    assert await world.ask() == ["From the cache."]
    assert world.model.asked == []
    requested, _, completed = await world.events()
    assert isinstance(requested, ModelCall.Requested)
    assert isinstance(completed, ModelCall.Completed)
    assert (requested.server, completed.response, completed.finish_reason) == ("", "From the cache.", "plugin")
    assert completed.usage["prompt_tokens"] == completed.usage["completion_tokens"] == 0
    assert await world.runs() == [("cache", "before_invoke", "answer", False)]


async def test_a_filter_can_refuse_a_call(world: World) -> None:
    world.plugins.add("guard", before_invoke=lambda call: {"action": "refuse", "reason": "Not on Sundays."})
    with pytest.raises(ModelError, match="guard refuses the call: Not on Sundays") as refused:
        await world.ask()
    assert refused.value.code == "plugin_refused"
    assert world.model.asked == []
    requested, _, failed = await world.events()
    assert isinstance(requested, ModelCall.Requested)
    assert isinstance(failed, ModelCall.Failed)
    assert (requested.server, failed.code) == ("", "plugin_refused")


async def test_a_filter_can_refuse_and_replace_an_answer(world: World) -> None:
    world.plugins.add("guard", after_invoke=lambda call: {"action": "answer", "response": "I may not say."})
    assert await world.ask() == ["I may not say."]
    assert world.chat.said == "I may not say."
    world.plugins = world.calls.plugins = Installed()
    world.plugins.add("guard", after_invoke=lambda call: {"action": "refuse"})
    with pytest.raises(ModelError) as refused:
        await world.ask()
    assert refused.value.code == "plugin_refused"
    *_, failed, filtered = await world.events()
    assert isinstance(failed, ModelCall.Failed)
    assert failed.response == ""
    assert isinstance(filtered, ModelCall.Filtered)


@pytest.mark.parametrize("hook", ["before_invoke", "after_invoke"])
async def test_a_closed_filter_that_fails_fails_the_call(world: World, hook: str) -> None:
    world.plugins.add("mask", **{hook: lambda call: PluginFailed("timeout", "It took longer than 2000 ms.")})
    with pytest.raises(ModelError, match=r"The plugin mask 1\.0\.0 did not handle") as failed:
        await world.ask()
    assert failed.value.code == "plugin_failed"
    assert len(world.model.asked) == (hook == "after_invoke")
    assert await world.runs() == [("mask", hook, "fail", False)]


async def test_an_open_filter_that_fails_is_left_out(world: World) -> None:
    world.plugins.add(
        "mask",
        {"on_failure": "open"},
        before_invoke=lambda call: PluginFailed("died", "It ended."),
        after_invoke=nothing,
    )
    assert "".join(await world.ask()) == "Hello Ada. You are well."
    assert ("mask", "before_invoke", "fail", False) in await world.runs()


@pytest.mark.parametrize(
    "reply",
    [
        {"action": "dance"},
        {},
        {"action": "replace", "messages": "none"},
        {"action": "replace", "messages": []},
        {"action": "replace", "messages": [{"role": "user"}]},
        {"action": "replace", "messages": [{"role": "tool", "content": "x"}]},
        {"action": "replace", "max_tokens": 10**6},
        {"action": "replace", "parameters": []},
        {"action": "replace", "passages": [1]},
    ],
)
async def test_a_reply_that_breaks_the_protocol_is_a_failure(world: World, reply: dict[str, Any]) -> None:
    world.plugins.add("mask", before_invoke=lambda call: {"action": None, **reply})
    with pytest.raises(ModelError, match="invalid_reply"):
        await world.ask()


async def test_filters_hear_of_errors(world: World) -> None:
    world.model = Speaker(ModelError("overloaded", "Busy."))
    world.plugins.add("log", on_error=nothing)
    with pytest.raises(ModelError, match="Busy"):
        await world.ask()
    [(_, _, call)] = world.plugins.asked
    assert (call["code"], call["provider"]) == ("overloaded", "lab")
    assert await world.runs() == [("log", "on_error", "continue", False)]


@pytest.mark.parametrize(
    ("match", "met"),
    [
        ({}, True),
        ({"kinds": ["chat"], "providers": ["lab", "x"], "models": ["m"], "apps": ["the-app"]}, True),
        ({"kinds": ["moderation"]}, False),
        ({"models": ["other"]}, False),
        ({"apps": ["other"]}, False),
    ],
)
async def test_a_filter_is_for_the_calls_that_it_matches(world: World, match: dict[str, Any], met: bool) -> None:
    world.plugins.add("mask", {"match": match}, before_invoke=nothing)
    await world.ask()
    assert bool(world.plugins.asked) == met


async def test_a_check_of_a_provider_meets_no_filter(world: World) -> None:
    world.plugins.add("mask", before_invoke=nothing)
    async for _ in world.begin(noun="provider").texts():
        pass
    assert world.plugins.asked == []


async def test_a_message_keeps_what_is_no_text(world: World) -> None:
    image = Attachment("image", "image/png", b"x", digest="d" * 64)
    call = ToolCall("1", "clock", "{}")
    messages = [
        ChatMessage("user", "Ada", (image,)),
        ChatMessage("assistant", "", tool_calls=(call,), state={"s": 1}),
        ChatMessage("tool", "Ada", tool_call_id="1"),
    ]
    world.plugins.add("mask", before_invoke=masking("Ada"))
    await world.ask(messages)
    sent = world.model.asked[0].messages
    assert sent == [each._replace(content=each.content.replace("Ada", "[name]")) for each in messages]


async def test_messages_can_be_added(world: World) -> None:
    def before(call: Call) -> dict[str, Any]:
        return {"action": "replace", "messages": [{"role": "system", "content": "Be kind."}, *call["messages"]]}

    world.plugins.add("kind", before_invoke=before)
    await world.ask()
    assert [each.content for each in world.model.asked[0].messages] == ["Be kind.", "Be brief.", "I am Ada."]


async def test_a_hook_gets_the_facts_of_the_call(world: World) -> None:
    world.plugins.add("see", before_invoke=nothing)
    await world.ask()
    [(_, _, call)] = world.plugins.asked
    assert {name: call[name] for name in ("id", "kind", "provider", "model", "app", "max_tokens")} == {
        "id": world.chat.id,
        "kind": "chat",
        "provider": "lab",
        "model": "m",
        "app": "the-app",
        "max_tokens": 64,
    }


# --- checks of messages ---------------------------------------------------------------------------------------------


async def check(world: World, **texts: str) -> Finding:
    id = new_id()
    cause = Cause(Metadata(new_id(), world.desk.tenant, id), "message", id, 1, app="the-app")
    world.checked = cause.call("moderation:0")
    return await world.calls.check_by_plugin(cause, "moderation:0", "guard", Check("the-app", "input", texts))


async def test_a_plugin_checks_texts_by_a_recorded_call(world: World) -> None:
    def mask(call: Call) -> dict[str, Any]:
        return {"action": "replace", "texts": {name: text.replace("Ada", "*") for name, text in call["texts"].items()}}

    world.plugins.add("guard", check=mask)
    assert await check(world, query="I am Ada.", other="Well") == Finding(True, {"query": "I am *."})
    requested, completed, filtered = await world.desk.events("model_call", world.checked)
    assert isinstance(requested, ModelCall.Requested)
    assert (requested.kind, requested.provider, requested.model) == ("moderation", "plugin", "guard")
    assert isinstance(completed, ModelCall.Completed)
    assert isinstance(filtered, ModelCall.Filtered)
    assert filtered.plugins[0]["changed"]


async def test_a_plugin_flags_texts(world: World) -> None:
    world.plugins.add("guard", check=lambda call: {"action": "refuse"})
    assert await check(world, query="x") == Finding(True)
    world.plugins.handlers["guard", "check"] = nothing
    assert await check(world, query="x") == Finding(False)


@pytest.mark.parametrize(("failure", "code"), [("timeout", "timeout"), ("died", "plugin_failed")])
async def test_a_check_that_fails_is_for_the_app_to_decide(world: World, failure: str, code: str) -> None:
    world.plugins.add("guard", {"on_failure": "open"}, check=lambda call: PluginFailed(failure, "It ended."))
    with pytest.raises(ModelError) as failed:
        await check(world, query="x")
    assert failed.value.code == code


async def test_a_plugin_that_is_not_enabled_checks_nothing(world: World) -> None:
    with pytest.raises(ModelError, match="has enabled no plugin guard"):
        await check(world, query="x")
