from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.aggregate import Rejection
from domain.chat.conversation import Message
from domain.models.passage import passage_id
from domain.models.piece import Piece, Turn, content, origin, pieces, put_together, spans
from handlers.models.prompt import (
    FROM_MEMORY,
    FROM_PASSAGES,
    MESSAGE_TOKENS,
    QUOTED,
    Origin,
    Prompt,
    build_prompt,
    estimate,
    fill,
    likely,
    place,
    reword,
)
from handlers.ports.index import Entry, Hit
from handlers.ports.models import ChatMessage

ORIGIN = Origin(app="the-app", configuration=3, conversation="the-talk", message="the-question")


def hit(id: str, content: str = "It opens at 4.2 bar.", page: int | None = None, heading: str | None = None) -> Hit:
    return Hit("set", "doc", Entry(id, 0, content, page, heading), 0.5, 1, 1)


def turn(query: str, answer: str) -> Message:
    return Message(
        status="answered",
        parent=None,
        configuration=1,
        attempt=1,
        query=query,
        inputs={},
        answer=answer,
        rating=None,
        rating_content="",
        stop_requested=False,
    )


def earlier(*turns: Message) -> dict[str, Message]:
    """The turns, newest first, as m1, m2, …, each after the next."""
    return {f"m{number}": {**turn, "parent": f"m{number + 1}"} for number, turn in enumerate(turns, 1)}


def build(
    passages: list[Hit] | None = None,
    history: list[Message] | None = None,
    *,
    instructions: str = "Be exact.",
    query: str = "Well?",
    max_tokens: int = 100,
    context_window: int = 1000,
) -> Prompt:
    return build_prompt(
        instructions=instructions,
        inputs={"tone": "kind", "name": "{{tone}}"},
        passages=passages or [],
        history=earlier(*history or []),
        query=query,
        origin=ORIGIN,
        max_tokens=max_tokens,
        context_window=context_window,
        names={"doc": "manual.pdf"},
        order=[*earlier(*history or [])][::-1],
    )


def test_instructions_passages_history_and_question_in_this_order() -> None:
    prompt = build(
        [hit("a", "It opens at 4.2 bar.", page=3, heading="Valves › Larkspur"), hit("b", "It was installed in 2019.")],
        [turn("And then?", "It closes."), turn("What first?", "It opens.")],
    )
    assert prompt.messages == [
        ChatMessage(
            "system",
            "Be exact.\n\n[1] manual.pdf, page 3, Valves › Larkspur\nIt opens at 4.2 bar."
            "\n\n[2] manual.pdf\nIt was installed in 2019.",
        ),
        ChatMessage("user", "What first?"),
        ChatMessage("assistant", "It opens."),
        ChatMessage("user", "And then?"),
        ChatMessage("assistant", "It closes."),
        ChatMessage("user", "Well?"),
    ]
    assert [each.id for each in prompt.passages_used] == ["a", "b"]
    assert prompt.cut == {"segments": 0, "messages": 0}
    assert prompt.prompt_tokens == sum(estimate(message.content) + MESSAGE_TOKENS for message in prompt.messages)


def test_variables_are_filled_once_and_unknown_ones_stay() -> None:
    pieces = fill("Be {{tone}}, {{ name }}; {{other}} {tone}", {"tone": "kind", "name": "{{tone}}"})
    assert pieces == [
        ("Be ", 0),
        ("kind", "tone"),
        (", ", 11),
        ("{{tone}}", "name"),
        ("; {{other}} {tone}", 23),
    ]
    assert build(instructions="Be {{tone}}.").messages[0].content == "Be kind."


def test_an_app_without_instructions_has_good_ones() -> None:
    assert build([hit("a")], instructions=" \n").messages[0].content.startswith(FROM_PASSAGES)
    assert build(instructions="").messages[0].content == FROM_MEMORY


def test_a_passage_is_headed_by_its_place_in_one_line() -> None:
    assert place(2, hit("a", heading="A\nB"), "my\nfile.txt") == "[2] my file.txt, A B\n"


