"""Commands of apps, conversations and messages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, JsonValue, model_validator

from domain.aggregate import Rejection
from domain.builtin import BUILTIN
from domain.chat.app import AgentSettings, AnswerSettings, App, ModelSettings, ToolChoice
from domain.chat.conversation import Conversation
from domain.chat.file import Kind, Method
from domain.excerpt import excerpt
from domain.models.default_model import DefaultModel
from domain.models.model import Model, model_id
from domain.models.needs import warnings
from domain.models.route import ModelRoute
from domain.tools.tool import BUILTIN as BUILTIN_TOOLSET
from domain.tools.tool import Approve
from domain.tools.toolset import Toolset
from handlers.commands.fields import (
    AppId,
    Command,
    ConversationId,
    DatasetId,
    Description,
    Handle,
    MessageId,
    Name,
    Parameters,
    Part,
    ProviderName,
    Ref,
    VariableName,
    at_most,
    not_blank,
    one_builtin,
)
from handlers.commands.message_files import FileFields, asked_files
from handlers.commands.plugin_package import PluginName
from handlers.commands.preparation import Change, Make, MakeOrChange, Preparation, not_found
from handlers.commands.response_schema import schema_fault
from handlers.commands.retrieval import RetrievalFields, check_reranker
from handlers.commands.runs import chatflow_inputs
from handlers.commands.strategy import StrategyFields, must_be_usable

SuggestedQuestion = Annotated[str, Field(max_length=500), AfterValidator(not_blank)]


def _schema(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if fault := schema_fault(value):
        raise ValueError(fault)
    return value


ResponseSchema = Annotated[dict[str, JsonValue], at_most(kib=16), AfterValidator(_schema)]

FilterWord = Annotated[str, Field(max_length=100), AfterValidator(not_blank)]


class ModelFields(Part):
    """A chat model; `builtin` / `extractive` needs no server."""

    route: Annotated[Handle, Ref(ModelRoute)] | None = Field(
        None, description="Route that chooses the model, instead of `provider` and `name`; null for none"
    )
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
        if self.route and self.model_fields_set & {"provider", "name"}:
            raise ValueError("provider and name are for an app without a route, which chooses them")
        one_builtin(self.provider, self.name)
        return self

    @property
    def is_builtin(self) -> bool:
        return self.provider == BUILTIN and not self.route

    def settings(self) -> ModelSettings:
        """As it is recorded."""
        fields = self.model_dump()
        if fields.pop("route") is None:
            return cast("ModelSettings", fields)
        return cast("ModelSettings", {**fields, "provider": "", "name": "", "route": self.route})


class VariableFields(Part):
    """A value that a message gives; `{{name}}` in the prompt stands for it."""

    name: VariableName = Field(description="Name, as in the prompt")
    required: bool = Field(False, description="Reject a message without a value")
    default: Annotated[str, Field(max_length=10_000)] | None = Field(
        None, description="Value of a message that gives none"
    )


class FilterFields(Part):
    """A filter that questions and answers must pass."""

    kind: Literal["words", "model", "http", "plugin"] = Field(
        description="`words`: a list of words; `model`: a chat model; `http`: a server with Dify's API for moderation; "
        "`plugin`: a plugin with the hook `check`"
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

    plugin: PluginName | None = Field(None, description="Of `plugin`: the plugin, which must be enabled when it checks")

    @model_validator(mode="after")
    def _of_its_kind(self) -> FilterFields:
        if (self.kind == "words") != bool(self.words):
            raise ValueError("words are what a filter of kind 'words' needs, and no other has")
        if self.kind != "model" and (self.model or self.instructions):
            raise ValueError("model and instructions are of filters of kind 'model'")
        if (self.kind == "http") != bool(self.provider):
            raise ValueError("provider is what a filter of kind 'http' needs, and no other has")
        if (self.kind == "plugin") != bool(self.plugin):
            raise ValueError("plugin is what a filter of kind 'plugin' needs, and no other has")
        if self.provider == BUILTIN or (self.model and self.model.is_builtin):
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


class FileSettingFields(Part):
    """Files that the questions of an app may have."""

    types: Annotated[list[Kind], Field(min_length=1, max_length=3)] = Field(
        ["image"], description="Types: `image`, `document`, `audio`"
    )
    most: Annotated[int, Field(ge=1, le=100)] = Field(3, description="Maximum number of files of a question")
    methods: Annotated[list[Method], Field(min_length=1, max_length=2)] = Field(
        ["local_file", "remote_url"],
        description="`local_file` for files that the sender stores, `remote_url` for files to be fetched",
    )
    detail: Literal["low", "high"] = Field("high", description="Detail in which a model sees images")


class TextToSpeechFields(Part):
    """Speech of an app's answers."""

    enabled: bool = Field(False, description="Allow `audio.speak`")
    voice: Annotated[str, Field(max_length=255)] = Field(
        "", description="Voice, as the model names it; empty for the model's own choice"
    )
    language: Annotated[str, Field(max_length=35)] = Field(
        "", description="Language of the voice, as a client shows it; empty for none"
    )
    autoplay: bool = Field(False, description="Clients play speech while it arrives")


