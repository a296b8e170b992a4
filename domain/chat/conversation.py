"""A conversation: one user's messages to one app, and their answers.

Messages form a tree: each continues after its parent, by default after the newest message. Siblings are other
questions, or other answers to the same question.

A message's status goes asked → answering → answered, failed or stopped, and by a retry from failed back to asked. An
answer whose tool calls wait for a person is held, and asked again once they were decided. A message that a fork copied
from another conversation is `copied`: it is history and does not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Annotated, Any, NotRequired, Self, TypedDict, Unpack

from domain import aggregate
from domain.aggregate import Aggregate, ErrorCode, ErrorMessage, Rejection
from domain.chat.app import App, fill_in
from domain.chat.file import File, file_id

HISTORY = 100
"""Messages whose text is kept in the state; a prompt's history never reaches further back."""

FINAL = ("answered", "stopped", "copied")
"""States in which the answer of a message does not change any more."""

COPIED = 2**20
"""Maximum characters of questions, inputs and answers that a fork copies."""


class Citation(TypedDict):
    """The source of a sentence of an answer: a segment of a document, or of a file of a question."""

    position: Annotated[int, "Number in the answer, from 1."]
    dataset: Annotated[str, "Knowledge base of the segment; empty for a file."]
    document: Annotated[str, "Document of the segment; empty for a file."]
    document_name: Annotated[str, "Name of the document or file."]
    file: NotRequired[Annotated[str, "File of a question, in this conversation; missing for a document."]]
    segment: Annotated[str, "Segment."]
    segment_position: Annotated[int, "Position of the segment in the document, from 0."]
    page: Annotated[int | None, "Page, from 1; null where the format has none."]
    heading: Annotated[str | None, "Headings above the segment, outermost first."]
    sentence: Annotated[str, "Sentence of the segment that supports the answer."]
    content: Annotated[str, "Text of the segment."]
    score: Annotated[float, "Score, comparable within one search only."]


class Usage(TypedDict):
    """Tokens of a model call."""

    prompt_tokens: Annotated[int, "Tokens sent, cached ones included."]
    completion_tokens: Annotated[int, "Tokens received, those of reasoning included."]
    estimated: Annotated[bool, "True if the numbers are estimates, because the server did not count."]


class Truncation(TypedDict):
    """The parts of a prompt that did not fit the context window."""

    segments: Annotated[int, "Number of segments."]
    messages: Annotated[int, "Number of earlier messages."]
    files: NotRequired[Annotated[int, "Number of images and recordings of earlier messages; missing for none."]]


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
    files: NotRequired[list[File]]
    stalls: NotRequired[int]
    saved: NotRequired[bool]
    filtered_query: NotRequired[str]
    filtered_inputs: NotRequired[dict[str, str]]
    withheld: NotRequired[bool]
    suggestions: NotRequired[str]
    held: NotRequired[list[str]]
    decided: NotRequired[list[str]]
    strategies: NotRequired[list[str]]
    parts: NotRequired[list[dict[str, Any]]]
    tool_call: NotRequired[str]
    run: NotRequired[str]


def asked(query: str, inputs: Mapping[str, str]) -> str:
    """The question, or where it is empty, the values of the inputs."""
    return query or "\n".join(filter(None, inputs.values()))


def question(message: Message) -> str:
    """The question or the inputs of a message, as the filters left them for models; empty once its text is gone."""
    return asked(message.get("filtered_query", message["query"]), message.get("filtered_inputs", message["inputs"]))


class Copied(TypedDict):
    """An answered message, copied from the conversation that was forked."""

    message: Annotated[str, "Message of the forked conversation."]
    configuration: Annotated[int, "Number of the configuration that answered."]
    query: Annotated[str, "Question."]
    inputs: Annotated[dict[str, str], "Values of the app's variables, by name."]
    answer: Annotated[str, "Answer."]


class Question(TypedDict):
    """A question of a user for configuration number `configuration` of an app."""

    message: str
    app: str
    configuration: int
    query: str
    inputs: dict[str, str]
    user: str
    files: NotRequired[list[File] | None]
    tool_call: NotRequired[str | None]


