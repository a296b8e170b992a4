"""The commands, as they come over the wire: what each takes, and what makes it well-formed.

Their JSON Schemas and the AsyncAPI document are made from these classes; a field typed `Ref[…]` must name something
that exists and is not deleted.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from domain.aggregate import Aggregate, Rejection
from domain.app import App
from domain.budget import Budget
from domain.conversation import Conversation
from domain.dataset import Dataset
from domain.dead_letter import DeadLetter
from domain.document import Document
from domain.model_call import ModelCall
from domain.provider import BUILTIN, Provider
from domain.segmentation import (
    LEAST_TOKENS,
    LONGEST_SEPARATOR,
    MOST_PARENT_TOKENS,
    MOST_TOKENS,
    PARENT_TOKENS,
    SEPARATOR,
    Cleanup,
    ParentKind,
    Segmentation,
)
from domain.segmentation import Mode as SegmentationMode

MAX_PAYLOAD = 1024 * 1024
"""Bytes of a command; a larger file is put into the object store and named by its digest."""

MAX_TEXT = 256 * 1024
"""Bytes of a document's inline text."""

MAX_DEPTH = 32
"""Levels of arrays and objects in a payload."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Marks a field that names an aggregate of this kind."""

    kind: type[Aggregate]


def _is_uuid(value: str) -> bool:
    try:
        return str(UUID(value)) == value
    except ValueError:
        return False


def _uuid(value: str) -> str:
    if not _is_uuid(value):
        raise ValueError("must be a UUID in lower case with hyphens")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _at_most_64_kib(value: str) -> str:
    if len(value.encode()) > 64 * 1024:
        raise ValueError("must not exceed 64 KiB in UTF-8")
    return value


Id = Annotated[str, AfterValidator(_uuid), Field(json_schema_extra={"format": "uuid"})]
AppId = Annotated[Id, Ref(App)]
DatasetId = Annotated[Id, Ref(Dataset)]
DocumentId = Annotated[Id, Ref(Document)]
ConversationId = Annotated[Id, Ref(Conversation)]
DeadLetterId = Annotated[Id, Ref(DeadLetter)]
Handle = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""A name that someone chose for something, and that is its id."""
ProviderName = Handle
Name = Annotated[str, Field(max_length=255), AfterValidator(_not_blank)]
Description = Annotated[str, Field(max_length=2000)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Scalar = str | int | float | bool | None
Separator = Annotated[str, Field(min_length=1, max_length=LONGEST_SEPARATOR)]
Texts = Annotated[list[Annotated[str, Field(max_length=1000)]], Field(min_length=1, max_length=100)]
FieldName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_not_blank)]
Metadata = Annotated[dict[Annotated[str, Field(min_length=1, max_length=64)], Scalar], Field(max_length=64)]
Written = Annotated[str, AfterValidator(_not_blank), AfterValidator(_at_most_64_kib)]
"""What somebody wrote into a segment."""


class Part(BaseModel):
    """Strict: no unknown field, no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Command(Part):
    """What someone wants done."""


class Model(Part):
    """A chat model; `builtin` / `extractive` needs no server."""

    provider: Annotated[ProviderName, Ref(Provider)] = BUILTIN
    name: Annotated[str, Field(min_length=1, max_length=255)] = "extractive"
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = Field(512, description="Tokens reserved for the answer")
    context_window: Annotated[int, Field(ge=256, le=10_000_000)] = Field(
        8192, description="Tokens that prompt and answer may have together"
    )
    parameters: dict[str, JsonValue] = Field({}, description="Passed on to the model: temperature, top_p, stop, …")

    @model_validator(mode="after")
    def _answer_fits(self) -> Model:
        if self.max_tokens >= self.context_window:
            raise ValueError("max_tokens must be less than context_window, which also holds the prompt")
        _one_builtin(self.provider, self.name)
        _at_most_16_kib(self.parameters)
        return self