class ToolFields(Part):
    """Tools that an agent may call."""

    toolset: Annotated[Handle, Field(description="`builtin`, or the name of a registered toolset")]
    tools: Annotated[list[Annotated[str, Field(min_length=1, max_length=255)]], Field(max_length=128)] | None = Field(
        None, description="Tools of it, by name; null for all, but for `code` of `builtin`"
    )
    approve: Approve | None = Field(None, description="Calls that wait for a person; null: as the agent's `approve`")


class AgentFields(Part):
    """The way an agent works."""

    strategy: Literal["auto", "tools", "schema", "react", "plugin"] = Field(
        "auto",
        description="`tools`: the model's own calls of tools; `schema`: an answer by a JSON Schema; `react`: one "
        "action a round in words; `auto`: the first of them that the model is known to be able to; `plugin`: a "
        "plugin's",
    )
    plugin: StrategyFields | None = Field(None, description="Of `plugin`: the strategy")
    tools: Annotated[list[ToolFields], Field(max_length=32)] = Field(
        [], description="Tools; the app's knowledge bases are one of them in any case"
    )
    approve: Approve = Field(
        "destructive",
        description="Calls that wait for `tool_call.release`: `always` all, `destructive` those that may change "
        "something, or `never`",
    )
    rounds: Annotated[int, Field(ge=1, le=99)] = Field(
        10, description="Maximum number of rounds; in the last one, no tool is called"
    )
    seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        300.0, description="Time limit of an attempt at an answer, in seconds"
    )
    tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Tokens of all rounds after which the model must answer; null for no limit"
    )
    cost: Annotated[float, Field(gt=0)] | None = Field(
        None, description="US dollars of all rounds after which the model must answer; null for no limit"
    )
    unknown: Literal["tell", "fail"] = Field(
        "tell",
        description="When it is unknown whether a call did something: `tell` the model, or `fail` the message",
    )
    hold_s: Annotated[float, Field(ge=1, le=30 * 86400)] = Field(
        86400.0, description="Time after which a call that waits for a person is refused, in seconds"
    )

    @model_validator(mode="after")
    def _of_its_strategy(self) -> AgentFields:
        if (self.plugin is not None) != (self.strategy == "plugin"):
            raise ValueError("plugin is what strategy 'plugin' needs, and no other has")
        return self


