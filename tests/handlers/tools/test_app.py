"""An app that answers as a tool of another one's agent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.tools.registry import KindsOfToolboxes
from domain.chat.conversation import Conversation
from domain.log import Commit
from domain.tools.toolset import Toolset
from handlers.tools import app as app_tool
from handlers.tools.app import AppToolbox
from handlers.tools.refresh import Refresh
from tests.handlers.tools.scene import Box, Says, Scene, call
from tests.memory import Memory


class Apps(Scene):
    """An agent whose tool is another app; messages that tools ask are answered by further workers."""

    def __init__(self, memory: Memory, tenant: str, *says: Says) -> None:
        super().__init__(memory, tenant, *says)
        desk = self.desk
        self.toolboxes = KindsOfToolboxes(
            Box(), {"app": lambda tenant, toolset: AppToolbox(desk.repository, desk.quota, tenant, toolset)}
        )
        self.box = self.toolboxes  # type: ignore[assignment]
        self.working: set[asyncio.Task[None]] = set()
        self.inner: list[Commit] = []
        self.answers = True
        memory.heard.append(self._hear)

    def _hear(self, commit: Commit) -> None:
        if any(isinstance(event, Conversation.Asked) and event.tool_call for event in commit.events):
            self.inner.append(commit)
            if self.answers:
                task = asyncio.ensure_future(self.worker()(commit))
                self.working.add(task)
                task.add_done_callback(self.working.discard)

    async def set_up(self, inner: dict[str, Any] | None = None, *, mode: str = "chat", timeout_s: float = 20.0) -> None:
        await self.desk.done("provider.register", name="local", base_url="http://127.0.0.1:9/v1")
        self.guide = await self.desk.done("app.create", name="Guide to locks", mode=mode)
        await self._configured(self.guide, **(inner or {}))
        await self._registered("guide", self.guide, timeout_s)
        self.app = await self.desk.done("app.create", name="Agent", mode="agent-chat")
        await self._configured(self.app, features={"agent": {"tools": [{"toolset": "guide"}], "approve": "never"}})

    async def _configured(self, app: str, **fields: Any) -> None:
        await self.desk.done("app.configure", app=app, model={"provider": "local", "name": "m"}, **fields)

    async def _registered(self, name: str, app: str, timeout_s: float) -> None:
        fields = {"kind": "app", "app": {"app": app}, "timeout_s": timeout_s}
        await self.desk.done("toolset.register", name=name, **fields)
        commits = await self.desk.commits("toolset", name)
        await Refresh(self.desk.repository, self.desk.blobs, self.toolboxes)(commits[-1])

    async def talk(self, number: int = 0) -> tuple[str, Conversation]:
        id = self.inner[number].subject.id
        found = await self.desk.fold("conversation", id)
        assert isinstance(found, Conversation)
        return id, found


ASKS = call("Guide_to_locks", query="When does it open?")


async def test_an_agent_asks_another_app(memory: Memory, tenant: str) -> None:
    apps = Apps(memory, tenant, ("", [ASKS]), "At six.", "It opens at six.")
    await apps.set_up()
    await apps.worker()(await apps.ask("When?"))
    assert (await apps.state())["answer"] == "It opens at six."
    [made] = await apps.tool_calls()
    assert (made.status, made.text, made.tool) == ("completed", "At six.", "Guide_to_locks")
    id, talk = await apps.talk()
    [asked] = talk.messages.values()
    assert (talk.app, talk.user, asked["tool_call"], asked["query"]) == (
        apps.guide,
        "ada",
        made.id,
        "When does it open?",
    )
    [commit] = apps.inner
    outer = await apps.cause()
    assert (commit.metadata.correlation, commit.metadata.causation) == (id, outer.metadata.id)
    assert commit.metadata.person == outer.metadata.person is not None


async def test_variables_of_the_app_are_arguments(memory: Memory, tenant: str) -> None:
    variables = [{"name": "lock", "required": True}, {"name": "query", "required": False}]
    apps = Apps(memory, tenant, ("", [call("Guide_to_locks", lock="Nord", input_query="x")]), "At six.", "Six.")
    inner = {"variables": variables, "prompt": "Lock {{lock}}, {{query}}"}
    await apps.set_up(inner, mode="completion")
    toolset = await apps.desk.fold("toolset", "guide")
    assert isinstance(toolset, Toolset)
    [tool] = (await AppToolbox(apps.desk.repository, apps.desk.quota, tenant, toolset).list()).tools
    assert (list(tool["parameters"]["properties"]), tool["parameters"]["required"]) == (
        ["query", "lock", "input_query"],
        ["lock"],
    )
    assert (tool["label"], tool["destructive"], tool["idempotent"]) == ("Guide to locks", False, True)
    await apps.worker()(await apps.ask("When?"))
    _, talk = await apps.talk()
    assert next(iter(talk.messages.values()))["inputs"] == {"lock": "Nord", "query": "x"}


async def test_a_failure_of_the_app_is_one_of_the_call(memory: Memory, tenant: str) -> None:
    from handlers.ports.models import ModelError

    apps = Apps(memory, tenant, ("", [ASKS]), ModelError("unauthorized", "No key."), "I cannot say.")
    await apps.set_up()
    await apps.worker()(await apps.ask("When?"))
    [made] = await apps.tool_calls()
    assert (made.status, made.code, made.reason) == (
        "failed",
        "server_error",
        "The app failed (unauthorized): No key.",
    )


async def test_an_app_without_an_answer_is_stopped_at_the_time_limit(memory: Memory, tenant: str) -> None:
    apps = Apps(memory, tenant, ("", [ASKS]), "I cannot say.")
    apps.answers = False
    await apps.set_up(timeout_s=0.3)
    await apps.worker()(await apps.ask("When?"))
    [made] = await apps.tool_calls()
    assert (made.code, made.reason) == ("timeout", "The app gave no answer within 0.3 s.")
    id, talk = await apps.talk()
    assert talk.messages[id]["stop_requested"]


async def test_stopping_the_turn_stops_the_app(memory: Memory, tenant: str) -> None:
    apps = Apps(memory, tenant, ("", [ASKS]))
    apps.answers = False
    await apps.set_up()
    task = asyncio.ensure_future(apps.worker()(await apps.ask("When?")))
    async with asyncio.timeout(10):
        while not apps.inner:
            await asyncio.sleep(0.01)
    await apps.stop()
    await task
    assert (await apps.state())["status"] == "stopped"
    id, talk = await apps.talk()
    assert talk.messages[id]["stop_requested"]
    assert [made.status for made in await apps.tool_calls()] == ["cancelled"]


async def test_a_call_that_is_made_again_is_the_same_message(memory: Memory, tenant: str) -> None:
    apps = Apps(memory, tenant, ("", [ASKS]), *["It opens at six."] * 2)  # both workers may ask
    apps.answers = False
    await apps.set_up()
    cause = await apps.ask("When?")
    first = asyncio.ensure_future(apps.worker()(cause))
    async with asyncio.timeout(10):
        while not apps.inner:
            await asyncio.sleep(0.01)
    again = asyncio.ensure_future(apps.worker()(cause))  # as another worker, which takes the first for dead
    id, _ = await apps.talk()
    await asyncio.sleep(0.2)
    await apps.desk.answered(id, id)
    await asyncio.gather(first, again)
    assert len(apps.inner) == 1
    [made] = await apps.tool_calls()
    assert (made.status, made.text) == ("completed", "At six.")
    assert (await apps.state())["answer"] == "It opens at six."


async def test_apps_call_each_other_to_a_limited_depth(
    memory: Memory, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_tool, "DEEPEST", 2)
    says: list[Says] = [("", [call("Agent", query="Again?")])] * 3
    apps = Apps(memory, tenant, *says, "Too deep.", "Second.", "First.")
    await apps.set_up()
    await apps._registered("itself", apps.app, 20.0)
    await apps._configured(apps.app, features={"agent": {"tools": [{"toolset": "itself"}], "approve": "never"}})
    await apps.worker()(await apps.ask("When?"))
    assert (await apps.state())["answer"] == "First."
    assert len(apps.inner) == 2
    made = await apps.tool_calls()
    assert [(each.status, each.code) for each in made] == [
        ("completed", ""),
        ("completed", ""),
        ("failed", "unsupported"),
    ]
    assert made[2].reason == "At most 2 apps may call each other in a row."


async def test_an_app_that_is_gone_has_no_tools(memory: Memory, tenant: str) -> None:
    apps = Apps(memory, tenant, ("", [ASKS]), "I cannot say.")
    await apps.set_up()
    await apps.desk.done("app.delete", app=apps.guide)
    await apps.worker()(await apps.ask("When?"))
    [made] = await apps.tool_calls()
    assert (made.code, made.reason) == ("not_found", "The app was deleted.")


async def test_limits_of_messages_hold_for_calls(memory: Memory, tenant: str) -> None:
    apps = Apps(memory, tenant, ("", [ASKS]), "I cannot say.")
    await apps.set_up()
    cause = await apps.ask("When?")
    await apps.desk.done("limits.set", quantity="messages", period="day", scope="app", most=0)
    await apps.worker()(cause)
    [made] = await apps.tool_calls()
    assert made.code == "rate_limited"
