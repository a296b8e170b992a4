"""Hard quotas on a log in memory: several workers, their leases, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from domain.aggregate import Event, new_id
from domain.log import EVENTS, Metadata
from domain.models.model_call import ModelCall
from domain.models.quota import Definition, window
from domain.models.quota_window import QuotaWindow
from handlers.cause import Cause
from handlers.models.grants import Grants
from handlers.models.model_calls import ModelCalls
from handlers.models.prompt import Record
from handlers.models.settle import Settle
from handlers.ports.filters import Check
from handlers.ports.log import Unavailable
from handlers.ports.models import ChatMessage, ChatRequest, ChatUsage, Delta, ModelError, Reranking
from tests.handlers.desk import Desk
from tests.handlers.fakes import Guards, OneModel, Only, Words, embedding_models
from tests.memory import Memory, MemoryLog, MemoryQuotas

USAGE = ChatUsage(30, 12)
PROMPT = "When does the lock open in the morning of a working day?"


class Model:
    """A chat model and a reranker whose server counts; it waits for `go`."""

    server = "lab:1"

    def __init__(self, usage: ChatUsage | None = USAGE) -> None:
        self.usage = usage
        self.sent = 0
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        self.sent += 1
        self.begun.set()
        await self.go.wait()
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        yield Delta("At six.", "stop", self.usage)

    async def rerank(self, model: str, query: str, texts: Any) -> Reranking:
        self.sent += 1
        return Reranking([0.5 for _ in texts], self.usage)


def price(
    provider: str, server: str, model: str, at: datetime, usage: Mapping[str, Any], entry: Mapping[str, Any] | None
) -> float | None:
    """A dollar for a thousand tokens of a prompt, ten of an answer; of another model, no price is known."""
    if model != "priced":
        return None
    return float(usage["prompt_tokens"] + 10 * usage["completion_tokens"]) / 1000


class Worker:
    """A process that calls models; several share the memory."""

    def __init__(self, desk: Desk, **grants: float) -> None:
        times = {"held_s": 0.0, "lease_s": 60.0, "idle_s": 0.05, "patience_s": 0.0} | grants
        self.desk = desk
        self.grants = Grants(desk.repository, price, **times)
        self.calls = ModelCalls(desk.repository, None, self.grants)

    async def ask(self, model: Model, name: str = "small", *, max_tokens: int = 100, cause: Cause | None = None) -> str:
        """The id of a call. Raises: ModelError."""
        request = ChatRequest(name, [ChatMessage("user", PROMPT)], max_tokens)
        chat = self.calls.chat(cause or self.cause(), Only("lab", model, name), request, Record([], {}))
        async for _ in chat.texts():
            pass
        return chat.id

    def cause(self, *, app: str | None = None, person: str | None = None, actor: str = "s_ada") -> Cause:
        id = new_id()
        return Cause(Metadata(id, self.desk.tenant, id, actor=actor, person=person), "message", id, 1, app=app)


@pytest.fixture
def desk(memory: Memory, tenant: str) -> Desk:
    return Desk(memory, tenant)


@pytest.fixture
async def worker(desk: Desk) -> AsyncIterator[Worker]:
    worker = Worker(desk)
    yield worker
    await worker.grants.close()


async def limit(desk: Desk, unit: str = "calls", most: float = 1000, **fields: Any) -> None:
    await desk.done("quota.set", name=f"by-{unit}", unit=unit, period="month", limit=most, **fields)


async def everything(desk: Desk) -> AsyncIterator[Event]:
    assert isinstance(desk.server, Memory)
    async for batch in MemoryLog(desk.server, desk.keys).read(EVENTS, 0, follow=False):  # type: ignore[arg-type]
        for message in batch:
            for event in message.events:
                yield event  # type: ignore[misc]


async def windows(desk: Desk) -> list[QuotaWindow]:
    found: dict[str, QuotaWindow] = {}
    async for event in everything(desk):
        if isinstance(event, QuotaWindow.Event):
            found[event.originator_id] = event.mutate(found.get(event.originator_id))  # type: ignore[assignment]
    return list(found.values())


async def charged(desk: Desk, unit: str = "calls") -> int:
    """The sum of what the recorded calls have used, once of each window."""
    calls: dict[str, ModelCall] = {}
    async for event in everything(desk):
        if isinstance(event, ModelCall.Event):
            calls[event.originator_id] = event.mutate(calls.get(event.originator_id))  # type: ignore[assignment]
    return sum(grant["amount"] for call in calls.values() for grant in call.paid if grant["unit"] == unit)


async def settled(desk: Desk, *, within_s: float = 5.0) -> QuotaWindow:
    """The only window, once no lease of it is held."""
    async with asyncio.timeout(within_s):
        while True:
            [window] = await windows(desk)
            if not window.leases:
                return window
            await asyncio.sleep(0.02)


async def test_twenty_workers_make_exactly_as_many_calls_as_a_hard_quota_allows(desk: Desk, memory: Memory) -> None:
    await limit(desk, most=1000)
    model = Model()

    async def work(worker: Worker) -> None:
        """Ask three questions at a time, until they are refused."""

        async def ask() -> None:
            with suppress(ModelError):
                while True:
                    with suppress(Unavailable):  # too many workers at once took leases
                        await worker.ask(model)

        await asyncio.gather(*(ask() for _ in range(3)))
        await worker.grants.close()

    workers = [Worker(Desk(memory, desk.tenant), held_s=5.0, patience_s=3.0, idle_s=0.02) for _ in range(20)]
    await asyncio.gather(*map(work, workers))
    window = await settled(desk)
    assert (model.sent, window.used, await charged(desk)) == (1000, 1000, 1000)
    grants = [event async for event in everything(desk) if isinstance(event, QuotaWindow.Granted)]
    assert len(grants) < 300


async def test_without_a_quota_nothing_is_recorded_and_nothing_is_taken(worker: Worker, desk: Desk) -> None:
    call = await worker.ask(Model())
    assert await desk.types("model_call", call) == ["model_call.requested.v3", "model_call.completed.v5"]
    await desk.done("quota.set", name="soft", unit="calls", period="day", limit=1, hard=False)
    assert [len(await desk.types("model_call", await worker.ask(Model()))) for _ in range(2)] == [2, 2]
    assert await windows(desk) == []


async def test_a_call_names_what_pays_for_it_and_is_charged_with_what_it_used(worker: Worker, desk: Desk) -> None:
    await limit(desk, "tokens", 10_000)
    call = await worker.ask(Model(), max_tokens=100)
    _, reserved, _, charge = await desk.events("model_call", call)
    assert isinstance(reserved, ModelCall.Reserved)
    assert isinstance(charge, ModelCall.Charged)
    [most], [used] = reserved.grants, charge.grants
    assert (most["unit"], most["amount"], used["amount"]) == ("tokens", len(PROMPT) + 16 + 100, 42)
    assert (most["window"], most["lease"]) == (used["window"], used["lease"])
    window = await settled(desk)
    assert (window.id, window.used) == (most["window"], 42)


async def test_an_answer_that_no_server_counted_is_charged_with_a_guess(worker: Worker, desk: Desk) -> None:
    await limit(desk, "tokens", 10_000)
    await worker.ask(Model(usage=None), max_tokens=1)
    assert 0 < (await settled(desk)).used == await charged(desk, "tokens") < len(PROMPT)


async def test_a_call_that_does_not_fit_is_not_made(worker: Worker, desk: Desk) -> None:
    await limit(desk, "tokens", 100)
    model = Model()
    with pytest.raises(
        ModelError, match=r"may need 172 tokens, of which 100 tokens can be had now\. It is free again at"
    ) as caught:
        await worker.ask(model, max_tokens=100)
    assert (caught.value.code, model.sent) == ("quota_exceeded", 0)
    assert await charged(desk, "tokens") == 0


async def test_several_quotas_hold_at_once_and_each_app_has_a_window(worker: Worker, desk: Desk) -> None:
    await limit(desk, "calls", 3)
    await desk.done("quota.set", name="each", scope="app", unit="calls", period="day", limit=2)
    await desk.done("quota.impose", name="big", scope="model", subject="big", unit="calls", period="day", limit=0)
    one, other = new_id(), new_id()
    await worker.ask(Model(), cause=worker.cause(app=one))
    await worker.ask(Model(), cause=worker.cause(app=one))
    with pytest.raises(ModelError, match="tenant/each is 2 calls a day for this app"):
        await worker.ask(Model(), cause=worker.cause(app=one))
    with pytest.raises(ModelError, match="operator/big is 0 calls"):
        await worker.ask(Model(), "big", cause=worker.cause(app=other))
    await worker.ask(Model(), cause=worker.cause(app=other))
    with pytest.raises(ModelError, match="tenant/by-calls is 3 calls a month for the tenant: all of it is used"):
        await worker.ask(Model(), cause=worker.cause(app=other))
    async with asyncio.timeout(5):
        while {window.quota: window.used for window in await windows(desk) if window.subject in ("", one)} != {
            "tenant/by-calls": 3,
            "tenant/each": 2,
        }:
            await asyncio.sleep(0.02)


async def test_a_rolling_quota_is_free_again_bit_by_bit(worker: Worker, desk: Desk) -> None:
    await desk.done("quota.set", name="rate", unit="calls", period="minute", rolling=1, limit=3)
    earlier = datetime.now(UTC) - timedelta(seconds=57)
    of: Definition = {
        "scope": "tenant",
        "subject": "",
        "unit": "calls",
        "period": "minute",
        "limit": 3.0,
        "hard": True,
        "time_zone": "UTC",
        "rolling": 1,
    }
    known = window("tenant/rate", of, "", earlier)

    def use_two(it: QuotaWindow | None) -> QuotaWindow:
        it = it or QuotaWindow.open(earlier, known)
        it.grant(earlier, "a", 2, 2, 3, earlier)
        it.settle(earlier, "a", 2)
        return it

    metadata = Metadata(new_id(), desk.tenant, known.id, actor="quota")
    await desk.repository.change(QuotaWindow, known.id, metadata, use_two)
    await worker.ask(Model())
    with pytest.raises(ModelError, match=r"3 calls in any minute for the tenant.*\. Some is free again at") as caught:
        await worker.ask(Model())
    assert caught.value.code == "quota_exceeded"
    refused = await desk.send("dataset.test", datasets=[await desk.done("dataset.create", name="Rules")], query="?")
    assert refused.code == "quota_exceeded"
    assert (refused.details["rolling"], refused.details["period"]) == (1, "minute")
    retry_after_s = refused.details["retry_after_s"]
    assert isinstance(retry_after_s, int)
    assert 1 <= retry_after_s <= 4
    await asyncio.sleep(retry_after_s)
    await worker.ask(Model())
    await worker.ask(Model())
    with pytest.raises(ModelError, match="all of it is used"):
        await worker.ask(Model())
    await worker.grants.close()
    assert (await settled(desk)).used == 5


async def test_a_lease_of_a_rolling_window_is_closed_after_a_step(desk: Desk) -> None:
    await desk.done("quota.set", name="rate", unit="calls", period="minute", rolling=1, limit=1000)
    worker, model = Worker(desk, idle_s=0.5), Model()
    model.go.clear()
    asking = [asyncio.create_task(worker.ask(model))]
    await model.begun.wait()
    await asyncio.sleep(1.2)
    asking.append(asyncio.create_task(worker.ask(model)))
    while model.sent < 2:
        await asyncio.sleep(0.01)
    [of] = await windows(desk)
    assert len(of.leases) == 2
    model.go.set()
    await asyncio.gather(*asking)
    assert (await settled(desk)).used == 2


async def test_a_quota_counts_in_the_days_of_its_time_zone(worker: Worker, desk: Desk) -> None:
    await desk.done("quota.set", name="day", unit="calls", period="day", time_zone="Pacific/Auckland", limit=1)
    await worker.ask(Model())
    with pytest.raises(ModelError, match="1 call a day in Pacific/Auckland for the tenant: all of it is used"):
        await worker.ask(Model())
    begins = datetime.fromisoformat((await settled(desk)).begins).astimezone(ZoneInfo("Pacific/Auckland"))
    assert (begins.hour, begins.date()) == (0, datetime.now(ZoneInfo("Pacific/Auckland")).date())


async def test_money_is_reserved_at_its_most_and_charged_by_the_price(worker: Worker, desk: Desk) -> None:
    await limit(desk, "money", 5)
    call = await worker.ask(Model(), "priced", max_tokens=100)
    _, reserved, _, _ = await desk.events("model_call", call)
    assert isinstance(reserved, ModelCall.Reserved)
    assert reserved.grants[0]["amount"] == round((len(PROMPT) + 16 + 10 * 100) / 1000 * 1e9)
    assert (await settled(desk)).used == 150_000_000


async def test_a_hard_quota_of_money_refuses_what_has_no_price(worker: Worker, desk: Desk) -> None:
    await limit(desk, "money", 5)
    model = Model()
    with pytest.raises(ModelError, match="has no price") as caught:
        await worker.ask(model)
    assert (caught.value.code, model.sent) == ("unpriced", 0)


async def test_a_rerank_counts_too(worker: Worker, desk: Desk) -> None:
    await limit(desk, "tokens", 1000)
    await worker.calls.rerank(worker.cause(), Only("lab", Model(), "rank"), "lock?", ["a", "b"], ["one", "two"])
    assert (await settled(desk)).used == 42


async def test_an_embedding_of_a_provider_counts_and_is_refused_beyond_the_quota(worker: Worker, desk: Desk) -> None:
    await limit(desk, "tokens", 20)
    models = replace(embedding_models(desk.repository, OneModel(Words())), calls=worker.calls)
    embedding = await models.get(f"{desk.tenant}/lab/small")
    _, recorded = await embedding.embed(worker.cause(), "embed", ["six letters"])
    await recorded
    assert (await settled(desk)).used == 7
    with pytest.raises(ModelError) as caught:
        await embedding.embed(worker.cause(), "embed", ["as many letters"])
    assert caught.value.code == "quota_exceeded"


async def test_a_call_of_a_model_of_audio_counts_too(worker: Worker, desk: Desk) -> None:
    await limit(desk, "tokens", 100)
    asked: dict[str, Any] = {"kind": "speech", "provider": "lab", "model": "alba", "server": "lab:1", "request": {}}
    async with worker.calls.recorded(worker.cause(), "speak:0", most=60, **asked) as call:
        call.usage, call.estimated = ChatUsage(42, 0), False
    assert (await settled(desk)).used == 42
    with pytest.raises(ModelError) as caught:
        async with worker.calls.recorded(worker.cause(), "speak:0", most=60, **asked):
            raise AssertionError
    assert caught.value.code == "quota_exceeded"


async def test_the_server_of_a_filter_counts_for_calls_and_takes_neither_tokens_nor_money(
    worker: Worker, desk: Desk
) -> None:
    await limit(desk, "money", 5)
    await limit(desk, "tokens", 0)
    await limit(desk, "calls", 1)
    check = Check("the-app", "input", {"query": "lock?"})
    await worker.calls.check(worker.cause(), "moderation:0", Only("guard", Guards()), check)
    with pytest.raises(ModelError) as caught:
        await worker.calls.check(worker.cause(), "moderation:0", Only("guard", Guards()), check)
    assert caught.value.code == "quota_exceeded"


async def test_a_call_that_fails_or_is_stopped_counts_as_one(worker: Worker, desk: Desk) -> None:
    await limit(desk)
    model = Model()
    model.error = ModelError("unreachable", "It is down.")
    with pytest.raises(ModelError, match="down"):
        await worker.ask(model)
    model.error = None
    model.go.clear()
    model.begun.clear()
    asking = asyncio.create_task(worker.ask(model))
    await model.begun.wait()
    asking.cancel()
    await asyncio.wait((asking,))
    assert (await settled(desk)).used == await charged(desk) == 2


async def test_the_call_of_a_dead_worker_is_lost_and_paid_at_its_most(desk: Desk, memory: Memory) -> None:
    await limit(desk, "tokens", 100_000)
    doomed, model = Worker(desk, lease_s=0.4, idle_s=60), Model()
    await doomed.ask(model)
    model.go.clear()
    model.begun.clear()
    asking = asyncio.create_task(doomed.ask(model))
    await model.begun.wait()
    assert doomed.grants._upkeep is not None
    doomed.grants._upkeep.cancel()  # it dies: nothing is returned, renewed or recorded any more
    settle = Settle(desk.repository, MemoryQuotas(memory))
    assert await settle() == []
    await asyncio.sleep(0.5)
    [lease] = await settle()
    assert len(lease.calls) == 2
    most = len(PROMPT) + 16 + 100
    assert (await settled(desk)).used == await charged(desk, "tokens") == 42 + most
    assert await settle() == []
    model.go.set()
    await asking  # it was not dead, but slow: what it records now changes nothing
    lost = await desk.events("model_call", lease.calls[1])
    assert [type(event) for event in lost] == [ModelCall.Requested, ModelCall.Reserved, ModelCall.Failed]
    assert await charged(desk, "tokens") == 42 + most


async def test_a_lease_is_renewed_as_long_as_a_call_uses_it(desk: Desk, memory: Memory) -> None:
    await limit(desk)
    worker, model = Worker(desk, lease_s=0.8), Model()
    model.go.clear()
    asking = asyncio.create_task(worker.ask(model))
    await model.begun.wait()
    settle = Settle(desk.repository, MemoryQuotas(memory))
    for _ in range(8):
        await asyncio.sleep(0.2)
        assert await settle() == []
    model.go.set()
    call = await asking
    assert (await desk.types("model_call", call))[-1] == "model_call.charged.v1"
    assert (await settled(desk)).used == 1


async def test_a_request_that_is_recorded_too_late_is_not_sent(desk: Desk, memory: Memory) -> None:
    await limit(desk)
    worker, model = Worker(desk, lease_s=0.2), Model()
    append = desk.store.append

    async def slowly(subject: Any, *rest: Any) -> Any:
        if subject.noun == "model_call":
            worker.grants._pools.clear()  # nothing is renewed
            await asyncio.sleep(0.3)
        return await append(subject, *rest)

    desk.store.append = slowly  # type: ignore[method-assign, assignment]
    with pytest.raises(ModelError, match="too late") as caught:
        await worker.ask(model)
    assert (caught.value.code, model.sent, await charged(desk)) == ("quota_exceeded", 0, 0)


async def test_a_call_whose_end_is_not_recorded_is_settled_by_the_log(desk: Desk, memory: Memory) -> None:
    await limit(desk)
    worker, model = Worker(desk, lease_s=0.4), Model()
    model.go.clear()
    asking = asyncio.create_task(worker.ask(model))
    await model.begun.wait()
    memory.away = True
    model.go.set()
    with pytest.raises(Unavailable):
        await asking
    memory.away = False
    await asyncio.sleep(0.6)
    [window] = await windows(desk)
    assert len(window.leases) == 1
    [lease] = await Settle(desk.repository, MemoryQuotas(memory))()
    assert (await desk.events("model_call", lease.calls[0]))[-1].code == "lost"  # type: ignore[attr-defined]
    assert (await settled(desk)).used == 1


async def test_what_others_hold_is_waited_for(desk: Desk, memory: Memory) -> None:
    await limit(desk, most=100)
    idle, waits = Worker(desk, idle_s=0.5), Worker(Desk(memory, desk.tenant), patience_s=5.0)
    await idle.ask(Model())
    [window] = await windows(desk)
    [held] = window.leases.values()
    assert held["amount"] == 2
    calls = await asyncio.gather(*(waits.ask(Model()) for _ in range(99)))
    assert len(calls) == 99
    with pytest.raises(ModelError, match="all of it is used"):
        await waits.ask(Model())
    await waits.grants.close()
    assert (await settled(desk)).used == 100


async def test_a_worker_that_ends_returns_what_it_holds(desk: Desk) -> None:
    await limit(desk)
    worker = Worker(desk, idle_s=60)
    await worker.ask(Model())
    [window] = await windows(desk)
    assert len(window.leases) == 1
    await worker.grants.close()
    [window] = await windows(desk)
    assert (window.leases, window.used) == ({}, 1)


# --- commands ---


async def an_app(desk: Desk) -> str:
    app = await desk.done("app.create", name="Guide")
    await desk.done("app.configure", app=app)
    return app


async def test_a_question_is_refused_once_the_quota_is_exhausted(worker: Worker, desk: Desk) -> None:
    app = await an_app(desk)
    await limit(desk, "calls", 1, scope="app")
    assert (await desk.send("message.send", app=app, query="?")).status == "accepted"
    await worker.ask(Model(), cause=worker.cause(app=app))
    with pytest.raises(ModelError):
        await worker.ask(Model(), cause=worker.cause(app=app))
    refused = await desk.send("message.send", app=app, query="?")
    assert (refused.code, refused.field) == ("quota_exceeded", "app")
    assert int(refused.details.pop("retry_after_s")) > 0
    assert refused.details == {"quota": "tenant/by-calls", "scope": "app", "limit": "1 call", "period": "month"}
    assert refused.message is not None
    assert refused.message.startswith("The quota tenant/by-calls is 1 call a month for this app: all of it is used.")
    assert (await desk.send("message.send", app=await an_app(desk), query="?")).status == "accepted"
    await limit(desk, "calls", 2, scope="app")
    assert (await desk.send("message.send", app=app, query="?")).status == "accepted"


@pytest.mark.parametrize(
    ("scope", "subject"), [("tenant", ""), ("user", "eve"), ("key", "anon"), ("provider", "builtin"), ("model", "")]
)
async def test_a_quota_of_none_refuses_all(desk: Desk, scope: str, subject: str) -> None:
    app = await an_app(desk)
    await limit(desk, "tokens", 0, scope=scope, subject=subject)
    refused = await desk.send("message.send", app=app, query="?", user="eve")
    assert (refused.code, refused.field) == ("quota_exceeded", "user" if scope == "user" else None)
    if scope == "user":
        assert (await desk.send("message.send", app=app, query="?", user="bob")).status == "accepted"


async def test_replays_retries_and_tests_of_datasets_are_refused_too(desk: Desk) -> None:
    call, dataset = await desk.called(provider="lab", model="small"), await desk.done("dataset.create", name="Rules")
    await limit(desk, "calls", 0, scope="model", subject="small")
    assert await desk.fails("replay.request", call=call) == ("quota_exceeded", "model")
    await limit(desk, "calls", 0)
    assert await desk.fails("dataset.test", datasets=[dataset], query="?") == ("quota_exceeded", None)
    assert (await desk.send("dataset.create", name="More")).status == "accepted"


async def test_a_user_is_not_named_in_the_log(desk: Desk) -> None:
    await limit(desk, scope="user", subject="eve")
    person, _ = await desk.keys.last_person(desk.tenant, "eve")
    [_, event] = await desk.events("quota", "tenant")
    assert vars(event)["subject"] == person


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"unit": "letters"}, "unit"),
        ({"period": "rolling"}, "period"),
        ({"period": "month", "rolling": 2}, "period"),
        ({"rolling": 367}, "rolling"),
        ({"rolling": -1}, "rolling"),
        ({"rolling": 7, "time_zone": "Europe/Berlin"}, "time_zone"),
        ({"time_zone": "Europe/Nowhere"}, "time_zone"),
        ({"time_zone": "localtime"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"limit": -1}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"unit": "money", "limit": 1e10}, "limit"),
        ({"limit": 0, "hard": False}, "limit"),
        ({"subject": "x"}, "subject"),
        ({"scope": "app", "subject": "x"}, "subject"),
        ({"name": "A quota"}, "name"),
    ],
)
async def test_what_cannot_be_counted_is_no_quota(desk: Desk, fields: dict[str, Any], field: str) -> None:
    known = {"name": "q", "unit": "calls", "period": "day", "limit": 1}
    assert await desk.fails("quota.set", known | fields) == ("invalid", field)


async def test_the_operator_s_quota_is_lifted_by_the_operator_only(desk: Desk) -> None:
    await desk.done("quota.impose", name="q", unit="calls", period="day", limit=1)
    assert await desk.fails("quota.remove", quota="q") == ("not_found", "quota")
    await desk.done("quota.lift", quota="q")
    assert await desk.fails("quota.lift", quota="q") == ("not_found", "quota")


async def test_a_budget_is_a_soft_quota_of_money(desk: Desk) -> None:
    outcome = await desk.send("budget.set", name="monthly", scope="tenant", amount_usd=9.5)
    assert outcome.ids == {"budget": "monthly", "quota": "tenant"}
    [_, event] = await desk.events("quota", "tenant")
    fields = {"name": "monthly", "unit": "money", "period": "month", "limit": 9.5, "hard": False}
    assert fields.items() <= vars(event).items()
    await desk.done("quota.set", name="hard", unit="money", period="month", limit=1)
    assert await desk.fails("budget.set", name="hard", scope="tenant", amount_usd=1) == ("invalid", "name")
    await desk.done("budget.remove", budget="monthly")
    assert await desk.fails("budget.remove", budget="monthly") == ("not_found", "budget")