def _one_builtin(provider: str, name: str) -> None:
    if provider == BUILTIN and name != "extractive":
        raise ValueError("provider 'builtin' has one model, 'extractive'")


def _at_most_16_kib(parameters: dict[str, JsonValue] | None) -> None:
    if len(orjson.dumps(parameters)) > 16 * 1024:
        raise ValueError("parameters must not exceed 16 KiB")


class Variable(Part):
    """A value that the asker fills in, `{{name}}` in the prompt."""

    name: VariableName
    required: bool = False
    default: Annotated[str, Field(max_length=10_000)] | None = None


class Rerank(Part):
    """A model that reads the question with each hit and puts them into a better order; `builtin` is the cross-encoder
    of `HEADRACE_RERANK_MODEL`."""

    provider: Annotated[ProviderName, Ref(Provider)] = BUILTIN
    model: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="Model of the provider; null: the one that `builtin` has"
    )
    top_n: Annotated[int, Field(ge=1, le=200)] = Field(50, description="So many of the best hits are reranked")

    @model_validator(mode="after")
    def _of_the_provider(self) -> Rerank:
        if self.provider != BUILTIN and self.model is None:
            raise ValueError("model must name one of the provider's")
        return self


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


class Condition(Part):
    """What the metadata of a document must say."""

    name: FieldName
    comparison_operator: Literal[
        "contains",
        "not contains",
        "start with",
        "end with",
        "is",
        "is not",
        "empty",
        "not empty",
        "in",
        "not in",
        "=",
        "≠",
        ">",
        "<",
        "≥",
        "≤",
        "before",
        "after",
    ]
    value: Annotated[str, Field(max_length=1000)] | float | Texts | None = Field(
        None, description="A number for = ≠ > < ≥ ≤, an ISO 8601 time for before and after, else a text"
    )

    @model_validator(mode="after")
    def _of_its_type(self) -> Condition:
        operator, value = self.comparison_operator, self.value
        wanted, fits = "a text", isinstance(value, str)
        if operator in ("empty", "not empty"):
            wanted, fits = "null", value is None
        elif operator in ("in", "not in"):
            wanted, fits = "a list of texts", isinstance(value, list)
        elif operator in ("=", "≠", ">", "<", "≥", "≤"):
            wanted, fits = "a finite number", isinstance(value, float) and math.isfinite(value)
        elif operator in ("before", "after"):
            wanted, fits = "an ISO 8601 time", isinstance(value, str) and _is_time(value)
        if not fits:
            raise ValueError(f"value must be {wanted} for the operator {operator!r}")
        return self


class MetadataFilter(Part):
    """Which documents are searched, by their metadata; `automatic`: the model of the app makes the conditions."""

    mode: Literal["disabled", "manual", "automatic"] = "disabled"
    logical_operator: Literal["and", "or"] = "and"
    conditions: Annotated[list[Condition], Field(max_length=32)] = []

    @model_validator(mode="after")
    def _something(self) -> MetadataFilter:
        if (self.mode == "manual") != bool(self.conditions):
            raise ValueError("conditions must be given in mode manual, and in no other")
        return self


class Retrieval(Part):
    """How segments are looked for."""

    mode: Literal["hybrid", "semantic", "full_text"] = "hybrid"
    weight: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None, description="Share of the meaning in a hybrid score, or null for reciprocal rank fusion"
    )
    top_k: Annotated[int, Field(ge=1, le=50)] = 4
    score_threshold: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None, description="The least score of a hit, or null to take the best whatever they score"
    )
    metadata_filter: MetadataFilter = MetadataFilter()
    neighbours: Annotated[int, Field(ge=0, le=3)] = Field(
        0, description="So many segments before and after each hit are given to the model with it"
    )
    rerank: Rerank | None = None

    @model_validator(mode="after")
    def _weighs_something(self) -> Retrieval:
        if self.weight is not None and self.mode != "hybrid":
            raise ValueError("weight is for the mode hybrid")
        if self.rerank and self.rerank.top_n < self.top_k:
            raise ValueError("rerank.top_n must be at least top_k")
        return self


