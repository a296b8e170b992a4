"""A worker that dies at any commit of an agent's turn: the next one goes on where the log ends."""

from __future__ import annotations

from collections import Counter as Tally
from typing import Any

import pytest

from domain.tools.tool_call import ToolCall
from handlers.ports.tools import Invocation, Result
from tests.handlers.tools.scene import Scene, call, tool
from tests.memory import Memory

COMMITS = 16
"""More than a turn below has."""

PAY, LOOK = tool("pay", idempotent=False), tool("look")

ROUNDS = (
    ("First.", [call("pay", "a", city="Paris"), call("look", "b", city="Rome")]),
    ("", [call("look", "c", city="Oslo")]),
    "All is paid.",
)


class Killed(BaseException):
    """The worker is dead."""


class Dying:
    """A store whose process dies at its n-th commit: before it is stored, or after."""

    def __init__(self, scene: Scene, at: int, *, stored: bool) -> None:
        self._append = scene.desk.store.append
        self._left, self._stored = at, stored

    async def append(self, *commit: Any) -> Any:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._stored):
            raise Killed
        position = await self._append(*commit)
        if self._left == 0:
            raise Killed
        return position


async def killed(scene: Scene, at: int, *, stored: bool) -> list[ToolCall]:
    """Kill a worker at a commit of a turn with `ROUNDS`, have another finish it, and return the calls of tools.

    No side effect is repeated, and each look-up that was made is recorded.
    """
    done: Tally[tuple[str, str]] = Tally()

    async def does(invocation: Invocation) -> Result:
        done[invocation.tool["name"], invocation.id] += 1
        return Result(f"{invocation.tool['name']} is done.")

    scene.box.does = does
    cause = await scene.asked(approve="never")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.desk.store, "append", Dying(scene, at, stored=stored).append)
        try:
            await scene.worker()(cause)
        except Killed:
            scene.model.says = list(ROUNDS[len(await completed(scene)) :])
    scene.desk.repository.forget()
    await scene.worker()(cause)
    state = await scene.state()
    assert (state["status"], state["answer"]) == ("answered", "All is paid.")
    calls = await scene.tool_calls()
    assert sorted(each.tool for each in calls) == ["look", "look", "pay"]
    [paid] = [each for each in calls if each.tool == "pay"]
    assert sum(times for (name, _), times in done.items() if name == "pay") <= 1
    assert (paid.status, paid.code) in {("completed", ""), ("failed", "lost")}
    assert {id for name, id in done if name == "look"} == {each.id for each in calls if each.tool == "look"}
    return calls


async def completed(scene: Scene) -> list[str]:
    """The model calls that completed."""
    ids = scene.model_calls()
    return [id for id in ids if "model_call.completed.v5" in await scene.desk.types("model_call", id)]


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("at", range(1, COMMITS + 1))
async def test_a_kill_at_any_commit_repeats_no_side_effect(memory: Memory, tenant: str, at: int, stored: bool) -> None:
    calls = await killed(Scene(memory, tenant, *ROUNDS, tools=[PAY, LOOK]), at, stored=stored)
    assert all(each.status == "completed" for each in calls if each.tool == "look")


async def test_an_unknown_outcome_fails_the_message_where_the_app_says_so(
    memory: Memory, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(memory, tenant, ROUNDS[0], "I do not know.", tools=[PAY, LOOK])

    async def dies(invocation: Invocation) -> Result:
        raise Killed

    cause = await scene.asked(approve="never", unknown="fail")
    box, scene.box.does = scene.box.does, dies
    with pytest.raises(Killed):
        await scene.worker()(cause)
    scene.box.does = box
    await scene.worker()(cause)
    assert (await scene.last())["code"] == "tool_lost"
    assert [each.tool["name"] for each in scene.box.called].count("pay") <= 1
