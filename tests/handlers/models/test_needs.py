"""Warnings of configurations whose models are known to lack what they need, by the dispatch of commands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from domain.chat.app import App
from domain.models.model import Model, begun, model_id
from tests.handlers.desk import Desk
from tests.memory import Memory

TOOLS: dict[str, Any] = {"tools": [{"type": "function"}], "tool_choice": "required"}
SCHEMA: dict[str, Any] = {"response_format": {"type": "json_schema", "json_schema": {}}}


@pytest.fixture
async def desk(memory: Memory, tenant: str) -> Desk:
    desk = Desk(memory, tenant)
    await desk.done("provider.register", name="lab", base_url="http://127.0.0.1:1/v1", check=False)
    return desk


async def measured(desk: Desk, window: int | None = None, **abilities: bool) -> None:
    id, at = model_id("lab", "small"), datetime.now(UTC)
    await desk.done("model.set", provider="lab", model="small")
    await desk.change("model", id, lambda it: it.take_check(at, check="c", abilities=abilities, context_window=window))


async def warned(desk: Desk, features: dict[str, Any] | None = None, **model: Any) -> list[tuple[str, str]]:
    """The codes and fields of the warnings of an app with this model."""
    app = await desk.done("app.create", name="Guide")
    named = {"provider": "lab", "name": "small", **model}
    await desk.done("app.configure", app=app, model=named, features=features or {})
    events = await desk.events("app", app)
    assert isinstance(events[1], App.Configured)
    assert all(isinstance(each, App.Warned) and each.number == 1 for each in events[2:])
    found = [each for event in events[2:] for each in event.warnings]  # type: ignore[attr-defined]
    assert all(each["message"].endswith(".") for each in found)
    return [(each["code"], each["field"]) for each in found]


async def test_an_ability_that_was_measured_absent_is_a_warning_and_no_refusal(desk: Desk) -> None:
    await measured(desk, tools=False, forced_tool=False, schema=False, image=False)
    assert await warned(desk) == []
    assert await warned(desk, parameters=TOOLS) == [
        ("ability_absent", "model.parameters.tools"),
        ("ability_absent", "model.parameters.tool_choice"),
    ]
    assert await warned(desk, parameters=SCHEMA) == [("ability_absent", "model.parameters.response_format")]
    assert await warned(desk, parameters={"response_format": {"type": "json_object"}}) == []
    assert await warned(desk, features={"response_schema": {"type": "object"}}) == [
        ("ability_absent", "features.response_schema")
    ]


async def test_a_window_that_is_smaller_than_the_app_s_is_a_warning(desk: Desk) -> None:
    await measured(desk, window=4096)
    assert await warned(desk) == [("window_smaller", "model.context_window")]
    assert await warned(desk, context_window=4096) == []


async def test_an_entry_of_the_tenant_is_believed_before_the_check(desk: Desk) -> None:
    await measured(desk, window=4096, tools=False)
    await desk.done("model.set", provider="lab", model="small", abilities={"tools": True}, context_window=32_768)
    assert await warned(desk, parameters={"tools": [{}]}) == []


async def test_a_model_of_another_type_is_a_warning(desk: Desk) -> None:
    await desk.done("model.set", provider="lab", model="small", type="embedding")
    assert await warned(desk) == [("not_a_chat", "model.name")]


async def test_nothing_is_known_of_an_unknown_model(desk: Desk) -> None:
    assert await warned(desk, parameters=TOOLS) == []
    assert begun(None, "lab", "small", datetime.now(UTC)).facts["abilities"] == {}
    assert await desk.commits(Model.TOPIC, model_id("lab", "small")) == []
