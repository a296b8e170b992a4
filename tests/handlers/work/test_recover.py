"""Recovery on a log in memory: who watches an answer learns that it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domain.chat.conversation import Conversation
from handlers.ports.log import PendingWork
from handlers.work.recover import Recover
from handlers.work.work import STALLS
from tests.handlers.desk import Desk
from tests.memory import Memory


async def test_an_answer_that_no_worker_gives_fails_for_those_who_watch_it(memory: Memory, tenant: str) -> None:
    desk = Desk(memory, tenant)
    app = await desk.done("app.create", name="Guide")
    await desk.done("app.configure", app=app)
    message = await desk.done("message.send", app=app, query="When?")

    async def overdue() -> Sequence[PendingWork]:
        last = (await desk.commits("conversation", message))[-1]
        since, position = last.at, last.position.sequence
        return [PendingWork("answer", tenant, message, message, "asked", 0, since, position, [], message)]

    async def done() -> Mapping[str, int]:
        return {}

    recover = Recover(desk.repository, desk.live, overdue, done)
    for _ in range(STALLS):
        await recover()
    assert memory.frames == [], "it is retried"
    await recover()
    [failed] = (await desk.commits("conversation", message))[-1].events
    assert isinstance(failed, Conversation.Failed)
    assert memory.frames == [{"type": "failed", "code": "stalled", "reason": failed.reason}]
    await recover()
    assert len(memory.frames) == 1
