"""A call that is broken off at any moment is not left open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from nats.aio.client import Client

from domain.aggregate import new_id
from domain.log import Metadata
from domain.models.model_call import ModelCall
from handlers.models.model_calls import Cause, Chat, ModelCalls
from handlers.ports.models import ChatRequest, Delta
from tests.handlers.desk import Desk


class Echo:
    """A model that says one word and is done."""

    server = ""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        yield Delta("word", "stop")


async def drain(chat: Chat) -> None:
    async for _ in chat.texts():
        pass


@pytest.mark.parametrize("turns", range(1, 12))
async def test_a_call_that_is_cancelled_at_any_moment_has_an_end(nc: Client, tenant: str, turns: int) -> None:
    desk, id = Desk(nc, tenant), new_id()
    cause = Cause(Metadata(new_id(), tenant, id), "message", id, 1)
    request = ChatRequest(model="m", messages=[], max_tokens=1, parameters={}, passages=[])
    chat = ModelCalls(desk.repository).chat(cause, "lab", Echo(), request, 1, [])
    speaking = asyncio.create_task(drain(chat))
    for _ in range(turns):
        await asyncio.sleep(0)
    speaking.cancel()
    await asyncio.wait((speaking,))
    call = await desk.repository.get(ModelCall, tenant, chat.id)
    assert call is not None
    assert call.status in ("cancelled", "completed")
    assert speaking.cancelled() or chat.usage is not None
