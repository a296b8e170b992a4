"""Ports of chat models and rerankers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from handlers.ports.documents import Vectors


class Attachment(NamedTuple):
    """A file in a message: `detail` is `low` or `high` for an image, empty for the server's choice.

    `digest` is that of the blob that holds it, and must be there before the message is recorded.
    """

    kind: Literal["image", "audio", "document"]
    media_type: str
    data: bytes
    name: str = ""
    detail: str = ""
    digest: str = ""


class ToolCall(NamedTuple):
    """A call of a tool that a model asks for; the arguments are the text of a JSON object, which may be invalid."""

    id: str
    name: str
    arguments: str


class Tool(NamedTuple):
    """A tool that a model may ask for; the parameters are a JSON Schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any]


class ChatMessage(NamedTuple):
    """A message of a prompt.

    Of an assistant: the tools that it asked for, and the `state` that came with them, which goes back to the server
    that sent it. Of a tool: its result as the content, and the id of the call.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    attachments: Sequence[Attachment] = ()
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str = ""
    state: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request to a chat model; `passages` are the retrieved texts of the system message, for a model that reads them
    separately.

    `tool_choice` is `auto`, `none`, `required` or the name of a tool. `schema` is a JSON Schema that the answer must
    keep to; callers check it again. `context_window` is in tokens, for a server that needs it; 0: its own default.
    """

    model: str
    messages: list[ChatMessage]
    max_tokens: int
    parameters: dict[str, Any] = field(default_factory=dict)
    passages: list[str] = field(default_factory=list)
    tools: Sequence[Tool] = ()
    tool_choice: str = "auto"
    schema: dict[str, Any] | None = None
    context_window: int = 0


@dataclass(frozen=True, slots=True)
class ChatUsage:
    """Tokens as counted by the server: of prompt and answer, and those of them read from its cache, written to it, or
    spent on reasoning (None if not reported); `raw` is the server's report, as JSON."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer, or of the reasoning before it, which is no part of the answer.

    `unsaid`: all text before this piece was reasoning. All other fields come with the last, including the server's own
    id of the answer and name of the model. `state` is what the server wants back with the next request, as JSON;
    `logprobs` are its log probabilities of tokens, which need not join to the text.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: ChatUsage | None = None
    response_id: str | None = None
    model: str | None = None
    reasoning: str = ""
    unsaid: bool = False
    tool_calls: Sequence[ToolCall] = ()
    state: dict[str, Any] | None = None
    logprobs: list[dict[str, Any]] | None = None


class ModelError(Exception):
    """A model did not answer: `code` is one of `unreachable`, `timeout`, `server_error`, `broken_off`,
    `rate_limited`, `overloaded`, `unauthorized`, `payment_required`, `bad_request`, `unsupported`,
    `context_length_exceeded`, `truncated`, `content_filter`, `length`, `empty_answer`, `not_found`, `too_large`,
    `provider_unavailable`, `embedding_changed`.

    `passing`: it is worth another try, after `pause_s` seconds where the server says so. `scope`: of the quota that
    refused the call.
    """

    def __init__(
        self, code: str, reason: str, *, passing: bool = False, pause_s: float | None = None, scope: str = ""
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.passing = passing
        self.pause_s = pause_s
        self.scope = scope

    @property
    def refuses_model(self) -> bool:
        """True if a quota refused the call for its model or provider: another one may be called."""
        return self.code == "unpriced" or self.scope in ("provider", "model")


class Rest(NamedTuple):
    """A time, in Unix seconds, until which a model should not be called where there is another, and why.

    `binding`: not even where there is no other, since the server says so, or does not answer at all.
    """

    until: float
    error: ModelError
    binding: bool


class Client(Protocol):
    """A client of the models of a server."""

    @property
    def server(self) -> str:
        """Its address, as `host:port`; empty for a model within the process, or of the workers."""
        ...


C = TypeVar("C", bound=Client, covariant=True)


class ChatModel(Client, Protocol):
    def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        """Send the request once, and yield the answer as it arrives. Raises: ModelError."""
        ...


class Access(NamedTuple, Generic[C]):
    """A model by a credential of its provider, whose name is empty where none is needed; `weight` is its share of the
    calls, `rest` returns the time until which the server is not called, since it does not answer."""

    client: C
    credential: str = ""
    weight: int = 1
    rest: Callable[[], Rest | None] = lambda: None


class Models(Protocol[C]):
    """The models that a tenant can name, by clients of one kind."""

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[C]]:
        """The ways to a model, by the provider's newest address and credentials; there is at least one.

        Raises: ModelError `not_found` when the provider is not registered, or was removed; `unsupported` when its kind
        has no such models.
        """
        ...


class ListedModel(NamedTuple):
    """A model as its server lists it; None when the server does not state it. The type is as in the catalogue."""

    name: str
    type: str | None = None
    context_window: int | None = None
    max_output: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The models of a server (`host:port`), and the milliseconds that the list took."""

    server: str
    models: Sequence[ListedModel]
    duration_ms: float


