"""Behaviour of every filter: one behind a real server, and the one that unit tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adapters.models.kinds import FILTERS
from adapters.models.registry import OfProviders
from domain.models.provider import Provider
from handlers.ports.filters import Check, Filter
from handlers.ports.models import ModelError, Models
from tests.chat_servers import LOOPBACK, Exchange, faulty_server
from tests.chat_servers import provider as guard
from tests.handlers.fakes import Guards

INPUT = Check("the-app", "input", {"query": "A bomb?", "inputs.who": "Eve"})


async def guards(exchange: Exchange) -> None:
    """Flags texts with bombs, and takes these out."""
    params = exchange.body["params"]
    if "text" in params:
        await exchange.answer(200, {"flagged": "bomb" in params["text"], "text": params["text"].replace("bomb", "…")})
    elif params["query"] == "away":
        await exchange.fail(503, "Away.")
    else:
        changed = {"query": params["query"].replace("bomb", "…"), "inputs": params["inputs"]}
        await exchange.answer(200, {"flagged": "bomb" in params["query"], **changed})


@pytest.fixture(params=["server", "fake"])
async def filters(request: pytest.FixtureRequest) -> AsyncIterator[Models[Filter]]:
    if request.param == "fake":
        fake = Guards()
        fake.flags, fake.changes = lambda text: "bomb" in text, lambda text: text.replace("bomb", "…")
        fake.away = "away"
        yield fake
        return
    async with faulty_server(guards) as server:

        async def registered(tenant: str, provider: str) -> Provider | None:
            return guard(server.url, "key") if provider == "guard" else None

        real = OfProviders(FILTERS, "filters", registered, lambda _, sealed: sealed, LOOPBACK)
        yield real
        await real.close()


async def test_a_filter_says_what_it_flags_and_what_it_changes(filters: Models[Filter]) -> None:
    [access] = await filters.get("default", "guard", "guard")
    filter = access.client
    assert filter.server.count(":") == 1
    assert await filter.check(INPUT) == (True, {"query": "A …?"})
    assert await filter.check(Check("the-app", "output", {"text": "A bomb."})) == (True, {"text": "A …."})
    assert await filter.check(Check("the-app", "output", {"text": "At six."})) == (False, {})


async def test_a_filter_that_fails_raises(filters: Models[Filter]) -> None:
    [access] = await filters.get("default", "guard", "guard")
    filter = access.client
    with pytest.raises(ModelError) as caught:
        await filter.check(Check("the-app", "input", {"query": "away"}))
    assert caught.value.code == "server_error"


async def test_a_provider_that_is_not_registered_has_no_filter(filters: Models[Filter]) -> None:
    with pytest.raises(ModelError) as caught:
        await filters.get("default", "nothing", "nothing")
    assert caught.value.code == "not_found"
