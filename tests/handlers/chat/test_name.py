"""A conversation is named by a model: when, from what, and what a failure leaves."""

from __future__ import annotations

import asyncio

import pytest

from domain.aggregate import new_id
from domain.chat.conversation import Conversation
from domain.log import Commit
from domain.models.model_call import ModelCall
from handlers.cause import Cause
from handlers.chat.name import LONGEST_NAME, LONGEST_REPLY, STEP, NameConversation
from handlers.ports.models import ModelError
from tests.handlers.chat.test_answer import Counter
from tests.handlers.fakes import Speaker, choosing
from tests.memory import Memory

LAB = {"provider": "lab", "name": "small-8b"}


class Namer(Counter):
    """A question that is answered by an app that names its conversations, and the model that names."""

    def __init__(self, memory: Memory, tenant: str, *says: str | Exception | asyncio.Event) -> None:
        super().__init__(memory, tenant, "At six.")
        self.model = Speaker(*says)

    async def answered(self, *, named: bool = True, query: str = "When does the sluice open?") -> Commit:
        """The commit with the answer."""
        await self.desk.done("provider.register", name="lab", base_url="https://models.example.com/v1")
        features = {"name_conversations": named}
        await self.worker()(await self.asked(query, model=LAB, features=features))
        return (await self.desk.commits("conversation", self.conversation))[-1]

    async def again(self) -> Commit:
        await self.desk.done("conversation.request_name", conversation=self.conversation)
        return (await self.desk.commits("conversation", self.conversation))[-1]

    async def name(self, commit: Commit, patience_s: float = 60.0) -> str:
        """The name of the conversation after the model was asked for one."""
        calls, repository = self.desk.calls, self.desk.repository
        await NameConversation(repository, calls, choosing(repository, self.model), patience_s=patience_s)(commit)
        return await self.named()

    async def named(self) -> str:
        talk = await self.desk.fold("conversation", self.conversation)
        assert isinstance(talk, Conversation)
        return talk.name

    async def call(self, attempt: int = 1) -> list[str]:
        """Events of the call that names the conversation."""
        id = Cause((await self.cause()).metadata, "message", self.message, attempt).call(STEP)
        return await self.desk.types("model_call", id)


@pytest.mark.parametrize("reply", ["Opening times", '"Opening times"', "\n**Opening times**\n\nIt is about…"])
async def test_the_first_answer_gives_a_conversation_its_name(memory: Memory, tenant: str, reply: str) -> None:
    namer = Namer(memory, tenant, reply)
    commit = await namer.answered()
    assert [type(event).__name__ for event in commit.events] == ["Answered", "NamingRequested"]
    assert await namer.named() == "When does the sluice open?"
    assert await namer.name(commit) == "Opening times"
    assert await namer.call() == ["model_call.requested.v3", "model_call.completed.v5"]
    [request] = namer.model.asked
    assert request.model == "small-8b"
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.messages[1].content == "Question: When does the sluice open?\n\nAnswer: At six."


async def test_the_call_is_recorded_as_the_messages(memory: Memory, tenant: str) -> None:
    namer = Namer(memory, tenant, "Opening times")
    commit = await namer.answered()
    await namer.name(commit)
    id = Cause(commit.metadata, "message", namer.message, 1).call(STEP)
    [requested, _] = await namer.desk.commits("model_call", id)
    [event] = requested.events
    assert isinstance(event, ModelCall.Requested)
    assert (event.cause_noun, event.cause_id, event.attempt) == ("message", namer.message, 1)
    assert requested.metadata.person == await namer.desk.person("ada")


async def test_an_app_that_does_not_name_asks_no_model(memory: Memory, tenant: str) -> None:
    namer = Namer(memory, tenant, "Opening times")
    commit = await namer.answered(named=False)
    assert [type(event).__name__ for event in commit.events] == ["Answered"]
    assert await namer.name(commit) == "When does the sluice open?"
    assert namer.model.asked == []


