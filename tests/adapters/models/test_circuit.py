"""A provider that does not answer is cut off, and one call at a time is let through."""

from __future__ import annotations

import asyncio

import pytest

from adapters.models.circuit import FIRST_PAUSE_S, LIMIT, LONGEST_PAUSE_S, Call, Circuit, LocalOutages
from adapters.models.faults import Fault
from adapters.models.kinds import KINDS
from adapters.models.registry import TenantModels
from adapters.models.server import Patience
from domain.models.provider import Provider
from handlers.ports.log import Unavailable
from handlers.ports.models import ChatMessage, ChatRequest, ModelError
from handlers.ports.outages import Decide, Outage
from tests.chat_servers import LOOPBACK, Exchange, faulty_server, in_clear, provider, works

SILENT = Fault("timeout", "It did not begin to answer within 60 s.", outage=True)
LATE = Fault("server_error", "It failed (503).", outage=True)
CODE = "provider_unavailable"
ADDRESS = "http://127.0.0.1:8000/v1/chat/completions"


class Site:
    """Workers that share what they know of a provider, and their clock."""

    def __init__(self, workers: int = 2) -> None:
        self.now = 1000.0
        outages = LocalOutages()
        self.circuits = [Circuit(outages, "acme", ADDRESS, 65.0, lambda: self.now) for _ in range(workers)]

    async def call(self, worker: int = 0) -> Call | Fault:
        return await self.circuits[worker].enter()

    async def fails(self, times: int = 1, worker: int = 0, fault: Fault = SILENT) -> None:
        for _ in range(times):
            call = await self.call(worker)
            assert isinstance(call, Call), call
            await call.failed(fault)

    async def open(self, worker: int = 0) -> bool:
        return isinstance(await self.call(worker), Call)


async def test_a_provider_that_does_not_answer_is_cut_off_for_all_workers() -> None:
    site = Site()
    await site.fails(LIMIT - 1)
    assert await site.open()
    await site.fails(1, fault=LATE)
    for worker in (0, 1):
        refused = await site.call(worker)
        assert isinstance(refused, Fault)
        assert (refused.code, refused.passing) == (CODE, False)
        assert refused.reason == (
            f"{ADDRESS} is not called, since it did not answer 5 times in a row. It is tried again after "
            "1970-01-01T00:16:50+00:00. The last fault: It failed (503)."
        )
        assert site.circuits[worker].refusal() == refused


async def test_an_answer_begins_the_count_again() -> None:
    site = Site()
    await site.fails(LIMIT - 1)
    call = await site.call()
    assert isinstance(call, Call)
    await call.answered()
    await site.fails(LIMIT - 1)
    await site.fails(1, fault=Fault("unauthorized", "It refused the key (401)."))
    await site.fails(LIMIT - 1)
    await site.fails(1, fault=Fault("rate_limited", "It takes no more (429).", True))
    assert await site.open()


async def test_an_address_that_may_not_be_called_is_no_answer() -> None:
    site = Site()
    await site.fails(LIMIT - 1)
    await site.fails(3, fault=Fault("unreachable", "It is not public."))
    await site.fails(1)
    assert not await site.open()


async def test_one_call_at_a_time_is_let_through_after_a_pause_that_grows() -> None:
    site, pause = Site(), FIRST_PAUSE_S
    await site.fails(LIMIT)
    for _ in range(8):
        site.now += pause - 0.1
        assert not await site.open()
        site.now += 0.2
        probe = await site.call(1)
        assert isinstance(probe, Call)
        assert not await site.open(0)
        assert not await site.open(1)
        await probe.failed(SILENT)
        pause = min(2 * pause, LONGEST_PAUSE_S)
        assert not await site.open()
    assert pause == LONGEST_PAUSE_S
    site.now += pause
    probe = await site.call()
    assert isinstance(probe, Call)
    await probe.answered()
    assert await site.open(0)
    assert await site.open(1)


async def test_calls_that_began_before_do_not_prolong_the_pause() -> None:
    site = Site()
    calls = [await site.call() for _ in range(64)]
    for call in calls:
        assert isinstance(call, Call)
        await call.failed(SILENT)
    site.now += FIRST_PAUSE_S
    assert await site.open()


async def test_a_call_that_is_never_heard_of_again_is_followed_by_another() -> None:
    """Its worker died."""
    site = Site()
    await site.fails(LIMIT)
    site.now += FIRST_PAUSE_S
    assert await site.open(1)
    site.now += 64
    assert not await site.open(0)
    site.now += 1
    assert await site.open(0)


async def test_while_outages_cannot_be_shared_calls_are_made() -> None:
    class Away(LocalOutages):
        async def change(self, tenant: str, provider: str, decide: Decide) -> Outage | None:
            raise Unavailable("NATS is away.")

    circuit = Circuit(Away(), "acme", ADDRESS, 65.0)
    for _ in range(2 * LIMIT):
        call = await circuit.enter()
        assert isinstance(call, Call)
        await call.failed(SILENT)


async def test_a_silent_server_is_left_alone_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """By all clients of the tenant, and no other tenant is concerned."""
    monkeypatch.setattr("adapters.models.circuit.FIRST_PAUSE_S", 0.3)
    silent = asyncio.Event()

    async def behaviour(exchange: Exchange) -> None:
        if silent.is_set():
            await works(exchange)
        else:
            await asyncio.sleep(30)

    async with faulty_server(behaviour) as server:

        async def registered(tenant: str, name: str) -> Provider:
            return provider(server.url, f"key of {name}")

        patience = Patience(first_token=0.1, between_tokens=0.1)
        models = TenantModels(registered, in_clear, LOOPBACK, patience, outages=LocalOutages())

        async def ask(tenant: str, provider: str = "slow") -> str:
            [access] = await models.get(tenant, provider, "tiny")
            if rest := access.rest():
                raise rest.error
            request = ChatRequest("tiny", [ChatMessage("user", "Well?")], 16)
            return "".join([delta.text async for delta in access.client.stream(request)])

        codes = []
        for _ in range(LIMIT + 1):
            with pytest.raises(ModelError) as error:
                await ask("acme")
            codes.append(error.value.code)
        assert codes == [*LIMIT * ["timeout"], CODE]
        assert error.value.reason.startswith("http://127.0.0.1:")
        sent = len(server.requests)
        with pytest.raises(ModelError) as error:
            await ask("acme", "the same by another name")
        assert (error.value.code, len(server.requests)) == (CODE, sent)
        with pytest.raises(ModelError) as error:
            await ask("other")
        assert error.value.code == "timeout"
        silent.set()
        await asyncio.sleep(0.3)
        assert await ask("acme") == "Fine."
        assert await ask("acme") == "Fine."
        await models.close()


async def test_a_real_connection_that_is_refused_counts() -> None:
    model = KINDS["openai"](LOOPBACK, "acme", "http://127.0.0.1:9/v1", "", Patience(connect=1))
    codes = []
    for _ in range(LIMIT + 2):
        with pytest.raises(ModelError) as error:
            async for _ in model.stream(ChatRequest("tiny", [ChatMessage("user", "Well?")], 16)):
                pass
        codes.append(error.value.code)
    await model.close()
    assert codes == [*LIMIT * ["unreachable"], CODE, CODE]
