"""Messages that runs answer: one after the other in a branch, with memory, variables and what was printed."""

from __future__ import annotations

from typing import Any

import pytest

from domain.aggregate import new_id
from domain.chat.conversation import Conversation
from domain.log import Commit
from domain.workflows.requests import ModelRequest
from domain.workflows.run import Run
from handlers.graphs import Graphs
from handlers.workflows.chatflow import Chatflow
from handlers.workflows.execution import Execution, History
from tests.domain.workflows.golden import Case
from tests.handlers.workflows.stage import Killed, Stage
from tests.memory import Memory

NODES: list[dict[str, Any]] = [
    {"id": "start", "data": {"type": "start", "variables": []}},
    {
        "id": "model",
        "data": {
            "type": "llm",
            "model": {"provider": "lab", "name": "m", "mode": "chat"},
            "prompt_template": [{"role": "system", "text": "Be brief."}],
            "memory": {"window": {"enabled": False}},
            "context": {"enabled": False},
            "vision": {"enabled": False},
        },
    },
    {
        "id": "count",
        "data": {
            "type": "assigner",
            "version": "2",
            "items": [
                {
                    "variable_selector": ["conversation", "turns"],
                    "input_type": "constant",
                    "operation": "+=",
                    "value": 1,
                }
            ],
        },
    },
    {"id": "say", "data": {"type": "answer", "answer": "{{#model.text#}} ({{#conversation.turns#}})"}},
]
DOCUMENT = {
    "app": {"mode": "advanced-chat"},
    "workflow": {
        "graph": {
            "nodes": NODES,
            "edges": [
                {"source": a, "target": b, "sourceHandle": "source"}
                for a, b in (("start", "model"), ("model", "count"), ("count", "say"))
            ],
        },
        "conversation_variables": [{"name": "turns", "value_type": "number", "value": 0}],
    },
}
WORLD: Case = {"graph": {}, "mode": "advanced-chat", "models": {"m": {"replies": [{"chunks": ["At ", "six."]}]}}}


class Talk(Stage):
    def __init__(self, memory: Memory, tenant: str) -> None:
        super().__init__(memory, tenant)
        self.world = self.play(WORLD)
        desk = self.desk
        self.chatflow = Chatflow(desk.repository, Graphs(desk.blobs), desk.files, desk.live)
        self.app = self.conversation = ""
        self.remembered: list[History] = []
        answer = self.executors[ModelRequest]

        async def remember(execution: Execution) -> Any:
            self.remembered.append(await execution.around.history())
            return await answer(execution)

        self.executors = {**self.executors, ModelRequest: remember}

    async def opened(self, **change: Any) -> None:
        self.app = await self.desk.done("app.create", name="Desk", mode="advanced-chat")
        await self.desk.done("workflow.save", app=self.app, document={**DOCUMENT, **change})
        await self.desk.done("workflow.publish", workflow=self.app)

    async def asked(self, query: str, **fields: Any) -> str:
        """The message, once its run has begun or is queued."""
        known = {"conversation": self.conversation} if self.conversation else {}
        outcome = await self.desk.send("message.send", app=self.app, query=query, user="ada", **known, **fields)
        assert outcome.status == "accepted", outcome
        self.conversation = self.conversation or outcome.command
        commit = (await self.desk.commits("conversation", self.conversation))[-1]
        assert await self.chatflow.begins(commit, self.app, outcome.command)
        return outcome.command

    async def now(self) -> Conversation:
        found = await self.desk.repository.get(Conversation, self.tenant, self.conversation)
        assert found is not None
        return found

    async def ran(self, message: str) -> None:
        """Run what answers the message, and end it."""
        run = (await self.now()).messages[message]["run"]
        await self.work(run)
        await self.chatflow.end(await self.finish(run))

    async def finish(self, run: str) -> Commit:
        commits = await self.commits(run)
        return next(each for each in commits if any(isinstance(event, Run.Finished) for event in each.events))


async def test_a_run_answers_a_message_and_streams_what_it_prints(memory: Memory, tenant: str) -> None:
    talk = Talk(memory, tenant)
    await talk.opened()
    message = await talk.asked("When?")
    assert (await talk.now()).messages[message]["status"] == "running"
    await talk.ran(message)
    known = (await talk.now()).messages[message]
    assert (known["status"], known["answer"]) == ("answered", "At six. (1)")
    frames = [frame for frame in memory.frames if frame["type"] in ("token", "answered")]
    assert "".join(frame["text"] for frame in frames[:-1]) == "At six. (1)"
    assert [frame["index"] for frame in frames[:-1]] == list(range(len(frames) - 1))
    assert frames[0]["text"] == "At six."  # all at once: what is assigned before the answer must be certain
    assert frames[-1]["answer"] == "At six. (1)"
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "estimated": False}
    assert frames[-1]["usage"] == usage