class CreateApp(Command):
    """Create an app; it answers once it is configured."""

    name: Name
    description: Description = ""


class ConfigureApp(Command):
    """Give an app its next numbered configuration."""

    app: AppId
    model: Model = Model()
    prompt: Annotated[str, Field(max_length=100_000)] = ""
    variables: Annotated[list[Variable], Field(max_length=64)] = []
    datasets: Annotated[list[DatasetId], Field(max_length=32)] = []
    retrieval: Retrieval = Retrieval()

    @model_validator(mode="after")
    def _model_makes_filters(self) -> ConfigureApp:
        if self.retrieval.metadata_filter.mode == "automatic" and self.model.provider == BUILTIN:
            raise ValueError(
                "retrieval.metadata_filter cannot be automatic with a model of 'builtin': it makes no filters"
            )
        return self


class DeleteApp(Command):
    """Delete an app: it takes no more messages."""

    app: AppId


class CreateDataset(Command):
    """Create a knowledge base."""

    name: Name
    description: Description = ""


class ParentRules(Part):
    """What is given to the model in place of a small segment that was found: paragraphs, or the full document."""

    kind: ParentKind = "paragraph"
    separator: Separator | None = Field(
        None, description="Ends a parent; null: as many paragraphs under one heading as fit"
    )
    max_tokens: Annotated[int, Field(ge=LEAST_TOKENS, le=MOST_PARENT_TOKENS)] = Field(
        PARENT_TOKENS, description="What is longer becomes several parents"
    )


class SegmentationRules(Part):
    """How texts are cut into segments."""

    mode: SegmentationMode = "automatic"
    separator: Separator | None = Field(
        SEPARATOR, description="Ends a segment; null: segments are filled with sentences up to max_tokens"
    )
    max_tokens: Annotated[int, Field(ge=LEAST_TOKENS, le=MOST_TOKENS)] = MOST_TOKENS
    overlap: Annotated[int, Field(ge=0, le=MOST_TOKENS // 2)] = Field(
        0, description="So many of the last tokens of a segment are also in the next one of the same piece"
    )
    cleanup: Annotated[list[Cleanup], Field(max_length=8)] = Field([], description="What is done to the text before")
    parent: ParentRules | None = Field(None, description="For the mode parent_child; null: its defaults")

    @model_validator(mode="after")
    def _go_together(self) -> SegmentationRules:
        self.rules()
        return self

    def rules(self) -> Segmentation:
        """Raises: ValueError."""
        return Segmentation.of(self.model_dump())


class ConfigureDataset(Command):
    """Give a knowledge base another embedding model, which serves once the index is whole with it, or other rules by
    which documents are cut from now on; what is not given stays."""

    dataset: DatasetId
    embedding_model: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    segmentation: SegmentationRules | None = Field(
        None, description="Documents that are there are cut by these rules when they are processed anew"
    )

    @model_validator(mode="after")
    def _something(self) -> ConfigureDataset:
        if self.embedding_model is None and self.segmentation is None:
            raise ValueError("embedding_model or segmentation must be given")
        return self


class ReprocessDataset(Command):
    """Process all documents of a knowledge base anew from their files, by the rules of now; what can be found stays
    until all of the new can."""

    dataset: DatasetId


class TestDatasets(Command):
    """Look for a question in knowledge bases, and put on record what is found and where it ranks (hit testing)."""

    datasets: Annotated[list[DatasetId], Field(min_length=1, max_length=32)]
    query: Annotated[str, Field(max_length=10_000), AfterValidator(_not_blank)]
    retrieval: Retrieval = Retrieval(top_k=10)
    user: Name = Field("anonymous", description="Whose words the query is")

    @model_validator(mode="after")
    def _without_an_app(self) -> TestDatasets:
        if self.retrieval.metadata_filter.mode == "automatic":
            raise ValueError("retrieval.metadata_filter.mode must not be automatic, which takes the model of an app")
        return self


class DeleteDataset(Command):
    """Delete a knowledge base with all of its documents."""

    dataset: DatasetId


class UploadDocument(Command):
    """Put a document into a knowledge base: a blob by its digest, or a short text."""

    dataset: DatasetId
    name: Name = Field(description="A file name; only its last part is kept")
    media_type: Annotated[str, Field(pattern=r"^[\w.+-]+/[\w.+-]+$", max_length=127)] | None = Field(
        None, description="Guessed from the name when null"
    )
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="SHA-256 in hex of a blob in the object store"
    )
    text: str | None = Field(None, description="The text itself, at most 256 KiB in UTF-8")
    metadata: Metadata = {}
    segmentation: SegmentationRules | None = Field(
        None, description="Rules of its own by which it is cut; null: those of the knowledge base"
    )

    @model_validator(mode="after")
    def _one_source(self) -> UploadDocument:
        if (self.digest is None) == (self.text is None):
            raise ValueError("give exactly one of digest and text")
        if self.text is not None and len(self.text.encode()) > MAX_TEXT:
            raise ValueError("text must not exceed 256 KiB; put it into the object store and give its digest")
        if len(orjson.dumps(self.metadata)) > 16 * 1024:
            raise ValueError("metadata must not exceed 16 KiB")
        return self


