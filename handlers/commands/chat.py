"""Commands of apps, conversations and messages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from domain.aggregate import Aggregate
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.models.provider import BUILTIN, Provider
from handlers.commands.fields import (
    AppId,
    Command,
    ConversationId,
    DatasetId,
    Description,
    Fields,
    Id,
    Name,
    Part,
    Preparation,
    ProviderName,
    Ref,
    VariableName,
    at_most_16_kib,
    not_blank,
    not_found,
    one_builtin,
)
from handlers.commands.retrieval import RetrievalFields, check_reranker


class ModelFields(Part):
    """A chat model; `builtin` / `extractive` needs no server."""

    provider: Annotated[ProviderName, Ref(Provider)] = BUILTIN
    name: Annotated[str, Field(min_length=1, max_length=255)] = "extractive"
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = Field(512, description="Tokens reserved for the answer")
    context_window: Annotated[int, Field(ge=256, le=10_000_000)] = Field(
        8192, description="Tokens that prompt and answer may have together"
    )
    parameters: dict[str, JsonValue] = Field({}, description="Passed on to the model: temperature, top_p, stop, …")

    @model_validator(mode="after")
    def _answer_fits(self) -> ModelFields:
        if self.max_tokens >= self.context_window:
            raise ValueError("max_tokens must be less than context_window, which also holds the prompt")
        one_builtin(self.provider, self.name)
        at_most_16_kib(self.parameters)
        return self


class VariableFields(Part):
    """A value that the asker fills in, `{{name}}` in the prompt."""

    name: VariableName
    required: bool = False
    default: Annotated[str, Field(max_length=10_000)] | None = None


class CreateApp(Command):
    """Create an app; it answers once it is configured."""

    name: Name
    description: Description = ""


class ConfigureApp(Command):
    """Give an app its next numbered configuration."""

    app: AppId
    model: ModelFields = ModelFields()
    prompt: Annotated[str, Field(max_length=100_000)] = ""
    variables: Annotated[list[VariableFields], Field(max_length=64)] = []
    datasets: Annotated[list[DatasetId], Field(max_length=32)] = []
    retrieval: RetrievalFields = RetrievalFields()

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


class SendMessage(Command):
    """Ask an app; without a conversation one is started, with the id of this message."""

    app: AppId
    query: Annotated[str, Field(max_length=100_000), AfterValidator(not_blank)]
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


NAME_LENGTH = 60
"""Characters of a first question that become the conversation's name."""


async def searchable(command: ConfigureApp, preparation: Preparation) -> Fields:
    """Make sure of the reranker."""
    check_reranker(command.retrieval, preparation)
    return command.model_dump()


async def fill_in(command: SendMessage, preparation: Preparation) -> Fields:
    """The values of the app's variables, and the configuration that will answer."""
    app = preparation.named["app"]
    assert isinstance(app, App)
    inputs = app.inputs(command.inputs)
    return {
        "message": preparation.id,
        "app": app.id,
        "configuration": len(app.configurations),
        "query": command.query,
        "inputs": inputs,
        "user": command.user,
    }


async def go_back(command: ForkConversation, preparation: Preparation) -> Fields:
    return {"source": preparation.named["conversation"], "message": command.message, "name": command.name}


def converse(conversation: Aggregate | None, id: str, at: datetime, fields: Fields) -> Aggregate:
    if conversation is None or conversation.deleted:
        if id != fields["message"]:
            raise not_found(Conversation, id, "conversation")
        name = " ".join(fields["query"].split())[:NAME_LENGTH].rstrip()
        conversation = Conversation.start(id, at, app=fields["app"], user=fields["user"], name=name)
    assert isinstance(conversation, Conversation)
    conversation.ask(at, **fields)
    return conversation