async def test_messages_of_a_branch_wait_for_each_other_and_share_memory_and_variables(
    memory: Memory, tenant: str
) -> None:
    talk = Talk(memory, tenant)
    await talk.opened()
    first = await talk.asked("One?")
    second = await talk.asked("Two?")
    third = await talk.asked("Three?")
    other = await talk.asked("Other?", parent_message=None)
    statuses = [each["status"] for each in (await talk.now()).messages.values()]
    assert statuses == ["running", "queued", "queued", "queued"]
    for message in (first, second, third, other):
        await talk.ran(message)
    answers = [each["answer"] for each in (await talk.now()).messages.values()]
    assert answers == [f"At six. ({number})" for number in (1, 2, 3, 4)]
    assert talk.remembered[1:3] == [
        [("One?", "At six. (1)")],
        [("One?", "At six. (1)"), ("Two?", "At six. (2)")],
    ]


async def test_what_a_dead_worker_assigned_is_kept_once(memory: Memory, tenant: str) -> None:
    for after in (False, True):
        for number in range(1, 6):
            talk = Talk(Memory(), f"t{new_id()[:8]}")
            await talk.opened()
            message = await talk.asked("When?")
            run = (await talk.now()).messages[message]["run"]
            await talk.work(run, kill=number, after=after)
            await talk.chatflow.end(await talk.finish(run))
            await talk.chatflow.end(await talk.finish(run))
            known = (await talk.now()).messages[message]
            assert (known["status"], known["answer"]) == ("answered", "At six. (1)")
            assert (await talk.now()).variables == {"turns": {"type": "number", "data": 1}}


async def test_a_message_is_stopped_with_its_run(memory: Memory, tenant: str) -> None:
    talk = Talk(memory, tenant)
    await talk.opened()
    first, second = await talk.asked("One?"), await talk.asked("Two?")
    for message in (first, second):
        await talk.desk.done("message.stop", conversation=talk.conversation, message=message)
        await talk.chatflow.stop((await talk.desk.commits("conversation", talk.conversation))[-1])
    await talk.ran(first)
    assert [each["status"] for each in (await talk.now()).messages.values()] == ["stopped", "stopped"]


async def test_a_message_whose_run_fails_fails_and_is_retried_by_another_run(memory: Memory, tenant: str) -> None:
    talk = Talk(memory, tenant)
    talk.world.case = {**WORLD, "models": {"m": {"replies": [{"error": "It is away."}]}}}
    await talk.opened()
    message = await talk.asked("When?")
    await talk.ran(message)
    assert (await talk.now()).messages[message]["status"] == "failed"
    talk.world.case = WORLD
    await talk.desk.done("message.retry", conversation=talk.conversation, message=message)
    commit = (await talk.desk.commits("conversation", talk.conversation))[-1]
    assert await talk.chatflow.begins(commit, talk.app, message)
    await talk.ran(message)
    known = (await talk.now()).messages[message]
    assert (known["status"], known["attempt"]) == ("answered", 2)


async def test_a_run_may_end_before_its_message_knows_of_it(memory: Memory, tenant: str) -> None:
    talk = Talk(memory, tenant)
    await talk.opened()
    outcome = await talk.desk.send("message.send", app=talk.app, query="When?", user="ada")
    talk.conversation = outcome.command
    [asked] = await talk.desk.commits("conversation", talk.conversation)
    change = talk.chatflow.repository.change

    async def dies(kind: type, *args: Any, **kwargs: Any) -> Any:
        if kind is Conversation:
            raise Killed
        return await change(kind, *args, **kwargs)

    talk.chatflow.repository.change = dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await talk.chatflow.begins(asked, talk.app, outcome.command)
    talk.chatflow.repository.change = change  # type: ignore[method-assign]
    run = next(
        subject.rpartition(".")[2]
        for subject in (message.subject for message in memory.streams["EVENTS"].messages)
        if ".run." in subject
    )
    await talk.work(run)
    await talk.chatflow.end(await talk.finish(run))
    known = (await talk.now()).messages[outcome.command]
    assert (known["status"], known["run"]) == ("answered", run)
    assert await talk.chatflow.begins(asked, talk.app, outcome.command)

    assert (await talk.now()).messages[outcome.command]["status"] == "answered"
