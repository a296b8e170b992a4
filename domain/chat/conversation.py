"""A conversation: one user's messages to one app, and their answers.

A message's status goes asked → answering → answered, failed or stopped, and by a retry from failed back to asked. One
that a fork took over from another conversation is copied: it is history, and takes nothing more.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import NotRequired, Self, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

HISTORY = 100
"""Messages whose text is kept in the state; a prompt's history never reaches further back."""

COPIED = 2**20
"""Characters of questions, inputs and answers that a fork takes over at most."""

STALLS = 3
"""How often a message that nobody works at is put back to work by itself."""


class Citation(TypedDict):
    """Where a sentence of an answer comes from; `position` counts from 1."""

    position: int
    dataset: str
    document: str
    document_name: str
    segment: str
    segment_position: int
    page: int | None
    heading: str | None
    sentence: str
    content: str
    score: float


class Usage(TypedDict):
    """Tokens as the model's server counts them, or as estimated when it does not say."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool


class Truncation(TypedDict):
    """What did not fit the context window."""

    segments: int
    messages: int


class Message(TypedDict):
    """A question, and its answer as far as there is one."""

    status: str
    parent: str | None
    configuration: int
    attempt: int
    query: str
    inputs: dict[str, str]
    answer: str
    rating: str | None
    rating_content: str
    stop_requested: bool
    stalls: NotRequired[int]


class Copied(TypedDict):
    """An answered message of the conversation that another was forked from."""

    message: str
    configuration: int
    query: str
    inputs: dict[str, str]
    answer: str


class Conversation(Aggregate):
    TOPIC = "conversation"
    app: str
    user: str
    name: str
    messages: dict[str, Message] = field(default_factory=dict, init=False)

    class Event(aggregate.Event):
        pass

    class Started(Event, aggregate.Created):
        """A user began to talk to an app."""

        TOPIC = "conversation.started.v1"
        PERSONAL = frozenset({"name", "user"})
        app: str
        user: str
        name: str

    class Forked(Event):
        """The conversation goes on where `conversation` was after `message`; `messages` are what went before, in order.

        They are the prompts' history; citations and ratings stay where they are.
        """

        TOPIC = "conversation.forked.v1"
        PERSONAL = frozenset({"messages"})
        conversation: str
        message: str
        messages: list[Copied]

        def apply(self, conversation: Conversation) -> None:
            parent = None
            for copied in self.messages:
                conversation.messages[copied["message"]] = Message(
                    status="copied",
                    parent=parent,
                    configuration=copied["configuration"],
                    attempt=0,
                    query=copied["query"],
                    inputs=copied["inputs"],
                    answer=copied["answer"],
                    rating=None,
                    rating_content="",
                    stop_requested=False,
                )
                parent = copied["message"]

    class Asked(Event):
        """A question was asked of configuration number `configuration` of the app."""

        TOPIC = "message.asked.v1"
        PERSONAL = frozenset({"inputs", "query", "user"})
        message: str
        app: str
        parent: str | None
        configuration: int
        query: str
        inputs: dict[str, str]
        user: str

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message] = Message(
                status="asked",
                parent=self.parent,
                configuration=self.configuration,
                attempt=0,
                query=self.query,
                inputs=self.inputs,
                answer="",
                rating=None,
                rating_content="",
                stop_requested=False,
            )
            for old in list(conversation.messages.values())[-HISTORY - 1 : -HISTORY]:
                old["query"] = old["answer"] = ""
                old["inputs"] = {}

    class Answering(Event):
        """A worker began to answer; `attempt` counts from 1."""

        TOPIC = "message.answering.v1"
        message: str
        attempt: int

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message].update({"status": "answering", "attempt": self.attempt})

    class Answered(Event):
        """The answer is whole."""

        TOPIC = "message.answered.v1"
        PERSONAL = frozenset({"answer", "citations"})
        message: str
        answer: str
        citations: list[Citation]
        usage: Usage
        cut: Truncation
        model_call: str
        duration_ms: float

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message].update({"status": "answered", "answer": self.answer})

    class Failed(Event):
        """No answer came; `answer` keeps what had arrived."""

        TOPIC = "message.failed.v1"
        PERSONAL = frozenset({"answer", "reason"})
        message: str
        code: str
        reason: str
        answer: str

        def apply(self, conversation: Conversation) -> None:
            message = conversation.messages[self.message]
            message.update({"status": "failed", "answer": self.answer})
            if self.code == "stalled":
                message["stalls"] = message.get("stalls", 0) + 1

    class Retried(Event):
        """The question is to be answered again, from the beginning."""

        TOPIC = "message.retried.v1"
        message: str
        app: str

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message].update({"status": "asked", "answer": "", "stop_requested": False})

    class StopRequested(Event):
        """Someone asked for the answer to end."""

        TOPIC = "message.stop_requested.v1"
        message: str

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message]["stop_requested"] = True

    class Stopped(Event):
        """The answer ended where it was asked to; `answer` keeps what had arrived."""

        TOPIC = "message.stopped.v1"
        PERSONAL = frozenset({"answer"})
        message: str
        answer: str

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message].update({"status": "stopped", "answer": self.answer})

    class Rated(Event):
        """A user judged an answer: `like`, `dislike`, or None to take it back."""

        TOPIC = "message.rated.v1"
        PERSONAL = frozenset({"content"})
        message: str
        app: str
        rating: str | None
        content: str

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message].update({"rating": self.rating, "rating_content": self.content})

    class Renamed(Event):
        """The conversation has another name."""

        TOPIC = "conversation.renamed.v1"
        PERSONAL = frozenset({"name"})
        name: str

        def apply(self, conversation: Conversation) -> None:
            conversation.name = self.name

    class Deleted(Event):
        """The conversation and its messages are gone from the tables."""

        TOPIC = "conversation.deleted.v1"

        def apply(self, conversation: Conversation) -> None:
            conversation.deleted = True

    @classmethod
    def start(cls, id: str, at: datetime, *, app: str, user: str, name: str) -> Self:
        return cls._create(cls.Started, id=id, timestamp=at, app=app, user=user, name=name)

    @classmethod
    def fork(cls, id: str, at: datetime, *, source: Conversation, message: str, name: str | None) -> Self:
        """A conversation that goes on after an answered message of another one.

        Raises: Rejection `not_found`, `not_answered`, `too_old` or `too_large`.
        """
        source._must_be_known()
        copied = source.copied(message)
        fork = cls.start(id, at, app=source.app, user=source.user, name=name or source.name)
        fork.record(cls.Forked, at, conversation=source.id, message=message, messages=copied)
        return fork

    def ask(
        self,
        at: datetime,
        *,
        message: str,
        app: str,
        configuration: int,
        query: str,
        inputs: dict[str, str],
        user: str,
    ) -> None:
        if message in self.messages:
            return
        if app != self.app:
            raise Rejection("wrong_app", f"Conversation {self.id} belongs to app {self.app}.", "app")
        self._must_be_known()
        if user != self.user:
            raise Rejection("wrong_user", f"Conversation {self.id} belongs to another user.", "user")
        self.record(
            self.Asked,
            at,
            message=message,
            app=app,
            parent=next(reversed(self.messages), None),
            configuration=configuration,
            query=query,
            inputs=inputs,
            user=user,
        )

    def message(self, id: str) -> Message:
        """Raises: Rejection `not_found` when the conversation has no such message."""
        try:
            return self.messages[id]
        except KeyError:
            raise Rejection("not_found", f"Conversation {self.id} has no message {id}.", "message") from None

    def ended(self, message: str) -> bool:
        """Nothing more is to be done for the message."""
        return self.deleted or self.messages[message]["status"] in ("answered", "failed", "stopped", "copied")

    def history(self, message: str) -> dict[str, Message]:
        """The messages before this one that have an answer, by id, newest first."""
        earlier: dict[str, Message] = {}
        parent = self.messages[message]["parent"]
        while parent and (known := self.messages.get(parent)):  # what a fork took over may have been erased
            if known["answer"]:
                earlier[parent] = known
            parent = known["parent"]
        return earlier

    def copied(self, message: str) -> list[Copied]:
        """What a fork after this message takes over: as many of the latest messages as may be, in order.

        Raises: Rejection `not_found`, `not_answered`, `too_old` or `too_large`.
        """
        last = self.message(message)
        ended = last["status"] in ("answered", "stopped", "copied")
        if ended and not last["query"]:
            raise Rejection("too_old", f"The words of message {message} are not at hand any more.", "message")
        if not ended or not last["answer"]:
            raise Rejection("not_answered", f"Message {message} is {last['status']}, and has no answer.", "message")
        copied: list[Copied] = []
        size = 0
        for id, known in {message: last, **self.history(message)}.items():
            size += sum(map(len, (known["query"], known["answer"], *known["inputs"].values())))
            if size > COPIED or not known["query"]:
                break
            copied.append(
                Copied(
                    message=id,
                    configuration=known["configuration"],
                    query=known["query"],
                    inputs=known["inputs"],
                    answer=known["answer"],
                )
            )
        if not copied:
            raise Rejection("too_large", f"Message {message} has more than {COPIED:,} characters.", "message")
        return copied[::-1]

    def answering(self, at: datetime, *, message: str) -> None:
        if not self.ended(message):
            self.record(self.Answering, at, message=message, attempt=self.messages[message]["attempt"] + 1)

    def answer(
        self,
        at: datetime,
        *,
        message: str,
        answer: str,
        citations: list[Citation],
        usage: Usage,
        cut: Truncation,
        model_call: str,
        duration_ms: float,
    ) -> None:
        if not self.ended(message):
            self.record(
                self.Answered,
                at,
                message=message,
                answer=answer,
                citations=citations,
                usage=usage,
                cut=cut,
                model_call=model_call,
                duration_ms=duration_ms,
            )

    def fail(self, at: datetime, *, message: str, code: str, reason: str, answer: str) -> None:
        if not self.ended(message):
            self.record(self.Failed, at, message=message, code=code, reason=reason, answer=answer)

    def retry(self, at: datetime, *, message: str) -> None:
        known = self.message(message)
        if known["status"] != "failed":
            raise Rejection("not_failed", f"Message {message} is {known['status']}, not failed.", "message")
        self._must_be_known()
        if not known["query"]:
            raise Rejection("too_old", f"Message {message} is older than the last {HISTORY}: ask again.", "message")
        self.record(self.Retried, at, message=message, app=self.app)

    def stall(self, at: datetime, *, message: str, reason: str) -> None:
        """Nobody works at it: put it back to work, or let it fail when that did not help before."""
        if not self.ended(message):
            self.fail(at, message=message, code="stalled", reason=reason, answer="")
            if self.messages[message].get("stalls", 0) <= STALLS and self.messages[message]["query"]:
                self.retry(at, message=message)

    def stop(self, at: datetime, *, message: str) -> None:
        """Ask for the end of an answer; the worker that gives it ends it."""
        known = self.message(message)
        if known["status"] in ("answered", "failed", "copied"):
            raise Rejection("already_ended", f"Message {message} is already {known['status']}.", "message")
        if not known["stop_requested"]:
            self.record(self.StopRequested, at, message=message)

    def stopped(self, at: datetime, *, message: str, answer: str) -> None:
        if not self.ended(message):
            self.record(self.Stopped, at, message=message, answer=answer)

    def rate(self, at: datetime, *, message: str, rating: str | None, content: str) -> None:
        known = self.message(message)
        if known["status"] not in ("answered", "stopped"):
            raise Rejection("not_answered", f"Message {message} is {known['status']}, not answered.", "message")
        if content:
            self._must_be_known()
        if (known["rating"], known["rating_content"]) != (rating, content):
            self.record(self.Rated, at, message=message, app=self.app, rating=rating, content=content)

    def rename(self, at: datetime, *, name: str) -> None:
        self._must_be_known()
        if name != self.name:
            self.record(self.Renamed, at, name=name)

    def delete(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Deleted, at)

    def _must_be_known(self) -> None:
        """Who has begun it was not erased, and may have words in it."""
        if not self.user:
            raise Rejection("erased", f"The user of conversation {self.id} was erased: start another.", "conversation")
