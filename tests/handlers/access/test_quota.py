"""Commands of a tenant are counted, and refused when they are over a limit."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import orjson
import pytest

from domain.access.permissions import UNLIMITED
from domain.aggregate import Aggregate, Rejection, new_id
from domain.log import EVENTS, NOT_FINAL, Metadata, Outcome, Position, Quarantined, Subject
from handlers.access.quota import Quota
from handlers.commands.access import EraseEndUser
from handlers.dispatch import Delivery, Dispatch
from handlers.ports.log import Frozen, Unavailable
from handlers.repository import Repository
from handlers.routes import ROUTES
from tests.handlers.desk import Desk, ForgetfulOutcomes
from tests.memory import Memory, MemorySnapshots

A = TypeVar("A", bound=Aggregate)

NOON = datetime(2026, 5, 4, 12, 30, 15, tzinfo=UTC)


@pytest.fixture
def desk(memory: Memory, tenant: str) -> Desk:
    return Desk(memory, tenant)


@pytest.fixture
async def app(desk: Desk) -> str:
    return await an_app(desk)


async def an_app(desk: Desk) -> str:
    app = await desk.done("app.create", name="Guide")
    await desk.done("app.configure", app=app)
    return app


async def limit(desk: Desk, name: str, most: int, *, subject: str = "", verb: str = "set") -> None:
    quantity, period, scope = name.split("/")
    await desk.done(f"limits.{verb}", quantity=quantity, period=period, scope=scope, subject=subject, most=most)


async def send(
    desk: Desk, name: str, /, *, at: datetime = NOON, actor: str = "s_ada", id: str | None = None, **fields: Any
) -> Outcome:
    id = id or new_id()
    return await desk.dispatch(Delivery(name, orjson.dumps(fields), Metadata(id, desk.tenant, id, actor=actor), at))


async def ask(desk: Desk, app: str, **fields: Any) -> str | None:
    """The code of a question's rejection."""
    return (await send(desk, "message.send", app=app, query="?", **fields)).code


async def test_a_message_over_the_rate_is_refused_until_the_next_minute(desk: Desk, app: str) -> None:
    await limit(desk, "messages/minute/tenant", 2)
    assert [await ask(desk, app) for _ in range(2)] == [None, None]
    refused = await send(desk, "message.send", app=app, query="?")
    assert (refused.code, refused.field) == ("over_quota", None)
    assert refused.message == "At most 2 messages a minute are allowed for the tenant; there are 2. Try again in 45 s."
    assert refused.details == {"limit": "messages/minute/tenant", "most": 2, "count": 2, "retry_after_s": 45}
    assert await desk.outcomes.get(desk.tenant, refused.command) == refused
    assert await ask(desk, app, at=NOON + timedelta(seconds=44)) == "over_quota"
    assert await ask(desk, app, at=NOON + timedelta(seconds=45)) is None
    assert await desk.commits("conversation", refused.command) == []


async def test_a_day_is_one_of_utc(desk: Desk, app: str) -> None:
    await limit(desk, "messages/day/tenant", 1)
    evening = datetime(2026, 5, 4, 23, 59, 59, tzinfo=UTC)
    assert await ask(desk, app, at=evening) is None
    refused = await send(desk, "message.send", app=app, query="?", at=evening)
    assert refused.details["retry_after_s"] == 1
    assert await ask(desk, app, at=evening + timedelta(seconds=1)) is None


async def test_another_tenant_has_counts_of_its_own(desk: Desk, app: str) -> None:
    other = Desk(desk.server, f"{desk.tenant}x")
    theirs = await an_app(other)
    await limit(desk, "messages/minute/tenant", 0)
    await limit(other, "messages/minute/tenant", 1)
    assert await ask(desk, app) == "over_quota"
    assert await ask(other, theirs) is None


