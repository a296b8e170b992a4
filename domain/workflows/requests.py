"""Outside calls of nodes: each is a complete description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.workflows.values import File


@dataclass(frozen=True)
class TemplateRequest:
    """Jinja templates to fill in, each with the same variables. The answer is their texts."""

    templates: tuple[str, ...]
    variables: Mapping[str, Any]
    then: Any = None
    """Data for the next step of the node."""


@dataclass(frozen=True)
class SchemaRequest:
    """Data to check by JSON Schemas: names, schemas and data. The answer is None where all of it fits."""

    checks: tuple[tuple[str, Mapping[str, Any], Any], ...]
    then: Any = None


@dataclass(frozen=True)
class CodeRequest:
    """Code to run: its `main` gets the inputs. The answer is what it returns."""

    language: str
    """python3 or javascript."""
    code: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class HttpRequest:
    method: str
    url: str
    headers: Mapping[str, str]
    basic: tuple[str, str] | None
    """A header, and the key that stands in it after `Basic`: in Base64 if it holds a colon. Encoded when it is sent, so
    that a name may stand for a secret until then."""
    params: tuple[tuple[str, str], ...]
    """They replace the query of the URL, if there are any."""
    text: str | None = None
    """The body as a text; None where it is another."""
    fields: tuple[tuple[str, str], ...] | None = None
    """The fields of a form."""
    files: tuple[tuple[str, File], ...] = ()
    """The files of a form."""
    file: File | None = None
    """The file that is the body."""
    form: str | None = None
    """`urlencoded` or `multipart`."""
    connect_s: float = 10
    read_s: float = 600
    write_s: float = 600
    verify: bool = True


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    file: File | None = None
    """The body as a file, where `http_request.is_file` says so."""


@dataclass(frozen=True)
class Message:
    """A message of a prompt: a text, or a text with files."""

    role: str
    text: str
    files: tuple[File, ...] = ()
    detail: str = "high"
    """Of images: low or high."""
    calls: tuple[Mapping[str, str], ...] = ()
    """The calls of tools that an assistant made."""
    call_id: str | None = None
    """The call that a tool answers."""


@dataclass(frozen=True)
class Memory:
    """Earlier questions and answers of the thread, to be put into a prompt."""

    at: int
    """Before which message they stand."""
    window: int | None
    """Maximum number of turns; None for the latest 500."""
    prefixes: tuple[str, str] = ("Human", "Assistant")
    """Texts before a question and an answer, where they are written in a text."""


@dataclass(frozen=True)
class ModelRequest:
    provider: str
    model: str
    mode: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    schema: Mapping[str, Any] | None = None
    """JSON Schema that the answer has to fit."""
    memory: Memory | None = None
    inline: bool = False
    """The memory stands inside of the first message."""
    otherwise: ModelRequest | None = None
    """The request to a model that does not call tools."""
    query: str = ""
    """The beginning of a completion."""
    streams: bool = False
    """Tokens are sent as they come."""
    then: Any = None


@dataclass(frozen=True)
class ModelAnswer:
    text: str
    usage: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    tool_calls: tuple[Mapping[str, str], ...] = ()
    """`name` and `arguments`, as text."""
    structured: Mapping[str, Any] | None = None
    reasoning: str = ""
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class ToolRequest:
    provider_id: str
    provider_type: str
    provider_name: str
    tool: str
    parameters: Mapping[str, Any]
    configuration: Mapping[str, Any]
    credential: str | None = None
    plugin: str | None = None


@dataclass(frozen=True)
class ToolAnswer:
    text: str = ""
    files: tuple[File, ...] = ()
    json: tuple[Any, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AgentRequest:
    strategy_provider: str
    strategy: str
    parameters: Mapping[str, Any]
    memory: Memory | None = None
    plugin: str | None = None


@dataclass(frozen=True)
class RetrievalRequest:
    query: str
    files: tuple[File, ...]
    datasets: tuple[str, ...]
    mode: str
    """multiple or single."""
    settings: Mapping[str, Any]
    filter: Mapping[str, Any] | None
    """Conditions on metadata, written out."""
    automatic: Mapping[str, Any] | None
    """The model that writes the filter."""


@dataclass(frozen=True)
class DocumentRequest:
    """Files to read. The answer is their texts."""

    files: tuple[File, ...]
    several: bool


@dataclass(frozen=True)
class FormRequest:
    """A form that waits for a person."""

    content: str
    inputs: tuple[Mapping[str, Any], ...]
    actions: tuple[Mapping[str, Any], ...]
    timeout_s: int
    deliveries: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class FormAnswer:
    """The choice of a person, with the fields of the form; or the end of the time for it."""

    action: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    expired: bool = False