class ReprocessDocument(Command):
    """Process a document anew from its file, by the rules of now; what can be found stays until all of the new can."""

    document: DocumentId
    segmentation: SegmentationRules | None = Field(
        None, description="Rules of its own from now on; null: those that it has, or those of its knowledge base"
    )
    inherit: bool = Field(False, description="Give up rules of its own: those of its knowledge base count again")

    @model_validator(mode="after")
    def _one_or_the_other(self) -> ReprocessDocument:
        if self.inherit and self.segmentation is not None:
            raise ValueError("inherit cannot be true where segmentation is given")
        return self


class DeleteDocument(Command):
    """Delete a document in whatever state it is; it is never found again."""

    document: DocumentId


class DisableDocument(Command):
    """Let nothing of a document be found until it is enabled."""

    document: DocumentId


class EnableDocument(Command):
    """Let a document be found again that was disabled."""

    document: DocumentId


class ArchiveDocument(Command):
    """Put a document aside: nothing of it can be found, and nothing be changed."""

    document: DocumentId


class UnarchiveDocument(Command):
    """Take a document back that was archived."""

    document: DocumentId


class RenameDocument(Command):
    """Give a document another name."""

    document: DocumentId
    name: Name


class SetMetadata(Command):
    """Set values of a document's metadata; null takes one away, what is not named stays."""

    document: DocumentId
    metadata: Metadata = Field(min_length=1)

    @model_validator(mode="after")
    def _small(self) -> SetMetadata:
        if len(orjson.dumps(self.metadata)) > 16 * 1024:
            raise ValueError("metadata must not exceed 16 KiB")
        return self


class AddMetadataField(Command):
    """Define a field of the metadata of a knowledge base's documents; their values must be of its type."""

    dataset: DatasetId
    name: FieldName
    type: Literal["string", "number", "time"]


class RenameMetadataField(Command):
    """Give a metadata field another name; the values that documents have of it keep to it."""

    dataset: DatasetId
    name: FieldName
    new_name: FieldName


class RemoveMetadataField(Command):
    """Remove a metadata field, and the values that documents have of it."""

    dataset: DatasetId
    name: FieldName


class AddSegment(Command):
    """Add a segment to a document; with an answer, the content is the question."""

    document: DocumentId
    content: Written
    answer: Written | None = None
    after: Id | None = Field(None, description="Segment that it follows; null: the last one")


class EditSegment(Command):
    """Give a segment another text or another answer; null leaves it as it is."""

    document: DocumentId
    segment: Id
    content: Written | None = None
    answer: Written | None = None

    @model_validator(mode="after")
    def _something(self) -> EditSegment:
        if self.content is None and self.answer is None:
            raise ValueError("give content, answer or both")
        return self


