"""A model whose server says that it has tools, and that does not keep to them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx2
import jsonschema
import pytest

from adapters.models.chat_server import ChatServer
from handlers.ports.models import Tool
from ops.servers.model import EmbeddedModel
from tests.larger_model import NAME, larger_model  # noqa: F401
from tests.small_model import client_of, request

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

TOOL = Tool("measure", "Measures a thing.", {"type": "object", "properties": {"thing": {"type": "string"}}})
CODE = {
    "type": "object",
    "properties": {"language": {"enum": ["python", "rust"]}, "lines": {"type": "array", "items": {"type": "string"}}},
    "required": ["language", "lines"],
    "additionalProperties": False,
}


@pytest.fixture
async def model(larger_model: EmbeddedModel) -> AsyncIterator[ChatServer]:  # noqa: F811
    client = client_of(larger_model)
    yield client
    await client.close()


async def test_it_answers_from_the_text(model: ChatServer) -> None:
    deltas = [delta async for delta in model.stream(replace(request(), model=NAME))]
    assert "28 metres" in "".join(delta.text for delta in deltas)
    assert (deltas[-1].finish_reason, deltas[-1].model) == ("stop", NAME)


async def test_it_keeps_to_a_schema(model: ChatServer) -> None:
    asked = request("Write a program that prints 28.", max_tokens=120, schema=CODE)
    deltas = [delta async for delta in model.stream(replace(asked, model=NAME))]
    jsonschema.validate(json.loads("".join(delta.text for delta in deltas)), CODE)


async def test_it_has_tools_and_ignores_a_forced_one(model: ChatServer, larger_model: EmbeddedModel) -> None:  # noqa: F811
    """The prompt grows by the tools, so the server has read them."""
    async with httpx2.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {larger_model.key}"}) as http:
        said = (await http.get(larger_model.url.removesuffix("/v1") + "/props")).json()
    assert said["chat_template_caps"]["supports_tools"]
    plain, forced = [
        [delta async for delta in model.stream(replace(request(), model=NAME, tools=tools, tool_choice=choice))]
        for tools, choice in (((), "auto"), ([TOOL], TOOL.name))
    ]
    assert plain[-1].usage
    assert forced[-1].usage
    assert forced[-1].usage.prompt_tokens > plain[-1].usage.prompt_tokens + 50
    assert forced[-1].tool_calls == ()
    assert "".join(delta.text for delta in forced)