class Listings(Protocol):
    async def get(self, tenant: str, provider: str) -> Mapping[str, Listing | ModelError]:
        """The answer of a provider's server to each credential, by name; without one, to the empty name.

        Raises: ModelError `not_found` when the provider is not registered, or was removed.
        """
        ...

    async def limits(self, tenant: str, provider: str) -> Mapping[str, int]:
        """The limits that the headers of the server's answers to this process state, by name.

        Raises: ModelError `not_found`, likewise.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reranking:
    """Scores of texts for the query, in the order of the texts: the higher, the better, and from 0 to 1 if the model
    returns probabilities. The other fields are as in `Delta`."""

    scores: list[float]
    usage: ChatUsage | None = None
    response_id: str | None = None
    model: str | None = None


class Reranker(Client, Protocol):
    """A model that reads a query and a text together."""

    async def rerank(self, model: str, query: str, texts: Sequence[str]) -> Reranking:
        """A finite score for every text; input beyond the model's limit is truncated.

        Waits only briefly: a missing service is `unreachable`. Raises: ModelError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of texts, in their order. The other fields are as in `Delta`."""

    vectors: Vectors
    usage: ChatUsage | None = None
    model: str | None = None


class RemoteEmbedder(Client, Protocol):
    """Embedding models of a provider, which count tokens themselves."""

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """A vector for every text, by one request; a text beyond the model's limit is an error, not cut.

        Raises: ModelError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Transcription:
    """The text of a recording; `language` is the server's word for it. The other fields are as in `Delta`."""

    text: str
    language: str | None = None
    duration_s: float | None = None
    usage: ChatUsage | None = None


class Transcriber(Client, Protocol):
    """Speech to text."""

    async def transcribe(
        self, model: str, audio: bytes, media_type: str, *, language: str = "", prompt: str = ""
    ) -> Transcription:
        """`language` is an ISO 639-1 code, `prompt` has words that are likely to occur. Raises: ModelError."""
        ...


class Speaker(Client, Protocol):
    """Text to speech."""

    def speak(self, model: str, text: str, *, voice: str, format: str = "mp3") -> AsyncGenerator[bytes]:
        """Send the request once, and yield the audio as it arrives. Raises: ModelError."""
        ...


class Citer(Protocol):
    async def evidence(self, tenant: str, answer: str, passages: Sequence[str]) -> list[tuple[int, str]]:
        """As `handlers.chat.evidence`, in a contained process, within a time limit. Raises: ModelError; Unavailable."""
        ...


class Schemas(Protocol):
    def prepare(self, tenant: str) -> None:
        """Get ready for a check that may come."""
        ...

    async def fault(self, tenant: str, schema: dict[str, Any], answer: str) -> str | None:
        """The first fault of an answer by a JSON Schema, None for a valid one; in a contained process.

        Raises: ModelError `timeout` or `server_error`; Unavailable.
        """
        ...
