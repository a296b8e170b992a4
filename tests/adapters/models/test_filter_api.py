"""A filter's server: what it is sent, what its answers mean, and every way in which it can fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.egress.client import Egress
from adapters.models.filter_api import MOST_BYTES
from adapters.models.kinds import FILTERS
from adapters.models.registry import OfProviders
from domain.models.provider import Provider
from handlers.ports.filters import Check, Filter, Finding
from handlers.ports.models import ModelError
from tests.chat_servers import LOOPBACK, Behaviour, Exchange, FaultyServer, fails, faulty_server, hangs, refuses_key
from tests.chat_servers import provider as guard

KEY = "sk-live-3vKp+9/x2Qz7Lm=TtR"
INPUT = Check("the-app", "input", {"query": "When?", "inputs.who": "Eve"})
OUTPUT = Check("the-app", "output", {"text": "At six."})


def says(answer: object, status: int = 200) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(status, answer)

    return behaviour


@asynccontextmanager
async def filter_of(behaviour: Behaviour, key: str = KEY, egress: Egress = LOOPBACK) -> AsyncIterator[Any]:
    async with faulty_server(behaviour) as server:

        async def registered(tenant: str, provider: str) -> Provider | None:
            return guard(f"{server.url}/moderation?team=a", *filter(None, [key])) if provider == "guard" else None

        filters: OfProviders[Any] = OfProviders(FILTERS, "filters", registered, lambda _, sealed: sealed, egress)
        try:
            yield filters, server
        finally:
            await filters.close()


async def guarding(filters: OfProviders[Any]) -> Filter:
    [access] = await filters.get("default", "guard", "guard")
    return access.client


async def failure(filter: Filter, check: Check = OUTPUT) -> ModelError:
    async with asyncio.timeout(10):
        with pytest.raises(ModelError) as caught:
            await filter.check(check)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


async def test_sends_texts_in_the_form_of_difys_extensions() -> None:
    async with filter_of(says({"flagged": False})) as (filters, server):
        assert isinstance(server, FaultyServer)
        filter = await guarding(filters)
        assert await filter.check(INPUT) == Finding(False)
        assert await filter.check(OUTPUT) == Finding(False)
        assert filter.server == server.url.removeprefix("http://").removesuffix("/v1")
    first, second = server.requests
    assert first.target == "/v1/moderation?team=a"
    assert first.headers["authorization"] == f"Bearer {KEY}"
    params = {"app_id": "the-app", "inputs": {"who": "Eve"}, "query": "When?"}
    assert first.body == {"point": "app.moderation.input", "params": params}
    assert second.body == {"point": "app.moderation.output", "params": {"app_id": "the-app", "text": "At six."}}


@pytest.mark.parametrize(
    ("answer", "check", "finding"),
    [
        ({"flagged": True}, OUTPUT, Finding(True)),
        ({"flagged": True, "action": "overridden", "text": "At ***."}, OUTPUT, Finding(True, {"text": "At ***."})),
        (
            {"flagged": True, "inputs": {"who": "***"}, "query": "When?"},
            INPUT,
            Finding(True, {"inputs.who": "***"}),
        ),
        ({"flagged": True, "inputs": {"other": "x"}, "query": 7, "text": None}, INPUT, Finding(True)),
        ({"flagged": True, "text": "\0"}, OUTPUT, Finding(True)),
        ({"flagged": False, "text": "At seven."}, OUTPUT, Finding(False)),
    ],
)
async def test_an_answer_says_what_is_flagged_and_may_change_it(
    answer: dict[str, Any], check: Check, finding: Finding
) -> None:
    async with filter_of(says(answer)) as (filters, _):
        assert await (await guarding(filters)).check(check) == finding


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (fails, "server_error"),
        (refuses_key, "unauthorized"),
        (says({"detail": KEY}, 422), "bad_request"),
        (says("", 302), "bad_request"),
        (says("no JSON"), "server_error"),
        (says([True]), "server_error"),
        (says({"flagged": "no"}), "server_error"),
        (says({"verdict": False}), "server_error"),
        (says({"flagged": False, "more": "x" * MOST_BYTES}), "server_error"),
        (says({"detail": "Slow down."}, 429), "rate_limited"),
    ],
)
async def test_what_is_no_verdict_is_an_error(behaviour: Behaviour, code: str) -> None:
    async with filter_of(behaviour) as (filters, _):
        assert (await failure(await guarding(filters))).code == code


async def test_a_silent_server_waits_for_the_limit_of_the_caller() -> None:
    async with filter_of(hangs) as (filters, _):
        filter = await guarding(filters)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await filter.check(OUTPUT)


async def test_only_permitted_addresses_are_called() -> None:
    async with filter_of(says({"flagged": False}), egress=Egress()) as (filters, server):
        error = await failure(await guarding(filters))
        assert error.code == "unreachable"
        assert "HEADRACE_EGRESS_ALLOW" in error.reason
        assert server.requests == []


async def test_a_provider_that_is_gone_or_whose_key_cannot_be_sent_is_not_called() -> None:
    async with filter_of(says({"flagged": False}), key="kéy") as (filters, server):
        with pytest.raises(ModelError) as caught:
            await filters.get("default", "other", "other")
        assert caught.value.code == "not_found"
        assert (await failure(await guarding(filters))).code == "unauthorized"
        assert server.requests == []
