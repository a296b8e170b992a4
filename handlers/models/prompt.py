"""The prompt: instructions, passages, history and question, within the context window, with the source of each part."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from domain.aggregate import Rejection
from domain.chat.conversation import Message, Truncation
from domain.models.model_call import Source
from handlers.ports.index import Hit
from handlers.ports.models import ChatMessage

FROM_PASSAGES = (
    "Answer the question from the numbered passages below and from nothing else. After each statement put the number "
    "of the passage that it rests on in brackets, like [1]. When the passages do not hold the answer, say so. Be "
    "brief, and answer in the language of the question."
)
"""Default instructions of an app, with passages."""

FROM_MEMORY = "Answer the question briefly and in its language. When you do not know the answer, say so."
"""Default instructions of an app, without passages."""

MESSAGE_TOKENS = 8
"""Tokens of a message in addition to its text: the role and end marks of chat templates."""

_VARIABLE = re.compile(r"\{\{([^{}]++)\}\}")


class Origin(NamedTuple):
    """The app's configuration and the question of a prompt."""

    app: str
    configuration: int
    conversation: str
    message: str


class Part(NamedTuple):
    """A part of a message's text, and its source without offsets; None for text between sources."""

    text: str
    source: Mapping[str, Any] | None = None


class Draft(NamedTuple):
    """A message in its parts."""

    role: Literal["system", "user", "assistant"]
    parts: Sequence[Part]

    @property
    def message(self) -> ChatMessage:
        return ChatMessage(self.role, "".join(part.text for part in self.parts))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt; `prompt_tokens` is an estimate by the given count, `cut` is what did not fit."""

    messages: list[ChatMessage]
    sources: list[Source]
    passages_used: list[Hit]
    cut: Truncation
    prompt_tokens: int


def estimate(text: str) -> int:
    """Estimate the tokens of a text for an unknown tokenizer: half of its bytes covers 99 texts in 100."""
    return (len(text.encode(errors="replace")) + 1) // 2


def likely(text: str) -> int:
    """The likeliest number of tokens of a text, for its cost: 4.2 ASCII characters a token, as in English.

    Other characters count by their size in UTF-8: 0.4 tokens for two bytes, 0.75 for three, two for four.
    """
    ascii = len(text.encode("ascii", errors="ignore"))
    others = len(text) - ascii
    four = len(text.encode("utf-16-le", errors="replace")) // 2 - len(text)
    three = len(text.encode(errors="replace")) - ascii - 2 * (others + four)
    two = others - three - four
    return math.ceil(ascii / 4.2 + max(two, 0) * 0.4 + max(three, 0) * 0.75 + four * 2)


def fill(instructions: str, inputs: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """The instructions with the value of each input in place of its `{{name}}`, in pieces: a value with its name, text
    between them with None. Variables in values are not replaced."""
    pieces: list[tuple[str, str | None]] = []
    end = 0
    for found in _VARIABLE.finditer(instructions):
        if (name := found[1].strip()) in inputs:
            pieces += [(instructions[end : found.start()], None), (inputs[name], name)]
            end = found.end()
    return [*pieces, (instructions[end:], None)]


def cite(number: int, hit: Hit, document: str) -> str:
    """A passage as the model reads it, under its number and place."""
    page = f"page {hit.entry.page}" if hit.entry.page is not None else ""
    place = ", ".join(" ".join(part.split()) for part in (document, page, hit.entry.heading or "") if part)
    return f"[{number}] {place}\n{hit.entry.content}"


def build_prompt(
    *,
    instructions: str,
    inputs: Mapping[str, str],
    passages: Sequence[Hit],
    history: Mapping[str, Message],
    query: str,
    origin: Origin,
    max_tokens: int,
    context_window: int,
    count: Callable[[str], int] = estimate,
    names: Mapping[str, str] | None = None,
) -> Prompt:
    """Build a prompt with `prompt_tokens + max_tokens <= context_window`.

    The answer is reserved first, then instructions and question; then the passages by rank, each that still fits, then
    the history (by message, newest first) as far as it fits. `names` are the names of documents by id.
    Raises: Rejection `context_too_small` when instructions and question alone do not fit.
    """
    default = FROM_PASSAGES if passages else FROM_MEMORY
    opening = _opening(instructions, inputs, origin.app, origin.configuration, default)
    hits = list({hit.id: hit for hit in passages}.values())
    turns = [(id, turn) for id, turn in history.items() if turn["query"] and turn["answer"]]
    names = names or {}
    budget = context_window - max_tokens
    question = Part(query, {"from": "query", "conversation": origin.conversation, "message_id": origin.message})

    def cost(drafts: Sequence[Draft]) -> int:
        return sum(count(draft.message.content) + MESSAGE_TOKENS for draft in drafts)

    spent = cost(_drafts(opening, [], [], question))
    if spent > budget:
        raise Rejection(
            "context_too_small",
            f"The instructions and the question take about {spent} tokens, the answer is given {max_tokens}, and the "
            f"model reads {context_window} in all; ask for less, or set a larger model.context_window.",
            "model.context_window",
        )
    used: list[tuple[Hit, Part]] = []
    for rank, hit in enumerate(hits, 1):
        text = cite(len(used) + 1, hit, names.get(hit.document, hit.document))
        if spent + (more := count("\n\n" + text)) <= budget:
            used.append((hit, Part(text, _segment(hit, rank))))
            spent += more
    kept: list[Sequence[Draft]] = []
    for id, turn in turns:
        drafts = _turn(id, turn)
        if spent + (more := cost(drafts)) > budget:
            break
        kept.append(drafts)
        spent += more
    # A tokenizer may count a joined text higher than the sum of its parts.
    while (spent := cost(drafts := _drafts(opening, [part for _, part in used], kept, question))) > budget:
        (kept or used).pop()
    return Prompt(
        [draft.message for draft in drafts],
        [source for index, draft in enumerate(drafts) for source in _sources(index, draft.parts)],
        [hit for hit, _ in used],
        Truncation(segments=len(hits) - len(used), messages=len(turns) - len(kept)),
        spent,
    )


def reword(
    messages: Sequence[ChatMessage],
    sources: Sequence[Source],
    instructions: str,
    inputs: Mapping[str, str],
    app: str,
    configuration: int,
) -> tuple[list[ChatMessage], list[Source]]:
    """Replace the instructions of a prompt. Return its messages and sources."""
    old = max((source["end"] for source in sources if source["from"] in ("instructions", "input")), default=0)
    rest = [source for source in sources if source["from"] not in ("instructions", "input")]
    default = FROM_PASSAGES if any(source["from"] == "segment" for source in rest) else FROM_MEMORY
    opening = Draft("system", _opening(instructions, inputs, app, configuration, default))
    new = opening.message.content
    moved = [
        cast("Source", {**source, "start": source["start"] + len(new) - old, "end": source["end"] + len(new) - old})
        if source["message"] == 0
        else source
        for source in rest
    ]
    first = ChatMessage("system", new + messages[0].content[old:])
    return [first, *messages[1:]], [*_sources(0, opening.parts), *moved]


def _opening(instructions: str, inputs: Mapping[str, str], app: str, configuration: int, default: str) -> list[Part]:
    """The stripped instructions, or the default ones when they are empty."""
    own = {"from": "instructions", "app": app, "configuration": configuration}
    pieces = fill(instructions, inputs)
    whole = "".join(text for text, _ in pieces)
    left, right = len(whole) - len(whole.lstrip()), len(whole.rstrip())
    parts, at = [], 0
    for text, name in pieces:
        if kept := text[max(left - at, 0) : max(right - at, 0)]:
            parts.append(Part(kept, own if name is None else {"from": "input", "name": name}))
        at += len(text)
    return parts or [Part(default, own)]


def _drafts(
    opening: Sequence[Part], passages: Sequence[Part], turns: Sequence[Sequence[Draft]], question: Part
) -> list[Draft]:
    system = [*opening, *(part for passage in passages for part in (Part("\n\n"), passage))]
    earlier = [draft for turn in reversed(turns) for draft in turn]
    return [Draft("system", system), *earlier, Draft("user", [question])]


def _turn(id: str, turn: Message) -> list[Draft]:
    said = {"from": "history", "message_id": id}
    return [Draft("user", [Part(turn["query"], said)]), Draft("assistant", [Part(turn["answer"], said)])]


def _segment(hit: Hit, rank: int) -> dict[str, Any]:
    return {
        "from": "segment",
        "segment": hit.id,
        "document": hit.document,
        "dataset": hit.dataset,
        "rank": rank,
        "score": hit.score,
    }


def _sources(index: int, parts: Sequence[Part]) -> list[Source]:
    """The sources of the parts of message number `index`."""
    found, at = [], 0
    for text, source in parts:
        if source:
            found.append(cast("Source", {"message": index, "start": at, "end": at + len(text), **source}))
        at += len(text)
    return found
