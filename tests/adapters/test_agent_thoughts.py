"""The view `message_agent_thoughts`: a row for each call of a tool, with the model call that asked for it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from domain.models.model_call import ModelCall
from tests.adapters.test_postgres import caught_up, following
from tests.projections.history import TOKENS, History


async def thoughts(url: str) -> list[dict[str, Any]]:
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        query = "SELECT * FROM headrace.message_agent_thoughts ORDER BY message_id, position, call_position"
        return await (await connection.execute(query)).fetchall()


def called(history: History, message: str, id: str, response: str) -> None:
    call = ModelCall.begin(
        ModelCall.Requested,
        id,
        history.now,
        kind="chat",
        provider="openai",
        model="gpt-4o-mini",
        cause_noun="message",
        cause_id=message,
        request={"messages": [], "parameters": {}},
    )
    history.record(call)
    call.complete(
        history.now, response=response, finish_reason="tool_calls", usage=TOKENS, first_token_ms=1.0, duration_ms=2000.0
    )
    history.record(call)


async def test_two_calls_of_one_tool_in_one_round_are_two_rows(database_url: str) -> None:
    history = History()
    called(history, "m", "one", "I look both up.")
    first = history.tool_call("m", "a", model_call="one", name="weather", arguments='{"city": "Paris"}')
    second = history.tool_call("m", "b", model_call="one", name="weather", arguments='{"city": "Rome"}', position=1)
    image = {"type": "image", "digest": "d" * 64, "media_type": "image/png", "name": "map.png", "size": 9}
    first.complete(history.now, text="Rain.", parts=[image, {"type": "json", "value": 1}], duration_ms=500.0)
    second.fail(history.now, code="timeout", reason="It is silent.", duration_ms=30.0)
    for each in (first, second):
        history.record(each)
    called(history, "m", "two", "")
    waiting = history.tool_call("m", "c", model_call="two", round=2, held=True)
    async with following(database_url, history):
        await caught_up(database_url, history)
    rows = await thoughts(database_url)
    assert [(row["id"], row["position"], row["call_position"], row["thought"]) for row in rows] == [
        ("a", 1, 0, "I look both up."), ("b", 1, 1, "I look both up."), ("c", 2, 0, "")
    ]  # fmt: skip
    assert [row["tool_input"] for row in rows[:2]] == ['{"city": "Paris"}', '{"city": "Rome"}']
    assert [row["observation"] for row in rows] == ["Rain.", "It is silent.", ""]
    assert [row["tool_meta"]["status"] for row in rows] == ["completed", "failed", "held"]
    assert rows[0]["message_files"] == [{name: value for name, value in image.items() if name != "type"}]
    assert [row["tokens"] for row in rows] == [102, 0, 102], "each model call is counted once"
    assert [row["latency"] for row in rows] == [2.0, 0.0, 2.0]
    assert rows[0]["total_price"] > 0
    assert waiting.status == "held"