async def test_what_is_refused_counts_for_nothing(desk: Desk, app: str) -> None:
    """Neither for the limit that it is over, nor for others."""
    await limit(desk, "messages/minute/tenant", 1)
    await limit(desk, "commands/day/tenant", 3)
    assert [await ask(desk, app) for _ in range(5)] == [None, *4 * ["over_quota"]]
    assert (await send(desk, "app.create", name="Other")).status == "accepted"
    assert (await send(desk, "app.create", name="Other")).status == "accepted"
    refused = await send(desk, "app.create", name="Other")
    assert refused.details["limit"] == "commands/day/tenant"


async def test_an_app_a_user_and_a_key_are_counted_each_by_itself(desk: Desk, app: str) -> None:
    other = await an_app(desk)
    for scope in ("app", "user", "key"):
        await limit(desk, f"messages/minute/{scope}", 1)
    assert await ask(desk, app, user="eve") is None
    refused = await send(desk, "message.send", app=app, query="?", user="bob", actor="s_bob")
    assert (refused.field, refused.details["limit"]) == ("app", "messages/minute/app")
    refused = await send(desk, "message.send", app=other, query="?", user="eve", actor="s_bob")
    assert (refused.field, refused.details["limit"]) == ("user", "messages/minute/user")
    refused = await send(desk, "message.send", app=other, query="?", user="bob")
    assert (refused.field, refused.details["limit"]) == (None, "messages/minute/key")
    assert await ask(desk, other, user="bob", actor="s_bob") is None


async def test_one_user_may_have_another_limit(desk: Desk, app: str) -> None:
    await limit(desk, "messages/minute/user", 1)
    await limit(desk, "messages/minute/user", 2, subject="eve")
    assert [await ask(desk, app, user="eve") for _ in range(3)] == [None, None, "over_quota"]
    assert [await ask(desk, app, user="bob") for _ in range(2)] == [None, "over_quota"]


async def test_the_name_of_a_user_is_not_in_the_log(desk: Desk) -> None:
    await limit(desk, "messages/minute/user", 2, subject="eve")
    person, _ = await desk.keys.last_person(desk.tenant, "eve")
    [_, event] = await desk.events("limits", "tenant")
    assert vars(event)["subject"] == person


async def test_the_tenant_may_lower_the_limit_of_the_operator_and_not_raise_it(desk: Desk, app: str) -> None:
    await limit(desk, "messages/minute/tenant", 2, verb="impose")
    await limit(desk, "messages/minute/tenant", 100)
    assert [await ask(desk, app) for _ in range(3)] == [None, None, "over_quota"]
    await limit(desk, "messages/minute/tenant", 1)
    later = NOON + timedelta(minutes=1)
    assert [await ask(desk, app, at=later) for _ in range(2)] == [None, "over_quota"]
    await desk.done("limits.remove", quantity="messages", period="minute")
    assert await ask(desk, app, at=later) is None
    await desk.done("limits.lift", quantity="messages", period="minute")
    assert await ask(desk, app, at=later) is None


async def test_the_limit_of_the_operator_replaces_the_default_one(desk: Desk, app: str) -> None:
    quota = Quota(desk.repository, desk.blobs, desk.counters, desk.waiting, {"messages/day/tenant": 0}, held_s=0)
    desk.dispatch = Dispatch(desk.ports, desk.outcomes, quota)
    assert await ask(desk, app) == "over_quota"
    await limit(desk, "messages/day/tenant", 1, verb="impose")
    assert [await ask(desk, app) for _ in range(2)] == [None, "over_quota"]


async def test_uploads_are_counted_in_bytes(desk: Desk) -> None:
    dataset = await desk.done("dataset.create", name="Rules")
    await limit(desk, "bytes/day/tenant", 10)
    digest = await desk.blobs.put(desk.tenant, b"x" * 6)
    assert digest == hashlib.sha256(b"x" * 6).hexdigest()

    async def upload(**content: Any) -> Outcome:
        return await send(desk, "document.upload", dataset=dataset, name="a.txt", **content)

    assert (await upload(digest=digest)).status == "accepted"
    refused = await upload(digest=digest)
    assert refused.details["count"] == 6
    assert "there are 6, and 6 more are asked for" in str(refused.message)
    assert (await upload(text="水x")).status == "accepted"
    too_large = await upload(text="x" * 11)
    assert "retry_after_s" not in too_large.details
    assert str(too_large.message).endswith("A larger limit is needed.")
    assert (await upload(digest="0" * 64)).code == "not_found"


