"""The prompt: instructions, passages, history and question, within the context window, and the record of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, cast

from domain.aggregate import Rejection
from domain.chat.conversation import FINAL, Message, Truncation, question
from domain.models.passage import passage_id
from domain.models.piece import InPieces, Piece, Turns
from handlers.models.attachments import file_piece
from handlers.ports.index import Hit
from handlers.ports.models import Attachment, ChatMessage, ToolCall

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
    """A part of a message's text, and the piece that is recorded of it."""

    text: str
    piece: Piece


class Draft(NamedTuple):
    """A message in its parts, and its files; calls of tools and their results are as in `ChatMessage`."""

    role: Literal["system", "user", "assistant", "tool"]
    parts: Sequence[Part]
    files: Sequence[Attachment] = ()
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str = ""
    state: dict[str, Any] | None = None

    @property
    def message(self) -> ChatMessage:
        return ChatMessage(self.role, "".join(part.text for part in self.parts), tuple(self.files), *self[3:])

    @property
    def recorded(self) -> InPieces:
        recorded = InPieces(role=self.role, pieces=[*(part.piece for part in self.parts), *map(file_piece, self.files)])
        if self.tool_calls:
            recorded["tool_calls"] = [call._asdict() for call in self.tool_calls]
        if self.tool_call_id:
            recorded["tool_call_id"] = self.tool_call_id
        if self.state:
            recorded["state"] = self.state
        return recorded


