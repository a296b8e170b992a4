"""A monitor gets metadata of a call, and texts only where operator and tenant let it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.plugins.monitors import hooks
from handlers.commands.plugin_package import parse
from handlers.ports.plugins import EnabledPlugin

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "I am ada@example.com"


def monitor(content: str) -> EnabledPlugin:
    fields = {"name": "see", "version": "1.0.0", "kind": "monitor", "hooks": {"after_invoke": "f"}}
    return EnabledPlugin("acme", "see", "1.0.0", "d" * 64, parse(json.dumps(fields).encode()), {}, {}, content)


def row(**changes: Any) -> dict[str, Any]:
    """A row of an ended call."""
    return {
        "id": "the-call",
        "kind": "chat",
        "provider": "lab",
        "model": "small",
        "server": "lab:443",
        "cause_noun": "message",
        "cause_id": "the-message",
        "attempt": 1,
        "route": None,
        "try": 1,
        "app_id": "the-app",
        "correlation_id": "the-command",
        "parent_id": "the-handler",
        "traceparent": None,
        "status": "completed",
        "error_code": None,
        "error": None,
        "response": SECRET,
        "put_together": {"messages": [{"role": "user", "content": SECRET}]},
        "created_at": AT,
        "finished_at": AT,
        "prompt_tokens": 7,
        **changes,
    }


def masked(text: str) -> str:
    return text.replace("ada@example.com", "‹email›")


def test_without_texts_there_is_metadata_alone() -> None:
    [(before, _), (after, call)] = hooks(row(), monitor("none"), masked)
    assert (before, after) == ("before_invoke", "after_invoke")
    assert SECRET not in str(call)
    assert not {"messages", "response", "reason"} & set(call)
    assert (call["provider"], call["prompt_tokens"], call["app"]) == ("lab", 7, "the-app")
    assert (len(call["trace_id"]), len(call["span_id"]), call["started_at"]) == (32, 16, "2026-03-01T12:00:00+00:00")


@pytest.mark.parametrize(("content", "shown"), [("masked", "I am ‹email›"), ("full", SECRET)])
def test_texts_are_masked_unless_the_operator_lets_them_pass(content: str, shown: str) -> None:
    [_, (_, call)] = hooks(row(), monitor(content), masked)
    assert (call["response"], call["messages"]) == (shown, [{"role": "user", "content": shown}])


def test_the_reason_of_an_error_is_text_too() -> None:
    failed = row(status="failed", error_code="bad_request", error=SECRET)
    [_, (hook, call)] = hooks(failed, monitor("none"), masked)
    assert (hook, call["code"]) == ("on_error", "bad_request")
    assert SECRET not in str(call)
    [_, (_, call)] = hooks(failed, monitor("masked"), masked)
    assert call["reason"] == "I am ‹email›"


def test_a_stopped_call_is_an_error_without_a_code_of_its_own() -> None:
    [_, (hook, call)] = hooks(row(status="cancelled"), monitor("none"), masked)
    assert (hook, call["code"]) == ("on_error", "cancelled")


def test_erased_words_are_not_there() -> None:
    erased = row(response="", put_together={"messages": []}, error=None)
    [_, (_, call)] = hooks(erased, monitor("full"), masked)
    assert (call["response"], call["messages"]) == ("", [])


def test_the_same_call_has_the_same_ids() -> None:
    one, other = (hooks(row(), monitor("none"), masked)[1][1] for _ in range(2))
    assert one == other
    assert hooks(row(id="another"), monitor("none"), masked)[1][1]["span_id"] != one["span_id"]
