"""Pieces of a recorded prompt: literal text, or a quotation of a text that was recorded before and never changes.

Reading a prompt is putting texts one after another: no code that builds prompts runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict, cast, final

Piece = TypedDict(
    "Piece",
    {
        "text": NotRequired[Annotated[str, "Literal text; missing where a text is quoted."]],
        "quotes": NotRequired[
            Annotated[
                str,
                "Quoted text: `passage/<id>`; `question/<id of its message>`; `tool_call/<id>`, a result; or "
                "`instructions/<app>/<number>`, those of a configuration.",
            ]
        ],
        "start": NotRequired[Annotated[int, "First character (code point) that is quoted, from 0; missing: 0."]],
        "end": NotRequired[Annotated[int, "Character after the last; missing: to the end of the text."]],
        "from": NotRequired[
            Annotated[
                str,
                "`instructions`, `input`, `segment`, `history` or `query`; missing for what stands between those.",
            ]
        ],
        "app": NotRequired[Annotated[str, "Of instructions: their app."]],
        "configuration": NotRequired[Annotated[int, "Of instructions: number of their configuration."]],
        "name": NotRequired[
            Annotated[
                str,
                "Of an input: the variable, within the instructions; of a file or a segment of it: the file's name.",
            ]
        ],
        "segment": NotRequired[Annotated[str, "Of a segment: its id."]],
        "document": NotRequired[Annotated[str, "Of a segment of a document: the document."]],
        "dataset": NotRequired[Annotated[str, "Of a segment of a document: its knowledge base."]],
        "rank": NotRequired[Annotated[int, "Of a segment: its final rank in the retrieval."]],
        "score": NotRequired[Annotated[float, "Of a segment: its score in the retrieval."]],
        "conversation": NotRequired[Annotated[str, "Of the query: its conversation."]],
        "message_id": NotRequired[Annotated[str, "Of the query, or of an earlier question or answer: its message."]],
        "file": NotRequired[Annotated[str, "Of a file, which has no text: digest of the blob that holds it."]],
        "kind": NotRequired[Annotated[str, "Of a file: `image`, `audio` or `document`."]],
        "media_type": NotRequired[Annotated[str, "Of a file: its media type."]],
        "detail": NotRequired[Annotated[str, "Of an image: `low` or `high`; missing for the server's choice."]],
    },
)
Piece.__doc__ = """A part of a message's text and its origin, or a file."""

NO_ORIGIN = frozenset({"text", "quotes", "start", "end"})
"""Keys of a piece that say what its text is, not where it is from."""


@final
class InPieces(TypedDict):
    """A message that was sent."""

    role: Annotated[str, "`system`, `user`, `assistant` or `tool`."]
    pieces: Annotated[list[Piece], "Its text: the pieces, one after another; and files."]
    tool_calls: NotRequired[
        Annotated[list[dict[str, str]], "Calls of tools that the assistant asked for: `id`, `name`, `arguments`."]
    ]
    tool_call_id: NotRequired[Annotated[str, "Of a tool's result: the call."]]
    state: NotRequired[Annotated[dict[str, Any], "State that the server sent with the message, and gets back."]]


@final
class Turns(TypedDict):
    """Questions and answers of a conversation that were sent: two messages each."""

    conversation: Annotated[str, "Conversation."]
    first: Annotated[str, "Message with the first question."]
    last: Annotated[str, "Message with the last one; all between them in the conversation were sent, too."]


class Turn(NamedTuple):
    """A question and its answer."""

    message: str
    question: str
    answer: str


class Missing(LookupError):
    """A text that a prompt quotes, and that is not there."""


Span = tuple[str, str, str]
"""Conversation, first and last message of `Turns`."""


def quoted(messages: Sequence[InPieces | Turns]) -> dict[str, None]:
    """The texts that a prompt quotes, in order."""
    return dict.fromkeys(piece["quotes"] for piece in pieces(messages) if "quotes" in piece)


def pieces(messages: Sequence[InPieces | Turns]) -> Iterator[Piece]:
    """The pieces of all messages, without turns of conversations."""
    for message in messages:
        if "pieces" in message:
            yield from message["pieces"]


def spans(messages: Sequence[InPieces | Turns]) -> list[Span]:
    """The turns of conversations in a prompt."""
    return [(each["conversation"], each["first"], each["last"]) for each in messages if "first" in each]


def put_together(
    messages: Sequence[InPieces | Turns], texts: Mapping[str, str], turns: Mapping[Span, Sequence[Turn]]
) -> list[InPieces]:
    """The messages with every text in its place, in literal pieces. Raises: Missing."""
    whole: list[InPieces] = []
    for message in messages:
        if "first" in message:
            [span] = spans([message])
            if not (found := turns.get(span)):
                raise Missing(f"conversation/{span[0]} {span[1]}..{span[2]}")
            for turn in found:
                for role, text in (("user", turn.question), ("assistant", turn.answer)):
                    piece = cast("Piece", {"from": "history", "message_id": turn.message, "text": text})
                    whole.append(InPieces(role=role, pieces=[piece]))
        else:
            whole.append({**message, "pieces": [_literal(each, texts) for each in message["pieces"]]})
    return whole


def _literal(piece: Piece, texts: Mapping[str, str]) -> Piece:
    if "text" in piece or "file" in piece:
        return piece
    if piece["quotes"] not in texts:
        raise Missing(piece["quotes"])
    text = texts[piece["quotes"]][piece.get("start", 0) : piece.get("end")]
    return cast("Piece", {**origin(piece), "text": text})


def origin(piece: Piece) -> dict[str, Any]:
    """Where a piece is from; empty for what stands between others."""
    return {name: value for name, value in piece.items() if name not in NO_ORIGIN}


def content(message: InPieces) -> str:
    """The text of a message that is put together."""
    return "".join(piece.get("text", "") for piece in message["pieces"])


def whole(message: InPieces) -> dict[str, Any]:
    """A message that is put together, as the view `model_call_requests` has it: its content in one text."""
    files = [piece for piece in message["pieces"] if "file" in piece]
    other = {name: value for name, value in message.items() if name != "pieces"}
    return {**other, "content": content(message), **({"files": files} if files else {})}


def in_pieces(messages: Sequence[Mapping[str, Any]], sources: Sequence[Mapping[str, Any]]) -> list[InPieces]:
    """Messages with a `content`, cut at the ends of their sources, each with a `message`, a `start` and an `end`."""
    cut: list[InPieces] = []
    for number, message in enumerate(messages):
        text, at, found = str(message["content"]), 0, list[Any]()
        for source in sources:
            if source["message"] == number:
                own = {name: value for name, value in source.items() if name not in ("message", "start", "end")}
                start = source["start"]
                if own["from"] == "segment":  # below a line with its number and document
                    start = text.find("\n", start, source["end"]) + 1 or start
                found += [{"text": text[at:start]}, {**own, "text": text[start : source["end"]]}]
                at = source["end"]
        found.append({"text": text[at:]})
        cut.append(InPieces(role=message["role"], pieces=[piece for piece in found if piece["text"]]))
    return cut