def test_a_document_without_a_name_is_called_by_its_id() -> None:
    prompt = build_prompt(
        instructions="",
        inputs={},
        passages=[hit("a")],
        history={},
        query="?",
        origin=ORIGIN,
        max_tokens=1,
        context_window=9999,
    )
    assert "[1] doc\n" in prompt.messages[0].content


def test_a_window_too_small_for_the_question_is_refused_with_its_field() -> None:
    with pytest.raises(Rejection) as caught:
        build(query="why " * 100, max_tokens=100, context_window=200)
    assert (caught.value.code, caught.value.field) == ("context_too_small", "model.context_window")
    assert "200" in caught.value.message


def test_passages_go_before_history_and_one_too_long_lets_the_next_one_in() -> None:
    long, short = hit("long", "x" * 2000), hit("short", "y" * 200)
    prompt = build([long, short], [turn("q" * 400, "a" * 400)], context_window=350)
    assert [each.id for each in prompt.passages_used] == ["short"]
    assert "[1] manual.pdf\nyyy" in prompt.messages[0].content
    assert prompt.cut == {"segments": 1, "messages": 1}


def test_history_is_truncated_at_its_oldest_end() -> None:
    history = [turn("new", "n" * 20), turn("middle", "m" * 2000), turn("old", "o")]
    prompt = build(history=history, context_window=400)
    assert [message.content for message in prompt.messages[1:]] == ["new", "n" * 20, "Well?"]
    assert prompt.cut == {"segments": 0, "messages": 2}


def test_turns_whose_text_is_forgotten_are_left_out() -> None:
    prompt = build(history=[turn("", ""), turn("q", "")])
    assert len(prompt.messages) == 2
    assert prompt.cut["messages"] == 0


def whole_words(text: str) -> int:
    """A count that is not additive: joined texts may cost more than their parts."""
    return len(text.split()) + len(text) // 10 + text.count("\n\n") ** 2


@given(
    st.lists(st.tuples(st.integers(0, 9), st.text(max_size=120)), max_size=12),
    st.lists(st.tuples(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60)), max_size=6),
    st.text(min_size=1, max_size=60),
    st.integers(1, 120),
    st.integers(1, 600),
    st.sampled_from([estimate, whole_words]),
)
def test_the_window_always_holds(
    found: list[tuple[int, str]],
    turns: list[tuple[str, str]],
    query: str,
    max_tokens: int,
    context_window: int,
    count: Callable[[str], int],
) -> None:
    hits = [hit(str(number), content) for number, content in found]
    history = earlier(*(turn(*each) for each in turns))
    build = partial(
        build_prompt,
        instructions="Be exact.",
        inputs={},
        passages=hits,
        history=history,
        query=query,
        origin=ORIGIN,
        max_tokens=max_tokens,
        context_window=context_window,
        count=count,
    )
    if count("Be exact.") + count(query) + 2 * MESSAGE_TOKENS + max_tokens > context_window:
        with pytest.raises(Rejection, match="set a larger model"):
            build()
        return
    prompt = build()
    assert prompt.prompt_tokens + max_tokens <= context_window
    assert prompt.prompt_tokens == sum(count(message.content) + MESSAGE_TOKENS for message in prompt.messages)
    ids = [each.id for each in prompt.passages_used]
    ranks = {each.id: rank for rank, each in reversed(list(enumerate(hits)))}
    assert all(ranks[one] < ranks[next_] for one, next_ in pairwise(ids))
    assert prompt.cut["segments"] == len(ranks) - len(ids)
    kept = [
        (user.content, assistant.content)
        for user, assistant in zip(prompt.messages[1:-1:2], prompt.messages[2:-1:2], strict=True)
    ]
    assert kept == turns[: len(kept)][::-1]
    assert prompt.cut["messages"] == len(turns) - len(kept)
    assert prompt.messages[-1] == ChatMessage("user", query)


