"""A route that changes under load, with a provider that fails and one that is removed, loses no question and no try."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any

from tests.chat_servers import Behaviour, Exchange, FaultyServer, faulty_server
from tests.journeys.stack import Row, Stack

QUESTIONS, AT_ONCE = 150, 12

ROUTES: Sequence[Sequence[Sequence[str]]] = (
    (("shaky",), ("leaving",), ("steady",)),
    (("steady",), ("shaky",)),
    (("leaving", "shaky"), ("steady",)),
    (("shaky", "steady"),),
)

CALLS = """
SELECT id, cause_id, try, after, route, provider, server, status, error_code, response FROM headrace.model_calls
WHERE cause_id = ANY(%(messages)s) AND kind = 'chat' ORDER BY cause_id, try
"""

Asked = Counter[tuple[str, str]]
"""Requests by the address of the server and the question."""


def number_in(exchange: Exchange) -> str:
    return str(exchange.body["messages"][-1]["content"]).removeprefix("Question ")


async def answers(exchange: Exchange, *, after_s: float) -> None:
    """Repeat the number of the question."""
    await asyncio.sleep(after_s)
    await exchange.finish(f"Answer {number_in(exchange)}")


def server(name: str) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        if name == "shaky" and exchange.number % 2:
            await exchange.fail(500, "The engine is on fire.")
        else:
            await answers(exchange, after_s=random.uniform(0.0, 0.3 if name == "leaving" else 0.1))

    return behaviour


@asynccontextmanager
async def registered(headrace: Stack, name: str) -> AsyncIterator[FaultyServer]:
    async with faulty_server(server(name)) as found:
        await headrace.send("provider.register", name=name, base_url=found.url)
        yield found


async def configure(headrace: Stack, groups: Sequence[Sequence[str]]) -> None:
    given = [{"members": [{"provider": name, "name": "any"} for name in group]} for group in groups]
    await headrace.send("route.configure", name="changing", groups=given)


async def keep_changing(headrace: Stack, leaving: FaultyServer, answered: dict[str, str]) -> list[str]:
    """Change the route until all is answered, meanwhile remove a provider that it names, and register it again."""
    changes = list[str]()
    while len(answered) < QUESTIONS:
        if "removed" not in changes and len(answered) > QUESTIONS // 3:
            await configure(headrace, ROUTES[0])
            await headrace.send("provider.remove", provider="leaving")
            changes.append("removed")
            await asyncio.sleep(0.3)
        elif "registered" not in changes and len(answered) > 2 * QUESTIONS // 3:
            await headrace.send("provider.register", name="leaving", base_url=leaving.url)
            changes.append("registered")
        groups = ROUTES[len(changes) % len(ROUTES)]
        is_away = "removed" in changes and "registered" not in changes
        if not (is_away and any("leaving" in group for group in groups)):
            await configure(headrace, groups)
        changes.append("changed")
        await asyncio.sleep(0.05)
    return changes


async def test_a_route_that_changes_under_load_loses_nothing(headrace: Stack) -> None:
    async with (
        registered(headrace, "steady") as steady,
        registered(headrace, "shaky") as shaky,
        registered(headrace, "leaving") as leaving,
    ):
        await configure(headrace, ROUTES[0])
        app = await headrace.make("app.create", name="changing")
        await headrace.send("app.configure", app=app, model={"route": "changing"})
        numbers, answered, messages = iter(range(QUESTIONS)), dict[str, str](), dict[str, str]()

        async def ask() -> None:
            for number in numbers:
                frames = await headrace.ask(app, f"Question {number}")
                assert frames[-1]["type"] == "answered", frames[-1]
                messages[frames[0]["message"]] = str(number)
                answered[str(number)] = frames[-1]["answer"]

        changing = asyncio.create_task(keep_changing(headrace, leaving, answered))
        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        changes = await changing
        servers = (steady, shaky, leaving)
        received = Asked((address(each), number_in(request)) for each in servers for request in each.requests)

    assert answered == {str(number): f"Answer {number}" for number in range(QUESTIONS)}
    assert changes.count("changed") > len(ROUTES)
    assert {"removed", "registered"} <= set(changes)
    assert all(each.requests for each in servers)
    calls = await headrace.until(
        CALLS,
        lambda rows: sum(row["status"] == "completed" for row in rows) == QUESTIONS,
        messages=list(messages),
    )
    assert Asked((call["server"], messages[call["cause_id"]]) for call in calls) == received
    tries = {message: list(group) for message, group in groupby(calls, lambda call: str(call["cause_id"]))}
    assert tries.keys() == messages.keys()
    for message, made in tries.items():
        check(made, answered[messages[message]])
    assert max(map(len, tries.values())) > 1


def check(tries: Sequence[Row], answer: str) -> None:
    """Each try names the one before, which failed; the last one gave the answer."""
    assert [each["try"] for each in tries] == [*range(1, len(tries) + 1)]
    assert [each["after"] for each in tries] == [None, *(each["id"] for each in tries[:-1])]
    ends: list[tuple[Any, ...]] = [(each["status"], each["error_code"]) for each in tries]
    assert ends == [("failed", "server_error")] * (len(tries) - 1) + [("completed", None)]
    assert {each["route"] for each in tries} == {"changing"}
    assert tries[-1]["response"] == answer


def address(found: FaultyServer) -> str:
    return found.url.removeprefix("http://").removesuffix("/v1")
