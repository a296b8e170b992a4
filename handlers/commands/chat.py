"""Commands of apps, conversations and messages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, Field, JsonValue, model_validator

from domain.aggregate import Rejection
from domain.chat.app import AnswerSettings, App
from domain.chat.conversation import Conversation
from domain.excerpt import excerpt
from domain.models.provider import BUILTIN
from handlers.commands.fields import (
    AppId,
    Command,
    ConversationId,
    DatasetId,
    Description,
    MessageId,
    Name,
    Parameters,
    Part,
    ProviderName,
    VariableName,
    at_most,
    not_blank,
    one_builtin,
)
from handlers.commands.preparation import Change, Make, MakeOrChange, Preparation, not_found
from handlers.commands.response_schema import schema_fault
from handlers.commands.retrieval import RetrievalFields, check_reranker

SuggestedQuestion = Annotated[str, Field(max_length=500), AfterValidator(not_blank)]


def _schema(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if fault := schema_fault(value):
        raise ValueError(fault)
    return value


ResponseSchema = Annotated[dict[str, JsonValue], at_most(kib=16), AfterValidator(_schema)]

FilterWord = Annotated[str, Field(max_length=100), AfterValidator(not_blank)]


class ModelFields(Part):
    """A chat model; `builtin` / `extractive` needs no server."""

    provider: ProviderName = BUILTIN
    name: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        "extractive", description="Name of the model at its provider"
    )
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = Field(512, description="Tokens reserved for the answer")
    context_window: Annotated[int, Field(ge=256, le=10_000_000)] = Field(
        8192, description="Maximum tokens of prompt and answer together"
    )
    parameters: Parameters = Field({}, description="Parameters passed to the model: temperature, top_p, stop, …")

    @model_validator(mode="after")
    def _answer_fits(self) -> ModelFields:
        if self.max_tokens >= self.context_window:
            raise ValueError("max_tokens must be less than context_window, which also holds the prompt")
        one_builtin(self.provider, self.name)
        return self


class VariableFields(Part):
    """A value that a message gives; `{{name}}` in the prompt stands for it."""

    name: VariableName = Field(description="Name, as in the prompt")
    required: bool = Field(False, description="Reject a message without a value")
    default: Annotated[str, Field(max_length=10_000)] | None = Field(
        None, description="Value of a message that gives none"
    )


class FilterFields(Part):
    """A filter that questions and answers must pass."""

    kind: Literal["words", "model", "http"] = Field(
        description="`words`: a list of words; `model`: a chat model; `http`: a server with Dify's API for moderation"
    )
    where: Literal["input", "output", "both"] = Field(
        "both", description="Question and inputs (`input`), sentences of the answer (`output`), or both"
    )
    action: Literal["answer", "replace", "refuse"] = Field(
        "refuse", description="On flagged text: give the preset answer `text`, replace it, or refuse the message"
    )
    text: Annotated[str, Field(max_length=10_000)] = Field(
        "", description="Preset answer, or text in place of what is replaced; empty for stars"
    )
    deadline_s: Annotated[float, Field(gt=0, le=60)] = Field(5.0, description="Time limit of a check, in seconds")
    fail: Literal["closed", "open"] = Field(
        "closed", description="When a check fails: refuse the message (`closed`), or let the text pass (`open`)"
    )
    words: Annotated[list[FilterWord], Field(max_length=5000), at_most(kib=64)] = Field(
        [], description="Of `words`: words and phrases; letter case and compatibility forms do not matter"
    )
    whole_words: bool = Field(True, description="Of `words`: a word within a longer one is not flagged")
    model: ModelFields | None = Field(None, description="Of `model`: a chat model; null for the app's")
    instructions: Annotated[str, Field(max_length=10_000)] = Field(
        "", description='Of `model`: instructions, which must ask for `{"flagged": true}` or false; empty for ours'
    )
    provider: ProviderName | None = Field(
        None, description="Of `http`: the registered provider whose address is called, with its key"
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> FilterFields:
        if (self.kind == "words") != bool(self.words):
            raise ValueError("words are what a filter of kind 'words' needs, and no other has")
        if self.kind != "model" and (self.model or self.instructions):
            raise ValueError("model and instructions are of filters of kind 'model'")
        if (self.kind == "http") != bool(self.provider):
            raise ValueError("provider is what a filter of kind 'http' needs, and no other has")
        if BUILTIN in (self.provider, self.model and self.model.provider):
            raise ValueError("provider cannot be 'builtin': it checks no texts")
        if self.action == "answer" and not self.text.strip():
            raise ValueError("text must hold the preset answer of the action 'answer'")
        return self


class SuggestFields(Part):
    """Questions that a model suggests after an answer."""

    prompt: Annotated[str, Field(max_length=1000)] = Field(
        "", description="Instructions to the model; empty for the built-in ones"
    )
    model: ModelFields | None = Field(None, description="Chat model; null for the app's")


class FeatureFields(Part):
    """Functions of an app around its answers."""

    opening_statement: Annotated[str, Field(max_length=10_000)] = Field(
        "", description="Text that opens a conversation; `{{name}}` stands for a variable. Empty for none"
    )
    suggested_questions: Annotated[list[SuggestedQuestion], Field(max_length=10)] = Field(
        [], description="Questions offered with the opening statement"
    )
    moderation: Annotated[list[FilterFields], Field(max_length=10)] = Field(
        [], description="Filters of questions and answers, in their order"
    )
    suggest_after_answer: SuggestFields | None = Field(
        None, description="Have `message.suggest` suggest questions after an answer; null for none"
    )
    response_schema: ResponseSchema | None = Field(
        None, description="JSON Schema that answers keep to, an object; null for answers in words"
    )


class CreateApp(Command):
    """Create an app; it answers once it is configured."""

    name: Name
    description: Description = ""
    mode: Literal["chat", "completion"] = Field(
        "chat", description="`chat`, or `completion`: each message stands for itself, without history"
    )


class ConfigureApp(Command):
    """Give an app its next numbered configuration."""

    app: AppId
    model: ModelFields = Field(ModelFields(), description="Chat model")
    prompt: Annotated[str, Field(max_length=100_000)] = Field(
        "", description="Instructions to the model; `{{name}}` stands for a variable. Empty for the built-in ones"
    )
    variables: Annotated[list[VariableFields], Field(max_length=64)] = Field(
        [], description="Values that a message gives"
    )
    datasets: Annotated[list[DatasetId], Field(max_length=32)] = Field([], description="Knowledge bases to search")
    retrieval: RetrievalFields = Field(RetrievalFields(), description="Retrieval settings")
    features: FeatureFields = Field(FeatureFields(), description="Functions around the answers")

    @model_validator(mode="after")
    def _model_makes_filters(self) -> ConfigureApp:
        if self.retrieval.metadata_filter.mode == "automatic" and self.model.provider == BUILTIN:
            raise ValueError("The filter of retrieval cannot be automatic with provider 'builtin': it makes no filters")
        return self

    @model_validator(mode="after")
    def _model_checks(self) -> ConfigureApp:
        if self.model.provider != BUILTIN:
            return self
        suggesting = self.features.suggest_after_answer
        if any(filter.kind == "model" and filter.model is None for filter in self.features.moderation):
            raise ValueError("A filter of features needs its own model with provider 'builtin': it checks no texts")
        if suggesting and (suggesting.model is None or suggesting.model.provider == BUILTIN):
            raise ValueError("The suggestions of features need a model of another provider than 'builtin'")
        if self.features.response_schema is not None:
            raise ValueError("The answers of provider 'builtin' keep to no response_schema of features")
        return self


class DeleteApp(Command):
    """Delete an app: it takes no more messages."""

    app: AppId


class SendMessage(Command):
    """Ask an app a question; without a conversation, a new one starts, with the id of this message."""

    app: AppId
    query: Annotated[str, Field(max_length=100_000), AfterValidator(not_blank)] = Field(description="Question")
    inputs: Annotated[dict[VariableName, Annotated[str, Field(max_length=10_000)]], Field(max_length=64)] = Field(
        {}, description="Values of the app's variables, by name"
    )
    user: Name = Field("anonymous", description="End user, as the app's operator names them")
    conversation: ConversationId | None = Field(None, description="Conversation to continue; null starts one")


class StopMessage(Command):
    """Stop an answer; the part that arrived is kept."""

    conversation: ConversationId
    message: MessageId


class RetryMessage(Command):
    """Retry a failed answer."""

    conversation: ConversationId
    message: MessageId = Field(description="Message whose answer failed")


class SuggestQuestions(Command):
    """Have a model suggest questions that the user may ask after an answer."""

    conversation: ConversationId
    message: MessageId = Field(description="Answered message")


class RateMessage(Command):
    """Rate an answer; null withdraws the rating."""

    conversation: ConversationId
    message: MessageId
    rating: Literal["like", "dislike"] | None = Field(description="Rating; null withdraws it")
    content: Annotated[str, Field(max_length=10_000)] = Field("", description="Comment on the rating")


class RenameConversation(Command):
    """Rename a conversation."""

    conversation: ConversationId
    name: Name


class DeleteConversation(Command):
    """Delete a conversation with its messages."""

    conversation: ConversationId


class ForkConversation(Command):
    """Continue after an answered message in a new conversation, which has the messages up to it as its history."""

    conversation: ConversationId
    message: MessageId = Field(description="Answered message that the new conversation continues after")
    name: Name | None = Field(None, description="Name of the new conversation; null for that of the old one")


NAME_LENGTH = 60
"""Maximum characters of a first question that become the conversation's name."""