async def test_when_the_tokens_are_spent_the_next_message_is_refused(desk: Desk, app: str) -> None:
    await limit(desk, "tokens/day/app", 100)
    now = datetime.now(UTC)
    cause = Metadata(new_id(), desk.tenant, new_id(), actor="s_ada")
    await desk.quota.spend(cause, app, 99)
    assert await ask(desk, app, at=now) is None
    await desk.quota.spend(cause, app, 50)
    refused = await send(desk, "message.send", app=app, query="?", at=now)
    assert (refused.code, refused.details["count"]) == ("over_quota", 149)
    other = await an_app(desk)
    assert await ask(desk, other, at=now) is None
    await desk.quota.spend(cause, None, 1000)
    assert await ask(desk, other, at=now) is None


async def test_a_retry_counts_for_the_app_and_the_user_of_its_conversation(desk: Desk, app: str) -> None:
    message = await desk.done("message.send", app=app, query="?", user="eve")
    fails = {"message": message, "code": "timeout", "reason": "Silence.", "answer": ""}
    await desk.change("conversation", message, lambda it: it.fail(datetime.now(UTC), **fails))
    await limit(desk, "messages/minute/user", 1)
    assert await ask(desk, app, user="bob") is None
    assert (await send(desk, "message.retry", conversation=message, message=message)).status == "accepted"
    assert await ask(desk, app, user="eve") == "over_quota"


async def test_more_than_may_wait_is_refused_until_some_has_ended(desk: Desk, app: str, memory: Memory) -> None:
    await limit(desk, "messages/waiting/tenant", 2, verb="impose")
    assert [await ask(desk, app) for _ in range(2)] == [None, None]
    refused = await send(desk, "message.send", app=app, query="?")
    assert refused.details == {"limit": "messages/waiting/tenant", "most": 2, "count": 2, "retry_after_s": 10}
    assert str(refused.message).startswith("At most 2 messages may wait or be in progress for the tenant")
    memory.waiting[desk.tenant, "messages"] -= 1
    assert await ask(desk, app) is None


async def test_limits_can_be_changed_when_all_are_reached(desk: Desk) -> None:
    await limit(desk, "commands/minute/tenant", 0)
    assert (await send(desk, "app.create", name="x")).code == "over_quota"
    assert (await send(desk, "end_user.erase", user="eve")).status == "accepted"
    assert (await send(desk, "limits.remove", quantity="commands", period="minute")).status == "accepted"
    assert (await send(desk, "app.create", name="x")).status == "accepted"


def test_commands_of_operators_count_for_nothing() -> None:
    exempt = {name for name, route in ROUTES.items() if not route.counts}
    assert exempt == {name for name, route in ROUTES.items() if route.permission in UNLIMITED}
    assert all(route.counts[0] == "commands" for name, route in ROUTES.items() if name not in exempt)


async def test_a_command_that_an_operator_retries_is_not_limited(desk: Desk) -> None:
    await limit(desk, "commands/minute/tenant", 0)
    id = new_id()
    failed = Delivery("app.create", b"{}", Metadata(id, desk.tenant, id), NOON, Rejection(NOT_FINAL, "It is kept."))
    assert (await desk.dispatch(failed)).code == NOT_FINAL
    assert (await send(desk, "app.create", name="x", id=id)).status == "accepted"


async def test_what_was_accepted_before_stays_accepted_over_the_limit(desk: Desk, app: str) -> None:
    """Its worker died before the outcome was recorded, and it is delivered again."""
    await limit(desk, "messages/minute/tenant", 1)
    dying, id = Desk(desk.server, desk.tenant, outcomes=ForgetfulOutcomes(desk.outcomes)), new_id()
    with pytest.raises(ForgetfulOutcomes.Died):
        await send(dying, "message.send", app=app, query="?", id=id)
    assert await ask(desk, app) == "over_quota"
    assert (await send(desk, "message.send", app=app, query="?", id=id)).status == "accepted"