class DisableSegment(Command):
    """Let a segment not be found until it is enabled."""

    document: DocumentId
    segment: Id


class EnableSegment(Command):
    """Let a segment be found again that was disabled."""

    document: DocumentId
    segment: Id


class DeleteSegment(Command):
    """Delete a segment."""

    document: DocumentId
    segment: Id


class RetryDocument(Command):
    """Try a document again that ended in error."""

    document: DocumentId


class SendMessage(Command):
    """Ask an app; without a conversation one is started, with the id of this message."""

    app: AppId
    query: Annotated[str, Field(max_length=100_000), AfterValidator(_not_blank)]
    inputs: Annotated[dict[VariableName, Annotated[str, Field(max_length=10_000)]], Field(max_length=64)] = {}
    user: Name = "anonymous"
    conversation: ConversationId | None = None


class StopMessage(Command):
    """End an answer where it is; what has arrived is kept."""

    conversation: ConversationId
    message: Id


class RetryMessage(Command):
    """Answer a message again whose answer failed."""

    conversation: ConversationId
    message: Id


class RateMessage(Command):
    """Judge an answer; null takes the rating back."""

    conversation: ConversationId
    message: Id
    rating: Literal["like", "dislike"] | None
    content: Annotated[str, Field(max_length=10_000)] = ""


class RenameConversation(Command):
    """Give a conversation another name."""

    conversation: ConversationId
    name: Name


class DeleteConversation(Command):
    """Delete a conversation with its messages."""

    conversation: ConversationId


class ForkConversation(Command):
    """Go on from an answered message in a new conversation, which has what went before as its history."""

    conversation: ConversationId
    message: Id
    name: Name | None = Field(None, description="Name of the new one; null: that of the old one")


class NamedModel(Part):
    """A chat model by its provider and name."""

    provider: Annotated[ProviderName, Ref(Provider)]
    name: Annotated[str, Field(min_length=1, max_length=255)]

    @model_validator(mode="after")
    def _there_is_one(self) -> NamedModel:
        _one_builtin(self.provider, self.name)
        return self


class RequestReplay(Command):
    """Make a recorded call of a chat model again: as it was, or to another model, with other parameters or
    instructions."""

    call: Annotated[Id, Ref(ModelCall)] = Field(description="Recorded call of a chat model")
    model: NamedModel | None = Field(None, description="Chat model to call; null: the recorded one")
    parameters: dict[str, JsonValue] | None = Field(None, description="Passed on to the model; null: as recorded")
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Tokens reserved for the answer; null: as recorded"
    )
    configuration: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Configuration of the app whose instructions take the place of those sent; null: as recorded"
    )

    @model_validator(mode="after")
    def _small(self) -> RequestReplay:
        _at_most_16_kib(self.parameters)
        return self


class SetBudget(Command):
    """Set what calls of models may cost in a calendar month, or change it. Nothing is refused beyond it: it shows."""

    name: Handle
    scope: Literal["tenant", "app", "model", "user"]
    subject: Annotated[str, Field(max_length=255)] = Field(
        "", description="Id of the app, name of the model or user; empty for the tenant"
    )
    amount_usd: Annotated[float, Field(gt=0, le=1e9)] = Field(description="US dollars")

    @model_validator(mode="after")
    def _of_something(self) -> SetBudget:
        if (self.scope == "tenant") != (not self.subject.strip()):
            raise ValueError("subject must name an app, model or user, and be empty for the tenant")
        if self.scope == "app" and not _is_uuid(self.subject):
            raise ValueError("subject must be the id of an app")
        return self


class RemoveBudget(Command):
    """Forget a budget."""

    budget: Annotated[Handle, Ref(Budget)]


class EraseEndUser(Command):
    """Throw away the key that the words of a user are kept under; who comes back under the name is somebody else."""

    user: Name


