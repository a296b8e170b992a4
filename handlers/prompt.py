"""The prompt: instructions, passages, history and question, within the context window."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from domain.aggregate import Rejection
from domain.conversation import Cut, Message
from handlers.ports import ChatMessage, Hit

FROM_PASSAGES = (
    "Answer the question from the numbered passages below and from nothing else. After each statement put the number "
    "of the passage that it rests on in brackets, like [1]. When the passages do not hold the answer, say so. Be "
    "brief, and answer in the language of the question."
)
"""The instructions of an app that gives none, when there are passages."""

FROM_MEMORY = "Answer the question briefly and in its language. When you do not know the answer, say so."
"""The instructions of an app that gives none, when there are no passages."""

MESSAGE_TOKENS = 8
"""What a message costs beside its text: the marks of role and end that chat templates put around it."""

_VARIABLE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """`prompt_tokens` is an estimate by the count that was given; `cut` is what did not fit."""

    messages: list[ChatMessage]
    passages_used: list[Hit]
    cut: Cut
    prompt_tokens: int


def estimate(text: str) -> int:
    """The tokens of a text for a model whose tokenizer is unknown: half of its bytes covers 99 texts in 100."""
    return (len(text.encode(errors="replace")) + 1) // 2


def fill(instructions: str, inputs: Mapping[str, str]) -> str:
    """The instructions with the value of each input in the place of its `{{name}}`; values are not filled again."""
    return _VARIABLE.sub(lambda found: inputs.get(found[1], found[0]), instructions)


def cite(number: int, hit: Hit, document: str) -> str:
    """A passage as the model reads it, under its number and place."""
    page = f"page {hit.page}" if hit.page is not None else ""
    place = ", ".join(" ".join(part.split()) for part in (document, page, hit.heading or "") if part)
    return f"[{number}] {place}\n{hit.content}"


def build_prompt(
    *,
    instructions: str,
    inputs: Mapping[str, str],
    passages: Sequence[Hit],
    history: Sequence[Message],
    query: str,
    max_tokens: int,
    context_window: int,
    count: Callable[[str], int] = estimate,
    names: Mapping[str, str] | None = None,
) -> Prompt:
    """The prompt with which `prompt_tokens + max_tokens <= context_window`.

    The answer is reserved first, then instructions and question; then come the passages by rank, each that still fits,
    then the history (newest first) as far as it fits. `names` are the documents' by their ids.
    Raises: Rejection `context_too_small` when instructions and question alone do not fit.
    """
    opening = fill(instructions, inputs).strip() or (FROM_PASSAGES if passages else FROM_MEMORY)
    hits = list({hit.id: hit for hit in passages}.values())
    turns = [turn for turn in history if turn["query"] and turn["answer"]]
    names = names or {}
    budget = context_window - max_tokens

    def cost(messages: Sequence[ChatMessage]) -> int:
        return sum(count(message.content) + MESSAGE_TOKENS for message in messages)

    spent = cost(_messages(opening, [], [], query))
    if spent > budget:
        raise Rejection(
            "context_too_small",
            f"The instructions and the question take about {spent} tokens, the answer is given {max_tokens}, and the "
            f"model reads {context_window} in all; ask for less, or set a larger model.context_window.",
            "model.context_window",
        )
    used: list[tuple[Hit, str]] = []
    for hit in hits:
        text = cite(len(used) + 1, hit, names.get(hit.document, hit.document))
        if spent + (more := count("\n\n" + text)) <= budget:
            used.append((hit, text))
            spent += more
    kept: list[Message] = []
    for turn in turns:
        if spent + (more := cost(_turn(turn))) > budget:
            break
        kept.append(turn)
        spent += more
    # A tokenizer may count a joined text above the sum of its parts.
    while (spent := cost(messages := _messages(opening, [text for _, text in used], kept, query))) > budget:
        (kept or used).pop()
    return Prompt(
        messages, [hit for hit, _ in used], Cut(segments=len(hits) - len(used), messages=len(turns) - len(kept)), spent
    )


def _messages(opening: str, texts: Sequence[str], turns: Sequence[Message], query: str) -> list[ChatMessage]:
    earlier = [message for turn in reversed(turns) for message in _turn(turn)]
    return [ChatMessage("system", "\n\n".join([opening, *texts])), *earlier, ChatMessage("user", query)]


def _turn(turn: Message) -> list[ChatMessage]:
    return [ChatMessage("user", turn["query"]), ChatMessage("assistant", turn["answer"])]
