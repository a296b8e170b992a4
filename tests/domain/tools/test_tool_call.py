from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.tools.question import Question
from domain.tools.tool_call import ToolCall
from tests.domain.scenario import NOW, Decision, given, made

REQUESTED: dict[str, Any] = {
    "toolset": "mail",
    "kind": "mcp",
    "tool": "send",
    "name": "mail_send",
    "digest": "5e" * 32,
    "arguments": '{"to": "ada"}',
    "cause_noun": "message",
    "cause_id": new_id(),
    "conversation": new_id(),
    "app": new_id(),
    "model_call": new_id(),
    "round": 1,
    "position": 0,
    "attempt": 1,
    "destructive": True,
    "idempotent": False,
    "server": "mail:443",
}


def call() -> ToolCall:
    return ToolCall.begin(ToolCall.Requested, new_id(), NOW, **REQUESTED)


def hold(call: ToolCall) -> None:
    call.hold(NOW, why="approval", seconds=60)


def release(call: ToolCall) -> None:
    call.release(NOW)


def refuse(call: ToolCall) -> None:
    call.refuse(NOW, code="refused", reason="No.")


def begin_again(call: ToolCall) -> None:
    call.begin_again(NOW, attempt=2)


def complete(call: ToolCall) -> None:
    call.complete(NOW, text="Sent.", parts=[{"type": "link", "url": "https://mail.example/1"}], duration_ms=4.0)


def fail(call: ToolCall) -> None:
    call.fail(NOW, code="timeout", reason="Silence.", duration_ms=9.0)


def cancel(call: ToolCall) -> None:
    call.cancel(NOW, duration_ms=None)


ENDS: list[tuple[Decision[ToolCall], str]] = [(complete, "completed"), (fail, "failed"), (cancel, "cancelled")]


def test_is_requested() -> None:
    made(call()).then(ToolCall.Requested).whole(**REQUESTED, within=None)
    assert not call().ended


@pytest.mark.parametrize(("end", "status"), ENDS)
def test_ends_once(end: Decision[ToolCall], status: str) -> None:
    ended = given(call(), end)
    assert ended.aggregate.status == status
    assert ended.aggregate.ended
    for other in (complete, fail, cancel, hold, begin_again):
        ended.when(other).nothing()


def test_waits_for_a_person() -> None:
    held = given(call()).when(hold).then(ToolCall.Held, why="approval", until="2026-05-04T12:31:00+00:00")
    held.when(complete).nothing()
    held.when(begin_again).nothing()
    held.when(hold).nothing()
    assert not held.aggregate.ended


def test_is_made_once_it_is_released() -> None:
    released = given(call(), hold).when(release).then(ToolCall.Released)
    released.when(complete).nothing()
    released.when(begin_again).then(ToolCall.Begun, attempt=2)
    released.when(complete).then(ToolCall.Completed)


def test_is_refused() -> None:
    given(call(), hold).when(refuse).then(ToolCall.Refused, code="refused", reason="No.")
    assert given(call(), hold, refuse).aggregate.ended


@pytest.mark.parametrize("before", [[], [hold, release], [hold, refuse], [complete]])
@pytest.mark.parametrize("decision", [release, refuse])
def test_is_decided_only_while_it_waits(before: list[Decision[ToolCall]], decision: Decision[ToolCall]) -> None:
    given(call(), *before).when(decision).rejects("not_held", "call")


def test_expires_when_the_time_is_over() -> None:
    held = given(call(), hold)
    held.when(lambda it: it.expire(NOW + timedelta(seconds=59))).nothing()
    held.aggregate.expire(NOW + timedelta(seconds=60))
    assert (held.aggregate.status, held.aggregate.code) == ("refused", "expired")
    given(call()).when(lambda it: it.expire(NOW + timedelta(days=1))).nothing()


def test_is_made_again_by_a_later_attempt_only() -> None:
    given(call()).when(lambda it: it.begin_again(NOW, attempt=1)).nothing()
    given(call()).when(begin_again).then(ToolCall.Begun, attempt=2)
    given(call(), begin_again).when(begin_again).nothing()


@pytest.mark.parametrize("end", [fail, cancel])
def test_ends_also_while_it_waits(end: Decision[ToolCall]) -> None:
    assert given(call(), hold, end).aggregate.ended
    assert given(call(), hold, release, end).aggregate.ended


QUESTIONS = [
    Question(name="size", message="How large?", form={"properties": {"size": {"type": "integer"}}}),
    Question(name="taste", message="Which taste?", form={}),
]


def ask(call: ToolCall) -> None:
    call.ask(NOW, questions=QUESTIONS, state="state", session=False, seconds=60)


def ask_in_session(call: ToolCall) -> None:
    call.ask(NOW, questions=QUESTIONS[:1], state="", session=True, seconds=60)


def answer(call: ToolCall) -> None:
    call.answer(NOW, action="accept", content={"size": 3})


def decline(call: ToolCall) -> None:
    call.answer(NOW, action="decline", content={})


def test_asks_the_user_one_question_after_the_other_and_is_made_again() -> None:
    asked = given(call()).when(ask).then(ToolCall.Asked, questions=QUESTIONS, until="2026-05-04T12:31:00+00:00")
    asked.when(complete).nothing()
    assert asked.aggregate.question == QUESTIONS[0]
    first = asked.when(answer).then(ToolCall.Answered, action="accept", content={"size": 3}, open=1)
    assert (first.aggregate.status, first.aggregate.question) == ("held", QUESTIONS[1])
    last = first.when(decline).then(ToolCall.Answered, action="decline", content={}, open=0)
    assert (last.aggregate.status, last.aggregate.question) == ("released", None)
    last.when(begin_again).then(ToolCall.Begun, attempt=2)
    assert [each["action"] for each in last.aggregate.answers] == ["accept", "decline"]


def test_a_session_goes_on_with_the_answer() -> None:
    answered = given(call(), ask_in_session).when(answer).then(ToolCall.Answered, open=0)
    answered.when(complete).then(ToolCall.Completed)
    given(call(), ask_in_session, answer, ask_in_session).when(answer).then(ToolCall.Answered, open=0)


def test_a_session_that_waits_is_lost_with_its_worker() -> None:
    lose: Decision[ToolCall] = lambda call: call.lose(NOW, "It died.")  # noqa: E731
    given(call(), ask_in_session).when(lose).then(ToolCall.Failed, code="lost")
    given(call(), ask_in_session).when(begin_again).then(ToolCall.Begun, attempt=2)
    given(call(), ask).when(lose).nothing()
    given(call(), ask).when(begin_again).nothing()


def test_an_answer_must_keep_to_the_form_and_be_asked_for() -> None:
    given(call(), ask).when(lambda it: it.answer(NOW, action="accept", content={"size": "x"})).rejects(
        "invalid", "answer"
    )
    given(call(), hold).when(answer).rejects("invalid", "answer")
    given(call(), hold).when(lambda it: it.answer(NOW, action="cancel", content={})).rejects("invalid", "cancel")
    given(call()).when(answer).rejects("not_held", "call")


def test_a_question_expires() -> None:
    asked = given(call(), ask)
    asked.aggregate.expire(NOW + timedelta(seconds=60))
    assert (asked.aggregate.status, asked.aggregate.code) == ("refused", "expired")