class FeatureFields(Part):
    """Functions of an app around its answers."""

    opening_statement: Annotated[str, Field(max_length=10_000)] = Field(
        "", description="Text that opens a conversation; `{{name}}` stands for a variable. Empty for none"
    )
    suggested_questions: Annotated[list[SuggestedQuestion], Field(max_length=10)] = Field(
        [], description="Questions offered with the opening statement"
    )
    more_like_this: bool = Field(False, description="Repeat messages of a completion app for another answer")
    name_conversations: bool = Field(
        False, description="Have the model name a conversation after its first answer; not with provider `builtin`"
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
    files: FileSettingFields | None = Field(None, description="Files of questions; null for none")
    speech_to_text: bool = Field(False, description="Allow `audio.transcribe`")
    text_to_speech: TextToSpeechFields = Field(TextToSpeechFields(), description="Speech of answers")
    agent: AgentFields | None = Field(
        None, description="Of an app of mode `agent-chat`: its tools, and the way it works; null: the defaults"
    )

    def settings(self) -> dict[str, Any]:
        """As they are recorded."""
        filters, suggesting = self.moderation, self.suggest_after_answer
        return {
            **self.model_dump(),
            "moderation": [{**each.model_dump(), "model": each.model and each.model.settings()} for each in filters],
            "suggest_after_answer": suggesting
            and {**suggesting.model_dump(), "model": suggesting.model and suggesting.model.settings()},
        }


class CreateApp(Command):
    """Create an app; it answers once it is configured."""

    name: Name
    description: Description = ""
    mode: Literal["chat", "completion", "agent-chat", "workflow", "advanced-chat"] = Field(
        "chat",
        description="`chat`; `completion`: each message stands for itself, without history; `agent-chat`: an agent, "
        "which calls tools; `workflow` and `advanced-chat`: a graph, see `workflow.save`",
    )


class ConfigureApp(Command):
    """Give an app its next numbered configuration.

    Where its model is known to lack what the configuration needs, `app.warned` says so; it holds all the same.
    """

    app: AppId
    model: ModelFields = Field(ModelFields(), description="Chat model; where it is left out, the tenant's default one")
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
        if self.retrieval.metadata_filter.mode == "automatic" and self.model.is_builtin:
            raise ValueError("The filter of retrieval cannot be automatic with provider 'builtin': it makes no filters")
        if self.features.name_conversations and self.model.is_builtin:
            raise ValueError("The features cannot name conversations with provider 'builtin': it makes no names")
        return self

    @model_validator(mode="after")
    def _model_checks(self) -> ConfigureApp:
        if not self.model.is_builtin:
            return self
        suggesting = self.features.suggest_after_answer
        if any(filter.kind == "model" and filter.model is None for filter in self.features.moderation):
            raise ValueError("A filter of features needs its own model with provider 'builtin': it checks no texts")
        if suggesting and (suggesting.model is None or suggesting.model.is_builtin):
            raise ValueError("The suggestions of features need a model of another provider than 'builtin'")
        if self.features.response_schema is not None:
            raise ValueError("The answers of provider 'builtin' keep to no response_schema of features")
        return self


class DeleteApp(Command):
    """Delete an app: it takes no more messages."""

    app: AppId


class SendMessage(Command):
    """Ask an app a question; without a conversation, a new one starts, with the id of this message.

    A message of a completion app is always a conversation of its own.
    """

    app: AppId
    query: Annotated[str, Field(max_length=100_000)] = Field(
        "", description="Question; may be blank for a completion app where inputs have values"
    )
    inputs: Annotated[dict[VariableName, Annotated[str, Field(max_length=10_000)]], Field(max_length=64)] = Field(
        {}, description="Values of the app's variables, by name"
    )
    user: Name = Field("anonymous", description="End user, as the app's operator names them")
    conversation: ConversationId | None = Field(None, description="Conversation to continue; null starts one")
    parent_message: MessageId | None = Field(
        None, description="Message of the conversation to continue after; null for the newest"
    )
    files: Annotated[list[FileFields], Field(max_length=100)] | None = Field(
        None, description="Files of the question; null for none"
    )

    @model_validator(mode="after")
    def _asks_something(self) -> SendMessage:
        if not self.query.strip() and not any(value.strip() for value in self.inputs.values()):
            raise ValueError("The query must not be blank, unless values of variables are given")
        if self.parent_message and not self.conversation:
            raise ValueError("A parent_message needs its conversation")
        return self


class StopMessage(Command):
    """Stop an answer; the part that arrived is kept."""

    conversation: ConversationId
    message: MessageId


class RetryMessage(Command):
    """Retry a failed answer."""

    conversation: ConversationId
    message: MessageId = Field(description="Message whose answer failed")


class RegenerateMessage(Command):
    """Ask the question of a message of a chat app again; both continue after the same message."""

    conversation: ConversationId
    message: MessageId = Field(description="Message whose question is asked again")


class MoreLikeThis(Command):
    """Ask the question of a message of a completion app again, for another answer."""

    conversation: ConversationId
    message: MessageId = Field(description="Message whose question is asked again")


class SaveMessage(Command):
    """Save an answer, for its user to find it again."""

    conversation: ConversationId
    message: MessageId


class UnsaveMessage(Command):
    """Remove an answer from those that its user has saved."""

    conversation: ConversationId
    message: MessageId


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


class RequestName(Command):
    """Have the model of its app rename a conversation, by its newest answer."""

    conversation: ConversationId


class PinConversation(Command):
    """Pin a conversation, for its user to find it first."""

    conversation: ConversationId


class UnpinConversation(Command):
    """Unpin a conversation."""

    conversation: ConversationId


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
    app = await given.get(App, command.app)
    if app is None or app.deleted:
        raise not_found(App, command.app, "app")
    if app.has_graph:
        raise Rejection("wrong_mode", f"App {app.id} is of mode {app.mode}; send workflow.save.", "app")
    settings = cast(
        "AnswerSettings",
        {
            **command.model_dump(exclude={"app", "model"}),
            "model": command.model.settings(),
            "features": command.features.settings(),
        },
    )
    default = None if "model" in command.model_fields_set else await given.get(DefaultModel, "chat")
    if default and not default.deleted:
        settings["model"] |= {"provider": default.provider, "name": default.model}
    settings["features"]["agent"] = await _agent(app, command, settings, given)
    model = settings["model"]
    known = None
    if model["provider"] != BUILTIN:
        known = await given.get(Model, model_id(model["provider"], model["name"]))
    found = list(warnings(settings, known)) if known else []
    return lambda app, at: app.configure(at, found, **settings)


async def _agent(app: App, command: ConfigureApp, settings: AnswerSettings, given: Preparation) -> AgentSettings | None:
    """The settings of an agent, with the lists of tools as they are now; None for an app of another mode.

    Raises: Rejection `wrong_mode`, `invalid`, `not_found`.
    """
    fields = command.features.agent
    if not app.is_agent:
        if fields:
            sentence = f"App {app.id} is of mode {app.mode}; only one of mode agent-chat has an agent."
            raise Rejection("wrong_mode", sentence, "features.agent")
        return None
    if settings["model"]["provider"] == BUILTIN:
        raise Rejection("invalid", "An agent needs another model: provider 'builtin' calls no tools.", "model")
    if command.features.response_schema:
        raise Rejection("invalid", "An agent answers in words: leave the schema out.", "features.response_schema")
    fields = fields or AgentFields()
    choices: list[ToolChoice] = []
    for number, choice in enumerate(fields.tools):
        digest = None
        if choice.toolset != BUILTIN_TOOLSET:
            toolset = await given.get(Toolset, choice.toolset)
            if toolset is None or toolset.deleted:
                raise not_found(Toolset, choice.toolset, f"features.agent.tools.{number}.toolset")
            digest = toolset.digest
        choices.append(ToolChoice(toolset=choice.toolset, tools=choice.tools, approve=choice.approve, digest=digest))
    if fields.plugin:
        await must_be_usable(fields.plugin, given)
    return cast("AgentSettings", {**fields.model_dump(), "tools": choices})


async def send(command: SendMessage, given: Preparation) -> MakeOrChange[Conversation]:
    """Ask the newest configuration of the app; the first question starts the conversation."""
    app = given.the(App, "app")
    if app.mode == "workflow":
        raise Rejection("wrong_mode", f"App {app.id} is of mode workflow; send run.start to it.", "app")
    if app.is_completion and command.conversation:
        raise _wrong_mode(app)
    if not app.is_completion and not command.query.strip():
        raise Rejection("invalid", "Must not be blank.", "query")
    if app.has_graph:
        inputs, configuration = await chatflow_inputs(command.inputs, given, app), 0
    else:
        inputs, configuration = app.inputs(command.inputs), len(app.configurations)
    files = await asked_files(command.files or (), given, app)

    def ask(conversation: Conversation | None, id: str, at: datetime) -> Conversation:
        if conversation is None or conversation.deleted:
            if id != given.id:
                raise not_found(Conversation, id, "conversation")
            name = excerpt(command.query.strip() or " ".join(command.inputs.values()), NAME_LENGTH)
            conversation = Conversation.begin(Conversation.Started, id, at, app=app.id, user=command.user, name=name)
        conversation.ask(
            at,
            after=command.parent_message,
            message=given.id,
            app=app.id,
            configuration=configuration,
            query=command.query if command.query.strip() else "",
            inputs=inputs,
            user=command.user,
            files=files,
        )
        return conversation

    return ask


def stop(conversation: Conversation, at: datetime, command: StopMessage) -> None:
    conversation.stop(at, message=command.message)


def retry(conversation: Conversation, at: datetime, command: RetryMessage) -> None:
    conversation.retry(at, message=command.message)


async def regenerate(command: RegenerateMessage, given: Preparation) -> Change[Conversation]:
    app = await _app_of(await given.get(Conversation, command.conversation), given)
    if app.is_completion:
        raise _wrong_mode(app)
    return lambda conversation, at: conversation.regenerate(at, message=given.id, repeats=command.message, app=app)


async def more_like_this(command: MoreLikeThis, given: Preparation) -> Make[Conversation]:
    source = given.the(Conversation, "conversation")
    app = await _app_of(source, given)
    if not app.is_completion:
        raise _wrong_mode(app)
    if not app.configuration or not app.configuration["features"]["more_like_this"]:
        raise Rejection("feature_off", "The feature more_like_this of the app is off: turn it on by app.configure.")
    return lambda id, at: Conversation.more_like(id, at, source=source, message=command.message, app=app)


def save(conversation: Conversation, at: datetime, command: SaveMessage) -> None:
    conversation.save(at, message=command.message)


def unsave(conversation: Conversation, at: datetime, command: UnsaveMessage) -> None:
    conversation.unsave(at, message=command.message)


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


async def request_name(command: RequestName, given: Preparation) -> Change[Conversation]:
    app = await _app_of(await given.get(Conversation, command.conversation), given)
    if not app.configuration or app.configuration["model"]["provider"] == BUILTIN:
        raise Rejection("invalid", f"App {app.id} answers with the built-in model, which makes no names.")
    return lambda conversation, at: conversation.request_name(at)


async def fork(command: ForkConversation, given: Preparation) -> Make[Conversation]:
    source = given.the(Conversation, "conversation")
    app = await given.get(App, source.app)
    if app and app.is_completion:
        raise _wrong_mode(app)
    return lambda id, at: Conversation.fork(id, at, source=source, message=command.message, name=command.name)


async def _app_of(conversation: Conversation | None, given: Preparation) -> App:
    """The app of a conversation. Raises: Rejection `not_found` when one of them is not there."""
    app = await given.get(App, conversation.app) if conversation and not conversation.deleted else None
    if app is None or app.deleted:
        raise Rejection("not_found", "There is no such conversation, or its app was deleted.", "conversation")
    return app


def _wrong_mode(app: App) -> Rejection:
    if app.is_completion:
        rule = "is for completion: each of its messages stands for itself, and nothing continues it"
    else:
        rule = "is for chat: send message.regenerate"
    return Rejection("wrong_mode", f"App {app.id} {rule}.", "conversation")
