"""Behaviour of every kind of server: one suite, against a scripted server of each."""

from __future__ import annotations

import asyncio
import base64
import json
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.models import ollama
from adapters.models.anthropic import Anthropic
from adapters.models.chat_server import Sent, Wire, _Answer
from adapters.models.circuit import LIMIT
from adapters.models.faults import ServerError
from adapters.models.gemini import Gemini
from adapters.models.kinds import KINDS
from adapters.models.openai_compatible import ChatCompletions
from adapters.models.openai_responses import Responses
from adapters.models.server import Patience
from adapters.models.server_events import ServerEvent
from adapters.models.withheld import Withheld
from handlers.ports.models import Attachment, ChatMessage, ChatModel, ChatRequest, Delta, ModelError, Tool, ToolCall
from tests.adapters.models.dialects import DIALECTS, KEY, PATIENCE, Dialect, Ollama, model_of, tried
from tests.chat_servers import Behaviour, Exchange, hangs, talks_nonsense

WIRES: dict[str, Callable[[str], Wire]] = {
    "openai": ChatCompletions,
    "openai_responses": Responses,
    "ollama": ollama.Ollama,
    "anthropic": Anthropic,
    "gemini": Gemini,
}
FIELDS = (
    "function",
    "functionCall",
    "thinking",
    "content_block",
    "response",
    "output",
    "usage",
    "logprobs",
    "thoughtSignature",
)

TIDE = Tool(
    "tide",
    "The tide at a lock.",
    {
        "type": "object",
        "properties": {"lock": {"type": "string"}},
        "required": ["lock"],
        "additionalProperties": False,
    },
)
SCHEMA = {"type": "object", "properties": {"open": {"type": "boolean"}}, "required": ["open"]}
ASKED = [ChatMessage("system", "Be brief."), ChatMessage("user", "Is the Mill lock open?")]
PICTURE = Attachment("image", "image/png", b"\x89PNG of a lock", "lock.png")

each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.kind)


def request(*messages: ChatMessage, **fields: Any) -> ChatRequest:
    return ChatRequest("tiny", [*(messages or ASKED)], 16, **fields)


async def answer(
    dialect: Dialect, behaviour: Behaviour, asked: ChatRequest | None = None
) -> tuple[list[Delta], dict[str, Any]]:
    """The answer, and the body of the last request."""
    async with model_of(dialect, behaviour) as (model, server):
        deltas = await tried(model, asked or request())
        return deltas, next(exchange.body for exchange in reversed(server.requests) if exchange.body)


async def failure(
    dialect: Dialect, behaviour: Behaviour, patience: Patience = PATIENCE
) -> tuple[str, ModelError, list[Exchange]]:
    """The text that had arrived, the error, and the requests."""
    arrived = ""
    async with model_of(dialect, behaviour, patience) as (model, server), asyncio.timeout(20):
        try:
            async for delta in model.stream(request()):
                arrived += delta.text
        except ModelError as error:
            return arrived, error, server.requests
    pytest.fail(f"No error came, but {arrived!r}.")


async def heard(model: ChatModel, deltas: list[Delta]) -> ModelError:
    """The error that ends an answer, whose pieces go to the list."""
    try:
        async for delta in model.stream(request()):
            deltas.append(delta)
    except ModelError as error:
        return error
    pytest.fail("No error came.")


def said(deltas: list[Delta]) -> tuple[str, str]:
    return "".join(delta.text for delta in deltas), "".join(delta.reasoning for delta in deltas)


def test_every_kind_has_a_dialect() -> None:
    assert [dialect.kind for dialect in DIALECTS] == list(KINDS)


# --- answers -------------------------------------------------------------------------------------------------


