from __future__ import annotations

from datetime import UTC, datetime

from domain.access.account import Account
from domain.access.tenant import HOUSE
from domain.log import EVENTS, Commit, Metadata, Position, Subject
from handlers.access.end_sessions import EndSessions
from handlers.work.work import WORKS

NOW = datetime(2026, 5, 1, tzinfo=UTC)


class Ended:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None]] = []

    async def end_all(self, actor: str, before: str | None = None) -> None:
        self.calls.append((actor, before))


async def test_what_ends_sessions_ends_those_that_began_before() -> None:
    account = Account.begin(Account.Created, "1", NOW, kind="person", name="", email="", password="")
    account.rename(NOW, name="Ada")
    account.change_password(NOW, password="other")
    account.sign_out(NOW)
    account.disable(NOW)
    account.enable(NOW)
    account.erase(NOW)
    ended = Ended()
    for event in account.pending():
        commit = Commit(Subject(HOUSE, "account", "1"), [event], Metadata("c", HOUSE, "c"), Position(EVENTS, 1), NOW)
        before = len(ended.calls)
        await EndSessions(ended)(commit)
        assert (len(ended.calls) > before) == WORKS["end_sessions"].is_begun_by(commit)
    assert ended.calls == [*[("a_1", NOW.isoformat())] * 3, ("a_1", None)]