def read_back(
    prompt: Prompt, instructions: str, history: Mapping[str, Message], query: str, number: int = 3
) -> list[list[Piece]]:
    """The pieces of each message with the texts that they quote, after a look at whether they give what is sent."""
    texts = {f"instructions/the-app/{number}": instructions, "question/the-question": query}
    texts |= {f"passage/{id}": text for id, text in prompt.record.passages.items()}
    turns, oldest_first = {}, list(reversed(history.items()))
    names = [id for id, _ in oldest_first]
    for span in spans(prompt.record.messages):
        conversation, first, last = span
        assert conversation == "the-talk"
        said = oldest_first[names.index(first) : names.index(last) + 1]
        turns[span] = [Turn(id, turn["query"], turn["answer"]) for id, turn in said]
    whole = put_together(prompt.record.messages, texts, turns)
    assert [ChatMessage(each["role"], content(each)) for each in whole] == prompt.messages  # type: ignore[arg-type]
    return [each["pieces"] for each in whole]


def test_the_origin_of_each_piece() -> None:
    instructions, opened = "  {{tone}} and {{name}}, {{ tone }} {{other}}.\n", "It opens at 4.2 bar. " * 10
    prompt = build(
        [hit("a", opened), hit("long", "x" * 5000), hit("b", "It was installed in 2019.")],
        [turn("And then?", "It closes."), turn("What first?", "It opens.")],
        instructions=instructions,
    )
    configured = {"from": "instructions", "app": "the-app", "configuration": 3}
    of_document = {"from": "segment", "document": "doc", "dataset": "set", "score": 0.5}
    history = earlier(turn("And then?", "It closes."), turn("What first?", "It opens."))
    found = read_back(prompt, instructions, history, "Well?")
    assert [(origin(piece), piece["text"]) for pieces in found for piece in pieces] == [
        ({"from": "input", "name": "tone"}, "kind"),
        (configured, " and "),
        ({"from": "input", "name": "name"}, "{{tone}}"),
        (configured, ", "),
        ({"from": "input", "name": "tone"}, "kind"),
        (configured, " {{other}}."),
        ({}, "\n\n[1] manual.pdf\n"),
        ({**of_document, "segment": "a", "rank": 1}, opened),
        ({}, "\n\n[2] manual.pdf\n"),
        ({**of_document, "segment": "b", "rank": 3}, "It was installed in 2019."),
        ({"from": "history", "message_id": "m2"}, "What first?"),
        ({"from": "history", "message_id": "m2"}, "It opens."),
        ({"from": "history", "message_id": "m1"}, "And then?"),
        ({"from": "history", "message_id": "m1"}, "It closes."),
        ({"from": "query", "conversation": "the-talk", "message_id": "the-question"}, "Well?"),
    ]


def test_what_was_recorded_before_is_quoted() -> None:
    long, short = "x" * QUOTED, "x" * (QUOTED - 1)
    prompt = build([hit("a", long), hit("b", short)], [turn("And then?", "It closes."), turn("First?", "It opens.")])
    [system, history, question] = prompt.record.messages
    assert list(prompt.record.passages.items()) == [(passage_id(long), long)]
    assert [piece.get("text") for piece in pieces([system])] == [
        None,
        "\n\n[1] manual.pdf\n",
        None,
        "\n\n[2] manual.pdf\n",
        short,
    ]
    assert history == {"conversation": "the-talk", "first": "m2", "last": "m1"}
    assert [piece.get("quotes") for piece in pieces([question])] == ["question/the-question"]


def test_what_a_user_uploaded_is_never_quoted() -> None:
    long = "It opens at 4.2 bar. " * 20
    shared, personal = hit("a", long), replace(hit("b", f"{long}So it is."), personal=True)
    record = build([shared, personal], context_window=4000).record
    assert record.passages == {passage_id(long): long}
    [first, *_] = record.messages
    texts = [piece for piece in first["pieces"] if piece.get("from") == "segment"]  # type: ignore[typeddict-item]
    assert [set(piece) & {"quotes", "text"} for piece in texts] == [{"quotes"}, {"text"}]