@each_dialect
async def test_an_answer_comes_in_pieces_and_ends_with_what_is_known_of_it(dialect: Dialect) -> None:
    streamed = dialect.streams(dialect.think("Mud "), dialect.think("dries."), dialect.say("It "), dialect.say("is."))
    whole = dialect.streams(
        dialect.think("Mud "), dialect.think("dries."), dialect.say("It "), dialect.say("is."), dialect.end()
    )
    deltas, body = await answer(dialect, whole)
    assert said(deltas) == ("It is.", "Mud dries.")
    assert [delta.text for delta in deltas if delta.text] == ["It ", "is."]
    last = deltas[-1]
    assert last.finish_reason
    assert last.model == "m1"
    assert last.response_id == (None if dialect.kind == "ollama" else "a1")
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (20, 5)
    assert last.tool_calls == ()
    assert "Be brief." in json.dumps(body)
    arrived, error, requests = await failure(dialect, streamed)
    assert (arrived, error.code, len(requests)) == ("It is.", "broken_off", 1)


@each_dialect
async def test_the_request_goes_to_its_path_with_the_key_in_its_place(dialect: Dialect) -> None:
    behaviour = dialect.streams(dialect.say("Yes."), dialect.end())
    for key in (KEY, ""):
        async with model_of(dialect, behaviour, key=key) as (model, server):
            async for _ in model.stream(request()):
                pass
            [exchange] = server.requests
        assert exchange.target == dialect.target
        assert dialect.key(exchange.headers) == key
        assert KEY not in exchange.target


@each_dialect
async def test_an_answer_that_is_cut_at_its_limit_is_whole(dialect: Dialect) -> None:
    deltas, body = await answer(dialect, dialect.streams(dialect.say("It"), dialect.end(cut=True)))
    assert (deltas[-1].finish_reason or "").lower() in ("length", "max_tokens", "max_output_tokens")
    assert 16 in [*body.values(), *body.get("options", {}).values(), *body.get("generationConfig", {}).values()]


@each_dialect
async def test_reasoning_without_an_answer_is_an_error_that_keeps_its_tokens(dialect: Dialect) -> None:
    for cut, code in ((False, "empty_answer"), (True, "length")):
        thinks = dialect.streams(dialect.think("Mud."), dialect.end(cut=cut))
        async with model_of(dialect, thinks) as (model, server):
            deltas: list[Delta] = []
            error = await heard(model, deltas)
            assert len(server.requests) == 1
        assert error.code == code
        assert deltas[-1].usage is not None


@each_dialect
async def test_marks_of_reasoning_within_an_answer_are_no_part_of_it(dialect: Dialect) -> None:
    pieces = [dialect.say("<thi"), dialect.say("nk>Mud.</th"), dialect.say("ink>It is."), dialect.end()]
    if dialect.kind == "anthropic":
        pieces = [dialect.say("<think>Mud.</think>It is."), dialect.end()]
    assert said((await answer(dialect, dialect.streams(*pieces)))[0]) == ("It is.", "Mud.")


# --- tools ---------------------------------------------------------------------------------------------------


@each_dialect
async def test_calls_of_tools_come_with_the_last_piece_and_their_results_go_back(dialect: Dialect) -> None:
    calls = [
        dialect.call(0, "call_aaaa", "tide", {"lock": "Mill"}),
        dialect.call(1, "call_bbbb", "tide", {"lock": "Sea"}),
    ]
    asks = dialect.streams(dialect.think("Mud."), dialect.say("Let me see."), *calls, dialect.end(calls=True))
    deltas, body = await answer(dialect, asks, request(tools=[TIDE]))
    assert said(deltas)[0] == "Let me see."
    assert all(not delta.tool_calls for delta in deltas[:-1])
    found = deltas[-1].tool_calls
    assert [(call.name, json.loads(call.arguments)) for call in found] == [
        ("tide", {"lock": "Mill"}),
        ("tide", {"lock": "Sea"}),
    ]
    assert len({call.id for call in found}) == 2
    assert "The tide at a lock." in json.dumps(body)

    back = request(
        *ASKED,
        ChatMessage("assistant", "Let me see.", tool_calls=found, state=deltas[-1].state),
        *(ChatMessage("tool", f"High at {call.id}.", tool_call_id=call.id) for call in found),
        tools=[TIDE],
    )
    _, body = await answer(dialect, dialect.streams(dialect.say("High."), dialect.end()), back)
    sent = json.dumps(body)
    for call in found:
        assert f"High at {call.id}." in sent
        assert sent.count(call.id) >= (1 if dialect.kind == "ollama" else 3)
    assert sent.count('"Sea"') + sent.count('\\"Sea\\"') == 1