class Record(NamedTuple):
    """A prompt as it is recorded: its messages in pieces, and the passages that they quote, by their ids."""

    messages: Sequence[InPieces | Turns]
    passages: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt; `prompt_tokens` is an estimate by the given count, `cut` is what did not fit."""

    messages: list[ChatMessage]
    record: Record
    passages_used: list[Hit]
    cut: Truncation
    prompt_tokens: int


ByMessage = Mapping[str, Sequence[Attachment]]

QUOTED = 200
"""Minimum length of a passage that is recorded once and quoted, in characters; a shorter one is repeated."""


def estimate(text: str) -> int:
    """Estimate the tokens of a text for an unknown tokenizer: half of its bytes covers 99 texts in 100."""
    return (len(text.encode(errors="replace")) + 1) // 2


IMAGE_TOKENS = 2000
"""Tokens of an image at most, for most servers; they count by its size in pixels, which is not read here."""

AUDIO_BYTES = 250
"""Bytes of a recording for a token: at 64 kbit/s and 32 tokens a second."""


def file_tokens(kind: str, size: int) -> int:
    """A careful estimate of the tokens of a file that is sent with a message, by its type and its size in bytes."""
    return IMAGE_TOKENS if kind == "image" else max(IMAGE_TOKENS // 2, size // AUDIO_BYTES)


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


def fill(instructions: str, inputs: Mapping[str, str]) -> list[tuple[str, str | int]]:
    """The instructions with the value of each input in place of its `{{name}}`, in pieces: a value with its name, text
    between them with its place in the instructions. Variables in values are not replaced."""
    pieces: list[tuple[str, str | int]] = []
    end = 0
    for found in _VARIABLE.finditer(instructions):
        if (name := found[1].strip()) in inputs:
            pieces += [(instructions[end : found.start()], end), (inputs[name], name)]
            end = found.end()
    return [*pieces, (instructions[end:], end)]


def place(number: int, hit: Hit, document: str) -> str:
    """The line above a passage: its number, document, page and heading."""
    page = f"page {hit.entry.page}" if hit.entry.page is not None else ""
    parts = ", ".join(" ".join(part.split()) for part in (document, page, hit.entry.heading or "") if part)
    return f"[{number}] {parts}\n"


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
    order: Iterable[str] = (),
    filtered: bool = False,
    files: Mapping[str, Sequence[Attachment]] | None = None,
    steps: Mapping[str, Sequence[Draft]] | None = None,
) -> Prompt:
    """Build a prompt with `prompt_tokens + max_tokens <= context_window`.

    The answer is reserved first, then instructions and question; then the passages by rank, each that still fits, then
    the history (by message, newest first) as far as it fits. `names` are the names of documents by id, `order` are the
    messages of the conversation in order, `files` the files of the question and the history by message, which are sent
    with it, `steps` the messages between an earlier question and its answer. Without a query, the values of the inputs
    are the question. A query that was `filtered` is recorded as it is, since it is not the one that was asked.
    Raises: Rejection `context_too_small` when instructions and question alone do not fit.
    """
    default = FROM_PASSAGES if passages else FROM_MEMORY
    opening = _opening(instructions, inputs, origin.app, origin.configuration, default)
    hits = list({hit.id: hit for hit in passages}.values())
    turns = [(id, turn) for id, turn in history.items() if turn["query"] and turn["answer"]]
    names, files, steps = names or {}, files or {}, steps or {}
    budget = context_window - max_tokens
    asked = [_question(query, origin, quoted=not filtered)] if query else _values(inputs)
    last = Draft("user", asked, files.get(origin.message, ()))

    def cost(drafts: Sequence[Draft]) -> int:
        texts = sum(count(draft.message.content) + MESSAGE_TOKENS for draft in drafts)
        return texts + sum(file_tokens(file.kind, len(file.data)) for draft in drafts for file in draft.files)

    spent = cost(_drafts(opening, [], [], last, files, steps))
    if spent > budget:
        raise Rejection(
            "context_too_small",
            f"The instructions and the question{', with its files,' if last.files else ''} take about {spent} "
            f"tokens, the answer is given {max_tokens}, and the "
            f"model reads {context_window} in all; ask for less, or set a larger model.context_window.",
            "model.context_window",
        )
    used: list[tuple[Hit, list[Part]]] = []
    for rank, hit in enumerate(hits, 1):
        parts = _passage(len(used) + 1, hit, rank, names.get(hit.document, hit.document))
        if spent + (more := count("".join(part.text for part in parts))) <= budget:
            used.append((hit, parts))
            spent += more
    kept: list[tuple[str, Message]] = []
    for id, turn in turns:
        if spent + (more := cost(_turn(id, turn, files, steps))) > budget:
            break
        kept.append((id, turn))
        spent += more
    # A tokenizer may count a joined text higher than the sum of its parts.
    while (spent := cost(drafts := _drafts(opening, [parts for _, parts in used], kept, last, files, steps))) > budget:
        (kept or used).pop()
    return Prompt(
        [draft.message for draft in drafts],
        Record(
            [drafts[0].recorded, *_earlier(kept, origin.conversation, order, files, steps), drafts[-1].recorded],
            {passage_id(hit.entry.content): hit.entry.content for hit, _ in used if _is_quoted(hit)},
        ),
        [hit for hit, _ in used],
        Truncation(segments=len(hits) - len(used), messages=len(turns) - len(kept)),
        spent,
    )


def reword(first: InPieces, instructions: str, inputs: Mapping[str, str], app: str, configuration: int) -> InPieces:
    """Replace the instructions in the first message of a recorded prompt."""
    last = max((at for at, piece in enumerate(first["pieces"], 1) if piece.get("from") in _OPENING), default=0)
    rest = first["pieces"][last:]
    default = FROM_PASSAGES if any(piece.get("from") == "segment" for piece in rest) else FROM_MEMORY
    opening = _opening(instructions, inputs, app, configuration, default)
    return InPieces(role=first["role"], pieces=[*(part.piece for part in opening), *rest])


_OPENING = ("instructions", "input")


def literal(message: ChatMessage, origin: Mapping[str, object]) -> InPieces:
    """A message that is recorded as it is; its attachments are stored already."""
    parts = [plain(message.content, **origin)] if message.content else []
    return Draft(message.role, parts, *message[2:]).recorded


def plain(text: str, **origin: object) -> Part:
    """A text that is recorded as it is, with its origin."""
    return Part(text, cast("Piece", {**origin, "text": text}))


def _opening(instructions: str, inputs: Mapping[str, str], app: str, configuration: int, default: str) -> list[Part]:
    """The stripped instructions, or the default ones when they are empty."""
    own = {"from": "instructions", "app": app, "configuration": configuration}
    filled = fill(instructions, inputs)
    whole = "".join(text for text, _ in filled)
    left, right = len(whole) - len(whole.lstrip()), len(whole.rstrip())
    parts, at = [], 0
    for text, name in filled:
        before = max(left - at, 0)
        if kept := text[before : max(right - at, 0)]:
            if isinstance(name, str):
                parts.append(plain(kept, **{"from": "input"}, name=name))
            else:
                start = name + before
                quotes = {"quotes": f"instructions/{app}/{configuration}", "start": start, "end": start + len(kept)}
                parts.append(Part(kept, cast("Piece", {**own, **quotes})))
        at += len(text)
    return parts or [plain(default, **own)]


def _question(query: str, origin: Origin, *, quoted: bool) -> Part:
    said = {"from": "query", "conversation": origin.conversation, "message_id": origin.message}
    own = {"quotes": f"question/{origin.message}"} if quoted else {"text": query}
    return Part(query, cast("Piece", {**said, **own}))


def _values(inputs: Mapping[str, str]) -> list[Part]:
    """The values of the inputs, a line each."""
    parts: list[Part] = []
    for name, value in inputs.items():
        if value:
            parts += [plain("\n")] * bool(parts) + [plain(value, **{"from": "input"}, name=name)]
    return parts


def _drafts(
    opening: Sequence[Part],
    passages: Sequence[Sequence[Part]],
    turns: Sequence[tuple[str, Message]],
    last: Draft,
    files: ByMessage,
    steps: Mapping[str, Sequence[Draft]],
) -> list[Draft]:
    system = [*opening, *(part for parts in passages for part in parts)]
    earlier = [draft for id, turn in reversed(turns) for draft in _turn(id, turn, files, steps)]
    return [Draft("system", system), *earlier, last]


def _turn(id: str, turn: Message, files: ByMessage, steps: Mapping[str, Sequence[Draft]]) -> list[Draft]:
    said = {"from": "history", "message_id": id}
    asked = Draft("user", [plain(question(turn), **said)], files.get(id, ()))
    return [asked, *steps.get(id, ()), Draft("assistant", [plain(turn["answer"], **said)])]


def _earlier(
    turns: Sequence[tuple[str, Message]],
    conversation: str,
    order: Iterable[str],
    files: ByMessage,
    steps: Mapping[str, Sequence[Draft]],
) -> list[InPieces | Turns]:
    """The turns as they are recorded: final ones without files by the first and the last of a run without messages of
    other branches, others in full."""
    follows = dict(pairwise(order))
    recorded: list[InPieces | Turns] = []
    before: str | None = None
    for id, turn in reversed(turns):
        if turn["status"] not in FINAL or "filtered_query" in turn or files.get(id) or steps.get(id):
            recorded += [draft.recorded for draft in _turn(id, turn, files, steps)]
            before = None
            continue
        if before is not None and follows.get(before) == id:
            cast("Turns", recorded[-1])["last"] = id
        else:
            recorded.append(Turns(conversation=conversation, first=id, last=id))
        before = id
    return recorded


def _is_quoted(hit: Hit) -> bool:
    """True if the passage is recorded once; what a person uploaded is repeated, and so sealed with each prompt."""
    return len(hit.entry.content) >= QUOTED and not hit.personal


def _passage(number: int, hit: Hit, rank: int, document: str) -> list[Part]:
    text = hit.entry.content
    source = {"name": document} if hit.is_of_file else {"document": hit.document, "dataset": hit.dataset}
    origin = {"from": "segment", "segment": hit.id, **source, "rank": rank, "score": hit.score}
    own = {"quotes": f"passage/{passage_id(text)}"} if _is_quoted(hit) else {"text": text}
    above = plain("\n\n" + place(number, hit, document))
    return [above, Part(text, cast("Piece", {**origin, **own}))]
