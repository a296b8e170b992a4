"""A question and how it is answered: the frames, the record, and every way in which an answer can end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import pytest

from domain.aggregate import new_id
from domain.chat.conversation import Conversation, Message
from domain.log import Commit
from domain.models.model_call import ModelCall
from domain.models.passage import passage_id
from domain.models.piece import content
from handlers.chat.annotations import MatchAnnotation
from handlers.chat.answer import Answer
from handlers.chat.moderate import Moderate
from handlers.models.choose import Choose
from handlers.models.model_calls import ModelCalls
from handlers.models.recorded import read
from handlers.ports.documents import Documents, Vectors
from handlers.ports.index import Entry, Hit, Index
from handlers.ports.log import Unavailable
from handlers.ports.models import ChatModel, ChatRequest, Delta, ModelError, Reranker
from handlers.retrieval.extract_filter import ExtractFilter
from handlers.retrieval.rerank import Rerank
from handlers.retrieval.retrieve import Retrieve
from handlers.tools.agent import Agent
from handlers.work.dead_letters import Failure, GiveUp
from tests.handlers.desk import Desk
from tests.handlers.fakes import (
    Cites,
    Guards,
    Here,
    Notes,
    OneModel,
    Shelf,
    Speaker,
    Vectorizer,
    Words,
    choosing,
    embedding_models,
    message_files,
)
from tests.memory import Memory, MemoryLive, MemoryStops

CALL = ["model_call.requested.v3", "model_call.completed.v5"]


class Counter:
    """Where a question is asked and answered."""

    def __init__(self, memory: Memory, tenant: str, *says: str | Exception | asyncio.Event) -> None:
        self.memory = memory
        self.desk = Desk(memory, tenant)
        self.speaker, self.shelf, self.words = Speaker(*says), Shelf(), Words()
        self.stops, self.cites, self.files = MemoryStops(memory), Cites(), message_files(self.desk)
        self.checker, self.filters, self.embedding = Speaker(), Guards(), OneModel(Words())
        self.vectorizer = Vectorizer()
        self.app = self.conversation = self.message = ""

    @property
    def choose(self) -> Choose[ChatModel]:
        return choosing(self.desk.repository, self.speaker)

    @property
    def agent(self) -> Agent:
        """Apps of chats have none."""
        return cast("Agent", None)

    def worker(self, limit_s: float = 60.0) -> Answer:
        calls, live = ModelCalls(self.desk.repository), MemoryLive(self.memory)
        parts = self.desk.repository, calls, self.retrieve(), self.choose, live, self.stops, self.cites
        moderate = Moderate(
            calls, choosing(self.desk.repository, self.checker), choosing(self.desk.repository, self.filters)
        )
        return Answer(*parts, moderate, self.annotated(), Here(), self.files, self.agent, limit_s=limit_s)

    def annotated(self) -> MatchAnnotation:
        notes = Notes(self.memory, self.desk)
        models = embedding_models(self.desk.repository, self.embedding, self.vectorizer)
        return MatchAnnotation(self.desk.repository, models, notes)

    def retrieve(self) -> Retrieve:
        calls = ModelCalls(self.desk.repository)
        return Retrieve(
            self.desk.repository,
            embedding_models(self.desk.repository, OneModel(self.words), self.vectorizer),
            cast("Index", self.shelf),
            cast("Documents", None),
            Rerank(calls, cast("Choose[Reranker]", None)),
            cast("ExtractFilter", None),
        )

    async def asked(self, query: str = "When?", **configuration: Any) -> Commit:
        self.app, self.conversation = await self.desk.done("app.create", name="Guide"), ""
        await self.desk.done("app.configure", app=self.app, **configuration)
        return await self.ask(query)

    async def ask(self, query: str, **fields: Any) -> Commit:
        """Ask in the conversation, if there is one."""
        if self.conversation:
            fields["conversation"] = self.conversation
        outcome = await self.desk.send("message.send", app=self.app, query=query, user="ada", **fields)
        assert outcome.status == "accepted", outcome
        self.conversation, self.message = outcome.ids["conversation"], outcome.ids["message"]
        return await self.cause()

    async def cause(self) -> Commit:
        """The commit that asks for an answer."""
        opens = Conversation.Asked | Conversation.Retried
        commits = await self.desk.commits("conversation", self.conversation)
        return [commit for commit in commits if any(isinstance(event, opens) for event in commit.events)][-1]

    async def state(self) -> Message:
        talk = await self.desk.fold("conversation", self.conversation)
        assert isinstance(talk, Conversation)
        return talk.messages[self.message]

    async def last(self) -> dict[str, Any]:
        return vars((await self.desk.events("conversation", self.conversation))[-1])

    def frames(self) -> list[str]:
        return [frame["type"] for frame in self.memory.frames]

    def calls(self) -> list[str]:
        """Events of model calls, in the order of the log."""
        types = [message.headers["Headrace-Types"] for message in self.memory.streams["EVENTS"].messages]
        return [type for type in types if type.startswith("model_call.")]

    def subjects(self, noun: str) -> list[str]:
        """Subjects of the commits of these nouns, in the order of the log."""
        subjects = [message.subject for message in self.memory.streams["EVENTS"].messages]
        return [subject for subject in subjects if f".{noun}." in subject]

    async def stop(self) -> None:
        await self.desk.done("message.stop", conversation=self.conversation, message=self.message)


async def test_an_answer_is_streamed_and_recorded(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At ", "six.")
    await counter.worker()(await counter.asked())
    state = await counter.state()
    assert (state["status"], state["answer"], state["attempt"]) == ("answered", "At six.", 1)
    assert counter.frames() == ["retrieved", "token", "token", "answered"]
    tokens = [frame for frame in memory.frames if frame["type"] == "token"]
    assert [(frame["index"], frame["text"], frame["attempt"]) for frame in tokens] == [(0, "At ", 1), (1, "six.", 1)]
    assert memory.frames[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "estimated": False}
    assert counter.calls() == CALL
    last = await counter.last()
    [call] = {message.subject for message in memory.streams["EVENTS"].messages if ".model_call." in message.subject}
    assert call.endswith(f".{last['model_call']}")
    assert last["duration_ms"] > 0


async def test_the_call_is_recorded_before_it_is_sent(memory: Memory, tenant: str) -> None:
    counter, goes_on = Counter(memory, tenant), asyncio.Event()
    counter.speaker.says = [goes_on, "At six."]
    answering = asyncio.create_task(counter.worker()(await counter.asked()))
    await counter.speaker.waits.wait()
    assert counter.calls() == CALL[:1]
    goes_on.set()
    await answering
    assert counter.calls() == CALL


async def test_each_call_of_an_answer_is_recorded_before_it_is_sent_and_ended_before_the_answer(
    memory: Memory, tenant: str
) -> None:
    """Also where the worker knows the app, and prepares the retrieval while the attempt is recorded."""
    counter = Counter(memory, tenant, "At six [1].")
    _, asked = await cited(counter, mode="semantic")
    log, worker = memory.streams["EVENTS"].messages, counter.worker()
    embedding: list[list[str]] = []

    def since(start: int) -> list[str]:
        return [message.headers["Headrace-Types"].rpartition(".v")[0] for message in log[start:]]

    for query in ("When?", "And why?"):
        outcome = await counter.desk.send("message.send", app=counter.app, query=query, user="ada")
        counter.conversation, counter.message = outcome.ids["conversation"], outcome.ids["message"]
        asked, start = await counter.cause(), len(log)
        counter.words.before = lambda start=start: embedding.append(since(start))  # type: ignore[misc]
        await worker(asked)
        assert embedding.pop() == ["message.answering", "model_call.requested"]
        types = [type for type in since(start) if type != "passage.recorded"]
        assert types[:2] == ["message.answering", "model_call.requested"]
        ends = ["model_call.completed", "model_call.completed", "model_call.requested", "retrieval.made"]
        assert sorted(types[2:-1]) == ends
        assert types[-1] == "message.answered"
    assert counter.words.embedded == [1, 1]


async def test_an_answer_that_takes_too_long_while_it_searches_leaves_no_call_open(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six [1].")
    _, asked = await cited(counter, mode="semantic")

    async def search(*_: object, **how: object) -> list[Hit]:
        await asyncio.sleep(60)
        return []

    counter.shelf.search = search  # type: ignore[method-assign]
    await counter.worker(limit_s=0.05)(asked)
    assert (await counter.state())["status"] == "failed"
    assert counter.calls() == CALL


async def test_an_answer_that_takes_too_long_while_it_embeds_cancels_the_call(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six [1].")
    _, asked = await cited(counter, mode="semantic")

    async def embed(*_: object, **how: object) -> Vectors:
        await asyncio.sleep(60)
        raise AssertionError

    counter.words.embed = embed  # type: ignore[method-assign]
    await counter.worker(limit_s=0.05)(asked)
    assert (await counter.state())["status"] == "failed"
    assert counter.calls() == ["model_call.requested.v3", "model_call.cancelled.v2"]


async def test_the_model_reads_the_instructions_the_history_and_the_question(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    await counter.worker()(await counter.asked(prompt="Be brief."))
    outcome = await counter.desk.send(
        "message.send", app=counter.app, query="And closes?", user="ada", conversation=counter.conversation
    )
    counter.message = outcome.ids["message"]
    await counter.worker()(await counter.cause())
    said = [(message.role, message.content) for message in counter.speaker.asked[-1].messages]
    assert said[0][0] == "system"
    assert said[0][1].startswith("Be brief.")
    assert said[1:] == [("user", "When?"), ("assistant", "At six."), ("user", "And closes?")]


async def test_what_a_prompt_quotes_is_recorded_once_and_read_back_from_the_log(memory: Memory, tenant: str) -> None:
    counter, opened = Counter(memory, tenant, "At six."), "The lock opens at six. " * 20
    dataset = await counter.desk.done("dataset.create", name="Handbook")
    entry = Entry(new_id(), 0, opened, vector=np.ones(4, np.float32))
    document = await counter.desk.done("document.upload", dataset=dataset, name="a.txt", text="x")
    await counter.shelf.write(tenant, dataset, document, [entry], model="words", version=1)
    await counter.worker()(await counter.asked(prompt="Be brief. " * 30, datasets=[dataset]))
    worker = counter.worker()
    for query in ("And closes?", "And why?"):
        outcome = await counter.desk.send(
            "message.send", app=counter.app, query=query, user="ada", conversation=counter.conversation
        )
        counter.message = outcome.ids["message"]
        await worker(await counter.cause())
    recorded = [subject.rpartition(".")[2] for subject in counter.subjects("passage")]
    assert recorded == [passage_id(opened)]
    calls = [subject.rpartition(".")[2] for subject in dict.fromkeys(counter.subjects("model_call"))]
    chats = [events[0] for id in calls if (events := await counter.desk.events("model_call", id))[0].kind == "chat"]
    assert len(chats) == len(counter.speaker.asked) == 3
    for made, request in zip(chats, counter.speaker.asked, strict=True):
        messages = made.request["messages"]
        sent = await read(counter.desk.repository, tenant, messages)
        assert [(each["role"], content(each)) for each in sent] == [each[:2] for each in request.messages]
        assert opened in request.messages[0].content
        assert "six. The" not in str(messages)
        assert len(messages) <= 3


async def test_a_prompt_has_the_messages_of_its_branch(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    await counter.worker()(await counter.asked("First?"))
    desk, first = counter.desk, counter.message

    async def answered(name: str, **fields: Any) -> str:
        outcome = await desk.send(name, conversation=counter.conversation, **fields)
        counter.message = outcome.ids["message"]
        await counter.worker()(await counter.cause())
        return counter.message

    ask = {"app": counter.app, "user": "ada"}
    second = await answered("message.send", query="Second?", **ask)
    counter.speaker.says = ["At seven."]
    again = await answered("message.regenerate", message=second)
    await answered("message.send", query="Third?", **ask)
    await answered("message.send", query="Other?", parent_message=first, **ask)
    said = [[each.content for each in request.messages[1:]] for request in counter.speaker.asked]
    assert said[2:] == [
        ["First?", "At six.", "Second?"],
        ["First?", "At six.", "Second?", "At seven.", "Third?"],
        ["First?", "At six.", "Other?"],
    ]
    spans: list[Any] = []
    for id in dict.fromkeys(subject.rpartition(".")[2] for subject in counter.subjects("model_call")):
        [requested, _] = await desk.events("model_call", id)
        assert isinstance(requested, ModelCall.Requested)
        sent = await read(desk.repository, tenant, requested.request["messages"])
        assert [content(each) for each in sent][1:] in said
        spans.append([(each["first"], each["last"]) for each in requested.request["messages"] if "first" in each])
    assert spans == [[], [(first, first)], [(first, first)], [(first, first), (again, again)], [(first, first)]]


async def test_the_inputs_of_a_completion_app_are_its_question(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "Flow on!")
    app = await counter.desk.done("app.create", name="Slogans", mode="completion")
    variables = [{"name": "topic", "required": True}, {"name": "tone", "default": "calm"}, {"name": "note"}]
    await counter.desk.done("app.configure", app=app, prompt="A slogan about {{topic}}.", variables=variables)
    outcome = await counter.desk.send("message.send", app=app, inputs={"topic": "sluices"}, user="ada")
    counter.conversation = counter.message = outcome.ids["message"]
    await counter.worker()(await counter.cause())
    assert (await counter.state())["answer"] == "Flow on!"
    [request] = counter.speaker.asked
    said = [("system", "A slogan about sluices."), ("user", "sluices\ncalm")]
    assert [(each.role, each.content) for each in request.messages] == said
    [call] = {subject.rpartition(".")[2] for subject in counter.subjects("model_call")}
    [requested, _] = await counter.desk.events("model_call", call)
    assert isinstance(requested, ModelCall.Requested)
    sent = await read(counter.desk.repository, tenant, requested.request["messages"])
    assert [(each["role"], content(each)) for each in sent] == said


@pytest.mark.parametrize("finish", ["stop", "length", None])
async def test_the_reason_for_the_end_reaches_the_frame_and_the_record(
    memory: Memory, tenant: str, finish: str | None
) -> None:
    counter = Counter(memory, tenant, "At six.")
    counter.speaker.finish = finish
    await counter.worker()(await counter.asked())
    assert memory.frames[-1]["type"] == "answered"
    assert memory.frames[-1]["finish_reason"] == finish
    assert (await counter.last())["finish_reason"] == finish


async def test_reasoning_is_no_part_of_the_answer_nor_of_the_next_prompt(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    counter.speaker.reasoning = "Let me see."
    await counter.worker()(await counter.asked())
    assert (await counter.state())["answer"] == "At six."
    assert counter.frames() == ["retrieved", "token", "answered"]
    ended = (await counter.desk.events("model_call", (await counter.last())["model_call"]))[-1]
    assert isinstance(ended, ModelCall.Completed)
    assert (ended.reasoning, ended.response) == ("Let me see.", "At six.")
    outcome = await counter.desk.send(
        "message.send", app=counter.app, query="And closes?", user="ada", conversation=counter.conversation
    )
    counter.message = outcome.ids["message"]
    await counter.worker()(await counter.cause())
    assert "Let me see." not in str(counter.speaker.asked[-1].messages)


async def test_an_answer_whose_beginning_was_reasoning_begins_again(memory: Memory, tenant: str) -> None:
    class Confused(Speaker):
        async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
            yield Delta("Let me ")
            yield Delta("see.")
            yield Delta(reasoning="\n", unsaid=True)
            yield Delta("At ")
            yield Delta("six.", "stop")

    counter = Counter(memory, tenant)
    counter.speaker = Confused()
    await counter.worker()(await counter.asked())
    assert (await counter.state())["answer"] == "At six."
    assert counter.frames() == ["retrieved", "token", "restarted", "token", "answered"]
    tokens = [frame for frame in memory.frames if frame["type"] == "token"]  # what comes at once goes in one frame
    assert [(frame["index"], frame["text"]) for frame in tokens] == [(0, "Let me see."), (0, "At six.")]
    assert memory.frames[-1]["answer"] == "At six."
    ended = (await counter.desk.events("model_call", (await counter.last())["model_call"]))[-1]
    assert isinstance(ended, ModelCall.Completed)
    assert (ended.reasoning, ended.response) == ("Let me see.\n", "At six.")


@pytest.mark.parametrize(
    ("finish", "code"),
    [
        ("content_filter", "content_filter"),
        ("SAFETY", "content_filter"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("stop", "empty_answer"),
        ("", "empty_answer"),
        (None, "empty_answer"),
        ("eos", "empty_answer"),
    ],
)
@pytest.mark.parametrize("says", [(), ("\n", " ")])
async def test_an_answer_without_a_word_fails_and_says_why(
    memory: Memory, tenant: str, finish: str | None, code: str, says: tuple[str, ...]
) -> None:
    counter = Counter(memory, tenant, *says)
    counter.speaker.finish = finish
    await counter.worker()(await counter.asked())
    assert (await counter.state())["status"] == "failed"
    assert (memory.frames[-1]["type"], memory.frames[-1]["code"]) == ("failed", code)
    assert (finish or "") in memory.frames[-1]["reason"]
    assert counter.calls() == CALL, "the call itself has completed, and is paid for"


async def cited(counter: Counter, mode: str = "full_text") -> tuple[str, Commit]:
    """A document that holds the answer, and the question."""
    dataset = await counter.desk.done("dataset.create", name="Rules")
    document = await counter.desk.done("document.upload", dataset=dataset, name="rules.txt", text="x")
    vector = np.ones(4, np.float32)
    entry = Entry("s1", 0, "The lock opens at six.", None, None, vector)
    await counter.shelf.write(counter.desk.tenant, dataset, document, [entry], model="words", version=1)
    how = {"mode": mode, "top_k": 2, "score_threshold": None}
    return document, await counter.asked(datasets=[dataset], retrieval=how)


@pytest.mark.parametrize("error", [ModelError("timeout", "It took longer than 5 s."), Unavailable("No process.")])
async def test_an_answer_that_cannot_be_cited_is_recorded_without(
    memory: Memory, tenant: str, error: Exception
) -> None:
    counter = Counter(memory, tenant, "At six [1].")
    _, asked = await cited(counter)
    counter.cites.error = error
    await counter.worker()(asked)
    state = await counter.state()
    assert (state["status"], state["answer"]) == ("answered", "At six [1].")
    assert memory.frames[-1]["citations"] == []
    assert len(counter.speaker.asked) == 1


async def test_what_was_found_is_cited(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six [1].")
    document, asked = await cited(counter)
    await counter.worker()(asked)
    assert memory.frames[0] == {"type": "retrieved", "hits": 1}
    [citation] = memory.frames[-1]["citations"]
    assert (citation["document"], citation["segment"]) == (document, "s1")
    assert (await counter.state())["status"] == "answered"
    assert "The lock opens at six." in counter.speaker.asked[0].messages[0].content
    types = [message.headers["Headrace-Types"] for message in memory.streams["EVENTS"].messages]
    assert types.index("retrieval.made.v2") < types.index("message.answered.v3")


async def test_a_stop_breaks_the_answer_off_where_it_is(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At ", asyncio.Event(), "six.")
    answering = asyncio.create_task(counter.worker()(await counter.asked()))
    await counter.speaker.waits.wait()
    await counter.stop()
    await asyncio.wait_for(answering, 5)
    state = await counter.state()
    assert (state["status"], state["answer"]) == ("stopped", "At ")
    assert counter.frames() == ["retrieved", "token", "stopped"]
    assert counter.calls() == [CALL[0], "model_call.cancelled.v2"]


async def test_one_that_is_stopped_before_it_begins_calls_no_model(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    commit = await counter.asked()
    await counter.stop()
    await counter.worker()(commit)
    assert ((await counter.state())["status"], counter.frames(), counter.calls()) == ("stopped", ["stopped"], [])


async def test_an_answer_to_who_is_erased_is_broken_off(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At ", asyncio.Event())
    answering = asyncio.create_task(counter.worker()(await counter.asked()))
    await counter.speaker.waits.wait()
    await counter.desk.done("end_user.erase", user="ada")
    await counter.desk.keys.erase(tenant, await counter.desk.person("ada"))
    await asyncio.wait_for(answering, 5)
    state = await counter.state()
    assert (state["status"], state["answer"], state["query"]) == ("stopped", "", "")


async def test_a_question_of_who_was_erased_is_not_answered(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    commit = await counter.asked()
    await counter.desk.done("end_user.erase", user="ada")
    await counter.worker()(commit)
    assert ((await counter.state())["status"], (await counter.last())["code"]) == ("failed", "erased")
    assert counter.speaker.asked == []


@pytest.mark.parametrize(
    ("error", "code", "end"),
    [
        (ModelError("rate_limited", "Too many."), "rate_limited", "model_call.failed.v2"),
        (ModelError("broken_off", "Gone."), "broken_off", "model_call.failed.v2"),
    ],
)
async def test_what_fails_says_how_and_keeps_what_was_said(
    memory: Memory, tenant: str, error: Exception, code: str, end: str
) -> None:
    counter = Counter(memory, tenant, "At ", error)
    await counter.worker()(await counter.asked())
    last, state = await counter.last(), await counter.state()
    assert (state["status"], last["code"], last["answer"]) == ("failed", code, "At ")
    assert counter.frames() == ["retrieved", "token", "failed"]
    assert memory.frames[-1]["code"] == code
    assert counter.calls() == [CALL[0], end]


async def test_an_error_of_ours_fails_the_answer_when_the_message_is_given_up(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At ", KeyError("gate"))
    commit = await counter.asked()
    with pytest.raises(KeyError):
        await counter.worker()(commit)
    assert counter.calls() == [CALL[0], "model_call.failed.v2"]
    assert (await counter.state())["status"] == "answering"
    failure = Failure("answer", commit.position, str(commit.subject), "KeyError: 'gate'", "x.py:run:7", "ab", 1, 0)
    await GiveUp(counter.desk.repository, counter.desk.live)(commit.metadata, failure, commit)
    last = await counter.last()
    assert ((await counter.state())["status"], last["code"], last["reason"]) == (
        "failed",
        "internal_error",
        "KeyError: 'gate'",
    )
    assert counter.frames() == ["retrieved", "token", "failed"]
    assert memory.frames[-1] == {"type": "failed", "code": "internal_error", "reason": "KeyError: 'gate'"}
    await GiveUp(counter.desk.repository, counter.desk.live)(commit.metadata, failure, commit)
    assert counter.frames()[2:] == ["failed"], "it fails once"


async def test_who_watches_an_answer_that_was_recorded_does_not_see_it_fail(memory: Memory, tenant: str) -> None:
    """The worker died before it acknowledged the message."""
    counter = Counter(memory, tenant, "At six.")
    commit = await counter.asked()
    await counter.worker()(commit)
    failure = Failure("answer", commit.position, str(commit.subject), "10 workers died.", "", "", 0, 10)
    await GiveUp(counter.desk.repository, counter.desk.live)(commit.metadata, failure, commit)
    assert (await counter.state())["status"] == "answered"
    assert counter.frames()[-1] == "answered"


async def test_a_call_that_completed_is_not_repeated_after_a_death(memory: Memory, tenant: str) -> None:
    """The worker died when the model had answered, before the answer was recorded."""
    counter = Counter(memory, tenant, "At six.")
    commit = await counter.asked()
    dying = counter.worker()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Conversation, "answer", dies)
        with pytest.raises(Died):
            await dying(commit)
    counter.speaker.says = ["At seven."]
    await counter.worker()(commit)
    state = await counter.state()
    assert (state["status"], state["answer"], state["attempt"]) == ("answered", "At six.", 2)
    assert counter.calls() == CALL
    assert len(counter.speaker.asked) == 1
    await counter.desk.done("message.send", app=counter.app, query="And now?", user="ada")


async def test_a_person_who_asks_again_gets_another_call(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    commit = await counter.asked()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Conversation, "answer", dies)
        with pytest.raises(Died):
            await counter.worker()(commit)
    failure = Failure("answer", commit.position, str(commit.subject), "Died: ", "", "", 0, 10)
    await GiveUp(counter.desk.repository, counter.desk.live)(commit.metadata, failure, commit)
    await counter.desk.done("message.retry", conversation=counter.conversation, message=counter.message)
    counter.speaker.says = ["At seven."]
    await counter.worker()(await counter.cause())
    assert (await counter.state())["answer"] == "At seven."
    assert counter.calls() == [*CALL, *CALL]


async def test_a_worker_that_was_overtaken_ends_nothing(memory: Memory, tenant: str) -> None:
    """Its lease ran out: another worker began the next attempt while this one still waited for the model."""
    goes_on = asyncio.Event()
    counter = Counter(memory, tenant, goes_on, "At six.")
    commit = await counter.asked()
    slow = asyncio.create_task(counter.worker()(commit))
    await counter.speaker.waits.wait()
    now = datetime.now(UTC)
    await counter.desk.change(
        "conversation", counter.conversation, lambda it: it.answering(now, message=counter.message)
    )
    goes_on.set()
    await slow
    state = await counter.state()
    assert (state["status"], state["attempt"], state["answer"]) == ("answering", 2, "")


class Died(BaseException):
    """The process is gone."""


def dies(*_: Any, **__: Any) -> None:
    raise Died


async def test_an_answer_that_takes_too_long_fails(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At ", asyncio.Event())
    await counter.worker(limit_s=0.05)(await counter.asked())
    last = await counter.last()
    assert (last["code"], last["reason"]) == ("timeout", "The answer took longer than 0.05 s.")
    assert counter.calls() == [CALL[0], "model_call.cancelled.v2"]


async def test_an_app_that_was_deleted_does_not_answer(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    commit = await counter.asked()
    await counter.desk.done("app.delete", app=counter.app)
    await counter.worker()(commit)
    assert ((await counter.last())["code"], counter.speaker.asked) == ("not_found", [])


async def test_a_conversation_that_was_deleted_is_let_go(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    commit = await counter.asked()
    await counter.desk.done("conversation.delete", conversation=counter.conversation)
    before = len(await counter.desk.commits("conversation", counter.conversation))
    await counter.worker()(commit)
    assert (counter.frames(), counter.speaker.asked) == ([], [])
    assert len(await counter.desk.commits("conversation", counter.conversation)) == before


async def test_an_answer_that_a_death_broke_off_begins_again_and_its_call_is_ended(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At ", asyncio.Event())
    commit = await counter.asked()
    dying = asyncio.create_task(counter.worker()(commit))
    await counter.speaker.waits.wait()
    memory.away = True  # a process that dies writes nothing more
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    memory.away = False
    assert counter.calls() == CALL[:1]
    counter.speaker.says = ["At six."]
    await counter.worker()(commit)
    state = await counter.state()
    assert (state["status"], state["answer"], state["attempt"]) == ("answered", "At six.", 2)
    assert counter.frames() == ["retrieved", "token", "restarted", "retrieved", "token", "answered"]
    assert memory.frames[2]["attempt"] == 2
    assert sorted(counter.calls()) == sorted([CALL[0], "model_call.failed.v2", *CALL])


async def test_a_log_that_is_away_is_waited_for(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    commit = await counter.asked()
    memory.away = True
    with pytest.raises(Unavailable):
        await counter.worker()(commit)
    memory.away = False
    await counter.worker()(commit)
    assert (await counter.state())["attempt"] == 1


async def test_a_commit_that_comes_again_changes_nothing(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    commit = await counter.asked()
    await counter.worker()(commit)
    before = len(memory.streams["EVENTS"].messages), len(memory.frames)
    await counter.worker()(commit)
    assert (len(memory.streams["EVENTS"].messages), len(memory.frames)) == before
    assert len(counter.speaker.asked) == 1


async def test_two_workers_at_once_answer_once(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    commit = await counter.asked()
    await asyncio.gather(counter.worker()(commit), counter.worker()(commit))
    types = await counter.desk.types("conversation", counter.conversation)
    assert types.count("message.answered.v3") == 1
    assert (await counter.state())["answer"] == "At six."


async def test_one_that_failed_is_answered_when_it_is_asked_for_again(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, ModelError("server_error", "On fire."))
    await counter.worker()(await counter.asked())
    await counter.desk.done("message.retry", conversation=counter.conversation, message=counter.message)
    counter.speaker.says = ["At six."]
    await counter.worker()(await counter.cause())
    assert (await counter.state())["status"] == "answered"


async def test_what_else_happens_to_a_conversation_is_not_answered(memory: Memory, tenant: str) -> None:
    counter = Counter(memory, tenant, "At six.")
    await counter.asked()
    await counter.desk.done("conversation.rename", conversation=counter.conversation, name=new_id())
    await counter.worker()((await counter.desk.commits("conversation", counter.conversation))[-1])
    assert ((await counter.state())["status"], counter.frames()) == ("asked", [])