@each_dialect
async def test_an_answer_without_arguments_calls_with_an_empty_object(dialect: Dialect) -> None:
    asks = dialect.streams(dialect.call(0, "call_aaaa", "now", {}), dialect.end(calls=True))
    deltas, _ = await answer(dialect, asks, request(tools=[Tool("now", "The time.", {"type": "object"})]))
    assert [(call.name, call.arguments) for call in deltas[-1].tool_calls] == [("now", "{}")]


def chosen(body: dict[str, Any]) -> object:
    """The choice of tools in a request of any kind."""
    config = body.get("toolConfig", {}).get("functionCallingConfig")
    if config or "tool_choice" in body:
        return config or body["tool_choice"]
    return [tool["function"]["name"] for tool in body.get("tools", ())]


@pytest.mark.parametrize(
    ("kind", "choice", "expected"),
    [
        ("openai", "auto", ["tide"]),
        ("openai", "none", "none"),
        ("openai", "required", "required"),
        ("openai", "tide", {"type": "function", "function": {"name": "tide"}}),
        ("openai_responses", "required", "required"),
        ("openai_responses", "tide", {"type": "function", "name": "tide"}),
        ("ollama", "auto", ["tide"]),
        ("ollama", "none", []),
        ("anthropic", "none", {"type": "none"}),
        ("anthropic", "required", {"type": "any"}),
        ("anthropic", "tide", {"type": "tool", "name": "tide"}),
        ("gemini", "auto", {"mode": "AUTO"}),
        ("gemini", "none", {"mode": "NONE"}),
        ("gemini", "required", {"mode": "ANY"}),
        ("gemini", "tide", {"mode": "ANY", "allowedFunctionNames": ["tide"]}),
    ],
)
async def test_a_choice_of_tools(kind: str, choice: str, expected: object) -> None:
    [dialect] = [dialect for dialect in DIALECTS if dialect.kind == kind]
    behaviour = dialect.streams(dialect.say("Yes."), dialect.end())
    _, body = await answer(dialect, behaviour, request(tools=[TIDE], tool_choice=choice))
    assert chosen(body) == expected


@each_dialect
async def test_a_call_that_is_required_and_does_not_come_is_an_answer_without_calls(dialect: Dialect) -> None:
    """Servers ignore it: the caller sees that there are none."""
    behaviour = dialect.streams(dialect.say("High."), dialect.end())
    deltas, _ = await answer(dialect, behaviour, request(tools=[TIDE], tool_choice="required"))
    assert (said(deltas)[0], deltas[-1].tool_calls) == ("High.", ())


@each_dialect
async def test_a_call_that_a_model_writes_as_its_answer_is_found(dialect: Dialect) -> None:
    text = '```json\n{"name": "tide", "arguments": {"lock": "Mill"}}\n```'
    if dialect.kind == "anthropic":
        pieces = [dialect.say(text)]
    else:
        pieces = [dialect.say(text[at : at + 7]) for at in range(0, len(text), 7)]
    deltas, _ = await answer(dialect, dialect.streams(*pieces, dialect.end()), request(tools=[TIDE]))
    [call] = deltas[-1].tool_calls
    assert (said(deltas)[0], call.name, json.loads(call.arguments)) == ("", "tide", {"lock": "Mill"})


# --- files and schemas ---------------------------------------------------------------------------------------


@each_dialect
async def test_an_image_goes_along(dialect: Dialect) -> None:
    behaviour = dialect.streams(dialect.say("A lock."), dialect.end())
    _, body = await answer(dialect, behaviour, request(ChatMessage("user", "What is it?", [PICTURE])))
    sent = json.dumps(body)
    assert base64.b64encode(PICTURE.data).decode() in sent
    assert "What is it?" in sent