class Answer(TypedDict):
    """A complete answer."""

    message: str
    answer: str
    citations: list[Citation]
    usage: Usage
    cut: Truncation
    model_call: str
    duration_ms: float
    finish_reason: NotRequired[str | None]
    parts: NotRequired[list[dict[str, Any]] | None]


class FilterVerdict(TypedDict):
    """The verdict of a filter over the texts of one side of a message."""

    where: Annotated[str, "`input`: question and inputs; `output`: sentences of the answer."]
    position: Annotated[int, "Place of the filter in the configuration of the app, from 0."]
    kind: Annotated[str, "Kind of the filter: `words`, `model`, `http` or `plugin`."]
    verdict: Annotated[str, "`passed`, `flagged`, or `failed` when a check could not be made."]
    action: Annotated[str, "Action that was taken: `none`, `answer`, `replace` or `refuse`."]
    checked: Annotated[int, "Number of texts that were checked."]
    flagged: Annotated[list[str], "Flagged texts: `query`, `inputs.<name>`, or the number of a sentence, from 0."]
    code: Annotated[str | None, "Error code of a check that failed; null if none did."]
    started_at: Annotated[str, "Time of the first check."]
    duration_ms: Annotated[float, "Milliseconds that all checks took."]


class FilterVerdicts(TypedDict):
    """The verdicts of all filters on a message, and the question and inputs as they left them."""

    attempt: int
    verdicts: list[FilterVerdict]
    query: str | None
    inputs: dict[str, str] | None


class Match(TypedDict):
    """An annotation whose question is close enough."""

    annotation: str
    score: float
    embedding_model: str


class StrategyChange(TypedDict):
    """Another strategy of an agent."""

    round: int
    before: str
    strategy: str
    reason: str


class Suggestions(TypedDict):
    """Questions that a model suggests after an answer; `code` and `reason` say why there are none."""

    message: str
    questions: list[str]
    model_call: str
    code: NotRequired[str | None]
    reason: NotRequired[str | None]


MessageId = Annotated[str, "Message."]
Partial = Annotated[str, "Part of the answer that arrived."]


