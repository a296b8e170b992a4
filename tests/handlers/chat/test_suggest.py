"""Questions that a model suggests after an answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from domain.chat.conversation import Conversation
from domain.models.model_call import ModelCall
from handlers.chat.suggest import SCHEMA, Suggest, dialogue, questions
from handlers.models.model_calls import ModelCalls
from handlers.ports.models import ModelError
from tests.handlers.chat.test_answer import Counter
from tests.handlers.fakes import Speaker, choosing
from tests.memory import Memory, MemoryLive

LAB = {"provider": "lab", "name": "small"}
THREE = ["Why?", "Until when?", "Who has the key?"]
SAID = '{"questions": ["Why?", "Until when?", "Who has the key?"]}'


@pytest.fixture
async def counter(memory: Memory, tenant: str) -> Counter:
    counter = Counter(memory, tenant, "At six.")
    await counter.desk.send("provider.register", name="lab", base_url="https://lab.example.com/v1")
    await counter.worker()(await counter.asked(features={"suggest_after_answer": {"model": LAB}}))
    return counter


async def suggested(counter: Counter, *says: Any, limit_s: float = 60.0) -> tuple[Speaker, Any]:
    """Request suggestions, and have the model say this; gives the model, and the last event."""
    await counter.desk.done("message.suggest", conversation=counter.conversation, message=counter.message)
    speaker = Speaker(*says)
    await worker(counter, speaker, limit_s)
    return speaker, (await counter.desk.events("conversation", counter.conversation))[-1]


async def worker(counter: Counter, speaker: Speaker, limit_s: float = 60.0) -> None:
    live = MemoryLive(counter.memory)
    commit = (await counter.desk.commits("conversation", counter.conversation))[-1]
    repository = counter.desk.repository
    await Suggest(repository, ModelCalls(repository), choosing(repository, speaker), live, limit_s)(commit)


async def test_three_questions_are_suggested_by_a_recorded_call(counter: Counter) -> None:
    speaker, event = await suggested(counter, SAID)
    assert isinstance(event, Conversation.Suggested)
    assert (event.questions, event.code) == (THREE, None)
    assert counter.memory.frames[-1] == {"type": "suggested", "questions": THREE, "code": None}
    [request] = speaker.asked
    assert request.schema == SCHEMA
    assert [message.content for message in request.messages][1:] == ["User: When?\nAssistant: At six."]
    requested, completed = await counter.desk.events("model_call", event.model_call)
    assert isinstance(requested, ModelCall.Requested)
    assert (requested.cause_noun, requested.cause_id) == ("suggestion", counter.message)
    assert isinstance(completed, ModelCall.Completed)
    person = await counter.desk.person("ada")
    assert {commit.metadata.person for commit in await counter.desk.commits("model_call", event.model_call)} == {person}


async def test_they_are_suggested_once_and_again_after_a_failure(counter: Counter) -> None:
    _, failed = await suggested(counter, ModelError("rate_limited", "Too many."))
    assert (failed.questions, failed.code, failed.reason) == ([], "rate_limited", "Too many.")
    assert counter.memory.frames[-1] == {"type": "suggested", "questions": [], "code": "rate_limited"}
    _, event = await suggested(counter, SAID)
    assert event.questions == THREE
    before = await counter.desk.types("conversation", counter.conversation)
    await counter.desk.done("message.suggest", conversation=counter.conversation, message=counter.message)
    assert await counter.desk.types("conversation", counter.conversation) == before


async def test_a_server_that_takes_no_schema_is_asked_without(counter: Counter) -> None:
    class Plain(Speaker):
        async def stream(self, request: Any) -> Any:
            if request.schema:
                self.asked.append(request)
                raise ModelError("bad_request", "What is response_format?")
            async for delta in super().stream(request):
                yield delta

    await counter.desk.done("message.suggest", conversation=counter.conversation, message=counter.message)
    speaker = Plain("1. Why?\n2. Until when?\n- Who has the key?\n")
    await worker(counter, speaker)
    event: Any = (await counter.desk.events("conversation", counter.conversation))[-1]
    assert event.questions == THREE
    assert [bool(request.schema) for request in speaker.asked] == [True, False]


@pytest.mark.parametrize(
    ("says", "code"),
    [(["I have none."], "invalid_answer"), (["x" * 20_000], "invalid_answer"), ([asyncio.Event()], "timeout")],
)
async def test_what_gives_no_questions_is_an_error(counter: Counter, says: list[Any], code: str) -> None:
    _, event = await suggested(counter, *says, limit_s=0.1)
    assert (event.questions, event.code) == ([], code)


async def test_a_worker_that_died_is_followed_and_its_call_is_lost(counter: Counter) -> None:
    await counter.desk.done("message.suggest", conversation=counter.conversation, message=counter.message)
    speaker = Speaker(asyncio.Event())
    dying = asyncio.create_task(worker(counter, speaker))
    await speaker.waits.wait()
    counter.memory.away = True
    dying.cancel()
    with pytest.raises(BaseException):  # noqa: B017, PT011
        await dying
    counter.memory.away = False
    await worker(counter, Speaker(SAID))
    event: Any = (await counter.desk.events("conversation", counter.conversation))[-1]
    assert event.questions == THREE
    calls = dict.fromkeys(subject.rpartition(".")[2] for subject in counter.subjects("model_call"))
    ends = [(await counter.desk.events("model_call", call))[-1] for call in calls]
    assert [getattr(end, "code", None) for end in ends] == [None, "lost", None]


async def test_only_an_answered_message_of_an_app_that_suggests_has_questions(counter: Counter, memory: Memory) -> None:
    desk = counter.desk
    plain = Counter(memory, desk.tenant, "At six.")
    await plain.worker()(await plain.asked())
    of = {"conversation": plain.conversation, "message": plain.message}
    assert await desk.fails("message.suggest", **of) == ("not_enabled", "conversation")
    asked = await desk.done("message.send", app=counter.app, query="Why?", user="ada")
    assert await desk.fails("message.suggest", conversation=asked, message=asked) == ("not_answered", "message")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (SAID, THREE),
        (f"<think>Hm?</think>```json\n{SAID}\n```", THREE),
        ('["Why?", "Why?", 7, "", "Until  when?", "Who?", "How?"]', ["Why?", "Until when?", "Who?"]),
        ("Here are some:\n1) “Why?”\n* 什么时候？\nThat is all.", ["Why?", "什么时候？"]),
        ('{"questions": "Why?"}', []),
        ('{"questions": ["' + "x" * 501 + '"]}', []),
        ('{"questions": [', []),
        ("[" * 100_000, []),
        ("", []),
    ],
)
def test_questions_are_read_from_json_or_lines(said: str, found: list[str]) -> None:
    assert questions(said) == found


async def test_the_dialogue_goes_as_far_back_as_it_fits(counter: Counter) -> None:
    talk = {"app": counter.app, "user": "ada", "conversation": counter.conversation}
    first = counter.message
    counter.message = second = (await counter.desk.send("message.send", query="And closes?", **talk)).ids["message"]
    await counter.worker()(await counter.cause())
    conversation = await counter.desk.fold("conversation", counter.conversation)
    assert isinstance(conversation, Conversation)
    last = "User: And closes?\nAssistant: At six."
    assert dialogue(conversation, second, 1000) == f"User: When?\nAssistant: At six.\n\n{last}"
    assert dialogue(conversation, second, 25) == last
    assert dialogue(conversation, second, 10) == last[:20]
    assert dialogue(conversation, first, -5) == ""
