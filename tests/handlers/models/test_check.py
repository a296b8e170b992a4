"""Checks of providers whose models have some abilities and lie about others, on a log in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from adapters.models.listing import TenantListings
from adapters.models.registry import TenantModels
from adapters.models.server import Patience
from domain.log import Commit, commit_id
from domain.models.model import Model, model_id
from domain.models.model_call import ModelCall
from domain.models.provider import Provider
from handlers.models.check import MOST_LISTED, Check
from handlers.models.choose import Choose
from handlers.models.probes import CODE, PROBES, WORDS, picture
from handlers.ports.models import (
    Access,
    ChatModel,
    ChatRequest,
    ChatUsage,
    Delta,
    ListedModel,
    Listing,
    ModelError,
    ToolCall,
)
from tests.chat_servers import LOOPBACK, faulty_server, liar
from tests.handlers.desk import Desk
from tests.handlers.fakes import choosing
from tests.memory import Memory

COMPLETE = {"city": "Paris", "inhabitants": 2_100_000}

ALL = dict.fromkeys(("usage", "tools", "forced_tool", "schema", "image", "long_prompt"), True)


@dataclass
class Scripted:
    """A chat model with these abilities; `fails` are its errors by the ability that a request is for. `window` is the
    number of tokens to which it cuts prompts without a word."""

    lacks: frozenset[str] = frozenset()
    fails: dict[str, ModelError] = field(default_factory=dict)
    window: int = 1_000_000
    server: str = "127.0.0.1:1"
    asked: list[str] = field(default_factory=list)
    waits: Callable[[str], bool] = lambda ability: False

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        ability = wanted(request)
        self.asked.append(ability)
        if self.waits(ability):
            await asyncio.Event().wait()
        if ability in self.fails:
            raise self.fails[ability]
        able = ability not in self.lacks
        calls: list[ToolCall] = []
        text = "I am a model."
        prompt = len(request.messages[0].content.split())
        if ability == "tools" and able:
            calls = [ToolCall("c1", "get_weather", json.dumps({"city": "Paris"}))]
        elif ability == "forced_tool" and able:
            calls = [ToolCall("c1", "record_greeting", '{"text": "Hi"}')]
        elif ability == "schema" and able:
            text = json.dumps(COMPLETE)
        elif ability == "image" and able:
            text = "Yellow, blue."
        elif ability == "long_prompt" and prompt <= self.window:
            text = CODE
        if not calls:
            yield Delta(text)
        usage = None if "usage" in self.lacks else ChatUsage(min(prompt, self.window), 3)
        yield Delta(finish_reason="stop", usage=usage, tool_calls=calls)


def wanted(request: ChatRequest) -> str:
    """The ability that a request of a check is for."""
    if request.messages[0].attachments:
        return "image"
    if request.schema:
        return "schema"
    if request.tools:
        return "tools" if request.tool_choice == "auto" else "forced_tool"
    return "usage" if len(request.messages[0].content) < 1000 else "long_prompt"


@dataclass
class Lab:
    """A desk with the provider `lab`, whose server lists these models and serves this one."""

    desk: Desk
    model: Scripted = field(default_factory=Scripted)
    listings: dict[str, Listing | ModelError] = field(default_factory=dict)
    stated: dict[str, int] = field(default_factory=dict)

    async def get(self, tenant: str, provider: str, model: str | None = None) -> Any:
        return self.listings if model is None else [Access(self.model)]

    @property
    def choose(self) -> Choose[ChatModel]:
        return choosing(self.desk.repository, self)

    async def limits(self, tenant: str, provider: str) -> dict[str, int]:
        return self.stated

    async def register(self, **fields: Any) -> None:
        await self.desk.done("provider.register", name="lab", base_url="http://127.0.0.1:1/v1", **fields)

    async def check(self, **fields: Any) -> None:
        if fields:
            await self.desk.done("provider.check", provider="lab", **fields)
        await self.run()

    async def run(self) -> None:
        desk = self.desk
        await Check(desk.repository, desk.calls, self.choose, self, desk.files)(await self.last())

    async def last(self) -> Commit:
        commits = await self.desk.commits("provider", "lab")
        return [each for each in commits if isinstance(each.events[-1], Provider.CheckRequested)][-1]

    async def checked(self) -> Provider.Checked:
        last = (await self.desk.events("provider", "lab"))[-1]
        assert isinstance(last, Provider.Checked)
        return last

    async def known(self, name: str = "small") -> Model:
        model = await self.desk.fold("model", model_id("lab", name))
        assert isinstance(model, Model)
        return model

    async def measured(self, name: str = "small") -> tuple[dict[str, bool], int | None]:
        measured = (await self.known(name)).measured
        assert measured
        return measured["abilities"], measured["context_window"]

    async def calls(self) -> list[tuple[ModelCall.Requested, Any]]:
        memory = self.desk.server
        assert isinstance(memory, Memory)
        found = []
        for ability in (probe.ability for probe in PROBES):
            provider = await self.desk.fold("provider", "lab")
            assert isinstance(provider, Provider)
            for attempt in (1, 2):
                events = await self.desk.events(
                    "model_call", commit_id("lab", f"check:{provider.check}:{ability}:{attempt}")
                )
                if events:
                    assert isinstance(events[0], ModelCall.Requested)
                    found.append((events[0], events[-1]))
        return found


def listing(*models: ListedModel | str) -> Listing:
    listed = [ListedModel(each) if isinstance(each, str) else each for each in models]
    return Listing("127.0.0.1:1", listed, 12.5)


@pytest.fixture
def lab(memory: Memory, tenant: str) -> Lab:
    return Lab(Desk(memory, tenant), listings={"": listing("small")})


async def test_a_model_with_every_ability_is_measured_by_six_recorded_calls(lab: Lab) -> None:
    await lab.register()
    await lab.check()
    assert await lab.measured() == (ALL, None)
    assert lab.model.asked == [probe.ability for probe in PROBES]
    checked = await lab.checked()
    assert (checked.code, checked.reason, checked.model, checked.models) == (None, None, "small", 1)
    assert checked.latency_ms is not None
    calls = await lab.calls()
    assert len(calls) == 6
    for requested, ended in calls:
        assert (requested.cause_noun, requested.cause_id, requested.provider) == ("provider", "lab", "lab")
        assert isinstance(ended, ModelCall.Completed)
    [file] = [piece for piece in calls[4][0].request["messages"][0]["pieces"] if "file" in piece]
    assert await lab.desk.files.get(lab.desk.tenant, None, "file", file["file"]) == picture().data


@pytest.mark.parametrize("lacking", ["usage", "tools", "forced_tool", "schema", "image"])
async def test_an_ability_that_is_dropped_without_a_word_is_measured_as_absent(lab: Lab, lacking: str) -> None:
    lab.model.lacks = frozenset([lacking])
    await lab.register()
    await lab.check()
    assert await lab.measured() == ({**ALL, lacking: False}, None)


@pytest.mark.parametrize("code", ["bad_request", "unsupported", "not_found"])
async def test_an_ability_that_is_refused_is_absent(lab: Lab, code: str) -> None:
    lab.model.fails = {"image": ModelError(code, "I see nothing.")}
    await lab.register()
    await lab.check()
    assert await lab.measured() == ({**ALL, "image": False}, None)


@pytest.mark.parametrize("code", ["rate_limited", "timeout", "overloaded", "server_error"])
async def test_an_ability_whose_call_failed_for_another_reason_is_unknown(lab: Lab, code: str) -> None:
    lab.model.fails = {"tools": ModelError(code, "Later.")}
    await lab.register()
    await lab.check()
    assert await lab.measured() == ({name: able for name, able in ALL.items() if name != "tools"}, None)


async def test_a_cut_window_is_measured(lab: Lab) -> None:
    lab.model.window = 4096
    await lab.register()
    await lab.check()
    assert await lab.measured() == ({**ALL, "long_prompt": False}, 4096)
    assert (await lab.known()).facts["context_window"] == 4096


async def test_a_long_prompt_is_refused_honestly(lab: Lab) -> None:
    for code in ("context_length_exceeded", "truncated"):
        lab.model.fails = {"long_prompt": ModelError(code, "Too long.")}
        await lab.register()
        await lab.check()
        assert await lab.measured() == ({**ALL, "long_prompt": False}, None)


async def test_without_a_count_of_tokens_the_memory_of_the_model_tells(lab: Lab) -> None:
    lab.model.lacks = frozenset(["usage"])
    await lab.register()
    await lab.check()
    assert await lab.measured() == ({**ALL, "usage": False}, None)
    lab.model.window = WORDS // 2
    await lab.check(model="small")
    abilities, window = await lab.measured()
    assert ("long_prompt" in abilities, window) == (False, None)


async def test_a_tool_call_whose_arguments_are_no_object_is_none(lab: Lab) -> None:
    class Careless(Scripted):
        async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
            async for delta in super().stream(request):
                calls = [call._replace(arguments="{city: Paris}") for call in delta.tool_calls]
                yield Delta(delta.text, delta.finish_reason, delta.usage, tool_calls=calls)

    lab.model = Careless()
    await lab.register()
    await lab.check()
    assert await lab.measured() == ({**ALL, "tools": False, "forced_tool": False}, None)


async def test_a_model_that_does_not_answer_is_asked_once(lab: Lab) -> None:
    lab.model.fails = {"usage": ModelError("unauthorized", "The key was refused.")}
    await lab.register()
    await lab.check()
    checked = await lab.checked()
    assert (checked.code, checked.reason, checked.model) == ("unauthorized", "The key was refused.", "small")
    assert lab.model.asked == ["usage"]
    assert (await lab.known()).measured is None


async def test_no_model_of_several_costs_money_unasked(lab: Lab) -> None:
    lab.listings = {"": listing("small", "large", ListedModel("embed", "embedding"))}
    await lab.register()
    await lab.check()
    checked = await lab.checked()
    assert (checked.code, checked.model, checked.models, checked.latency_ms) == (None, None, 3, 12.5)
    assert lab.model.asked == []
    assert (await lab.known("embed")).facts["type"] == "embedding"
    await lab.check(model="large")
    assert (await lab.measured("large"))[0] == ALL
    assert (await lab.known()).measured is None


async def test_the_default_model_of_the_tenant_is_measured(lab: Lab) -> None:
    lab.listings = {"": listing("small", "large")}
    await lab.register(check=False)
    assert await lab.desk.types("provider", "lab") == ["provider.registered.v2"]
    await lab.desk.done("model.set_default", type="chat", provider="lab", model="large")
    await lab.register()
    await lab.check()
    assert (await lab.checked()).model == "large"


async def test_the_only_chat_model_next_to_others_is_measured(lab: Lab) -> None:
    lab.listings = {"": listing(ListedModel("small", "chat"), ListedModel("embed", "embedding"))}
    await lab.register()
    await lab.check()
    assert (await lab.checked()).model == "small"


async def test_what_the_server_lists_is_in_the_catalogue(lab: Lab) -> None:
    lab.listings = {"": listing(ListedModel("small", "chat", 32_768, 4096))}
    lab.stated = {"requests_per_minute": 60}
    await lab.register()
    await lab.check()
    facts = (await lab.known()).facts
    assert (facts["context_window"], facts["max_output"]) == (32_768, 4096)
    assert (await lab.checked()).limits == {"requests_per_minute": 60}


async def test_a_long_list_is_recorded_in_part(lab: Lab) -> None:
    lab.listings = {"": listing(*(f"model-{number}" for number in range(MOST_LISTED + 50)))}
    await lab.register()
    await lab.check()
    assert (await lab.checked()).models == MOST_LISTED + 50
    assert await lab.desk.commits("model", model_id("lab", f"model-{MOST_LISTED - 1}"))
    assert await lab.desk.commits("model", model_id("lab", f"model-{MOST_LISTED}")) == []


async def test_each_credential_is_tried(lab: Lab) -> None:
    refused = ModelError("unauthorized", "No.")
    lab.listings = {"default": refused, "spare": listing("small"), "gone": refused}
    await lab.register(key="bad")
    await lab.desk.done("provider.add_credential", provider="lab", name="spare", key="good")
    await lab.check(model="small")
    events = [each for each in await lab.desk.events("provider", "lab") if isinstance(each, Provider.CredentialChecked)]
    assert [(each.name, each.code) for each in events] == [("default", "unauthorized"), ("spare", None)]
    assert (await lab.checked()).code is None


async def test_a_server_without_a_list_is_measured_by_the_model_that_is_named(lab: Lab) -> None:
    lab.listings = {"": ModelError("not_found", "No list.")}
    await lab.register()
    await lab.check()
    checked = await lab.checked()
    assert (checked.code, checked.models, checked.model) == ("not_found", None, None)
    await lab.check(model="small")
    checked = await lab.checked()
    assert (checked.code, checked.models, checked.model) == (None, None, "small")
    assert (await lab.measured())[0] == ALL


async def test_a_server_that_is_away_fails_the_check_and_nothing_else(lab: Lab) -> None:
    lab.listings = {"": ModelError("unreachable", "Nothing listens there.")}
    await lab.register()
    await lab.check()
    assert (await lab.checked()).code == "unreachable"
    await lab.desk.done("model.set", provider="lab", model="small")


async def test_a_check_that_was_made_is_not_made_again(lab: Lab) -> None:
    await lab.register()
    await lab.check()
    commits = len(await lab.desk.commits("provider", "lab"))
    await lab.run()
    assert len(await lab.desk.commits("provider", "lab")) == commits
    assert len(lab.model.asked) == 6


async def test_a_check_that_is_superseded_records_no_end(lab: Lab) -> None:
    await lab.register()
    first = await lab.last()
    await lab.desk.done("provider.check", provider="lab", model="small")
    desk = lab.desk
    await Check(desk.repository, desk.calls, lab.choose, lab, desk.files)(first)
    assert lab.model.asked == []
    await lab.check()
    assert len([each for each in await desk.types("provider", "lab") if each == "provider.checked.v1"]) == 1


async def test_after_the_loss_of_a_worker_completed_calls_are_not_made_again(lab: Lab) -> None:
    await lab.register()
    lab.model.waits = lambda ability: ability == "schema"
    running = asyncio.create_task(lab.run())
    while "schema" not in lab.model.asked:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait((running,))
    lab.model.waits = lambda ability: False
    await lab.run()
    assert await lab.measured() == (ALL, None)
    assert lab.model.asked == ["usage", "tools", "forced_tool", "schema", "schema", "image", "long_prompt"]


async def test_a_check_that_takes_too_long_fails(lab: Lab) -> None:
    await lab.register()
    lab.model.waits = lambda ability: ability == "tools"
    desk = lab.desk
    await Check(desk.repository, desk.calls, lab.choose, lab, desk.files, limit_s=0.05)(await lab.last())
    assert (await lab.checked()).code == "timeout"
    assert isinstance((await lab.calls())[1][1], ModelCall.Cancelled)


async def test_a_check_ends_with_its_provider(lab: Lab) -> None:
    await lab.register()
    await lab.desk.done("provider.remove", provider="lab")
    await lab.check()
    assert await lab.desk.types("provider", "lab") == [
        "provider.registered.v2",
        "provider.check_requested.v1",
        "provider.removed.v1",
    ]
    assert lab.model.asked == []


async def test_a_server_that_lies_about_its_abilities_is_found_out(memory: Memory, tenant: str) -> None:
    desk = Desk(memory, tenant)
    async with faulty_server(liar) as server:
        await desk.done("provider.register", name="lab", base_url=server.url, key="sk-0123456789abcdef")

        async def registered(of: str, name: str) -> Provider | None:
            return await desk.repository.get(Provider, of, name)

        models = TenantModels(registered, desk.vault.open, LOOPBACK, Patience())
        check = Check(
            desk.repository, desk.calls, choosing(desk.repository, models), TenantListings(models.clients), desk.files
        )
        [commit] = await desk.commits("provider", "lab")
        await check(commit)
        await models.close()
    lab = Lab(desk)
    abilities, window = await lab.measured("liar")
    assert abilities == {
        "usage": True,
        "tools": False,
        "forced_tool": False,
        "schema": True,
        "image": False,
        "long_prompt": False,
    }
    assert window == 4096
    assert (await lab.known("liar")).facts["context_window"] == 4096
    checked = await lab.checked()
    assert (checked.code, checked.model, checked.models) == (None, "liar", 1)
    assert checked.limits == {"requests_per_minute": 600}
    assert len(server.requests) == 7
    assert {exchange.headers["authorization"] for exchange in server.requests} == {"Bearer sk-0123456789abcdef"}