class Conversation(Aggregate):
    TOPIC = "conversation"
    class_version = 2
    app: str
    user: str
    name: str
    messages: dict[str, Message] = field(default_factory=dict, init=False)
    pinned: bool = field(default=False, init=False)
    renamed: bool = field(default=False, init=False)
    namings: int = field(default=0, init=False)
    variables: dict[str, Any] = field(default_factory=dict, init=False)
    """Values that runs of a workflow assigned, by name, as they are recorded."""

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        state["variables"] = {}

    class Event(aggregate.Event):
        pass

    class Started(Event, aggregate.Created):
        """A user started a conversation with an app."""

        TOPIC = "conversation.started.v1"
        PERSONAL = frozenset({"name", "user"})
        app: Annotated[str, "App."]
        user: Annotated[str, "End user, as the app's operator names them."]
        name: Annotated[str, "Name, for people."]

    class Forked(Event):
        """The conversation continues another one after a message.

        The copied messages are the prompts' history; citations and ratings are not copied.
        """

        TOPIC = "conversation.forked.v1"
        PERSONAL = frozenset({"messages"})
        conversation: Annotated[str, "Conversation that was forked."]
        message: Annotated[str, "Message of that conversation that is continued."]
        messages: Annotated[list[Copied], "Messages up to that one, oldest first."]

        def apply(self, conversation: Conversation) -> None:
            conversation.renamed = True
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
        """A question was asked."""

        TOPIC = "message.asked.v4"
        PERSONAL = frozenset({"files", "inputs", "query", "user"})
        class_version = 4
        message: MessageId
        app: Annotated[str, "App."]
        parent: Annotated[str | None, "Message that this one continues after; null for none."]
        configuration: Annotated[int, "Number of the configuration that answers."]
        query: Annotated[str, "Question."]
        inputs: Annotated[dict[str, str], "Values of the app's variables, by name."]
        user: Annotated[str, "End user, as the app's operator names them."]
        files: Annotated[list[File] | None, "Files of the question; null for none."] = None
        repeats: Annotated[str | None, "Message whose question is asked again; null for a question of its own."] = None
        tool_call: Annotated[str | None, "Call by which an agent asks it, as a tool; null for a user."] = None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["files"] = None

        @staticmethod
        def upcast_v2_v3(state: dict[str, Any]) -> None:
            state["repeats"] = None

        @staticmethod
        def upcast_v3_v4(state: dict[str, Any]) -> None:
            state["tool_call"] = None

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
            if self.files:
                conversation.messages[self.message]["files"] = [File(**file) for file in self.files]
            if self.tool_call:
                conversation.messages[self.message]["tool_call"] = self.tool_call
            for old in list(conversation.messages.values())[-HISTORY - 1 : -HISTORY]:
                old["query"] = old["answer"] = ""
                old["inputs"] = {}
                old.pop("filtered_query", None)
                old.pop("filtered_inputs", None)
                old.pop("files", None)
                old.pop("parts", None)

    class Answering(Event):
        """A worker began to answer."""

        TOPIC = "message.answering.v1"
        message: MessageId
        attempt: Annotated[int, "Attempt, from 1; each worker that dies costs one."]

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message].update({"status": "answering", "attempt": self.attempt, "decided": []})

    class Queued(Event):
        """The answer waits until the earlier messages of its branch have ended."""

        TOPIC = "message.queued.v1"
        message: MessageId

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message]["status"] = "queued"

    class RunStarted(Event):
        """A run of a workflow answers the message."""

        TOPIC = "message.run_started.v1"
        message: MessageId
        run: Annotated[str, "Run."]
        attempt: Annotated[int, "Attempt, from 1; each run costs one."]

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message].update({"status": "running", "attempt": self.attempt, "run": self.run})

    class VariablesSet(Event):
        """A run assigned variables of the conversation."""

        TOPIC = "conversation.variables_set.v1"
        PERSONAL = frozenset({"values"})
        run: Annotated[str, "Run."]
        step: Annotated[str, "Step that assigned them."]
        values: Annotated[dict[str, Any], "Values by name: `type` and `data`, or the `blob` of a large one."]

        def apply(self, conversation: Conversation) -> None:
            conversation.variables |= self.values

    class Held(Event):
        """The answer waits until a person has released or refused calls of tools."""

        TOPIC = "message.held.v1"
        message: MessageId
        calls: Annotated[list[str], "Tool calls that wait."]

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message].update({"status": "held", "held": self.calls})

    class ToolDecided(Event):
        """A person released or refused a call of a tool, or the time for that is over."""

        TOPIC = "message.tool_decided.v1"
        message: MessageId
        call: Annotated[str, "Tool call."]

        def apply(self, conversation: Conversation) -> None:
            message = conversation.messages[self.message]
            message["decided"] = [*message.get("decided", ()), self.call]

    class Resumed(Event):
        """The answer goes on: a call of a tool was decided, or a stop was requested."""

        TOPIC = "message.resumed.v1"
        message: MessageId
        app: Annotated[str, "App."]

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message]["status"] = "asked"

    class StrategyChanged(Event):
        """The model did not keep to the form of the agent's strategy; the rest of the turn takes another one."""

        TOPIC = "message.strategy_changed.v1"
        PERSONAL = frozenset({"reason"})
        message: MessageId
        round: Annotated[int, "First round with the other strategy, from 1."]
        before: Annotated[str, "Strategy before: `tools` or `schema`."]
        strategy: Annotated[str, "Strategy from now on: `schema` or `react`."]
        reason: ErrorMessage

        def apply(self, conversation: Conversation) -> None:
            message = conversation.messages[self.message]
            message["strategies"] = [*message.get("strategies", ()), self.strategy]

    class FileFetched(Event):
        """A file of the question was fetched from its address; answers use the stored bytes from now on."""

        TOPIC = "message.file_fetched.v1"
        PERSONAL = frozenset({"address"})
        message: MessageId
        file: Annotated[str, "File."]
        digest: Annotated[str, "Blob with the file, sealed."]
        media_type: Annotated[str, "Media type by its content."]
        size: Annotated[int, "Size in bytes."]
        address: Annotated[str, "Address that sent it, after redirects."]
        duration_ms: Annotated[float, "Duration in milliseconds."]

        def apply(self, conversation: Conversation) -> None:
            for file in conversation.files(self.message, self.file):
                file.update({"digest": self.digest, "media_type": self.media_type, "size": self.size})

    class FileRead(Event):
        """The text of a document of the question was extracted and split."""

        TOPIC = "message.file_read.v1"
        PERSONAL = frozenset({"warnings"})
        message: MessageId
        file: Annotated[str, "File."]
        segments: Annotated[str, "Blob with its segments, sealed."]
        count: Annotated[int, "Number of segments."]
        pages: Annotated[int | None, "Number of pages; null where the format has none."]
        characters: Annotated[int, "Number of characters of its text."]
        warnings: Annotated[list[str], "Parts of the file that were guessed or left out."]

        def apply(self, conversation: Conversation) -> None:
            for file in conversation.files(self.message, self.file):
                file["segments"] = self.segments

    class Answered(Event):
        """The answer is complete."""

        TOPIC = "message.answered.v3"
        PERSONAL = frozenset({"answer", "citations", "parts"})
        class_version = 3
        message: MessageId
        answer: Annotated[str, "Answer."]
        citations: Annotated[list[Citation], "Sources of the answer, best first."]
        usage: Annotated[Usage, "Tokens."]
        cut: Annotated[Truncation, "Parts of the prompt that did not fit the context window."]
        model_call: Annotated[str, "Model call that gave the answer."]
        duration_ms: Annotated[float, "Duration in milliseconds."]
        finish_reason: Annotated[
            str | None, "Reason for the end of the answer, as the server gives it, like `stop` or `length`."
        ] = None
        parts: Annotated[
            list[dict[str, Any]] | None,
            "Parts of the answer that are no text, each with a `type`: `tool_call` (id, name), and files that tools "
            "made, as in `tool_call.completed`; null for none.",
        ] = None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["finish_reason"] = None

        @staticmethod
        def upcast_v2_v3(state: dict[str, Any]) -> None:
            state["parts"] = None

        def apply(self, conversation: Conversation) -> None:
            message = conversation.messages[self.message]
            message.update({"status": "answered", "answer": self.answer})
            if self.parts:
                message["parts"] = self.parts

    class Moderated(Event):
        """The filters of the app checked the question or the answer."""

        TOPIC = "message.moderated.v1"
        PERSONAL = frozenset({"inputs", "query"})
        message: MessageId
        attempt: Annotated[int, "Attempt at the answer, from 1."]
        verdicts: Annotated[list[FilterVerdict], "Verdicts by side and filter."]
        query: Annotated[str | None, "Question as the filters left it; null if unchanged."] = None
        inputs: Annotated[dict[str, str] | None, "Inputs as the filters left them; null if unchanged."] = None

        def apply(self, conversation: Conversation) -> None:
            message = conversation.messages[self.message]
            message.pop("filtered_query", None)
            message.pop("filtered_inputs", None)
            if self.query is not None:
                message["filtered_query"] = self.query
            if self.inputs is not None:
                message["filtered_inputs"] = {**message["inputs"], **self.inputs}
            message["withheld"] = any((each["where"], each["action"]) == ("input", "answer") for each in self.verdicts)

    class Matched(Event):
        """The question is close enough to that of an annotation, whose answer it gets."""

        TOPIC = "message.matched.v1"
        message: MessageId
        app: Annotated[str, "App."]
        annotation: Annotated[str, "Annotation."]
        score: Annotated[float, "Cosine of the two questions, up to 1."]
        embedding_model: Annotated[str, "Embedding model of the questions."]

        def apply(self, conversation: Conversation) -> None:
            pass

    class SuggestionsRequested(Event):
        """Questions that the user may ask next were requested."""

        TOPIC = "message.suggestions_requested.v1"
        message: MessageId
        app: Annotated[str, "App."]
        configuration: Annotated[int, "Number of the configuration whose model suggests them."]

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message]["suggestions"] = "requested"

    class Suggested(Event):
        """A model suggested questions that the user may ask next, or it failed to."""

        TOPIC = "message.suggested.v1"
        PERSONAL = frozenset({"questions", "reason"})
        message: MessageId
        questions: Annotated[list[str], "Questions; empty on failure."]
        model_call: Annotated[str, "Model call that suggested them; empty when none was made."]
        code: Annotated[str | None, "Error code, see [codes](codes.md); null on success."] = None
        reason: Annotated[str | None, "Error message; null on success."] = None

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message]["suggestions"] = "failed" if self.code else "suggested"

    class Failed(Event):
        """The answer failed."""

        TOPIC = "message.failed.v1"
        PERSONAL = frozenset({"answer", "reason"})
        message: MessageId
        code: ErrorCode
        reason: ErrorMessage
        answer: Partial

        def apply(self, conversation: Conversation) -> None:
            message = conversation.messages[self.message]
            message.update({"status": "failed", "answer": self.answer})
            if self.code == "stalled":
                message["stalls"] = message.get("stalls", 0) + 1

    class Retried(Event):
        """The failed answer is retried, from the beginning."""

        TOPIC = "message.retried.v1"
        message: MessageId
        app: Annotated[str, "App."]

        def apply(self, conversation: Conversation) -> None:
            message = conversation.messages[self.message]
            message.update({"status": "asked", "answer": "", "stop_requested": False})
            message.pop("strategies", None)

    class StopRequested(Event):
        """A stop of the answer was requested."""

        TOPIC = "message.stop_requested.v1"
        message: MessageId

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message]["stop_requested"] = True

    class Stopped(Event):
        """The answer was stopped by request."""

        TOPIC = "message.stopped.v1"
        PERSONAL = frozenset({"answer"})
        message: MessageId
        answer: Partial

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message].update({"status": "stopped", "answer": self.answer})

    class Rated(Event):
        """A user rated an answer."""

        TOPIC = "message.rated.v1"
        PERSONAL = frozenset({"content"})
        message: MessageId
        app: Annotated[str, "App."]
        rating: Annotated[str | None, "`like` or `dislike`; null withdraws the rating."]
        content: Annotated[str, "Comment on the rating."]

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message].update({"rating": self.rating, "rating_content": self.content})

    class Renamed(Event):
        """The conversation was renamed."""

        TOPIC = "conversation.renamed.v1"
        PERSONAL = frozenset({"name"})
        name: Annotated[str, "Name, for people."]

        def apply(self, conversation: Conversation) -> None:
            conversation.name = self.name
            conversation.renamed = True

    class NamingRequested(Event):
        """The model was asked for a name of the conversation."""

        TOPIC = "conversation.naming_requested.v1"
        message: Annotated[str, "Answered message that the name is made of."]
        attempt: Annotated[int, "Number of the request in this conversation, from 1."]

        def apply(self, conversation: Conversation) -> None:
            conversation.namings = self.attempt

    class Pinned(Event):
        """The user pinned the conversation, to find it first."""

        TOPIC = "conversation.pinned.v1"
        app: Annotated[str, "App."]

        def apply(self, conversation: Conversation) -> None:
            conversation.pinned = True

    class Unpinned(Event):
        """The conversation is no longer pinned."""

        TOPIC = "conversation.unpinned.v1"

        def apply(self, conversation: Conversation) -> None:
            conversation.pinned = False

    class Saved(Event):
        """The user saved an answer, to find it again."""

        TOPIC = "message.saved.v1"
        message: MessageId
        app: Annotated[str, "App."]

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message]["saved"] = True

    class Unsaved(Event):
        """The answer is no longer saved."""

        TOPIC = "message.unsaved.v1"
        message: MessageId

        def apply(self, conversation: Conversation) -> None:
            conversation.messages[self.message]["saved"] = False

    class Deleted(Event):
        """The conversation and its messages were deleted."""

        TOPIC = "conversation.deleted.v1"

        def apply(self, conversation: Conversation) -> None:
            conversation.deleted = True

    @classmethod
    def fork(cls, id: str, at: datetime, *, source: Conversation, message: str, name: str | None) -> Self:
        """A conversation that continues `source` after an answered message.

        Raises: Rejection `not_found`, `not_answered`, `too_old`, `too_large` or `erased`.
        """
        source._must_be_known()
        copied = source.copied(message)
        fork = cls.begin(cls.Started, id, at, app=source.app, user=source.user, name=name or source.name)
        fork.record(cls.Forked, at, conversation=source.id, message=message, messages=copied)
        return fork

    @classmethod
    def more_like(cls, id: str, at: datetime, *, source: Conversation, message: str, app: App) -> Self:
        """A conversation that asks the question of a message of `source` again, for another answer.

        Raises: Rejection `not_found`, `too_old`, `missing_input` or `erased`.
        """
        again = source._again(id, message, app)
        more = cls.begin(cls.Started, id, at, app=source.app, user=source.user, name=source.name)
        more.record(cls.Asked, at, parent=None, repeats=message, **again)
        return more

    def ask(self, at: datetime, *, after: str | None = None, **question: Unpack[Question]) -> None:
        """Ask a question that continues after a message, by default the newest."""
        if question["message"] in self.messages:
            return
        if question["app"] != self.app:
            raise Rejection("wrong_app", f"Conversation {self.id} belongs to app {self.app}.", "app")
        self._must_be_known()
        if question["user"] != self.user:
            raise Rejection("wrong_user", f"Conversation {self.id} belongs to another user.", "user")
        if after:
            self._kept(after, "parent_message")
        self.record(self.Asked, at, parent=after or next(reversed(self.messages), None), **question)

    def regenerate(self, at: datetime, *, message: str, repeats: str, app: App) -> None:
        """Ask the question of `repeats` again by `message`, its sibling."""
        if message in self.messages:
            return
        parent = self.message(repeats)["parent"]
        self.record(self.Asked, at, parent=parent, repeats=repeats, **self._again(message, repeats, app))

    def _again(self, message: str, repeats: str, app: App) -> Question:
        """The question of `repeats` as that of `message`, for the newest configuration of the app.

        Raises: Rejection `not_found`, `too_old`, `missing_input` or `erased`.
        """
        self._must_be_known()
        known = self._kept(repeats, "message")
        variables = app.configuration["variables"] if app.configuration else []
        files: list[File] = [
            {**file, "id": file_id(message, number), "segments": None}
            for number, file in enumerate(known.get("files", ()))
        ]
        return Question(
            message=message,
            app=self.app,
            configuration=len(app.configurations),
            query=known["query"],
            inputs=known["inputs"] if app.has_graph else fill_in(variables, known["inputs"]),
            user=self.user,
            files=files or None,
        )

    def _kept(self, message: str, field: str) -> Message:
        """Raises: Rejection `not_found`, or `too_old` when the text of the message is not kept."""
        known = self.message(message, field)
        if not question(known):
            raise Rejection(
                "too_old", f"The text of message {message} is not kept: it is not among the last {HISTORY}.", field
            )
        return known

    def message(self, id: str, field: str = "message") -> Message:
        """Raises: Rejection `not_found` when the conversation has no such message."""
        try:
            return self.messages[id]
        except KeyError:
            raise Rejection("not_found", f"Conversation {self.id} has no message {id}.", field) from None

    def files(self, message: str, id: str | None = None) -> list[File]:
        """The files of a message, or the one with this id; none when the message is too far back."""
        known = self.messages[message].get("files", [])
        return [file for file in known if id in (None, file["id"])]

    def fetched(
        self,
        at: datetime,
        *,
        message: str,
        file: str,
        digest: str,
        media_type: str,
        size: int,
        address: str,
        duration_ms: float,
    ) -> None:
        for known in self.files(message, file):
            if known["digest"] is None:
                self.record(
                    self.FileFetched,
                    at,
                    message=message,
                    file=file,
                    digest=digest,
                    media_type=media_type,
                    size=size,
                    address=address,
                    duration_ms=duration_ms,
                )

    def read(
        self,
        at: datetime,
        *,
        message: str,
        file: str,
        segments: str,
        count: int,
        pages: int | None,
        characters: int,
        warnings: list[str],
    ) -> None:
        for known in self.files(message, file):
            if not known.get("segments"):
                self.record(
                    self.FileRead,
                    at,
                    message=message,
                    file=file,
                    segments=segments,
                    count=count,
                    pages=pages,
                    characters=characters,
                    warnings=warnings,
                )

    def ended(self, message: str) -> bool:
        """Return whether no work is left for the message."""
        return self.deleted or self.messages[message]["status"] in (*FINAL, "failed")

    def is_held(self, message: str) -> bool:
        """Return whether the answer waits for a person."""
        return self.messages[message]["status"] == "held"

    def history(self, message: str) -> dict[str, Message]:
        """The earlier messages that have an answer, by id, newest first, without questions that a filter withheld."""
        earlier: dict[str, Message] = {}
        parent = self.messages[message]["parent"]
        while parent and (known := self.messages.get(parent)):  # copied messages may have been erased
            if known["answer"] and not known.get("withheld"):
                earlier[parent] = known
            parent = known["parent"]
        return earlier

    def copied(self, message: str) -> list[Copied]:
        """The messages that a fork after this one copies, in order: the latest, up to `COPIED` characters.

        Raises: Rejection `not_found`, `not_answered`, `too_old` or `too_large`.
        """
        last = self.message(message)
        ended = last["status"] in FINAL
        if ended and not last["query"]:
            raise Rejection("too_old", f"The text of message {message} is no longer kept.", "message")
        if not ended or not last["answer"]:
            raise Rejection("not_answered", f"Message {message} is {last['status']} and has no answer.", "message")
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
                    query=question(known),
                    inputs=known["inputs"],
                    answer=known["answer"],
                )
            )
        if not copied:
            raise Rejection(
                "too_large", f"Message {message} has more than {COPIED:,} characters, the maximum.", "message"
            )
        return copied[::-1]

    def answering(self, at: datetime, *, message: str) -> None:
        if not self.ended(message):
            self.record(self.Answering, at, message=message, attempt=self.messages[message]["attempt"] + 1)

    def waits(self, message: str) -> bool:
        """Return whether an earlier message of the branch has not ended."""
        parent = self.messages[message]["parent"]
        while parent and (known := self.messages.get(parent)):
            if not self.ended(parent):
                return True
            parent = known["parent"]
        return False

    def queue(self, at: datetime, *, message: str) -> None:
        """Let the answer wait, unless the earlier messages of its branch have ended meanwhile."""
        if self.messages[message]["status"] == "asked" and self.waits(message):
            self.record(self.Queued, at, message=message)

    def run(self, at: datetime, *, message: str, run: str) -> None:
        """A run that has begun answers the message."""
        known = self.messages[message]
        if not self.ended(message) and known.get("run") != run:
            self.record(self.RunStarted, at, message=message, run=run, attempt=known["attempt"] + 1)

    def queued(self) -> list[str]:
        """The messages that may be answered now, and were queued before."""
        return [id for id, known in self.messages.items() if known["status"] == "queued" and not self.waits(id)]

    def set_variables(self, at: datetime, *, run: str, step: str, values: dict[str, Any]) -> None:
        if not self.deleted:
            self.record(self.VariablesSet, at, run=run, step=step, values=values)

    def hold(self, at: datetime, *, message: str, calls: Sequence[str]) -> None:
        """Wait for a person, unless one of the calls was decided meanwhile."""
        decided = self.messages[message].get("decided", ())
        if not self.ended(message) and not set(calls) & set(decided):
            self.record(self.Held, at, message=message, calls=list(calls))

    def decide(self, at: datetime, *, message: str, call: str) -> None:
        """A held call was released or refused: go on with the answer that waits for it."""
        if not self.ended(message) and call not in self.messages[message].get("decided", ()):
            self.record(self.ToolDecided, at, message=message, call=call)
            self.resume(at, message=message)

    def resume(self, at: datetime, *, message: str) -> None:
        """Go on with an answer that is held."""
        if self.messages[message]["status"] == "held":
            self.record(self.Resumed, at, message=message, app=self.app)

    def change_strategy(self, at: datetime, *, message: str, **change: Unpack[StrategyChange]) -> None:
        if not self.ended(message) and change["strategy"] not in self.messages[message].get("strategies", ()):
            self.record(self.StrategyChanged, at, message=message, **change)

    def moderate(self, at: datetime, *, message: str, **moderation: Unpack[FilterVerdicts]) -> None:
        if moderation["verdicts"] and not self.ended(message):
            self.record(self.Moderated, at, message=message, **moderation)

    def match(self, at: datetime, *, message: str, **match: Unpack[Match]) -> None:
        if not self.ended(message):
            self.record(self.Matched, at, message=message, app=self.app, **match)

    def answer(self, at: datetime, *, name: bool = False, **answer: Unpack[Answer]) -> None:
        """Complete an answer; with `name`, ask the model for a name of the conversation after its first answer."""
        if self.ended(answer["message"]):
            return
        names = name and not self.renamed and all(known["status"] != "answered" for known in self.messages.values())
        self.record(self.Answered, at, **answer)
        if names and self.user and not self.messages[answer["message"]].get("withheld"):
            self.record(self.NamingRequested, at, message=answer["message"], attempt=1)

    def fail(self, at: datetime, *, message: str, code: str, reason: str, answer: str) -> None:
        if not self.ended(message):
            self.record(self.Failed, at, message=message, code=code, reason=reason, answer=answer)

    def retry(self, at: datetime, *, message: str) -> None:
        known = self.message(message)
        if known["status"] != "failed":
            raise Rejection("not_failed", f"Message {message} is {known['status']}, not failed.", "message")
        self._must_be_known()
        self._kept(message, "message")
        self.record(self.Retried, at, message=message, app=self.app)

    def stop(self, at: datetime, *, message: str) -> None:
        """Request the end of an answer; its worker ends it."""
        known = self.message(message)
        if known["status"] in ("answered", "failed", "copied"):
            raise Rejection("already_ended", f"Message {message} is already {known['status']}.", "message")
        if not known["stop_requested"]:
            self.record(self.StopRequested, at, message=message)
            self.resume(at, message=message)
            if known["status"] == "queued":
                self.stopped(at, message=message, answer="")

    def stopped(self, at: datetime, *, message: str, answer: str) -> None:
        if not self.ended(message):
            self.record(self.Stopped, at, message=message, answer=answer)

    def rate(self, at: datetime, *, message: str, rating: str | None, content: str) -> None:
        known = self._answered(message)
        if content:
            self._must_be_known()
        if (known["rating"], known["rating_content"]) != (rating, content):
            self.record(self.Rated, at, message=message, app=self.app, rating=rating, content=content)

    def request_suggestions(self, at: datetime, *, message: str, configuration: int) -> None:
        """Request questions to ask next, again if they failed. Raises: Rejection."""
        known = self.message(message)
        if known["status"] not in ("answered", "stopped") or not known["answer"]:
            raise Rejection("not_answered", f"Message {message} is {known['status']} and has no answer.", "message")
        self._must_be_known()
        if known.get("withheld"):
            raise Rejection("not_answered", f"A filter answered message {message}, which no model reads.", "message")
        if not question(known):
            raise Rejection("too_old", f"The text of message {message} is no longer kept.", "message")
        if known.get("suggestions", "failed") == "failed":
            self.record(self.SuggestionsRequested, at, message=message, app=self.app, configuration=configuration)

    def suggest(self, at: datetime, **suggested: Unpack[Suggestions]) -> None:
        if not self.deleted and self.messages[suggested["message"]].get("suggestions") == "requested":
            self.record(self.Suggested, at, **suggested)

    def rename(self, at: datetime, *, name: str) -> None:
        self._must_be_known()
        if name != self.name:
            self.record(self.Renamed, at, name=name)

    def request_name(self, at: datetime) -> None:
        """Ask the model for a name, made of the newest answer."""
        self._must_be_known()
        answered = [
            id
            for id, known in self.messages.items()
            if known["status"] in ("answered", "stopped") and not known.get("withheld")
        ]
        if not answered:
            raise Rejection("not_answered", f"Conversation {self.id} has no answer yet.", "conversation")
        self.record(self.NamingRequested, at, message=answered[-1], attempt=self.namings + 1)

    def pin(self, at: datetime) -> None:
        if not self.pinned:
            self.record(self.Pinned, at, app=self.app)

    def unpin(self, at: datetime) -> None:
        if self.pinned:
            self.record(self.Unpinned, at)

    def save(self, at: datetime, *, message: str) -> None:
        if not self._answered(message).get("saved"):
            self.record(self.Saved, at, message=message, app=self.app)

    def unsave(self, at: datetime, *, message: str) -> None:
        if self.message(message).get("saved"):
            self.record(self.Unsaved, at, message=message)

    def delete(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Deleted, at)

    def _answered(self, message: str) -> Message:
        """Raises: Rejection `not_found`, or `not_answered` when the message has no answer of this conversation."""
        known = self.message(message)
        if known["status"] not in ("answered", "stopped"):
            raise Rejection("not_answered", f"Message {message} is {known['status']}, not answered.", "message")
        return known

    def _must_be_known(self) -> None:
        """Raises: Rejection `erased` when its user was erased."""
        if not self.user:
            raise Rejection(
                "erased", f"The user of conversation {self.id} was erased: start a new one.", "conversation"
            )