def test_a_turn_that_may_still_change_is_recorded_as_it_is() -> None:
    turns = [turn("Fourth?", "4"), turn("Third?", "3"), {**turn("Second?", "half"), "status": "failed"}]
    prompt = build([], [*turns, turn("First?", "1")])
    first, *failed, last = prompt.record.messages[1:-1]
    assert (first, last) == (
        {"conversation": "the-talk", "first": "m4", "last": "m4"},
        {"conversation": "the-talk", "first": "m2", "last": "m1"},
    )
    assert [piece["text"] for piece in pieces(failed)] == ["Second?", "half"]


TEXT = st.text(alphabet=st.sampled_from(" \n\t\u3000aé水🙂{}[]1"), max_size=12)
INSTRUCTIONS = st.lists(st.sampled_from(["{{tone}}", "{{ name }}", "{{other}}", " ", "\n", "Be", "水"]), max_size=8)


@given(
    INSTRUCTIONS.map("".join),
    st.dictionaries(st.sampled_from(["tone", "name"]), TEXT),
    st.lists(st.one_of(TEXT, TEXT.map(lambda text: text * 40)), max_size=4),
    st.lists(st.tuples(TEXT, TEXT), max_size=3),
    TEXT.filter(bool),
    INSTRUCTIONS.map("".join),
)
def test_every_piece_is_of_its_origin(
    instructions: str,
    inputs: dict[str, str],
    contents: list[str],
    turns: list[tuple[str, str]],
    query: str,
    others: str,
) -> None:
    passages = [hit(str(number), text) for number, text in enumerate(contents)]
    history = earlier(*(turn(*each) for each in turns))
    build = partial(
        build_prompt,
        inputs=inputs,
        history=history,
        query=query,
        max_tokens=1,
        instructions=instructions,
        origin=ORIGIN,
    )
    prompt = build(passages=passages, context_window=1000)
    used = {each.id: each for each in prompt.passages_used}
    for message, found in zip(prompt.messages, read_back(prompt, instructions, history, query), strict=True):
        for piece in found:
            text = piece["text"]
            match piece.get("from"):
                case "segment":
                    assert used.pop(piece["segment"]).entry.content == text
                    assert passages[piece["rank"] - 1].id == piece["segment"]
                case "history":
                    known = history[piece["message_id"]]
                    assert text == known["query" if message.role == "user" else "answer"]
                case "query":
                    assert text == query
                case "input":
                    assert text in inputs[piece["name"]]
                case "instructions":
                    assert text in instructions or text in (FROM_MEMORY, FROM_PASSAGES)
                case _:
                    assert text.startswith("\n\n[")
    assert not used

    # Other instructions give what they would have given in the first place.
    [first, *rest] = prompt.record.messages
    assert "pieces" in first
    reworded = reword(first, others, inputs, ORIGIN.app, 4)
    rebuilt = build(
        instructions=others,
        passages=prompt.passages_used,
        origin=ORIGIN._replace(configuration=4),
        context_window=100_000,
    )
    ranks = {each.id: rank for rank, each in enumerate(passages, 1)}
    for piece in pieces(rebuilt.record.messages):
        if piece.get("from") == "segment":
            piece["rank"] = ranks[piece["segment"]]
    if not prompt.cut["messages"]:
        assert [reworded, *rest] == rebuilt.record.messages


def test_the_estimate_covers_real_tokens() -> None:
    assert [estimate(text) for text in ("", "a", "ab", "abc", "阀门", "\ud800")] == [0, 1, 1, 2, 3, 1]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        (
            "The lock keeper opens the gates at six in the morning, and closes them again after the last boat of the "
            "day has gone by.",
            28,
        ),
        ("水门在早上六点开门,晚上九点关门。", 13),
        ("Шлюз открывается в шесть часов утра.", 12),
        ("🚤🚤", 4),
        ("\ud800", 1),
    ],
)
def test_the_likeliest_tokens_of_a_text(text: str, tokens: int) -> None:
    assert likely(text) == pytest.approx(tokens, rel=0.2)
    assert likely(text) <= max(estimate(text), 1)