async def create(command: CreateApp, given: Preparation) -> Make[App]:
    return lambda id, at: App.begin(App.Created, id, at, **command.model_dump())


async def configure(command: ConfigureApp, given: Preparation) -> Change[App]:
    check_reranker(command.retrieval, given)
    settings = cast("AnswerSettings", command.model_dump(exclude={"app"}))
    return lambda app, at: app.configure(at, **settings)


async def send(command: SendMessage, given: Preparation) -> MakeOrChange[Conversation]:
    """Ask the newest configuration of the app; the first question starts the conversation."""
    app = given.the(App, "app")
    inputs, configuration = app.inputs(command.inputs), len(app.configurations)

    def ask(conversation: Conversation | None, id: str, at: datetime) -> Conversation:
        if conversation is None or conversation.deleted:
            if id != given.id:
                raise not_found(Conversation, id, "conversation")
            name = excerpt(command.query, NAME_LENGTH)
            conversation = Conversation.begin(Conversation.Started, id, at, app=app.id, user=command.user, name=name)
        conversation.ask(
            at,
            message=given.id,
            app=app.id,
            configuration=configuration,
            query=command.query,
            inputs=inputs,
            user=command.user,
        )
        return conversation

    return ask


def stop(conversation: Conversation, at: datetime, command: StopMessage) -> None:
    conversation.stop(at, message=command.message)


