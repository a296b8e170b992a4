"""The models that a call is tried with, one after the other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from adapters.models.circuit import LocalOutages
from domain.aggregate import new_id
from domain.chat.app import ModelSettings
from domain.log import Metadata
from domain.models.model_call import ModelCall
from handlers.cause import Cause
from handlers.models.choose import MOST_TRIES, TRIES, Choose, Known
from handlers.models.grants import Grants
from handlers.models.model_calls import Chat, ModelCalls
from handlers.models.prompt import Record, likely
from handlers.models.rates import Rate
from handlers.ports.models import Access, ChatMessage, ChatModel, ChatRequest, Delta, ModelError, Rest, Tool
from tests.handlers.desk import Desk
from tests.memory import Memory, MemoryCounters


class Server:
    """A model that fails in turn with these errors, and then answers; an error in a pair comes after a word."""

    def __init__(self, name: str, *errors: ModelError | tuple[str, ModelError]) -> None:
        self.server = name
        self.errors = list(errors)
        self.calls = 0
        self.asked: list[ChatRequest] = []
        self.waits: asyncio.Event | None = None

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        self.calls += 1
        self.asked.append(request)
        if self.waits:
            await self.waits.wait()
        if self.errors:
            error = self.errors.pop(0)
            if isinstance(error, tuple):
                yield Delta(error[0])
                raise error[1]
            raise error
        yield Delta(self.server, "stop")


@dataclass
class Lab:
    """Models by provider and name, and what is known of them."""

    desk: Desk
    ways: dict[tuple[str, str], list[Access]] = field(default_factory=dict)
    facts: dict[tuple[str, str], Known] = field(default_factory=dict)
    at: float = 1000.0
    draws: float = 0.0

    def __post_init__(self) -> None:
        self.outages = LocalOutages()
        self.choose = Choose(
            self.desk.repository,
            self,
            self.outages,
            self,
            MemoryCounters(self.desk.server),
            now=lambda: self.at,
            draw=lambda: self.draws - 0.5,
            held_s=0,
        )

    def add(self, name: str, *errors: ModelError | tuple[str, ModelError], key: str = "", **rest: Any) -> Server:
        """A model by `provider/model`."""
        provider, _, model = name.partition("/")
        server = Server(f"{name}{key}", *errors)
        self.ways.setdefault((provider, model), []).append(Access(server, key, **rest))
        return server

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[ChatModel]]:
        if (provider, model) not in self.ways:
            raise ModelError("not_found", f"No provider {provider!r} is registered.")
        return self.ways[provider, model]

    async def known(self, tenant: str, provider: str, model: str) -> Known:
        return self.facts.get((provider, model), Known())

    async def route(self, *groups: Sequence[str] | tuple[str, Sequence[str]], **settings: Any) -> None:
        """Configure the route `fast`; a group is a list of `provider/model`, or such a list after its strategy."""
        for provider in {name.partition("/")[0] for name in self._names(groups)}:
            await self.desk.send("provider.register", name=provider, base_url="https://lab.example/v1")
        await self.desk.done(
            "route.configure",
            name="fast",
            groups=[
                {
                    "strategy": group[0] if isinstance(group, tuple) else "weighted",
                    "members": [
                        dict(zip(("provider", "name"), name.split("/"), strict=True))
                        for name in (group[1] if isinstance(group, tuple) else group)
                    ],
                }
                for group in groups
            ],
            **settings,
        )

    @staticmethod
    def _names(groups: Any) -> list[str]:
        return [name for group in groups for name in (group[1] if isinstance(group, tuple) else group)]

    async def ask(self, model: str = "", **fields: Any) -> Chat:
        """A call through the route, or of one model; its answer, or its error, is awaited by the caller."""
        provider, _, name = model.partition("/")
        settings = ModelSettings(provider=provider, name=name, max_tokens=8, context_window=64, parameters={})
        if not model:
            settings["route"] = "fast"
        id = new_id()
        cause = Cause(Metadata(id, self.desk.tenant, id), "message", id, 1)
        request = ChatRequest("", [ChatMessage("user", "Well?")], 8, **fields)
        chat = self.desk.calls.chat(cause, self.choose(self.desk.tenant, settings, request), request, Record([], {}))
        async for _ in chat.texts():
            pass
        return chat

    async def tries(self, chat: Chat) -> list[tuple[str, str]]:
        """The server and the end of each recorded try; each names the one before."""
        found: list[tuple[str, str]] = []
        before: str | None = None
        for number in range(1, chat.number + 1):
            id = chat.cause.call("chat", number=number)
            events = await self.desk.events("model_call", id)
            requested, ended = (each for each in events if not isinstance(each, ModelCall.Reserved | ModelCall.Charged))
            assert isinstance(requested, ModelCall.Requested)
            after = requested.route and requested.route["after"]
            assert (after["call"] if after else None) == before
            if after:
                assert requested.route == {"name": requested.route["name"], "try": number, "after": after}  # type: ignore[index]
                assert after["code"] == found[-1][1]
            found.append((requested.server, getattr(ended, "code", "answered")))
            before = id
        return found


def error(code: str, *, passing: bool = False, pause_s: float | None = None) -> ModelError:
    return ModelError(code, f"It says {code}.", passing=passing, pause_s=pause_s)


LIMITED = error("rate_limited", passing=True)
DOWN = error("unreachable", passing=True)


@pytest.fixture
def lab(memory: Memory, tenant: str) -> Lab:
    return Lab(Desk(memory, tenant))


async def test_without_a_route_a_passing_fault_is_tried_again_and_each_try_is_recorded(lab: Lab) -> None:
    server = lab.add("lab/small", DOWN, DOWN)
    chat = await lab.ask("lab/small")
    assert chat.said == "lab/small"
    assert await lab.tries(chat) == [("lab/small", "unreachable")] * 2 + [("lab/small", "answered")]
    assert server.calls == TRIES


async def test_without_a_route_tries_end(lab: Lab) -> None:
    server = lab.add("lab/small", *[DOWN] * 9)
    with pytest.raises(ModelError, match="It says unreachable"):
        await lab.ask("lab/small")
    assert server.calls == TRIES


@pytest.mark.parametrize("code", ["bad_request", "content_filter", "too_large", "no_such_code"])
async def test_a_fault_of_the_request_is_not_tried_with_another_model(lab: Lab, code: str) -> None:
    lab.add("lab/small", error(code))
    other = lab.add("cloud/small")
    await lab.route(["lab/small"], ["cloud/small"])
    with pytest.raises(ModelError, match=code):
        await lab.ask()
    assert other.calls == 0


@pytest.mark.parametrize(
    "code",
    [
        *("rate_limited", "overloaded", "unreachable", "timeout", "server_error", "broken_off"),
        *("provider_unavailable", "unauthorized", "payment_required", "not_found", "unsupported"),
    ],
)
async def test_a_fault_of_the_server_is_tried_with_the_next_group(lab: Lab, code: str) -> None:
    lab.add("lab/small", error(code))
    lab.add("cloud/small")
    await lab.route(["lab/small"], ["cloud/small"])
    chat = await lab.ask()
    assert await lab.tries(chat) == [("lab/small", code), ("cloud/small", "answered")]
    requested, _ = await lab.desk.events("model_call", chat.id)
    assert isinstance(requested, ModelCall.Requested)
    assert (requested.provider, requested.model) == ("cloud", "small")


async def test_a_route_may_react_otherwise(lab: Lab) -> None:
    lab.add("lab/small", error("bad_request"))
    lab.add("cloud/small")
    await lab.route(["lab/small"], ["cloud/small"], reactions={"bad_request": "next", "unreachable": "stop"})
    assert (await lab.ask()).said == "cloud/small"
    lab.ways["lab", "small"] = [Access(Server("small", error("unreachable")))]
    with pytest.raises(ModelError, match="unreachable"):
        await lab.ask()


@pytest.mark.parametrize("code", ["context_length_exceeded", "truncated"])
async def test_a_prompt_that_is_too_long_goes_to_a_larger_window(lab: Lab, code: str) -> None:
    lab.add("lab/small", error(code))
    same, larger = lab.add("lab/same"), lab.add("lab/large")
    lab.facts = {("lab", "small"): Known(4096), ("lab", "same"): Known(4096), ("lab", "large"): Known(32768)}
    await lab.route(["lab/small"], ["lab/same"], ["lab/large"])
    assert (await lab.ask()).said == "lab/large"
    assert (same.calls, larger.calls) == (0, 1)


async def test_a_model_whose_window_or_abilities_do_not_do_is_not_called(lab: Lab) -> None:
    narrow, deaf = lab.add("lab/narrow"), lab.add("lab/deaf")
    lab.add("lab/able")
    lab.facts = {
        ("lab", "narrow"): Known(8 + likely("Well?") - 1),
        ("lab", "deaf"): Known(abilities={"tools": False, "schema": True}),
        ("lab", "able"): Known(8 + likely("Well?"), abilities={"tools": None}),
    }
    await lab.route(["lab/narrow", "lab/deaf"], ["lab/able"])
    assert (await lab.ask(tools=[Tool("tide", "The tide.", {})])).said == "lab/able"
    assert (narrow.calls, deaf.calls) == (0, 0)
    with pytest.raises(ModelError, match="measured to lack tools"):
        await lab.ask("lab/deaf", tools=[Tool("tide", "The tide.", {})])
    assert deaf.calls == 0


async def test_another_key_is_tried_before_the_next_group_and_a_refused_one_rests(lab: Lab) -> None:
    first = lab.add("cloud/small", LIMITED, key="a")
    lab.add("cloud/small", key="b")
    lab.add("lab/small")
    await lab.route(["cloud/small"], ["lab/small"])
    chat = await lab.ask()
    assert await lab.tries(chat) == [("cloud/smalla", "rate_limited"), ("cloud/smallb", "answered")]
    lab.draws = 0
    await lab.ask()
    assert first.calls == 1, "it rests"
    lab.at += 61
    await lab.ask()
    assert first.calls == 2
    assert (await lab.ask()).said == "cloud/smalla", "an answer ends the rest"


async def test_a_rest_that_the_server_asks_for_holds_and_a_guessed_one_only_where_there_is_another(lab: Lab) -> None:
    server = lab.add("lab/small", LIMITED, error("rate_limited", passing=True, pause_s=100.0))
    with pytest.raises(ModelError, match="rate_limited"):
        await lab.ask("lab/small")
    assert server.calls == 2, "once more, although it was thought to rest; then not before the server wants it"
    with pytest.raises(ModelError, match="rate_limited"):
        await lab.ask("lab/small")
    assert server.calls == 2
    lab.at += 101
    assert (await lab.ask("lab/small")).said == "lab/small"


async def test_a_short_rest_is_waited_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.add("lab/small", error("rate_limited", passing=True, pause_s=7.0))
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        lab.at += seconds

    monkeypatch.setattr("handlers.models.choose.asyncio.sleep", sleep)
    assert (await lab.ask("lab/small")).said == "lab/small"
    assert 7 in slept


async def test_when_all_rest_the_error_names_each_and_when_it_may_be_tried(lab: Lab) -> None:
    outage = Rest(lab.at + 30, error("provider_unavailable"), True)
    lab.add("lab/small", rest=lambda: outage)
    lab.add("cloud/small", error("unauthorized"), key="a")
    await lab.route(["lab/small"], ["cloud/small", "gone/away"])
    with pytest.raises(ModelError) as caught:
        await lab.ask()
    assert caught.value.code == "no_model"
    assert caught.value.reason == (
        "Route 'fast' has no model that can answer: gone/away: not_found; cloud/small (key a): unauthorized; "
        "lab/small: provider_unavailable, again after 1970-01-01T00:17:10+00:00."
    )


async def test_a_route_may_wait_for_one_that_rests(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Rest(lab.at + 30, error("provider_unavailable"), True)
    server = lab.add("lab/small", rest=lambda: outage)
    await lab.route(["lab/small"], wait_s=60)

    async def sleep(seconds: float) -> None:
        lab.at += seconds

    monkeypatch.setattr("handlers.models.choose.asyncio.sleep", sleep)
    assert (await lab.ask()).said == "lab/small"
    assert (lab.at, server.calls) == (1030, 1)


async def test_after_the_first_word_nothing_is_tried_unless_the_route_allows_to_begin_again(lab: Lab) -> None:
    broken = ("Half ", error("broken_off"))
    lab.add("lab/small", broken, broken)
    other = lab.add("cloud/small")
    await lab.route(["lab/small"], ["cloud/small"])
    with pytest.raises(ModelError, match="broken_off"):
        await lab.ask()
    assert other.calls == 0
    await lab.route(["lab/small"], ["cloud/small"], restart=True)
    chat = await lab.ask()
    assert chat.said == "cloud/small"
    [_, failed] = await lab.desk.events("model_call", chat.cause.call("chat"))
    assert failed.response == "Half "


async def test_tries_of_all_models_end(lab: Lab) -> None:
    names = [f"lab/{number}" for number in range(9)]
    servers = [lab.add(name, *[DOWN] * 9) for name in names]
    await lab.route(names)
    with pytest.raises(ModelError):
        await lab.ask()
    assert sum(server.calls for server in servers) == MOST_TRIES


async def reach(lab: Lab, scope: str, subject: str = "", **fields: Any) -> None:
    """A quota of no calls."""
    known = {"name": f"no-{scope}", "unit": "calls", "period": "day", "limit": 0}
    await lab.desk.done("quota.set", **known, scope=scope, subject=subject, **fields)


@pytest.mark.parametrize(("scope", "subject"), [("provider", "lab"), ("model", "small")])
async def test_a_quota_of_a_provider_or_model_that_is_reached_leads_to_another(
    lab: Lab, scope: str, subject: str
) -> None:
    first, key = lab.add("lab/small"), lab.add("lab/small", key="b")
    other = lab.add("lab/large") if scope == "provider" else lab.add("cloud/small")
    last = lab.add("cloud/large")
    await lab.route(["lab/small"], [other.server], ["cloud/large"])
    await reach(lab, scope, subject)
    chat = await lab.ask()
    assert chat.said == "cloud/large"
    tries = await lab.tries(chat)
    assert [code for _, code in tries] == ["quota_exceeded", "answered"]
    assert [server.calls for server in (first, key, other, last)] == [0, 0, 0, 1]
    refused, _ = await lab.desk.events("model_call", chat.cause.call("chat", number=1))
    assert isinstance(refused, ModelCall.Requested)
    assert refused.request["messages"] == []


async def test_where_the_quotas_of_all_models_are_reached_the_error_names_each(lab: Lab) -> None:
    lab.add("lab/small")
    lab.add("cloud/small")
    await lab.route(["lab/small"], ["cloud/small"])
    await reach(lab, "provider")
    with pytest.raises(ModelError, match=r"lab/small: quota_exceeded; cloud/small: quota_exceeded") as caught:
        await lab.ask()
    assert caught.value.code == "no_model"


@pytest.mark.parametrize("scope", ["tenant", "key"])
async def test_a_quota_that_holds_for_all_models_stops_the_call(lab: Lab, scope: str) -> None:
    one, other = lab.add("lab/small", DOWN), lab.add("cloud/small")
    await lab.route(["lab/small"], ["cloud/small"], reactions={"quota_exceeded": "next"})
    await lab.desk.done("quota.set", name="one", unit="calls", period="day", limit=1, scope=scope)
    with pytest.raises(ModelError, match="1 call a day") as caught:
        await lab.ask()
    assert (caught.value.code, one.calls, other.calls) == ("quota_exceeded", 1, 0)


async def test_a_route_may_stop_at_a_quota_of_a_model(lab: Lab) -> None:
    lab.add("lab/small")
    other = lab.add("cloud/small")
    await lab.route(["lab/small"], ["cloud/small"], reactions={"quota_exceeded": "stop"})
    await reach(lab, "provider", "lab")
    with pytest.raises(ModelError, match="tenant/no-provider is 0 calls") as caught:
        await lab.ask()
    assert (caught.value.code, other.calls) == ("quota_exceeded", 0)


async def test_without_a_route_a_quota_of_the_model_stops_the_call(lab: Lab) -> None:
    one, key = lab.add("lab/small"), lab.add("lab/small", key="b")
    await reach(lab, "model", "small")
    with pytest.raises(ModelError, match="0 calls") as caught:
        await lab.ask("lab/small")
    assert (caught.value.code, one.calls, key.calls) == ("quota_exceeded", 0, 0)


async def test_a_model_without_a_price_leads_to_one_that_has_it_where_a_quota_of_money_holds(lab: Lab) -> None:
    lab.desk.grants = Grants(lab.desk.repository, lambda _, server, *rest: 0.1 if server == "cloud/small" else None)
    lab.desk.calls = ModelCalls(lab.desk.repository, lab.desk.quota, lab.desk.grants)
    one = lab.add("lab/small")
    lab.add("cloud/small")
    await lab.route(["lab/small"], ["cloud/small"])
    await lab.desk.done("quota.set", name="money", unit="money", period="day", limit=5)
    chat = await lab.ask()
    assert await lab.tries(chat) == [("lab/small", "unpriced"), ("cloud/small", "answered")]
    assert one.calls == 0
    await lab.desk.grants.close()


async def test_a_question_for_a_route_is_not_refused_by_the_quota_of_one_model(lab: Lab) -> None:
    lab.add("lab/small")
    await lab.route(["lab/small"])
    app = await lab.desk.done("app.create", name="Guide")
    await lab.desk.done("app.configure", app=app, model={"route": "fast"})
    await reach(lab, "provider")
    assert (await lab.desk.send("message.send", app=app, query="?")).status == "accepted"
    await lab.desk.done("quota.remove", quota="no-provider")
    await reach(lab, "app")
    assert (await lab.desk.send("message.send", app=app, query="?")).code == "quota_exceeded"


async def test_a_call_goes_by_weight(lab: Lab) -> None:
    lab.add("lab/small", key="a", weight=3)
    lab.add("lab/small", key="b", weight=1)
    found = Counter[str]()
    for number in range(40):
        lab.draws = 0.5 + number / 40
        found[(await lab.ask("lab/small")).said] += 1
    assert found == {"lab/smalla": 30, "lab/smallb": 10}


async def test_the_least_busy_model_is_called(lab: Lab) -> None:
    busy, free = lab.add("lab/busy"), lab.add("lab/free")
    await lab.route(("least_busy", ["lab/busy", "lab/free"]))
    busy.waits = asyncio.Event()
    first = asyncio.create_task(lab.ask())
    while not busy.calls:
        await asyncio.sleep(0)
    for _ in range(3):
        await lab.ask()
    assert (busy.calls, free.calls) == (1, 3)
    busy.waits.set()
    await first
    await lab.ask()
    assert busy.calls == 2


async def test_the_fastest_model_is_called_once_each_was_tried(lab: Lab) -> None:
    slow, quick = lab.add("lab/slow"), lab.add("lab/quick")
    await lab.route(("fastest", ["lab/slow", "lab/quick"]))
    for _ in range(2):
        await lab.ask()
    assert (slow.calls, quick.calls) == (1, 1)
    for (_, provider, model, *_), pace in lab.choose.paces.items():
        assert (provider, len(pace.firsts)) == ("lab", 1)
        pace.firsts.append((lab.at, {"slow": 900.0, "quick": 10.0}[model]))
    for _ in range(5):
        await lab.ask()
    assert (slow.calls, quick.calls) == (1, 6)


async def test_the_cheapest_model_is_called_and_one_without_a_price_last(lab: Lab) -> None:
    prices: Mapping[str, float | None] = {"dear": 9.0, "cheap": 0.1, "unknown": None}
    for name, price in prices.items():
        lab.add(f"lab/{name}")
        lab.facts["lab", name] = Known(price=price)
    await lab.route(("cheapest", ["lab/unknown", "lab/dear", "lab/cheap"]))
    assert (await lab.ask()).said == "lab/cheap"
    lab.ways["lab", "cheap"] = [Access(Server("cheap", error("not_found")))]
    assert (await lab.ask()).said == "lab/dear"


async def test_a_model_whose_requests_of_the_minute_are_used_up_rests_until_the_next(lab: Lab) -> None:
    lab.at = 1200.0
    first, second = lab.add("lab/small"), lab.add("cloud/small")
    lab.facts["lab", "small"] = Known(rate=Rate(rpm=2))
    await lab.route(["lab/small"], ["cloud/small"])
    for _ in range(5):
        await lab.ask()
    assert (first.calls, second.calls) == (2, 3)
    with pytest.raises(ModelError, match="a rate of 2 requests a minute"):
        await lab.ask("lab/small")
    lab.at += 60
    await lab.ask()
    assert first.calls == 3


async def test_each_key_has_a_rate_of_its_own(lab: Lab) -> None:
    lab.at, lab.facts["cloud", "small"] = 1200.0, Known(rate=Rate(rpm=1))
    servers = [lab.add("cloud/small", key=key) for key in "ab"]
    for _ in range(2):
        await lab.ask("cloud/small")
    assert [server.calls for server in servers] == [1, 1]


async def test_tokens_of_a_minute_are_corrected_by_those_that_a_call_has_used(lab: Lab) -> None:
    lab.at, needed = 1200.0, likely("Well?") + 8
    server, other = lab.add("lab/small"), lab.add("cloud/small")
    lab.facts["lab", "small"] = Known(rate=Rate(tpm=needed + 6))
    await lab.route(["lab/small"], ["cloud/small"])
    for _ in range(3):
        await lab.ask()
    assert (server.calls, other.calls) == (1, 2), "the first has used more than it was thought to need"
    lab.at += 60
    lab.facts["lab", "small"] = Known(rate=Rate(tpm=1))
    await lab.ask()
    assert server.calls == 2, "a minute has room for one call, however large"


async def test_a_short_wait_for_the_next_minute_is_waited(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.at, lab.facts["lab", "small"] = 1250.0, Known(rate=Rate(rpm=1))
    lab.add("lab/small")

    async def sleep(seconds: float) -> None:
        lab.at += seconds

    monkeypatch.setattr("handlers.models.choose.asyncio.sleep", sleep)
    await lab.ask("lab/small")
    await lab.ask("lab/small")
    assert lab.at >= 1260


async def test_a_route_that_is_not_there_is_named(lab: Lab) -> None:
    with pytest.raises(ModelError, match="There is no route 'fast'"):
        await lab.ask()


async def test_a_route_that_changes_holds_for_the_next_call(lab: Lab) -> None:
    lab.add("lab/small", DOWN)
    lab.add("cloud/small")
    await lab.route(["lab/small"])
    assert (await lab.ask()).said == "lab/small"
    await lab.route(["cloud/small"])
    assert (await lab.ask()).said == "cloud/small"


async def test_routes_and_models_are_kept_in_memory_until_a_change_is_heard_of(lab: Lab) -> None:
    lab.choose = replace(lab.choose, held_s=60)
    lab.add("lab/small")
    lab.add("cloud/small")
    await lab.route(["lab/small"])
    assert (await lab.ask()).said == "lab/small"
    await lab.route(["cloud/small"])
    assert (await lab.ask()).said == "lab/small"
    lab.choose.forget("another")
    assert (await lab.ask()).said == "lab/small"
    lab.choose.forget(lab.desk.tenant)
    assert (await lab.ask()).said == "cloud/small"


async def test_what_is_in_memory_for_long_is_loaded_again_while_calls_go_on(lab: Lab) -> None:
    lab.choose = replace(lab.choose, held_s=0.05)
    lab.add("lab/small")
    lab.add("cloud/small")
    await lab.route(["lab/small"])
    await lab.ask()
    await lab.route(["cloud/small"])
    await asyncio.sleep(0.06)
    assert (await lab.ask()).said == "lab/small"
    await asyncio.sleep(0.02)
    assert (await lab.ask()).said == "cloud/small"


async def test_a_model_that_was_not_there_is_looked_for_again(lab: Lab) -> None:
    lab.choose = replace(lab.choose, held_s=60)
    with pytest.raises(ModelError, match="No provider"):
        await lab.ask("lab/small")
    lab.add("lab/small")
    assert (await lab.ask("lab/small")).said == "lab/small"


async def test_what_a_dead_worker_tried_is_taken_over(lab: Lab) -> None:
    lab.add("lab/small", DOWN)
    lab.add("cloud/small")
    await lab.route(["lab/small"], ["cloud/small"])
    chat = await lab.ask()
    taken = await lab.desk.calls.take_over(Cause(chat.cause.metadata, "message", chat.cause.id, 2), "chat")
    assert taken.completed["chat"][0] == chat.id
    assert taken.made == {"chat": 1}
    assert await lab.desk.calls.last(chat.cause, "chat") == chat.id
