"""Answers that failed and are tried again, and answers whose worker was killed."""

from __future__ import annotations

import asyncio

from tests.chat_servers import Exchange, faulty_server
from tests.journeys.stack import Row, Stack
from tests.journeys.test_models import app_on


async def breaks_off_first(exchange: Exchange) -> None:
    """The second request has a whole answer."""
    if exchange.number > 1:
        await exchange.finish("All of it.")
        return
    await exchange.begin()
    await exchange.say("Half of ")


async def never_ends_first(exchange: Exchange) -> None:
    if exchange.number > 1:
        await exchange.finish("At last.")
        return
    await exchange.begin()
    await exchange.say("Half of ")
    await asyncio.Event().wait()


async def calls_of(headrace: Stack, message: str) -> list[Row]:
    """Both chat calls of a message, once neither is open."""
    statement = "SELECT * FROM headrace.model_calls WHERE cause_id = %(id)s AND kind = 'chat' ORDER BY created_at"
    over = {"completed", "failed", "cancelled"}
    return await headrace.until(
        statement, lambda rows: len(rows) == 2 and {row["status"] for row in rows} <= over, id=message
    )


async def test_a_failed_answer_is_tried_again(headrace: Stack) -> None:
    async with faulty_server(breaks_off_first) as server:
        app = await app_on(headrace, server.url, "any")
        frames = await headrace.ask(app, "Anything?")
        assert (frames[-1]["type"], frames[-1]["code"]) == ("failed", "broken_off")
        ids = {"conversation": frames[0]["conversation"], "message": frames[0]["message"]}
        again = [frame async for frame in headrace.client.retry(**ids)]
        assert again[-1]["type"] == "answered"
        assert again[-1]["answer"] == "All of it."
    statement = "SELECT * FROM headrace.messages WHERE id = %(id)s AND status = 'answered'"
    [row] = await headrace.until(statement, id=ids["message"])
    assert (row["answer"], row["attempt"], row["error_code"], row["error"]) == ("All of it.", 2, None, None)
    assert [call["status"] for call in await calls_of(headrace, ids["message"])] == ["failed", "completed"]
    assert (await headrace.refused("message.retry", **ids))["code"] == "not_failed"


async def test_a_call_in_flight_is_lost_with_its_worker_and_the_answer_is_not(headrace: Stack) -> None:
    """The message is in other hands ten seconds after the last sign of life."""
    async with faulty_server(never_ends_first) as server:
        app = await app_on(headrace, server.url, "any")
        attempts = []
        async for frame in headrace.client.ask(app, "Anything?"):
            if frame["type"] == "accepted":
                message = frame["message"]
            if frame["type"] == "token" and frame["attempt"] not in attempts:
                attempts.append(frame["attempt"])
                if len(attempts) == 1:
                    await headrace.kill("answer")
                    await headrace.start("answer")
        assert (frame["type"], frame["answer"]) == ("answered", "At last.")
    assert attempts == [1, 2]
    lost, whole = await calls_of(headrace, message)
    assert (lost["status"], lost["error_code"]) == ("failed", "lost")
    assert (whole["status"], whole["response"]) == ("completed", "At last.")
