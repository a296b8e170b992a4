"""Ports of tools."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from domain.chat.app import Configuration
from domain.tools.question import Answer, Question
from domain.tools.tool import Definition
from domain.tools.toolset import Toolset
from handlers.cause import Cause
from handlers.ports.index import Hit
from handlers.ports.models import ChatMessage, Delta, Tool


class ToolError(Exception):
    """A tool gave no result: `code` is one of `unreachable`, `timeout`, `server_error`, `unauthorized`, `bad_request`,
    `not_found`, `no_secret`, `rate_limited`, `too_large`, `invalid_arguments`, `unsupported`.

    The model reads the reason, so it names no secret and no inner address.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class NeedsAnswers(Exception):
    """The server of a tool asks the user, and is called again with the answers and its `state`."""

    def __init__(self, questions: Sequence[Question], state: str) -> None:
        super().__init__(f"{len(questions)} questions")
        self.questions = questions
        self.state = state


class Output(NamedTuple):
    """A file that a tool made."""

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a tool.

    `text` is for the model, as are `passages`, which are numbered and cited; `names` are the names of their documents
    by id. `parts` are those of `tool_call.completed` that are data: `json`, `link`. `files` are stored, and the model
    reads only that they were made.
    """

    text: str = ""
    passages: Sequence[Hit] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[dict[str, Any]] = ()
    files: Sequence[Output] = ()


class Answered(NamedTuple):
    """The answers to the questions of a server by their names, and its state."""

    answers: Mapping[str, Answer]
    state: str


Ask = Callable[[Question], Awaitable[Answer]]
"""Ask the user, while the session with a server waits. Raises: ToolError when there is no answer."""


async def no_user(question: Question) -> Answer:
    raise ToolError("unsupported", f"No user can be asked: {question['message'][:500]}")


class Refused(Exception):
    """A call back is not made; the plugin reads why."""


class AskedModel(NamedTuple):
    """A call of a chat model that a plugin asks for: without provider and model, of the app's; `max_tokens` is None
    where it names no number."""

    provider: str
    model: str
    messages: Sequence[ChatMessage]
    tools: Sequence[Tool]
    parameters: dict[str, Any]
    max_tokens: int | None


class CallBacks(Protocol):
    """Calls that a plugin asks for while it works: each is recorded, as one of the turn that it works for."""

    def model(self, asked: AskedModel) -> AsyncGenerator[Delta]:
        """The answer of a model, in pieces. Raises: Refused, ModelError, Unavailable."""
        ...

    async def tool(self, toolset: str, tool: str, arguments: dict[str, Any]) -> Result:
        """The text and the parts of a tool's result; a failed call is a text, too. Raises: Refused, Unavailable."""
        ...


class Invocation(NamedTuple):
    """A call of a tool; `id` is the recorded call's, and the same when it is made again. The arguments are valid.

    `configuration` is that of the app whose agent calls it, `at` the time of the question, `user` its end user.
    `answered` has the answers to what the server asked when the call was made before.
    `backs` makes what the tool calls itself.
    """

    id: str
    cause: Cause
    tool: Definition
    arguments: dict[str, Any]
    configuration: Configuration
    at: str
    user: str
    answered: Answered | None = None
    ask: Ask = no_user
    backs: CallBacks | None = None

    @property
    def tenant(self) -> str:
        return self.cause.metadata.tenant


class Listing(NamedTuple):
    """The tools of a toolset, and what was left out of its list, and why."""

    tools: Sequence[Definition]
    warnings: Sequence[str] = ()


class Toolbox(Protocol):
    """The tools of one toolset."""

    @property
    def server(self) -> str:
        """Its address, as `host:port`; empty for one within the process, or where each tool has its own."""
        ...

    async def list(self) -> Listing:
        """The tools as they are now. Raises: ToolError."""
        ...

    async def call(self, invocation: Invocation) -> Result:
        """Call a tool, once. Raises: ToolError, NeedsAnswers, Unavailable."""
        ...


class Toolboxes(Protocol):
    """Toolboxes by toolset; the built-in one, by None, has the same tools for all."""

    async def get(self, tenant: str, toolset: Toolset | None) -> Toolbox:
        """Raises: ToolError `unsupported`, `not_found`."""
        ...