@each_dialect
async def test_a_schema_goes_along_and_its_answer_is_a_text(dialect: Dialect) -> None:
    pieces = [dialect.say('{"open": '), dialect.say("true}")]
    if dialect.kind == "anthropic":
        pieces = [dialect.call(0, "call_a", "structured_answer", {"open": True})]
    deltas, body = await answer(dialect, dialect.streams(*pieces, dialect.end()), request(schema=SCHEMA))
    assert json.dumps(SCHEMA) in json.dumps(body)
    assert (json.loads(said(deltas)[0]), deltas[-1].tool_calls) == ({"open": True}, ())


# --- faults --------------------------------------------------------------------------------------------------


@each_dialect
@pytest.mark.parametrize(
    ("status", "message", "code", "passing"),
    [
        (400, "Unknown role.", "bad_request", False),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", "context_length_exceeded", False),
        (400, "This model does not support tools.", "unsupported", False),
        (401, "Who are you?", "unauthorized", False),
        (402, "Pay.", "payment_required", False),
        (404, "model 'tiny' not found", "not_found", False),
        (429, "Slow down.", "rate_limited", True),
        (500, "The engine is on fire.", "server_error", True),
        (502, "Bad gateway.", "server_error", True),
        (503, "The model is overloaded.", "overloaded", True),
        (529, "Overloaded.", "overloaded", True),
    ],
)
async def test_a_status_has_its_code(dialect: Dialect, status: int, message: str, code: str, passing: bool) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.answer(status, dialect.refusal(status, f"{message} {KEY}"))

    arrived, error, requests = await failure(dialect, refuses)
    assert (arrived, error.code, error.passing, len(requests)) == ("", code, passing, 1)
    assert message in error.reason
    assert KEY not in "".join(traceback.format_exception(error)) + repr(vars(error))


@each_dialect
async def test_an_error_within_a_stream(dialect: Dialect) -> None:
    arrived, error, requests = await failure(dialect, dialect.streams(dialect.error(f"Later. {KEY}")))
    assert (arrived, error.code, len(requests)) == ("", "overloaded", 1)
    assert "Later." in error.reason
    assert KEY not in error.reason
    arrived, error, requests = await failure(dialect, dialect.streams(dialect.say("Half "), dialect.error("Later.")))
    assert (arrived, error.code, len(requests)) == ("Half ", "broken_off", 1)


