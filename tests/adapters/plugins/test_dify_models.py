"""Models of Dify's plugins, run unchanged by the real SDK against a scripted server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from adapters.models.dify import DifyModels
from adapters.models.server import Patience
from adapters.sandbox.choice import choose
from handlers.ports.models import Attachment, ChatMessage, ChatRequest, Delta, ModelError, Tool, ToolCall
from tests.adapters.plugins.conftest import Site
from tests.adapters.plugins.dify_models import FILES, MANIFEST
from tests.adapters.plugins.lab import Lab, served
from tests.dify_packages import has_python

pytestmark = pytest.mark.skipif(not has_python(), reason="there is no Python 3.12 on this machine")

KEY = "key-of-the-lab"
ASKED = [ChatMessage("system", "Be brief."), ChatMessage("user", "When is high tide?")]
TIDES = Tool("tides", "The tides.", {"type": "object", "properties": {"at": {"type": "string"}}})


def event(delta: dict[str, Any], **fields: Any) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": fields.pop("finish", None)}
    return f"data: {json.dumps({'id': 'r1', 'model': 'small', 'choices': [choice], **fields})}\n\n"


def answer(head: str, body: bytes) -> bytes:
    """A scripted server with chat, embeddings and reranking."""
    asked = json.loads(body)
    if "/embeddings" in head:
        data = [{"index": place, "embedding": [float(len(text)), 1.0]} for place, text in enumerate(asked["input"])]
        return json.dumps({"data": data, "usage": {"total_tokens": 7}}).encode()
    if "/rerank" in head:
        results = [{"index": place, "relevance_score": 1 / (place + 1)} for place in range(len(asked["documents"]))]
        return json.dumps({"results": results[::-1]}).encode()
    if asked.get("tools"):
        call = {
            "index": 0,
            "id": "c1",
            "type": "function",
            "function": {"name": "tides", "arguments": '{"at": "Kiel"}'},
        }
        said = event({"role": "assistant", "tool_calls": [call]}) + event({}, finish="tool_calls")
    else:
        said = "".join(event({"content": word}) for word in ("At ", "18", ":05."))
        said += event({}, finish="stop", usage={"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17})
    return f"{said}data: [DONE]\n\n".encode()


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    site = Site(tmp_path_factory.mktemp("home"), (await choose()).sandbox)
    lab = Lab(site)
    await lab.add(MANIFEST, FILES)
    yield lab
    await site.hosts.close()
    await site.environments.close()


def models(lab: Lab, address: str = "http://192.0.2.1", key: str = KEY, patience: Patience | None = None) -> DifyModels:
    async def opened() -> Any:
        return lab.dify

    given = json.dumps({"api_key": key, "endpoint_url": address})
    return DifyModels(opened, "acme", "plugin://models/lab", given, patience or Patience())


async def deltas(model: DifyModels, name: str, messages: list[ChatMessage] = ASKED, **fields: Any) -> list[Delta]:
    request = ChatRequest(name, messages, fields.pop("max_tokens", 100), **fields)
    return [delta async for delta in model.stream(request)]


async def failure(model: DifyModels, name: str) -> ModelError:
    with pytest.raises(ModelError) as failed:
        await deltas(model, name)
    return failed.value


async def test_a_chat_model_streams_with_its_usage(lab: Lab) -> None:
    async with served(answer) as address:
        lab.site.allow(address.removeprefix("http://"))
        found = await deltas(models(lab, f"{address}/v1"), "small")
    assert len([delta for delta in found if delta.text]) >= 3
    assert "".join(delta.text for delta in found) == "At 18:05."
    last = found[-1]
    assert last.finish_reason == "stop"
    assert last.usage
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (12, 5)


async def test_a_chat_model_asks_for_tools(lab: Lab) -> None:
    async with served(answer) as address:
        lab.site.allow(address.removeprefix("http://"))
        found = await deltas(models(lab, f"{address}/v1"), "small", tools=[TIDES])
    assert found[-1].tool_calls == [ToolCall("c1", "tides", '{"at": "Kiel"}')]
    assert found[-1].usage  # estimated, since the server counts nothing and the vocabulary is out of reach


async def test_calls_in_pieces_are_joined_and_state_comes_along(lab: Lab) -> None:
    last = (await deltas(models(lab), "made-up-calls", tools=[TIDES]))[-1]
    assert last.tool_calls == [
        ToolCall("c1", "tides", '{"at": "Kiel"}'),
        ToolCall("c2", "tides", '{"at": "Hull"}'),
    ]
    assert last.finish_reason == "tool_calls"
    assert last.state == {"opaque_body": {"signature": "s1"}}


async def test_messages_files_and_state_reach_the_model(lab: Lab) -> None:
    image = Attachment("image", "image/png", b"\x89PNG")
    messages = [
        ChatMessage("user", "Look.", [image]),
        ChatMessage("assistant", "", tool_calls=[ToolCall("c1", "tides", "{}")], state={"opaque_body": {"s": 1}}),
        ChatMessage("tool", "18:05", tool_call_id="c1"),
    ]
    found = await deltas(models(lab), "made-up-repeats", messages, parameters={"temperature": 0.5, "stop": "x"})
    said = "".join(delta.text for delta in found)
    assert said == (
        "user: Look. None | assistant:  {'s': 1} | tool: 18:05 None"
        " | [('max_tokens', 100), ('temperature', 0.5)] | ['text', 'image']"
    )


async def test_reasoning_is_apart_and_the_key_has_stars(lab: Lab) -> None:
    found = await deltas(models(lab), "made-up")
    assert "".join(delta.text for delta in found) == "At 18:05."
    assert "".join(delta.reasoning for delta in found) == "The key is ***."


async def test_faults_have_their_codes(lab: Lab) -> None:
    limited = await failure(models(lab), "made-up-limit")
    assert (limited.code, limited.passing) == ("rate_limited", True)
    assert KEY not in limited.reason
    assert (await failure(models(lab), "made-up-empty")).code == "empty_answer"
    assert (await failure(models(lab, patience=Patience(first_token=1)), "made-up-silent")).code == "timeout"
    crashed = await failure(models(lab, patience=Patience(first_token=30)), "made-up-crash")
    assert crashed.code == "broken_off"
    assert crashed.reason.startswith("It ended with status 4.")


async def test_vectors_come_in_the_order_of_the_texts(lab: Lab) -> None:
    async with served(answer) as address:
        lab.site.allow(address.removeprefix("http://"))
        found = await models(lab, f"{address}/v1").embed("vectors", ["one", "three"])
    assert found.vectors.tolist() == [[3.0, 1.0], [5.0, 1.0]]
    assert found.usage
    assert found.usage.prompt_tokens == 7


async def test_scores_come_in_the_order_of_the_texts(lab: Lab) -> None:
    async with served(answer) as address:
        lab.site.allow(address.removeprefix("http://"))
        found = await models(lab, f"{address}/v1").rerank("ranker", "tide", ["a", "b", "c"])
    assert len(found.scores) == 3
    assert found.scores == sorted(found.scores, reverse=True)


async def test_predefined_models_are_listed_once_the_key_is_valid(lab: Lab) -> None:
    [small] = await models(lab).listed()
    assert small == ("small", "chat", 8192, 1024)
    with pytest.raises(ModelError) as failed:
        await models(lab, key="a-wrong-key").listed()
    assert failed.value.code == "unauthorized"
    assert "a-wrong-key" not in failed.value.reason


async def test_an_address_or_a_key_of_another_form_is_refused(lab: Lab) -> None:
    with pytest.raises(ModelError, match="no JSON object"):
        DifyModels(lambda: lab.dify, "acme", "plugin://models/lab", "text")  # type: ignore[arg-type,return-value]
    with pytest.raises(ModelError, match="no address"):
        DifyModels(lambda: lab.dify, "acme", "https://host/v1", "{}")  # type: ignore[arg-type,return-value]