class RegisterProvider(Command):
    """Make an OpenAI-compatible server known, or change its address or key; the key is encrypted at rest."""

    name: ProviderName
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000)]
    key: Annotated[str, Field(max_length=10_000, json_schema_extra={"writeOnly": True})] = ""

    @model_validator(mode="after")
    def _not_builtin(self) -> RegisterProvider:
        if self.name == BUILTIN:
            raise ValueError("name 'builtin' is taken by the provider that needs no server")
        return self


class RemoveProvider(Command):
    """Forget a provider and its key."""

    provider: Annotated[ProviderName, Ref(Provider)]


class RetryDeadLetter(Command):
    """Try once more what could not be handled; a command keeps its id, and has a second outcome."""

    dead_letter: DeadLetterId


class DiscardDeadLetter(Command):
    """Give up what could not be handled: it is taken out of the dead letters, with what was sent."""

    dead_letter: DeadLetterId


def parse(command: type[Command], payload: bytes) -> Command:
    """Raises: Rejection `too_large`, `broken_json` or `invalid`, naming the field and the rule."""
    if len(payload) > MAX_PAYLOAD:
        raise Rejection(
            "too_large",
            f"The payload has {len(payload):,} bytes, at most {MAX_PAYLOAD:,} are allowed;"
            " put a large file into the object store and give its digest.",
        )
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Rejection("broken_json", f"The payload is not JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise Rejection("broken_json", f"The payload must be a JSON object, not {_json_type(fields)}.")
    _storable(fields)
    try:
        return command.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        location = [str(part) for part in first["loc"] if part not in _UNION_BRANCHES]
        path = ".".join(location) or _named_field(command, first["msg"])
        problem = first["msg"].removeprefix("Value error, ")
        raise Rejection("invalid", f"{path or 'payload'}: {problem[0].lower()}{problem[1:]}.", path) from None


_UNION_BRANCHES = {"str", "int", "float", "bool", "none"}


def _named_field(command: type[Command], message: str) -> str | None:
    """The first field that the sentence of a rule over several fields names."""
    words = re.findall(r"\w+", message)
    return next((word for word in words if word in command.model_fields), None)


def _json_type(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _storable(fields: dict[str, Any]) -> None:
    """Refuses NUL characters, which PostgreSQL cannot store, and nesting that JSON writers cannot follow."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), fields)]
    while stack:
        parts, value = stack.pop()
        if len(parts) >= MAX_DEPTH:
            raise Rejection("invalid", f"{parts[0]}: must not be nested deeper than {MAX_DEPTH} levels.", parts[0])
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if "\0" in str(name) or (isinstance(inner, str) and "\0" in inner):
                path = ".".join((*parts, str(name))).replace("\0", "�")
                raise Rejection("invalid", f"{path}: must not contain NUL characters.", path)
            if isinstance(inner, dict | list):
                stack.append(((*parts, str(name)), inner))


def references(part: Part, path: str = "") -> list[tuple[str, type[Aggregate], str]]:
    """Every aggregate that a command names: field path, kind, id."""
    found: list[tuple[str, type[Aggregate], str]] = []
    for name, info in type(part).model_fields.items():
        value, inner = getattr(part, name), f"{path}{name}"
        kinds = [mark.kind for mark in _marks(info.annotation, info.metadata)]
        values = value if isinstance(value, list) else [value]
        for index, item in enumerate(values):
            place = f"{inner}.{index}" if isinstance(value, list) else inner
            if isinstance(item, Part):
                found += references(item, f"{place}.")
            elif kinds and item is not None and (kinds[0], item) != (Provider, BUILTIN):
                found.append((place, kinds[0], cast("str", item)))
    return found


def _marks(annotation: Any, metadata: list[Any]) -> list[Ref]:
    """The `Ref` marks of a field, also those inside of `list[…]` and `… | None`."""
    found = [mark for mark in metadata if isinstance(mark, Ref)]
    found += [mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Ref)]
    for argument in getattr(annotation, "__args__", ()):
        found += _marks(argument, [])
    return found