@each_dialect
async def test_silence_ends_at_its_limit(dialect: Dialect) -> None:
    async def falls_silent(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(dialect.opening() + dialect.say("Half "))
        await asyncio.Event().wait()

    for behaviour, text, patience in (
        (hangs, "", Patience(first_token=0.3)),
        (falls_silent, "Half ", Patience(first_token=10, between_tokens=0.3)),
    ):
        arrived, error, requests = await failure(dialect, behaviour, patience)
        assert (arrived, error.code) == (text, "timeout")
        assert len(requests) <= 1


@each_dialect
async def test_an_answer_without_end_ends_at_the_deadline(dialect: Dialect) -> None:
    async def drips(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.send(dialect.opening() + dialect.say("drop "))
            await asyncio.sleep(0.02)

    arrived, error, _ = await failure(dialect, drips, Patience(total=1))
    assert error.code == "timeout"
    assert arrived.startswith("drop drop ")


@each_dialect
async def test_half_a_stream_is_broken_off(dialect: Dialect) -> None:
    async def breaks_off(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(dialect.opening() + dialect.say("Half "))

    arrived, error, requests = await failure(dialect, breaks_off)
    assert (arrived, error.code, len(requests)) == ("Half ", "broken_off", 1)
    arrived, error, requests = await failure(dialect, dialect.streams())
    assert (arrived, error.code, len(requests)) == ("", "broken_off", 1)


@each_dialect
@pytest.mark.parametrize(
    "odd", ["[1, 2]", '"text"', '{"choices": 7}', '{"type": "content_block_delta"}', '{"message": 7}']
)
async def test_what_is_no_part_of_an_answer_does_no_harm(dialect: Dialect, odd: str) -> None:
    async def babbles(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(f"data: {odd}\n\n")
        await exchange.end()

    for behaviour in (babbles, talks_nonsense):
        arrived, error, _ = await failure(dialect, behaviour)
        assert (arrived, error.code in ("server_error", "broken_off")) == ("", True)


WORDS = ("type", "text", "content", "message", "delta", "index", "item", "parts", "candidates", "choices", "tool_calls")
TYPES = ("content_block_start", "content_block_delta", "message_delta", "response.output_item.done", "text", "thinking")
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.sampled_from(TYPES) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(WORDS + FIELDS), inner, max_size=6),
    max_leaves=12,
)


@each_dialect
@settings(max_examples=60, deadline=None)
@given(odd=st.lists(st.dictionaries(st.sampled_from(WORDS + FIELDS), ODD, max_size=6), max_size=4))
def test_whatever_a_server_sends_is_an_answer_or_an_error(dialect: Dialect, odd: list[Any]) -> None:
    reader = WIRES[dialect.kind]("http://host").reader(request(), Sent({"options": {"num_ctx": 1}}))
    found = _Answer("", Withheld(()), request(), reader)
    for data in odd:
        with suppress(ServerError, ValueError):
            found.take(ServerEvent("", json.dumps(data)))
    assert orjson.dumps(found.rest().state) is not None


@each_dialect
async def test_a_provider_that_fails_is_cut_off(dialect: Dialect) -> None:
    async def fails(exchange: Exchange) -> None:
        await exchange.answer(500, dialect.refusal(500, "No."))

    async with model_of(dialect, fails, Patience()) as (model, _):
        for _try in range(LIMIT):
            with pytest.raises(ModelError, match="No"):
                async for _delta in model.stream(request()):
                    pass
        rest = model.rest()
    assert rest is not None
    assert rest.error.code == "provider_unavailable"


@each_dialect
async def test_a_key_in_an_answer_is_replaced(dialect: Dialect) -> None:
    behaviour = dialect.streams(
        dialect.say(f"It is {KEY}."), dialect.call(0, "call_aaaa", "tide", {"lock": KEY}), dialect.end(calls=True)
    )
    deltas, _ = await answer(dialect, behaviour, request(tools=[TIDE]))
    assert said(deltas)[0] == "It is ***."
    assert [json.loads(call.arguments) for call in deltas[-1].tool_calls] == [{"lock": "***"}]


OWN = {
    "openai": "messages",
    "openai_responses": "store",
    "ollama": "num_ctx",
    "anthropic": "max_tokens",
    "gemini": "contents",
}


@each_dialect
async def test_parameters_may_not_set_what_is_not_theirs(dialect: Dialect) -> None:
    async with model_of(dialect, dialect.streams()) as (model, server):
        with pytest.raises(ModelError, match=OWN[dialect.kind]) as caught:
            async for _ in model.stream(request(parameters={OWN[dialect.kind]: 1})):
                pass
        assert not server.requests
    assert caught.value.code == "bad_request"


@each_dialect
async def test_a_setting_goes_to_its_place(dialect: Dialect) -> None:
    behaviour = dialect.streams(dialect.say("Yes."), dialect.end())
    _, body = await answer(dialect, behaviour, request(parameters={"temperature": 0.25, "top_p": None}))
    places = [body, body.get("options", {}), body.get("generationConfig", {})]
    assert [place["temperature"] for place in places if "temperature" in place] == [0.25]
    assert "top_p" not in json.dumps(body)


@pytest.mark.parametrize("dialect", [dialect for dialect in DIALECTS if not isinstance(dialect, Ollama)])
async def test_calls_from_another_kind_are_sent(dialect: Dialect) -> None:
    """A conversation goes on at another server: its state is not of this kind, and is left out."""
    state = {"unknown": "state"}
    calls = [ToolCall("call_0", "tide", "not JSON")]
    messages = [*ASKED, ChatMessage("assistant", "", tool_calls=calls, state=state)]
    back = request(*messages, ChatMessage("tool", "High.", tool_call_id="call_0"), tools=[TIDE])
    _, body = await answer(dialect, dialect.streams(dialect.say("High."), dialect.end()), back)
    assert "not JSON" in json.dumps(body)
    assert "unknown" not in json.dumps(body)
