"""A server of the OpenAI protocol whose model calls tools by a script.

The question names the script, so that one server serves many conversations at a time. The round is the number of
assistant messages after the question, so that a request that is sent again gets the same answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.chat_servers import Exchange


class Call(NamedTuple):
    name: str
    arguments: dict[str, Any]


Say = str | Sequence[Call] | Callable[[list[dict[str, Any]]], str]
"""An answer, calls of tools, or an answer made from the messages of the request."""

Scripts = Mapping[str, Sequence[Say]]
"""The rounds of the model, by a word of the question."""

Asked = Callable[[str, int], Awaitable[None]]
"""Is awaited before an answer begins: with the word of the script and the round, from 0."""


def scripted(scripts: Scripts, asked: Asked | None = None) -> Callable[[Exchange], Awaitable[None]]:
    """The behaviour of a server that answers by these scripts."""

    async def behave(exchange: Exchange) -> None:
        messages = exchange.body["messages"]
        at = max(place for place, message in enumerate(messages) if message["role"] == "user")
        word = next(word for word in scripts if word in messages[at]["content"])
        number = sum(message["role"] == "assistant" for message in messages[at:])
        if asked:
            await asked(word, number)
        said = scripts[word][number]
        await exchange.begin()
        if callable(said):
            said = said(messages)
        if isinstance(said, str):
            for piece in said.partition(" "):
                await exchange.say(piece)
                await asyncio.sleep(0)
            await exchange.say(finish="stop")
        else:
            await exchange.say("Let me see.")
            await _call(exchange, said)
        await exchange.event({"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 8}})
        await exchange.event("[DONE]")
        await exchange.end()

    return behave


async def _call(exchange: Exchange, calls: Sequence[Call]) -> None:
    """Stream calls as servers do: the id and the name, and then the arguments in pieces."""
    for index, call in enumerate(calls):
        function = {"name": call.name, "arguments": ""}
        await _delta(exchange, {"index": index, "id": f"call_{index}", "type": "function", "function": function})
        text = json.dumps(call.arguments, ensure_ascii=False)
        for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
            await _delta(exchange, {"index": index, "function": {"arguments": piece}})
    await exchange.say(finish="tool_calls")


async def _delta(exchange: Exchange, call: dict[str, Any]) -> None:
    await exchange.event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]})
