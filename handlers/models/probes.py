"""Probes: six small requests by which the abilities of a chat model are measured, and the reading of their results."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from domain.models.model import Ability
from domain.models.model_call import ModelCall
from handlers.ports.models import Attachment, ChatMessage, ChatRequest, Tool

Ended = ModelCall.Completed | ModelCall.Failed | ModelCall.Cancelled

MAX_TOKENS = 512
"""Tokens reserved for each answer: a model that reasons needs most of them before it answers."""

WINDOW = 8192
"""Window that a server is asked for, in tokens, where it loads a model with the window of the request."""

WORDS = 5000
"""Words of the long prompt, each of which is one token or more: more than the smallest windows, of 4,096, hold."""

CODE = "7319"

REFUSED = frozenset({"bad_request", "unsupported", "not_found"})
"""Error codes of a server that takes other requests, but not this one."""

CUT = frozenset({"truncated", "context_length_exceeded"})
"""Error codes of a server that does not read a long prompt whole."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A request for one ability. `shown` takes the end of a call that completed, and returns True when the model has
    the ability, False when it lacks it, and None when the answer does not tell. `lacking` are the codes of failures by
    which it lacks it."""

    ability: Ability
    question: str
    shown: Callable[[ModelCall.Completed], bool | None]
    lacking: frozenset[str] = REFUSED
    options: Mapping[str, Any] | None = None
    picture: bool = False

    def request(self, model: str, picture: Attachment) -> ChatRequest:
        """`picture` is what the image probe shows."""
        message = ChatMessage("user", self.question, [picture] if self.picture else ())
        return ChatRequest(model, [message], MAX_TOKENS, context_window=WINDOW, **(self.options or {}))

    def read(self, ended: Ended) -> bool | None:
        """Return whether the model has the ability; None when the call does not tell."""
        if isinstance(ended, ModelCall.Completed):
            return self.shown(ended)
        return False if isinstance(ended, ModelCall.Failed) and ended.code in self.lacking else None


def _counted(call: ModelCall.Completed) -> bool:
    return not call.usage["estimated"]


def _asked_for(tool: str) -> Callable[[ModelCall.Completed], bool]:
    def shown(call: ModelCall.Completed) -> bool:
        return any(asked["name"] == tool and _is_object(asked["arguments"]) for asked in call.tool_calls or ())

    return shown


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _keeps_to_schema(call: ModelCall.Completed) -> bool:
    try:
        found = json.loads(call.response)
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict) or found.keys() != SCHEMA["properties"].keys():
        return False
    return isinstance(found["city"], str) and type(found["inhabitants"]) is int


def _sees(call: ModelCall.Completed) -> bool:
    said = call.response.lower()
    return "yellow" in said and "blue" in said


def _reads_whole(call: ModelCall.Completed) -> bool | None:
    """The count of a server is believed before the model's memory."""
    if _counted(call):
        return call.usage["prompt_tokens"] >= WORDS * 9 // 10
    return True if CODE in call.response else None


def cut_at(ended: Ended) -> int | None:
    """The tokens at which the long prompt was cut; None where it was not, or the server does not count them."""
    usage = ended.usage
    if usage is None or usage["estimated"] or usage["prompt_tokens"] >= WORDS * 9 // 10:
        return None
    return usage["prompt_tokens"]


WEATHER = Tool(
    "get_weather",
    "Return the weather in a city.",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Name of the city"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)

GREETING = Tool(
    "record_greeting",
    "Record a greeting.",
    {
        "type": "object",
        "properties": {"text": {"type": "string", "description": "Greeting"}},
        "required": ["text"],
        "additionalProperties": False,
    },
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "inhabitants": {"type": "integer"}},
    "required": ["city", "inhabitants"],
    "additionalProperties": False,
}


def _long_question() -> str:
    filler = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    words = " ".join(filler[number % len(filler)] for number in range(WORDS))
    return f"The code is {CODE}.\n\n{words}\n\nWhat is the code? Answer with the code alone."


PROBES = (
    Probe("usage", "Answer with the word OK alone.", _counted),
    Probe(
        "tools",
        "What is the weather in Paris now? Use the tool.",
        _asked_for(WEATHER.name),
        options={"tools": (WEATHER,)},
    ),
    Probe(
        "forced_tool",
        "Hello!",
        _asked_for(GREETING.name),
        options={"tools": (WEATHER, GREETING), "tool_choice": GREETING.name},
    ),
    Probe(
        "schema",
        "Name the capital of France and its number of inhabitants.",
        _keeps_to_schema,
        options={"schema": SCHEMA},
    ),
    Probe(
        "image",
        "Which two colours does the picture have, on the left and on the right? Answer with two words.",
        _sees,
        picture=True,
    ),
    Probe("long_prompt", _long_question(), _reads_whole, lacking=CUT),
)
"""In the order in which they are sent. The first also shows whether the model answers at all."""


@cache
def picture() -> Attachment:
    """A PNG of 64 by 32 pixels whose left half is yellow and whose right half is blue."""
    row = b"\0" + b"\xff\xff\x00" * 32 + b"\x00\x00\xff" * 32
    parts = {b"IHDR": struct.pack(">IIBBBBB", 64, 32, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(row * 32), b"IEND": b""}
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts.items()
    )
    return Attachment("image", "image/png", data, "colours.png")