async def test_without_a_limit_nothing_is_counted(desk: Desk, app: str, memory: Memory) -> None:
    await limit(desk, "replays/day/tenant", 1)
    before = dict(memory.counters)
    assert await ask(desk, app) is None
    assert memory.counters == before


async def test_the_limits_are_read_once_in_some_seconds(desk: Desk, app: str) -> None:
    quota = Quota(desk.repository, desk.blobs, desk.counters, desk.waiting)
    cause, command = Metadata(new_id(), desk.tenant, new_id()), EraseEndUser(user="eve")
    await quota.take(cause, ("commands",), command, NOON)
    await limit(desk, "commands/minute/tenant", 0)
    await quota.take(cause, ("commands",), command, NOON)
    with pytest.raises(Rejection):
        await desk.quota.take(cause, ("commands",), command, NOON)


async def test_a_counter_that_is_away_delays_the_command_and_not_the_answer(
    desk: Desk, app: str, memory: Memory
) -> None:
    await limit(desk, "tokens/day/tenant", 10)
    quota = Quota(desk.repository, desk.blobs, desk.counters, desk.waiting)
    cause = Metadata(new_id(), desk.tenant, new_id())
    await quota.spend(cause, app, 1)
    memory.away = True
    await quota.spend(cause, app, 1)
    with pytest.raises(Unavailable):
        await quota.take(cause, ("tokens",), EraseEndUser(user="eve"), datetime.now(UTC))
    memory.away = False
    assert sum(memory.counters.values()) >= 1


class FrozenLimits(Repository):
    """The operator's limits have a message in quarantine."""

    async def get(self, kind: type[A], tenant: str, id: str) -> A | None:
        if (kind.TOPIC, id) == ("limits", "operator"):
            subject = Subject(tenant, "limits", id)
            metadata = Metadata("", tenant, "")
            raise Frozen(subject, Quarantined(subject, metadata, Position(EVENTS, 7), NOON, "is no commit."))
        return await super().get(kind, tenant, id)


async def test_limits_that_cannot_be_read_stop_nothing(desk: Desk, app: str, memory: Memory) -> None:
    """The default ones hold, and those of the other side."""
    frozen = FrozenLimits(desk.store, MemorySnapshots(memory))
    quota = Quota(frozen, desk.blobs, desk.counters, desk.waiting, {"messages/day/tenant": 2}, held_s=0)
    desk.dispatch = Dispatch(desk.ports, desk.outcomes, quota)
    assert [await ask(desk, app) for _ in range(3)] == [None, None, "over_quota"]
    await limit(desk, "commands/minute/tenant", 0)
    assert (await send(desk, "app.create", name="x")).code == "over_quota"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"quantity": "letters", "period": "day"}, "quantity"),
        ({"quantity": "tokens", "period": "waiting"}, "period"),
        ({"quantity": "bytes", "period": "day", "scope": "user"}, "scope"),
        ({"quantity": "bytes", "period": "day", "subject": "x"}, "subject"),
        ({"quantity": "tokens", "period": "day", "scope": "app", "subject": "x"}, "subject"),
        ({"quantity": "tokens", "period": "day", "most": -1}, "most"),
        ({"quantity": "tokens", "period": "day", "most": 1.5}, "most"),
    ],
)
@pytest.mark.parametrize("verb", ["set", "impose"])
async def test_a_limit_is_of_what_can_be_counted(desk: Desk, verb: str, fields: dict[str, Any], field: str) -> None:
    code, named = await desk.fails(f"limits.{verb}", {"most": 1} | fields)
    assert (code, named) == ("invalid", field)


async def test_an_app_with_a_limit_must_exist(desk: Desk) -> None:
    fields = {"quantity": "tokens", "period": "day", "scope": "app", "subject": new_id()}
    assert await desk.fails("limits.set", fields | {"most": 1}) == ("not_found", "subject")
    assert await desk.fails("limits.remove", fields) == ("not_found", None)
