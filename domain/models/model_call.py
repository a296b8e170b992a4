"""A model call: recorded before it is sent, and again when it ends.

Its status goes requested → completed, failed or cancelled. The outcome of one that stays `requested` is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Annotated, Any, NotRequired, Required, TypedDict, Unpack

from domain import aggregate
from domain.aggregate import Aggregate, ErrorCode, ErrorMessage
from domain.chat.conversation import Usage
from domain.models.piece import in_pieces
from domain.tools.plugin import PluginRun


class TokenUsage(Usage):
    """Tokens of a call, and the part of them that has another price."""

    cached_tokens: Annotated[int | None, "Tokens of the prompt that the server read from its cache; null when unknown."]
    cache_write_tokens: Annotated[int | None, "Tokens that the server wrote into its cache; null when unknown."]
    reasoning_tokens: Annotated[int | None, "Tokens of the completion used for reasoning; null when unknown."]
    raw: Annotated[dict[str, Any], "Usage as the server sent it; empty when it sent none, or more than 16 KiB."]


Try = TypedDict(
    "Try",
    {
        "name": Annotated[str, "Route; empty where the app named the model."],
        "try": Annotated[int, "Number of the try, from 1."],
        "after": Annotated[dict[str, str] | None, "The failed `call` before, and its `code`; null for the first try."],
    },
)
Try.__doc__ = """A try of a call that may take several, each recorded as a call."""


class Completion(TypedDict):
    """The answer of a model, and what it took."""

    response: str
    reasoning: NotRequired[str]
    finish_reason: str | None
    usage: TokenUsage
    first_token_ms: float | None
    duration_ms: float
    response_id: NotRequired[str | None]
    response_model: NotRequired[str | None]
    tool_calls: NotRequired[list[dict[str, Any]] | None]
    state: NotRequired[dict[str, Any] | None]
    logprobs: NotRequired[list[dict[str, Any]] | None]


Reasoning = Annotated[str, "Reasoning of a chat model before its answer, as far as it arrived; empty for none."]


class Grant(TypedDict):
    """An amount of a lease of a quota that a call may use, or has used."""

    window: Annotated[str, "Window of the quota."]
    lease: Annotated[str, "Lease in the window."]
    unit: Annotated[str, "`calls`, `tokens` or `money`."]
    amount: Annotated[int, "Calls, tokens, or billionths of a US dollar."]


class Broken(TypedDict, total=False):
    """The part of an answer that arrived before it broke off, and its tokens."""

    response: Required[str]
    reasoning: str
    usage: TokenUsage | None


class ModelCall(Aggregate):
    TOPIC = "model_call"
    kind: str
    provider: str
    model: str
    status: str = field(default="requested", init=False)
    reserved: list[Grant] = field(default_factory=list, init=False)
    charged: list[Grant] | None = field(default=None, init=False)

    class Event(aggregate.Event):
        pass

    class Requested(Event, aggregate.Created):
        """A model is about to be called."""

        TOPIC = "model_call.requested.v3"
        PERSONAL = frozenset({"request"})
        class_version = 3
        kind: Annotated[str, "`chat`, `embedding`, `rerank`, `moderation`, `transcription` or `speech`."]
        provider: Annotated[str, "Provider, by its name."]
        model: Annotated[str, "Name of the model at its provider."]
        cause_noun: Annotated[
            str,
            "Purpose of the call: `message`, `document`, `replay`, `annotation`, `provider` (a check), `suggestion` "
            "for a message, `dataset` for a test query, `transcription` or `speech`.",
        ]
        cause_id: Annotated[
            str, "Id of that message, document, replay, annotation, provider, query, transcription or speech."
        ]
        request: Annotated[
            dict[str, Any],
            "Content: `messages` (see [prompts](prompts.md)), `max_tokens`, `parameters`, `tools` (the text with their "
            "list, as `passage/<id>`), `tool_choice`, `response_format` and `context_window` of a chat; numbers of "
            "`texts` and `tokens` of an embedding; `query` and ids of the `segments` of a rerank; side (`where`) and "
            "`texts` of a filter's server; `file` (digest), `media_type`, `size` and `language` of a transcription; "
            "`text`, `voice` and `format` of a speech.",
        ]
        attempt: Annotated[int, "Attempt at its purpose, from 1; 0 when unknown."] = 1
        server: Annotated[str, "Address of the model, as `host:port`; empty for one within the worker."] = ""
        route: Annotated[Try | None, "Try of a route, or one after the first; null where the app named the model."] = (
            None
        )
        plugins: Annotated[list[str] | None, "Plugins that changed the request, with versions; null for none."] = None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state |= {"attempt": 0, "server": "", "sources": []}

        @staticmethod
        def upcast_v2_v3(state: dict[str, Any]) -> None:
            request, sources = state["request"], state.pop("sources")
            if "messages" in request:
                own = {"tools": None, "tool_choice": None, "response_format": None}
                state["request"] = {**request, **own, "messages": in_pieces(request["messages"], sources)}
            state |= {"route": None, "plugins": None}

    class Reserved(Event):
        """Leases of quotas pay for the call; in the commit of the request."""

        TOPIC = "model_call.reserved.v1"
        grants: Annotated[list[Grant], "Reserved amounts: the most that the call may use."]

        def apply(self, call: ModelCall) -> None:
            call.reserved = self.grants

    class Charged(Event):
        """The leases are charged with what the call has used; in the commit of its end.

        A call that ended without, as one with code `lost`, has used all that was reserved.
        """

        TOPIC = "model_call.charged.v1"
        grants: Annotated[list[Grant], "Amounts that were used."]

        def apply(self, call: ModelCall) -> None:
            call.charged = self.grants

    class Filtered(Event):
        """Filters of plugins handled the request, in the commit of the request; or its answer or error, in the commit
        of the end.

        The call has the request and the answer as the filters left them.
        """

        TOPIC = "model_call.filtered.v1"
        plugins: Annotated[list[PluginRun], "Hooks of plugins, in the order in which they ran."]
        original: Annotated[str | None, "SHA-256 of the request or answer before; null if nothing changed."]

    class Completed(Event):
        """The model answered."""

        TOPIC = "model_call.completed.v5"
        PERSONAL = frozenset({"logprobs", "reasoning", "response", "state", "tool_calls"})
        class_version = 5
        response: Annotated[
            str,
            "Answer of a chat; JSON array of a score for each segment of a rerank; text of a transcription; digest of "
            "the blob with the audio of a speech; empty for an embedding.",
        ]
        finish_reason: Annotated[str | None, "Reason for the end of the answer, as the server gives it."]
        usage: Annotated[TokenUsage, "Tokens."]
        first_token_ms: Annotated[float | None, "Milliseconds from the request to the first piece of the answer."]
        duration_ms: Annotated[float, "Milliseconds from the request to the end of the answer."]
        response_id: Annotated[str | None, "Id that the server gave the answer; null for none."] = None
        response_model: Annotated[str | None, "Model as the server names it; null when it does not."] = None
        reasoning: Reasoning = ""
        tool_calls: Annotated[
            list[dict[str, Any]] | None,
            "Calls of tools that the model asks for, each with `id`, `name` and `arguments` (text of a JSON object, "
            "which may be invalid); null for none.",
        ] = None
        state: Annotated[
            dict[str, Any] | None, "State that the server wants back with the next request; null for none."
        ] = None
        logprobs: Annotated[
            list[dict[str, Any]] | None, "Log probabilities of tokens, as the server gives them; null for none."
        ] = None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state |= {"response_id": None, "response_model": None}
            state["usage"] |= {"cached_tokens": None, "cache_write_tokens": None, "reasoning_tokens": None, "raw": {}}

        @staticmethod
        def upcast_v2_v3(state: dict[str, Any]) -> None:
            state["reasoning"] = ""

        @staticmethod
        def upcast_v3_v4(state: dict[str, Any]) -> None:
            state |= {"tool_calls": None, "state": None}

        @staticmethod
        def upcast_v4_v5(state: dict[str, Any]) -> None:
            state["logprobs"] = None

        def apply(self, call: ModelCall) -> None:
            call.status = "completed"

    class Failed(Event):
        """The model did not answer, or broke off.

        With code `lost`, the worker died during the call: whether the model answered is unknown.
        """

        TOPIC = "model_call.failed.v2"
        PERSONAL = frozenset({"reason", "reasoning", "response"})
        class_version = 2
        code: ErrorCode
        reason: ErrorMessage
        response: Annotated[str, "Part of the answer that arrived."]
        duration_ms: Annotated[float | None, "Milliseconds from the request to the failure; null when unknown."]
        reasoning: Reasoning = ""
        usage: Annotated[TokenUsage | None, "Tokens until then; null when nothing arrived."] = None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state |= {"reasoning": "", "usage": None}

        def apply(self, call: ModelCall) -> None:
            call.status = "failed"

    class Cancelled(Event):
        """The call was stopped by request."""

        TOPIC = "model_call.cancelled.v2"
        PERSONAL = frozenset({"reasoning", "response"})
        class_version = 2
        response: Annotated[str, "Part of the answer that arrived."]
        duration_ms: Annotated[float, "Milliseconds from the request to the stop."]
        reasoning: Reasoning = ""
        usage: Annotated[TokenUsage | None, "Tokens until then; null when nothing was sent."] = None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state |= {"reasoning": "", "usage": None}

        def apply(self, call: ModelCall) -> None:
            call.status = "cancelled"

    @property
    def paid(self) -> list[Grant]:
        """The amounts that the leases of quotas pay for the call: all that is reserved, until it is charged."""
        return self.reserved if self.charged is None else self.charged

    def filter(self, at: datetime, *, plugins: list[PluginRun], original: str | None) -> None:
        if plugins:
            self.record(self.Filtered, at, plugins=plugins, original=original)

    def reserve(self, at: datetime, grants: list[Grant]) -> None:
        if grants:
            self.record(self.Reserved, at, grants=grants)

    def charge(self, at: datetime, amounts: Mapping[str, int]) -> None:
        """Charge the leases with these amounts, by unit; once, and only when the call has ended."""
        if self.reserved and self.charged is None and self.status != "requested":
            grants = [Grant({**grant, "amount": amounts[grant["unit"]]}) for grant in self.reserved]
            self.record(self.Charged, at, grants=grants)

    def complete(self, at: datetime, **completion: Unpack[Completion]) -> None:
        if self.status == "requested":
            self.record(self.Completed, at, **completion)

    def fail(
        self, at: datetime, *, code: str, reason: str, duration_ms: float | None, **broken: Unpack[Broken]
    ) -> None:
        if self.status == "requested":
            self.record(self.Failed, at, code=code, reason=reason, duration_ms=duration_ms, **broken)

    def lose(self, at: datetime, reason: str) -> None:
        """End a call whose worker died."""
        self.fail(at, code="lost", reason=reason, response="", duration_ms=None)

    def cancel(self, at: datetime, *, duration_ms: float, **broken: Unpack[Broken]) -> None:
        if self.status == "requested":
            self.record(self.Cancelled, at, duration_ms=duration_ms, **broken)
