"""Conditions that a chat model reads out of a question: what it is asked, and what of its answers is taken."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from adapters.models.registry import TenantModels
from adapters.models.server import Patience
from domain.aggregate import new_id
from domain.chat.app import ModelSettings
from domain.log import Metadata
from domain.models.model_call import ModelCall
from domain.models.provider import Provider
from handlers.cause import Cause
from handlers.models.model_calls import ModelCalls
from handlers.retrieval.extract_filter import Extracted, ExtractFilter, Type
from tests.chat_servers import LOOPBACK, Behaviour, Exchange, fails, faulty_server, hangs, in_clear, provider
from tests.handlers.desk import Desk
from tests.handlers.fakes import choosing
from tests.memory import Memory

FIELDS: dict[str, Type] = {"author": "string", "year": "number", "signed": "time"}
QUERY = "What did Agnes write on weirs after 1820?"
CONDITIONS = [
    {"name": "author", "comparison_operator": "is", "value": "Agnes"},
    {"name": "year", "comparison_operator": ">", "value": 1820},
]
ANSWER = json.dumps({"logical_operator": "and", "conditions": CONDITIONS})


class Asked(NamedTuple):
    extracted: Extracted
    desk: Desk
    cause: Cause
    requests: list[Exchange]

    async def recorded(self) -> list[Any]:
        return await self.desk.events("model_call", self.cause.call("filter"))


def says(text: str) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.finish(text)

    return behaviour


@asynccontextmanager
async def asked(memory: Memory, tenant: str, behaviour: Behaviour, patience_s: float = 5.0) -> AsyncIterator[Asked]:
    async with faulty_server(behaviour) as server:

        async def registered(of: str, name: str) -> Provider | None:
            return provider(server.url, "key") if name == "lab" else None

        desk = Desk(memory, tenant)
        cause = Cause(Metadata(new_id(), tenant, new_id()), "message", new_id(), 2)
        models = TenantModels(registered, in_clear, LOOPBACK, Patience(connect=2))
        model = ModelSettings(
            provider="lab", name="tiny", max_tokens=64, context_window=999, parameters={"temperature": 0.2}
        )
        extract = ExtractFilter(ModelCalls(desk.repository), choosing(desk.repository, models), patience_s=patience_s)
        yield Asked(await extract(cause, model, FIELDS, QUERY), desk, cause, server.requests)
        await models.close()


async def test_conditions_become_a_filter(memory: Memory, tenant: str) -> None:
    async with asked(memory, tenant, says(ANSWER)) as found:
        filter = {"mode": "automatic", "logical_operator": "and", "conditions": CONDITIONS}
        assert found.extracted == Extracted(filter)  # type: ignore[arg-type]


async def test_the_model_gets_the_fields_and_the_question(memory: Memory, tenant: str) -> None:
    async with asked(memory, tenant, says(ANSWER)) as found:
        [exchange] = found.requests
    system, user = exchange.body["messages"]
    assert (user["role"], user["content"]) == ("user", QUERY)
    assert '- "author" (string): contains, ' in system["content"]
    assert '- "year" (number): =, ≠, ' in system["content"]
    assert '- "signed" (time): before, after, ' in system["content"]
    assert (exchange.body["max_tokens"], exchange.body["temperature"]) == (64, 0.2)


async def test_the_call_is_recorded_as_a_chat(memory: Memory, tenant: str) -> None:
    async with asked(memory, tenant, says(ANSWER)) as found:
        requested, completed = await found.recorded()
    assert isinstance(requested, ModelCall.Requested)
    assert (requested.kind, requested.provider, requested.model) == ("chat", "lab", "tiny")
    assert (requested.cause_noun, requested.cause_id, requested.attempt) == ("message", found.cause.id, 2)
    said = {"from": "query", "message_id": found.cause.id, "text": QUERY}
    assert requested.request["messages"][1] == {"role": "user", "pieces": [said]}
    assert isinstance(completed, ModelCall.Completed)
    assert completed.response == ANSWER


@pytest.mark.parametrize(
    "answer",
    [
        f"```json\n{ANSWER}\n```",
        f"```\n{ANSWER}\n```\n",
        f"<think>Hm, {{}}?</think>\n\n{ANSWER}",
        f"\n  {ANSWER} ",
    ],
)
async def test_what_surrounds_an_answer_is_left_out(memory: Memory, tenant: str, answer: str) -> None:
    async with asked(memory, tenant, says(answer)) as found:
        assert found.extracted.filter is not None
        assert found.extracted.filter["conditions"] == CONDITIONS


async def test_most_questions_name_no_conditions(memory: Memory, tenant: str) -> None:
    async with asked(memory, tenant, says('{"logical_operator": "and", "conditions": []}')) as found:
        assert found.extracted == Extracted(None)


def condition(name: object = "author", operator: object = "is", value: object = "Agnes", **more: object) -> str:
    given = {"name": name, "comparison_operator": operator, "value": value, **more}
    return json.dumps({"logical_operator": "or", "conditions": [given]})


@pytest.mark.parametrize(
    "answer",
    [
        "I would say that Agnes wrote it.",
        f"Here you are: {ANSWER}",
        "[]",
        "null",
        "{}",
        '{"conditions": []}',
        '{"logical_operator": "xor", "conditions": []}',
        '{"logical_operator": "and", "conditions": [], "sql": "DROP TABLE documents"}',
        condition(name="tenant_id"),
        condition(name=7),
        condition(operator="like"),
        condition(operator=">", value=3),
        condition(name="year", operator="is", value="1820"),
        condition(name="year", operator=">", value="1820"),
        condition(name="year", operator=">", value=None),
        condition(name="year", operator=">", value=True),
        condition(name="year", operator=">", value=float("nan")),
        condition(name="year", operator=">", value=7).replace("7", "1e999"),
        condition(name="signed", operator="before", value="last spring"),
        condition(operator="in", value=[]),
        condition(operator="in", value="Agnes"),
        condition(operator="empty", value="Agnes"),
        condition(reason="He asked for it."),
        json.dumps({"logical_operator": "and", "conditions": CONDITIONS * 17}),
        "[" * 20_000,
    ],
)
async def test_what_is_no_filter_is_none_at_all(memory: Memory, tenant: str, answer: str) -> None:
    async with asked(memory, tenant, says(answer)) as found:
        assert (found.extracted.filter, found.extracted.code) == (None, "invalid_filter")
        assert 10 < len(str(found.extracted.reason)) <= 1000


@pytest.mark.parametrize(("behaviour", "code"), [(fails, "server_error"), (hangs, "timeout")])
async def test_a_model_that_fails_leaves_no_filter(
    memory: Memory, tenant: str, behaviour: Behaviour, code: str
) -> None:
    async with asked(memory, tenant, behaviour, patience_s=0.5) as found:
        assert (found.extracted.filter, found.extracted.code) == (None, code)
        _, ended = await found.recorded()
        assert isinstance(ended, ModelCall.Failed if code == "server_error" else ModelCall.Cancelled)


async def test_an_answer_without_end_is_broken_off(memory: Memory, tenant: str) -> None:
    async def babbles(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.say("and so on " * 200)

    async with asked(memory, tenant, babbles) as found:
        assert found.extracted.code == "invalid_filter"
        _, ended = await found.recorded()
        assert isinstance(ended, ModelCall.Cancelled)


@pytest.mark.parametrize(
    ("provider", "fields", "code"), [("builtin", FIELDS, "not_found"), ("gone", FIELDS, "not_found"), ("lab", {}, None)]
)
async def test_no_call_is_made_in_vain(
    memory: Memory, tenant: str, provider: str, fields: dict[str, Type], code: str | None
) -> None:
    async def registered(of: str, name: str) -> None:
        return None

    cause = Cause(Metadata(new_id(), tenant, new_id()), "message", new_id(), 1)
    desk = Desk(memory, tenant)
    model = ModelSettings(provider=provider, name="extractive", max_tokens=9, context_window=999, parameters={})
    extract = ExtractFilter(
        ModelCalls(desk.repository), choosing(desk.repository, TenantModels(registered, in_clear, LOOPBACK))
    )
    assert (await extract(cause, model, fields, QUERY)).code == code
    assert await desk.events("model_call", cause.call("filter")) == []
