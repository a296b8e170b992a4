from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.aggregate import Rejection
from domain.chat.conversation import Message
from domain.models.model_call import Source
from handlers.models.prompt import (
    FROM_MEMORY,
    FROM_PASSAGES,
    MESSAGE_TOKENS,
    Origin,
    Prompt,
    build_prompt,
    cite,
    estimate,
    fill,
    likely,
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
    """The turns, newest first, as m1, m2, …"""
    return {f"m{number}": turn for number, turn in enumerate(turns, 1)}


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
        ("Be ", None),
        ("kind", "tone"),
        (", ", None),
        ("{{tone}}", "name"),
        ("; {{other}} {tone}", None),
    ]
    assert build(instructions="Be {{tone}}.").messages[0].content == "Be kind."


def test_an_app_without_instructions_has_good_ones() -> None:
    assert build([hit("a")], instructions=" \n").messages[0].content.startswith(FROM_PASSAGES)
    assert build(instructions="").messages[0].content == FROM_MEMORY


def test_a_passage_is_headed_by_its_place_in_one_line() -> None:
    assert cite(2, hit("a", "Text.", heading="A\nB"), "my\nfile.txt") == "[2] my file.txt, A B\nText."


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


def covered(prompt: Prompt) -> list[tuple[Source, str]]:
    """Every source with the text that it is of, after a look at whether they fit into their messages, one by one."""
    found, ends = [], dict.fromkeys(range(len(prompt.messages)), 0)
    for source in prompt.sources:
        text = prompt.messages[source["message"]].content
        assert ends[source["message"]] <= source["start"] < source["end"] <= len(text)
        ends[source["message"]] = source["end"]
        found.append((source, text[source["start"] : source["end"]]))
    assert [source["message"] for source, _ in found] == sorted(source["message"] for source, _ in found)
    return found


def test_where_each_part_comes_from() -> None:
    prompt = build(
        [hit("a"), hit("long", "x" * 5000), hit("b", "It was installed in 2019.")],
        [turn("What first?", "It opens.")],
        instructions="  {{tone}} and {{name}}, {{ tone }} {{other}}.\n",
    )
    configured = {"from": "instructions", "app": "the-app", "configuration": 3}
    said = {"from": "history", "message_id": "m1"}
    of_document = {"from": "segment", "document": "doc", "dataset": "set", "score": 0.5}
    assert [
        ({name: value for name, value in source.items() if name not in ("message", "start", "end")}, text)
        for source, text in covered(prompt)
    ] == [
        ({"from": "input", "name": "tone"}, "kind"),
        (configured, " and "),
        ({"from": "input", "name": "name"}, "{{tone}}"),
        (configured, ", "),
        ({"from": "input", "name": "tone"}, "kind"),
        (configured, " {{other}}."),
        ({**of_document, "segment": "a", "rank": 1}, "[1] manual.pdf\nIt opens at 4.2 bar."),
        ({**of_document, "segment": "b", "rank": 3}, "[2] manual.pdf\nIt was installed in 2019."),
        (said, "What first?"),
        (said, "It opens."),
        ({"from": "query", "conversation": "the-talk", "message_id": "the-question"}, "Well?"),
    ]


TEXT = st.text(alphabet=st.sampled_from(" \n\t\u3000aé水🙂{}[]1"), max_size=12)
INSTRUCTIONS = st.lists(st.sampled_from(["{{tone}}", "{{ name }}", "{{other}}", " ", "\n", "Be", "水"]), max_size=8)


@given(
    INSTRUCTIONS.map("".join),
    st.dictionaries(st.sampled_from(["tone", "name"]), TEXT),
    st.lists(TEXT, max_size=4),
    st.lists(st.tuples(TEXT, TEXT), max_size=3),
    TEXT.filter(bool),
    INSTRUCTIONS.map("".join),
)
def test_every_part_is_where_its_source_says(
    instructions: str,
    inputs: dict[str, str],
    contents: list[str],
    turns: list[tuple[str, str]],
    query: str,
    others: str,
) -> None:
    passages = [hit(str(number), content) for number, content in enumerate(contents)]
    history = earlier(*(turn(*each) for each in turns))
    prompt = build_prompt(
        instructions=instructions,
        inputs=inputs,
        passages=passages,
        history=history,
        query=query,
        origin=ORIGIN,
        max_tokens=1,
        context_window=1000,
    )
    used = {each.id: each for each in prompt.passages_used}
    between = [list(message.content) for message in prompt.messages]
    for source, text in covered(prompt):
        between[source["message"]][source["start"] : source["end"]] = [""] * len(text)
        match source["from"]:
            case "segment":
                assert used.pop(source["segment"]).entry.content in text
                assert passages[source["rank"] - 1].id == source["segment"]
            case "history":
                known = history[source["message_id"]]
                assert text == known["query" if prompt.messages[source["message"]].role == "user" else "answer"]
            case "query":
                assert text == query
            case "input":
                assert text in inputs[source["name"]]
            case "instructions":
                assert text in instructions or text in (FROM_MEMORY, FROM_PASSAGES)
    assert not used
    assert {"".join(letters).strip("\n") for letters in between} == {""}

    # Other instructions give what they would have given in the first place.
    reworded = reword(prompt.messages, prompt.sources, others, inputs, ORIGIN.app, 4)
    rebuilt = build_prompt(
        instructions=others,
        inputs=inputs,
        passages=prompt.passages_used,
        history=history,
        query=query,
        origin=ORIGIN._replace(configuration=4),
        max_tokens=1,
        context_window=100_000,
    )
    ranks = {each.id: rank for rank, each in enumerate(passages, 1)}
    for found in rebuilt.sources:
        if found["from"] == "segment":
            found["rank"] = ranks[found["segment"]]
    if not prompt.cut["messages"]:
        assert reworded == (rebuilt.messages, rebuilt.sources)


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
