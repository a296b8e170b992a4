"""Behaviour of every toolbox: the built-in one, one of a knowledge base, and one of an API behind a real server."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, cast

import orjson
import pytest
from jsonschema import Draft202012Validator

from adapters.code.contained import Allowance, ContainedCode
from adapters.sandbox.choice import choose
from adapters.tools.builtin.code import RunCode
from adapters.tools.builtin.page import FetchPage
from adapters.tools.builtin.search import DatasetToolbox, SearchKnowledge
from adapters.tools.builtin.toolbox import BuiltinToolbox
from domain.aggregate import new_id
from domain.chat.app import Configuration, ModelSettings, features, settings
from domain.log import Metadata
from domain.tools.tool import Definition
from handlers.cause import Cause
from handlers.models.model_calls import ModelCalls
from handlers.ports.tools import Invocation, Toolbox, ToolError
from handlers.retrieval.rerank import Rerank
from handlers.retrieval.retrieve import Retrieve
from tests.adapters.tools.openapi.api import Heard, Writes, box, document, making, says, serving
from tests.handlers.desk import Desk
from tests.handlers.fakes import OneModel, Words, embedding_models
from tests.handlers.retrieval.test_retrieve import Library, Shelf, hit
from tests.memory import Memory

CODES = (
    *("unreachable", "timeout", "server_error", "unauthorized", "bad_request", "not_found", "rate_limited"),
    *("too_large", "invalid_arguments", "unsupported"),
)


class Case(NamedTuple):
    """A toolbox, a call of it, what the result has, and a call that fails."""

    toolbox: Toolbox
    tool: str
    arguments: dict[str, Any]
    says: str
    failing: tuple[str, dict[str, Any]]
    configuration: Configuration


def configuration(datasets: Sequence[str]) -> Configuration:
    return Configuration(
        number=1,
        model=ModelSettings(provider="builtin", name="extractive", max_tokens=9, context_window=999, parameters={}),
        prompt="",
        variables=[],
        datasets=list(datasets),
        retrieval=settings({"mode": "full_text", "top_k": 2, "score_threshold": None}),
        features=features({}),
    )


@pytest.fixture
async def library(memory: Memory, tenant: str) -> Library:
    return await Library(Desk(memory, tenant)).open()


@pytest.fixture
def retrieve(library: Library) -> Retrieve:
    calls, shelf = ModelCalls(library.desk.repository), cast("Any", Shelf([hit("water", library.living)]))
    none = cast("Any", None)
    models = embedding_models(library.desk.repository, OneModel(Words()))
    return Retrieve(library.desk.repository, models, shelf, shelf, Rerank(calls, none), none)


def answers(heard: Heard) -> Writes:
    return says('{"name": "Rex"}') if heard.target == "/pets/7" else says("none", 404, "text/plain")


@pytest.fixture(params=["builtin", "dataset", "openapi"])
async def case(request: pytest.FixtureRequest, library: Library, retrieve: Retrieve) -> AsyncIterator[Case]:
    of_app = configuration([library.dataset])
    if request.param == "builtin":
        page = FetchPage(cast("Any", None), cast("Any", None))
        async with ContainedCode(await choose(), Allowance()) as code:
            toolbox = BuiltinToolbox(page, SearchKnowledge(retrieve), RunCode(code))
            failing = ("calculate", {"expression": "1/0"})
            yield Case(toolbox, "calculate", {"expression": "6*7"}, "42", failing, of_app)
    elif request.param == "dataset":
        found = DatasetToolbox(retrieve, "Rules.", {"dataset": library.dataset, "top_k": 2})
        yield Case(found, "search_knowledge", {"query": "When?"}, "water", ("search", {"query": "When?"}), of_app)
    else:
        pet = {"operationId": "get_pet", "parameters": [{"name": "id", "in": "path", "schema": {"type": "integer"}}]}
        async with serving(answers) as server, making() as make:
            api = box(make, text=json.dumps(document({"/pets/{id}": {"get": pet}}, server.url)))
            yield Case(api, "get_pet", {"id": 7}, "Rex", ("get_pet", {"id": 8}), of_app)


def invocation(case: Case, tenant: str, tool: Definition, arguments: dict[str, Any], id: str) -> Invocation:
    cause = Cause(Metadata(new_id(), tenant, new_id()), "message", new_id(), 1)
    return Invocation(id, cause, tool, arguments, case.configuration, "2026-05-04T12:00:00+00:00", "ada")


async def test_tools_are_listed_with_names_and_schemas_and_are_the_same_twice(case: Case) -> None:
    tools = (await case.toolbox.list()).tools
    assert len({tool["name"] for tool in tools}) == len(tools) > 0
    for tool in tools:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool["name"])
        assert tool["description"]
        assert tool["parameters"]["type"] == "object"
        Draft202012Validator.check_schema(tool["parameters"])
        assert re.fullmatch(r"|[^:]+:\d+", tool.get("server", case.toolbox.server))
    assert orjson.dumps((await case.toolbox.list()).tools) == orjson.dumps(tools)


async def test_a_call_gives_a_result_that_can_be_recorded_and_the_same_again(case: Case, tenant: str) -> None:
    tools = {tool["name"]: tool for tool in (await case.toolbox.list()).tools}
    id = new_id()
    for _ in range(2):
        result = await case.toolbox.call(invocation(case, tenant, tools[case.tool], case.arguments, id))
        assert case.says in result.text + "".join(each.entry.content for each in result.passages)
        assert {part["type"] for part in result.parts} <= {"json", "link"}
        orjson.dumps([result.text, *result.parts])
        assert {each.document for each in result.passages} <= set(result.names)


async def test_a_call_that_fails_says_why_to_the_model(case: Case, tenant: str) -> None:
    tools = {tool["name"]: tool for tool in (await case.toolbox.list()).tools}
    name, arguments = case.failing
    tool = tools.get(name, {**tools[case.tool], "name": name})
    with pytest.raises(ToolError) as raised:
        await case.toolbox.call(invocation(case, tenant, tool, arguments, new_id()))
    assert raised.value.code in CODES
    assert raised.value.reason.endswith((".", "none"))


async def test_a_tool_that_is_not_listed_is_not_found(case: Case, tenant: str) -> None:
    tool = Definition(name="none", label="", description="", parameters={}, destructive=False, idempotent=True)
    with pytest.raises(ToolError) as raised:
        await case.toolbox.call(invocation(case, tenant, tool, case.arguments, new_id()))
    assert raised.value.code == "not_found"
