"""Work too large for one message of the log fails once, and says why: no model is called for it without end."""

from __future__ import annotations

import asyncio

import pytest

from tests.chat_servers import Behaviour, draws, faulty_server, floods
from tests.journeys.stack import Stack
from tests.journeys.test_models import app_on, calls_of

WITHIN_S = 30.0
QUIET_S = 6.0
"""In which a message that is given back would have come again three times."""


@pytest.mark.parametrize(
    ("behaviour", "beginning"),
    [(draws, "![](data:image/png;base64,iVBORw0KGgoA"), (floods, "flood flood ")],
    ids=["picture", "flood"],
)
async def test_an_answer_that_is_too_large_is_asked_for_once(
    headrace: Stack, behaviour: Behaviour, beginning: str
) -> None:
    async with faulty_server(behaviour) as server:
        app = await app_on(headrace, server.url, "any")
        async with asyncio.timeout(WITHIN_S):
            frames = await headrace.ask(app, "Draw me a sluice.")
        assert (frames[-1]["type"], frames[-1]["code"]) == ("failed", "too_large")
        message = frames[0]["message"]
        [row] = await headrace.until(
            "SELECT * FROM headrace.messages WHERE id = %(id)s AND status = 'failed'", id=message
        )
        assert row["error_code"] == "too_large"
        assert "model.max_tokens" in row["error"]
        assert row["answer"].startswith(beginning)
        assert len(row["answer"].encode()) == 64 * 1024
        [call] = await calls_of(headrace, message, "failed")
        assert (call["error_code"], call["response"]) == ("too_large", row["answer"])
        await asyncio.sleep(QUIET_S)
        assert len(server.requests) == 1
        replay = await headrace.make("replay.request", call=str(call["id"]))
        [failed] = await headrace.until(
            "SELECT * FROM headrace.replays WHERE id = %(id)s AND status = 'failed'", id=replay
        )
        assert failed["error_code"] == "too_large"
        assert len(server.requests) == 2
        ids = {"conversation": frames[0]["conversation"], "message": message}
        again = [frame async for frame in headrace.client.retry(**ids)]
        assert (again[-1]["code"], len(server.requests)) == ("too_large", 3)
    assert await headrace.sql("SELECT id FROM headrace.dead_letters WHERE message_id = %(id)s", id=message) == []
