"""A person from the first word to the erasure, as commands see it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adapters.jetstream.keys import ERASED
from domain.access.end_user import EndUser
from domain.aggregate import new_id
from domain.chat.conversation import Conversation
from domain.log import Metadata
from domain.models.model_call import ModelCall
from handlers.cause import Cause
from tests.handlers.desk import Desk
from tests.memory import Memory

NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.fixture
def desk(memory: Memory, tenant: str) -> Desk:
    return Desk(memory, tenant)


@pytest.fixture
async def app(desk: Desk) -> str:
    app = await desk.done("app.create", name="assistant")
    await desk.done("app.configure", app=app)
    return app


async def asked(desk: Desk, app: str, user: str, query: str = "When does the lock open?") -> tuple[str, str]:
    outcome = await desk.send("message.send", app=app, query=query, user=user)
    assert outcome.status == "accepted", outcome
    return outcome.ids["conversation"], outcome.ids["message"]


async def people(desk: Desk, noun: str, id: str) -> set[str | None]:
    return {commit.metadata.person for commit in await desk.commits(noun, id)}


async def test_all_that_is_done_to_a_conversation_is_of_its_person(desk: Desk, app: str) -> None:
    conversation, message = await asked(desk, app, "ada")
    await desk.change("conversation", conversation, lambda talk: talk.answering(NOW, message=message))
    await desk.answered(conversation, message)
    both = {"conversation": conversation, "message": message}
    await desk.done("message.rate", **both, rating="like", content="Right")
    await desk.done("conversation.rename", conversation=conversation, name="Opening times")
    fork = await desk.done("conversation.fork", **both)
    await desk.done("conversation.delete", conversation=conversation)
    assert await people(desk, "conversation", conversation) == {await desk.person("ada")}
    assert await people(desk, "conversation", fork) == {await desk.person("ada")}
    assert await people(desk, "app", app) == {None}


async def test_a_replay_is_of_the_person_of_the_call(desk: Desk, app: str) -> None:
    _, message = await asked(desk, app, "ada")
    person = await desk.person("ada")
    cause = Cause(Metadata(new_id(), desk.tenant, new_id(), person=person), "message", message, 1)
    call = await desk.called(cause=cause)
    replay = await desk.done("replay.request", call=call)
    assert await people(desk, "model_call", call) == await people(desk, "replay", replay) == {person}


async def test_what_a_publisher_says_of_persons_is_not_believed(desk: Desk, app: str) -> None:
    conversation, _ = await asked(desk, app, "ada")
    await desk.fails("message.send", app=app, query="Me too?", user="eve", conversation=conversation)
    assert await people(desk, "conversation", conversation) == {await desk.person("ada")}


async def test_a_user_is_erased_once(desk: Desk, app: str) -> None:
    conversation, message = await asked(desk, app, "ada")
    await desk.answered(conversation, message)
    first = await desk.send("end_user.erase", user="ada")
    again = await desk.send("end_user.erase", user="ada")
    assert (first.status, first.ids) == ("accepted", {"end_user": await desk.person("ada")})
    assert (again.position, again.version, again.ids) == (first.position, first.version, first.ids)
    [erased] = await desk.events("end_user", await desk.person("ada"))
    assert isinstance(erased, EndUser.Erased)
    assert vars(erased)["known"] is True
    talk = await desk.fold("conversation", conversation)
    assert isinstance(talk, Conversation)
    assert (talk.user, talk.name, talk.messages[message]["query"], talk.messages[message]["answer"]) == ("",) * 4
    assert talk.messages[message]["status"] == "answered"


async def test_the_same_command_again_has_the_same_outcome(desk: Desk, app: str) -> None:
    await asked(desk, app, "ada")
    id = new_id()
    outcome = await desk.send("end_user.erase", user="ada", id=id)
    await asked(desk, app, "ada")
    assert await desk.send("end_user.erase", user="ada", id=id) == outcome
    assert await desk.keys.person(desk.tenant, "ada") == await desk.person("ada", 1)


async def test_an_unknown_user(desk: Desk) -> None:
    await desk.send("end_user.erase", user="unknown")
    [erased] = await desk.events("end_user", await desk.person("unknown"))
    assert vars(erased)["known"] is False


async def test_what_was_a_person_s_takes_no_more_words(desk: Desk, app: str) -> None:
    conversation, message = await asked(desk, app, "ada")
    await desk.answered(conversation, message)
    _, open_message = await asked(desk, app, "ada", "And on Sundays?")
    await desk.done("end_user.erase", user="ada")
    both = {"conversation": conversation, "message": message}
    assert await desk.fails("message.send", app=app, query="Yes?", user="ada", conversation=conversation) == (
        "erased",
        "conversation",
    )
    assert (await desk.fails("conversation.rename", conversation=conversation, name="x"))[0] == "erased"
    assert (await desk.fails("conversation.fork", **both))[0] == "erased"
    assert (await desk.fails("message.rate", **both, rating="like", content="x"))[0] == "erased"
    await desk.done("message.rate", **both, rating="like")
    await desk.done("conversation.delete", conversation=conversation)
    again, _ = await asked(desk, app, "ada", "Hello?")
    assert await people(desk, "conversation", again) == {await desk.person("ada", 1)}
    assert open_message


async def test_what_a_worker_still_has_in_hand_is_written_without_words(desk: Desk, app: str) -> None:
    conversation, message = await asked(desk, app, "ada")
    cause = Cause(Metadata(new_id(), desk.tenant, new_id(), person=await desk.person("ada")), "message", message, 1)
    await desk.done("end_user.erase", user="ada")
    call = await desk.called(cause=cause)
    requested = (await desk.events("model_call", call))[0]
    assert isinstance(requested, ModelCall.Requested)
    assert (requested.request, requested.provider) == ({}, "builtin")
    await desk.answered(conversation, message)
    talk = await desk.fold("conversation", conversation)
    assert isinstance(talk, Conversation)
    assert (talk.messages[message]["status"], talk.messages[message]["answer"]) == ("answered", "")


async def test_nothing_of_a_rejected_question_is_kept(desk: Desk, app: str) -> None:
    outcome = await desk.send("message.send", app=app, query="Where is my zeppelin?", user="ada", colour="red")
    assert (outcome.status, outcome.excerpt) == ("rejected", None)
    assert "zeppelin" not in str(outcome)


async def test_the_key_is_gone_for_every_caller(desk: Desk, app: str) -> None:
    await asked(desk, app, "ada")
    await desk.done("end_user.erase", user="ada")
    other = Desk(desk.server, desk.tenant)
    assert await other.keys.of(desk.tenant, await desk.person("ada")) is ERASED
