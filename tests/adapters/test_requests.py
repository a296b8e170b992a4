"""The view `model_call_requests` puts recorded prompts together as the function of the domain does."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any, cast

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from adapters.postgres import rebuild
from domain.access.end_user import EndUser
from domain.aggregate import new_id
from domain.chat.conversation import Conversation
from domain.models.model_call import ModelCall
from domain.models.passage import Passage, passage_id
from domain.models.piece import InPieces, Turn, Turns, content, in_pieces, origin, pieces, put_together, whole
from tests.adapters.test_postgres import RecordedLog, caught_up, following, recorded_files
from tests.projections.history import TOKENS, History

PICTURE: Any = {"file": "ab" * 32, "kind": "image", "media_type": "image/png", "name": "Wehr.png"}
WEATHER = {"id": "call_1", "name": "weather", "arguments": "{}"}
LONG = "Das Wehr 🛶 bei 水门 öffnet um sechs. " * 9


async def requests(url: str) -> dict[str, Any]:
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        rows = await (await connection.execute("SELECT * FROM headrace.model_call_requests")).fetchall()
    return {row["id"]: row for row in rows}


def called(history: History, messages: list[InPieces | Turns], cause: str = "the-message") -> ModelCall:
    call = ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        history.now,
        kind="chat",
        provider="lab",
        model="small",
        cause_noun="message",
        cause_id=cause,
        request={"messages": messages, "max_tokens": 64, "parameters": {"seed": 7}},
    )
    history.record(call)
    return call


def answered(history: History, conversation: Conversation, query: str, answer: str) -> str:
    """A question, and its answer by a call of a model."""
    message = history.ask(conversation, query)
    call = called(history, [{"role": "user", "pieces": [{"quotes": f"question/{message}"}]}], message)
    call.complete(history.now, response=answer, finish_reason="stop", usage=TOKENS, first_token_ms=1.0, duration_ms=2.0)
    history.record(call)
    history.answer(conversation, message, answer=answer, model_call=call.id)
    return message


async def test_a_prompt_is_put_together_from_what_it_quotes(database_url: str) -> None:
    history = History()
    app = history.app()
    history.configure(app, f"  Be {{{{tone}}}} and {LONG}")
    history.record(Passage.begin(Passage.Recorded, passage_id(LONG), history.now, text=LONG))
    talk = history.conversation(app.id)
    first = answered(history, talk, "Wer?", "Otto.")
    second = answered(history, talk, "Wann? 🛶", "")
    stopped = history.ask(talk, "Wie lange?")
    talk.stop(history.now, message=stopped)
    talk.stopped(history.now, message=stopped, answer="Sehr")
    history.record(talk)
    fork = Conversation.fork(new_id(), history.now, source=talk, message=first, name=None)
    history.record(fork)
    question = history.ask(talk, "Und warum?")
    system: Any = [
        {"from": "instructions", "app": app.id, "configuration": 1, "quotes": f"instructions/{app.id}/1", "end": 5},
        {"from": "input", "name": "tone", "text": "kühl"},
        {"from": "instructions", "app": app.id, "configuration": 1, "quotes": f"instructions/{app.id}/1", "start": 13},
        {"text": "\n\n[1] Wehr.pdf\n"},
        {"from": "segment", "segment": "s1", "rank": 1, "quotes": f"passage/{passage_id(LONG)}"},
    ]
    asked: Any = {"from": "query", "conversation": talk.id, "message_id": question, "quotes": f"question/{question}"}
    messages: list[InPieces | Turns] = [
        {"role": "system", "pieces": system},
        {"conversation": talk.id, "first": first, "last": stopped},
        {"conversation": fork.id, "first": first, "last": first},
        {"role": "assistant", "pieces": []},
        {"role": "assistant", "pieces": [], "tool_calls": [WEATHER], "state": {"signature": "c2ln"}},
        {"role": "tool", "pieces": [{"text": "Regen"}], "tool_call_id": "call_1"},
        {"role": "user", "pieces": [asked, PICTURE, cast("Any", {**PICTURE, "from": "history", "message_id": first})]},
    ]
    call = called(history, messages).id
    async with following(database_url, history):
        await caught_up(database_url, history)
    texts = {
        f"instructions/{app.id}/1": f"  Be {{{{tone}}}} and {LONG}",
        f"passage/{passage_id(LONG)}": LONG,
        f"question/{question}": "Und warum?",
    }
    said = [Turn(first, "Wer?", "Otto."), Turn(second, "Wann? 🛶", ""), Turn(stopped, "Wie lange?", "Sehr")]
    turns = {(talk.id, first, stopped): said, (fork.id, first, first): said[:1]}
    expected = put_together(messages, texts, turns)
    found = (await requests(database_url))[call]
    assert found["request"] == {
        "messages": [whole(each) for each in expected],
        "max_tokens": 64,
        "parameters": {"seed": 7},
    }
    for source in found["sources"]:
        sent = found["request"]["messages"][source["message"]]["content"]
        piece = {name: value for name, value in source.items() if name not in ("message", "start", "end")}
        assert (piece, sent[source["start"] : source["end"]]) in [
            (origin(each), each.get("text", "")) for each in expected[source["message"]]["pieces"]
        ]
    assert len(found["sources"]) == sum("from" in piece for piece in pieces(expected))

    # What outlives its app and conversation is still whole, and a rebuilt table says the same.
    talk.delete(history.now)
    app.delete(history.now)
    history.record(talk)
    history.record(app)
    async with following(database_url, history):
        await caught_up(database_url, history)
    assert (await requests(database_url))[call] == found
    await rebuild.rebuild(database_url, RecordedLog(history), recorded_files(history), ["model_calls", "texts"])
    assert (await requests(database_url))[call] == found


async def test_what_is_missing_is_null_and_the_erased_is_empty(database_url: str) -> None:
    history = History()
    history.person = "bo"
    erased = called(history, [{"role": "user", "pieces": [{"text": "Wer?"}]}]).id
    history.person = None
    missing = called(history, [{"role": "user", "pieces": [{"text": "Wer?"}, {"quotes": "passage/gone"}]}]).id
    history.record(EndUser.begin(EndUser.Erased, "bo", datetime.now(UTC), known=True))
    async with following(database_url, history):
        await caught_up(database_url, history)
    found = await requests(database_url)
    assert (found[erased]["request"], found[erased]["sources"]) == ({}, [])
    assert found[missing]["request"]["messages"] == [{"role": "user", "content": None}]


@given(st.lists(st.text(alphabet="aé水🙂 \n", max_size=8), max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_messages_with_a_content_are_cut_into_pieces_that_give_it(texts: list[str], random: Random) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    sources: list[dict[str, Any]] = []
    for number, text in enumerate(texts):
        ends = sorted(random.sample(range(len(text) + 1), k=min(4, len(text) + 1)))
        kinds = ["segment", "query"]
        sources += [
            {"message": number, "start": start, "end": end, "from": random.choice(kinds)}
            for start, end in zip(ends[::2], ends[1::2], strict=False)
        ]
    cut = in_pieces(messages, sources)
    assert [content(message) for message in cut] == texts
