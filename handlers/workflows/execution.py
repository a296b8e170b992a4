"""An outside call of a step: its request, and what becomes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from domain.aggregate import Rejection
from domain.models.model_call import ModelCall
from domain.workflows.node_type import Trouble
from domain.workflows.record import Call
from domain.workflows.run import RecordedCall, Run
from handlers.cause import Cause
from handlers.files import Files
from handlers.ports.log import TooLarge
from handlers.ports.models import ModelError
from handlers.ports.people import Erased
from handlers.ports.tools import ToolError
from handlers.workflows.secrets import Secrets

INVOKE_ERRORS: Mapping[str, str] = {
    "rate_limited": "InvokeRateLimitError",
    "unauthorized": "InvokeAuthorizationError",
    "bad_request": "InvokeBadRequestError",
    "context_length_exceeded": "InvokeBadRequestError",
    "server_error": "InvokeServerUnavailableError",
    "overloaded": "InvokeServerUnavailableError",
}
"""Types of errors of models, by their codes, as files of Dify compare with them."""

History = list[tuple[str, str]]
"""Questions and answers, the oldest first."""


@dataclass(frozen=True, slots=True)
class Around:
    """The run around a call."""

    id: str
    started: Run.Started
    files: Files
    secrets: Secrets
    history: Callable[[], Awaitable[History]]
    """The earlier turns of the conversation."""

    @property
    def app(self) -> str:
        return self.started.app


@dataclass(slots=True)
class Execution:
    """A call that is made: `cause` names the run and the step; `say` streams a part of an output.

    `made`, `tokens`, `adapter` and `inputs` are for the record of the step.
    """

    cause: Cause
    call: Call
    around: Around
    say: Callable[[str, str], Awaitable[None]]
    made: list[RecordedCall] = field(default_factory=list)
    tokens: int = 0
    adapter: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def request(self) -> Any:
        return self.call.request

    @property
    def tenant(self) -> str:
        return self.cause.metadata.tenant

    @property
    def person(self) -> str | None:
        return self.cause.metadata.person

    def took(self, call: str, tokens: int) -> None:
        """Note a model call, and its tokens."""
        self.made.append(RecordedCall(noun=ModelCall.TOPIC, id=call))
        self.tokens += tokens


class Executor(Protocol):
    """Makes one kind of outside call."""

    async def __call__(self, execution: Execution) -> Any:
        """The answer of the call, or a Trouble. Raises: whatever `trouble` knows; Unavailable."""
        ...


def trouble(error: Exception) -> Trouble | None:
    """An error as the answer of a call; None for one that is none."""
    match error:
        case ModelError():
            return Trouble(error.reason, INVOKE_ERRORS.get(error.code, "InvokeConnectionError"))
        case ToolError():
            return Trouble(error.reason)
        case Rejection():
            return Trouble(error.message)
        case TooLarge():
            return Trouble(f"What the step sent or received cannot be recorded. {error}")
        case Erased():
            return Trouble("The person was erased before the step ended.")
    return None
