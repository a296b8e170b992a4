"""Around an answer, on real servers: filters, stored answers, suggested questions, structured answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.chat_servers import Exchange, faulty_server
from tests.journeys.stack import Row, Stack
from tests.journeys.test_models import provider_of

SCHEMA = {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]}
THREE = ["Why six?", "Until when?", "Who has the key?"]


async def model(exchange: Exchange) -> None:
    """A model that answers, suggests questions, and keeps to a schema when it is asked again; and a filter."""
    if "point" in exchange.body:
        text = exchange.body["params"].get("text", "")
        await exchange.answer(200, {"flagged": "six" in text, "text": text.replace("six", "seven")})
        return
    said = str(exchange.body["messages"])
    schema = exchange.body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    await exchange.begin()
    if "questions" in schema.get("properties", {}):
        await exchange.say('{"questions": ["Why six?", "Until when?", "Who has the key?"]}')
    elif "hour" in schema.get("properties", {}):
        await exchange.say('{"hour": 6}' if "does not keep" in said else "At six.")
    else:
        for text in ("It opens at si", "x. Then the ", "secret gate", " opens. Bye."):
            await exchange.say(text)
    await exchange.say(finish="stop")
    await exchange.event("[DONE]")
    await exchange.end()


@pytest.fixture(scope="module")
async def lab(headrace: Stack) -> AsyncIterator[str]:
    """A provider for all that a model and a filter do here."""
    async with faulty_server(model) as server:
        name = provider_of(server.url)
        await headrace.send("provider.register", name=name, base_url=server.url, key="a-key-of-the-lab")
        yield name


async def app_with(headrace: Stack, lab: str, **features: object) -> str:
    app = await headrace.make("app.create", name="Around")
    await headrace.send("app.configure", app=app, model={"provider": lab, "name": "small"}, features=features)
    return app


async def test_filters_hold_back_what_they_flag(headrace: Stack, lab: str) -> None:
    words = {"kind": "words", "words": ["secret gate"], "action": "replace"}
    guard = {"kind": "http", "provider": lab, "where": "output", "action": "replace"}
    app = await app_with(headrace, lab, moderation=[words, guard])
    frames = await headrace.ask(app, "When does the secret gate open?")
    assert frames[-1]["type"] == "answered", frames[-1]
    assert frames[-1]["answer"] == "It opens at seven. Then the ****** **** opens. Bye."
    shown = [frame["text"] for frame in frames if frame["type"] == "token"]
    assert "".join(shown) == frames[-1]["answer"]
    assert not any("six" in text or "secret" in text for text in shown)
    message = frames[0]["message"]
    statement = "SELECT * FROM headrace.message_moderations WHERE message_id = %(id)s ORDER BY side, position"
    rows = await headrace.until(statement, lambda rows: len(rows) == 3, id=message)
    assert [(row["side"], row["kind"], row["verdict"], row["checked"], row["flagged"]) for row in rows] == [
        ("input", "words", "flagged", 1, ["query"]),
        ("output", "words", "flagged", 3, ["1"]),
        ("output", "http", "flagged", 3, ["0"]),
    ]
    calls = "SELECT kind, status FROM headrace.model_calls WHERE cause_id = %(id)s ORDER BY created_at"
    kinds = [(row["kind"], row["status"]) for row in await headrace.sql(calls, id=message)]
    assert sorted(kinds) == [("chat", "completed"), *[("moderation", "completed")] * 3]
    sent = "SELECT request::text AS sent FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat'"
    [call] = await headrace.sql(sent, id=message)
    assert "****** ****" in call["sent"]
    assert "secret" not in call["sent"]


async def test_a_stored_answer_is_given_without_a_model(headrace: Stack, lab: str) -> None:
    app = await app_with(headrace, lab)
    await headrace.make("annotation.create", app=app, question="When is the lock closed?", answer="On Sundays.")
    await headrace.send("app.set_annotation_reply", app=app, enabled=True, score_threshold=0.9)
    ready = "SELECT * FROM headrace.app_annotation_settings WHERE id = %(id)s AND active_embedding_model IS NOT NULL"
    await headrace.until(ready, id=app)
    frames = await headrace.ask(app, "When is the lock closed?")
    assert frames[-1]["answer"] == "On Sundays.", frames[-1]
    hit = "SELECT * FROM headrace.app_annotation_hit_histories WHERE message_id = %(id)s"
    [row] = await headrace.until(hit, id=frames[0]["message"])
    assert row["score"] > 0.99
    [annotation] = await headrace.sql(
        "SELECT hit_count FROM headrace.message_annotations WHERE app_id = %(id)s", id=app
    )
    assert annotation["hit_count"] == 1
    other = await headrace.ask(app, "Which birds live on the far side of the river?")
    assert other[-1]["answer"].startswith("It opens"), other[-1]


async def test_questions_are_suggested_after_an_answer(headrace: Stack, lab: str) -> None:
    app = await app_with(headrace, lab, suggest_after_answer={})
    frames = await headrace.ask(app, "When does it open?")
    message = frames[0]["message"]
    await headrace.send("message.suggest", conversation=message, message=message)
    row = await suggested(headrace, message)
    assert row["suggested_questions"] == THREE
    [trace] = await headrace.until(
        "SELECT name, status FROM headrace.traces WHERE name = 'message.suggest' AND status = 'ok'"
    )
    assert trace["name"] == "message.suggest"


async def suggested(headrace: Stack, message: str) -> Row:
    statement = "SELECT * FROM headrace.messages WHERE id = %(id)s AND suggested_questions IS NOT NULL"
    [row] = await headrace.until(statement, id=message)
    return row


async def test_an_answer_keeps_to_the_schema_of_its_app(headrace: Stack, lab: str) -> None:
    app = await app_with(headrace, lab, response_schema=SCHEMA)
    frames = await headrace.ask(app, "When does it open?")
    assert frames[-1]["answer"] == '{"hour": 6}', frames[-1]
    assert "restarted" in [frame["type"] for frame in frames]
    calls = "SELECT FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat' AND status = 'completed'"
    await headrace.until(calls, lambda rows: len(rows) == 2, id=frames[0]["message"])