@pytest.mark.parametrize("says", [ModelError("rate_limited", "Later."), "", " \n", "x" * (LONGEST_REPLY + 1)])
async def test_without_a_name_the_excerpt_stays_and_the_call_is_not_repeated(
    memory: Memory, tenant: str, says: str | Exception
) -> None:
    namer = Namer(memory, tenant, says)
    commit = await namer.answered()
    for _ in range(2):
        assert await namer.name(commit) == "When does the sluice open?"
    assert len(namer.model.asked) == 1


async def test_a_model_that_is_too_slow_is_given_up(memory: Memory, tenant: str) -> None:
    namer = Namer(memory, tenant, asyncio.Event())
    assert await namer.name(await namer.answered(), patience_s=0.01) == "When does the sluice open?"
    assert await namer.call() == ["model_call.requested.v3", "model_call.cancelled.v2"]


async def test_a_delivery_after_a_kill_takes_the_reply_that_is_there(memory: Memory, tenant: str) -> None:
    namer = Namer(memory, tenant, "Opening times")
    commit = await namer.answered()
    calls, repository = namer.desk.calls, namer.desk.repository

    async def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NameConversation, "_record", killed)
        with pytest.raises(KeyboardInterrupt):
            await NameConversation(repository, calls, choosing(repository, namer.model))(commit)
    assert await namer.named() == "When does the sluice open?"
    assert await namer.name(commit) == "Opening times"
    assert len(namer.model.asked) == 1


async def test_a_call_that_a_killed_worker_left_open_is_lost(memory: Memory, tenant: str) -> None:
    namer = Namer(memory, tenant, "Opening times")
    commit = await namer.answered()
    cause = Cause(commit.metadata, "message", namer.message, 1)
    await namer.desk.calls.request(cause, STEP, kind="chat", provider="lab", model="small-8b", request={})
    assert await namer.name(commit) == "When does the sluice open?"
    assert namer.model.asked == []
    assert await namer.call() == ["model_call.requested.v3", "model_call.failed.v2"]


async def test_a_name_that_a_person_gave_meanwhile_is_kept(memory: Memory, tenant: str) -> None:
    namer = Namer(memory, tenant, "Opening times")
    commit = await namer.answered()
    await namer.desk.done("conversation.rename", conversation=namer.conversation, name="Mine")
    assert await namer.name(commit) == "Mine"


async def test_a_name_is_asked_for_again_by_a_command(memory: Memory, tenant: str) -> None:
    namer = Namer(memory, tenant, "Opening times")
    await namer.name(await namer.answered())
    namer.model.says = ["The sluice, " + "and more " * 20]
    await namer.desk.done("conversation.rename", conversation=namer.conversation, name="Mine")
    name = await namer.name(await namer.again())
    assert name.startswith("The sluice, and more")
    assert len(name) <= LONGEST_NAME
    assert await namer.call(2) == ["model_call.requested.v3", "model_call.completed.v5"]


async def test_an_older_request_gives_way_to_a_newer_one(memory: Memory, tenant: str) -> None:
    namer = Namer(memory, tenant, "Opening times")
    first = await namer.answered()
    await namer.again()
    assert await namer.name(first) == "When does the sluice open?"


@pytest.mark.parametrize("end", ["conversation.delete", "app.delete", "end_user.erase"])
async def test_what_is_gone_is_not_named(memory: Memory, tenant: str, end: str) -> None:
    namer = Namer(memory, tenant, "Opening times")
    commit = await namer.answered()
    fields = {"conversation": namer.conversation, "app": namer.app, "user": "ada"}
    of = {"conversation.delete": "conversation", "app.delete": "app", "end_user.erase": "user"}[end]
    await namer.desk.done(end, **{of: fields[of]})
    await namer.name(commit)
    assert namer.model.asked == []


async def test_the_built_in_model_makes_no_names(memory: Memory, tenant: str) -> None:
    namer = Namer(memory, tenant, "At six.")
    await namer.worker()(await namer.asked())
    assert await namer.desk.fails("conversation.request_name", conversation=namer.conversation) == ("invalid", None)
    app = await namer.desk.done("app.create", name="Guide")
    features = {"name_conversations": True}
    assert await namer.desk.fails("app.configure", app=app, features=features) == ("invalid", "features")
    assert await namer.desk.fails("conversation.request_name", conversation=new_id()) == ("not_found", "conversation")