def retry(conversation: Conversation, at: datetime, command: RetryMessage) -> None:
    conversation.retry(at, message=command.message)


async def suggest(command: SuggestQuestions, given: Preparation) -> Change[Conversation]:
    conversation = await given.get(Conversation, command.conversation)
    if conversation is None or conversation.deleted:
        raise not_found(Conversation, command.conversation, "conversation")
    app = await given.get(App, conversation.app)
    configuration = app.configuration if app and not app.deleted else None
    if configuration is None or configuration["features"]["suggest_after_answer"] is None:
        sentence = "The app suggests no questions: configure features.suggest_after_answer first."
        raise Rejection("not_enabled", sentence, "conversation")
    number = configuration["number"]
    return lambda known, at: known.request_suggestions(at, message=command.message, configuration=number)


def rate(conversation: Conversation, at: datetime, command: RateMessage) -> None:
    conversation.rate(at, message=command.message, rating=command.rating, content=command.content)


def rename(conversation: Conversation, at: datetime, command: RenameConversation) -> None:
    conversation.rename(at, name=command.name)


async def fork(command: ForkConversation, given: Preparation) -> Make[Conversation]:
    source = given.the(Conversation, "conversation")
    return lambda id, at: Conversation.fork(id, at, source=source, message=command.message, name=command.name)
