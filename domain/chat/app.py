"""An app: answers questions with a model, a prompt and the knowledge bases that it may cite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Annotated, Any, NotRequired, TypedDict, Unpack, cast

from domain import aggregate
from domain.aggregate import Aggregate, Rejection
from domain.chat.site import Icon, Site
from domain.embedding import ChosenOrDefault, of_workers


class ModelSettings(TypedDict):
    """A chat model: `builtin/extractive`, a model of a registered provider, or those of a route."""

    provider: Annotated[str, "`builtin`, or the name of a registered provider; empty with a route."]
    name: Annotated[str, "Name of the model at its provider; empty with a route."]
    route: NotRequired[Annotated[str, "Route that chooses provider and model; missing for none."]]
    max_tokens: Annotated[int, "Tokens reserved for the answer."]
    context_window: Annotated[int, "Maximum tokens of prompt and answer together."]
    parameters: Annotated[dict[str, Any], "Parameters passed to the model."]


class Variable(TypedDict):
    """A value that a message gives; `{{name}}` in the prompt stands for it."""

    name: Annotated[str, "Name, as in the prompt."]
    required: Annotated[bool, "True if a message without a value is rejected."]
    default: Annotated[str | None, "Value of a message that gives none."]


class RerankSettings(TypedDict):
    provider: Annotated[str, "`builtin`, or the name of a registered provider."]
    model: Annotated[str | None, "Model of the provider; null for the one of `builtin`."]
    top_n: Annotated[int, "Number of best hits to rerank."]


class Condition(TypedDict):
    """A condition for the metadata of a document.

    `=`, `≠`, `>`, `<`, `≥`, `≤` compare numbers, `before` and `after` times, and the others texts; `empty` and
    `not empty` have no value, `in` and `not in` a list.
    """

    name: Annotated[str, "Name of the metadata field."]
    comparison_operator: Annotated[str, "Comparison of the field's value."]
    value: Annotated[str | float | list[str] | None, "Value to compare with; null for `empty` and `not empty`."]


class MetadataFilter(TypedDict):
    """Restriction of a search to documents with certain metadata."""

    mode: Annotated[str, "`disabled`, `manual`, or `automatic`: a model derives the conditions from the question."]
    logical_operator: Annotated[str, "Documents must meet all conditions (`and`), or one (`or`)."]
    conditions: Annotated[list[Condition], "Conditions for the metadata of a document."]


class RetrievalSettings(TypedDict):
    mode: Annotated[str, "Search by meaning (`semantic`), by words (`full_text`), or by both (`hybrid`)."]
    weight: Annotated[float | None, "Share of meaning in a hybrid score; null for reciprocal rank fusion."]
    top_k: Annotated[int, "Maximum number of segments given to the model."]
    score_threshold: Annotated[float | None, "Minimum score of a hit; null for none. Scores of modes do not compare."]
    metadata_filter: Annotated[MetadataFilter, "Restriction to documents with certain metadata."]
    neighbours: Annotated[int, "Segments before and after each hit that are given to the model with it."]
    rerank: Annotated[RerankSettings | None, "Reranker of the hits; null for none."]


def settings(given: Mapping[str, Any]) -> RetrievalSettings:
    """The settings, with neutral values for those that were added later."""
    every = MetadataFilter(mode="disabled", logical_operator="and", conditions=[])
    return cast(
        "RetrievalSettings", {"weight": None, "metadata_filter": every, "neighbours": 0, "rerank": None, **given}
    )


class FilterSettings(TypedDict):
    """A filter that questions and answers must pass."""

    kind: Annotated[str, "`words`: a list of words; `model`: a chat model; `http`: a server; `plugin`."]
    where: Annotated[str, "`input`: question and inputs; `output`: sentences of the answer; `both`."]
    action: Annotated[str, "On flagged text: `answer` with a preset text, `replace` it, or `refuse` the whole message."]
    text: Annotated[str, "Preset answer, or text in place of what is replaced; empty for stars."]
    deadline_s: Annotated[float, "Time limit of a check, in seconds."]
    fail: Annotated[str, "When a check fails: `closed` refuses the message, `open` lets the text pass."]
    words: Annotated[list[str], "Words and phrases of `words`; case and compatibility forms do not matter."]
    whole_words: Annotated[bool, "True if a word within a longer word is not flagged."]
    model: Annotated[ModelSettings | None, "Chat model of `model`; null for the app's."]
    instructions: Annotated[str, "Instructions to that model; empty for the built-in ones."]
    provider: Annotated[str | None, "Registered provider with the address and key of `http`; null for other kinds."]
    plugin: NotRequired[Annotated[str | None, "Plugin of `plugin`; missing or null for other kinds."]]


class SuggestSettings(TypedDict):
    """Questions that a model suggests after an answer."""

    prompt: Annotated[str, "Instructions to the model; empty for the built-in ones."]
    model: Annotated[ModelSettings | None, "Chat model; null for the app's."]


class FileSettings(TypedDict):
    """Files that the questions of an app may have."""

    types: Annotated[list[str], "Types: `image`, `document`, `audio`."]
    most: Annotated[int, "Maximum number of files of a question."]
    methods: Annotated[
        list[str], "`local_file` for files that the sender stores, `remote_url` for files to be fetched."
    ]
    detail: Annotated[str, "Detail in which a model sees images: `low` or `high`."]


class TextToSpeech(TypedDict):
    """Speech of an app's answers."""

    enabled: Annotated[bool, "True if texts can be spoken."]
    voice: Annotated[str, "Voice, as the model names it; empty for the model's own choice."]
    language: Annotated[str, "Language of the voice, as a client shows it; empty for none."]
    autoplay: Annotated[bool, "True if clients play speech while it arrives."]


class ToolChoice(TypedDict):
    """Tools that an agent may call."""

    toolset: Annotated[str, "Toolset: `builtin`, or the name of a registered one."]
    tools: Annotated[list[str] | None, "Tools of it, by name; null for all."]
    approve: Annotated[str | None, "Calls that wait for a person, as in `agent.approve`; null for those."]
    digest: Annotated[str | None, "List of tools as it was when the app was configured; null for the built-in ones."]


class PluginStrategy(TypedDict):
    """A strategy of agents in a plugin of Dify."""

    name: Annotated[str, "Plugin."]
    provider: Annotated[str, "Provider of strategies in its package; empty for the only one."]
    strategy: Annotated[str, "Strategy of that provider; empty for the only one."]
    parameters: Annotated[dict[str, Any], "Parameters of the strategy, by name; the others come from the turn."]


class AgentSettings(TypedDict):
    """The way an agent works. Its knowledge bases are a tool, too."""

    strategy: Annotated[
        str,
        "`tools`: the model's own calls of tools; `schema`: an answer by a JSON Schema; `react`: one action a round in "
        "words; `auto`: the first of them that the model is known to be able to; `plugin`: a plugin's.",
    ]
    plugin: NotRequired[
        Annotated[PluginStrategy | None, "Strategy of `plugin`; missing or null for the other strategies."]
    ]
    tools: Annotated[list[ToolChoice], "Tools."]
    approve: Annotated[
        str, "Calls that wait for a person: `always` all, `destructive` those that may change something, or `never`."
    ]
    rounds: Annotated[int, "Maximum number of rounds; in the last one, no tool is called."]
    seconds: Annotated[float, "Time limit of an attempt at an answer, in seconds."]
    tokens: Annotated[int | None, "Tokens of all rounds after which the model must answer; null for no limit."]
    cost: Annotated[float | None, "US dollars of all rounds after which the model must answer; null for no limit."]
    unknown: Annotated[
        str, "When it is unknown whether a call did something: `tell` the model, or `fail` the message (`tool_lost`)."
    ]
    hold_s: Annotated[float, "Time after which a call that waits for a person is refused, in seconds."]


class Features(TypedDict):
    """Functions of an app around its answers."""

    opening_statement: Annotated[
        str, "Text that opens a conversation, not from a model; `{{name}}` stands for a variable. Empty for none."
    ]
    suggested_questions: Annotated[list[str], "Questions offered with the opening statement."]
    more_like_this: Annotated[bool, "True if a message of a completion app can be repeated for another answer."]
    name_conversations: Annotated[bool, "True if the model names a conversation after its first answer."]
    moderation: Annotated[list[FilterSettings], "Filters of questions and answers, in their order."]
    suggest_after_answer: Annotated[SuggestSettings | None, "Suggests questions after an answer; null for none."]
    response_schema: Annotated[dict[str, Any] | None, "JSON Schema that answers keep to; null for answers in words."]
    files: Annotated[FileSettings | None, "Files of questions; null for none."]
    speech_to_text: Annotated[bool, "True if recordings can be transcribed."]
    text_to_speech: Annotated[TextToSpeech, "Speech of answers."]
    agent: Annotated[AgentSettings | None, "Tools of an agent, and the way it works; null for other apps."]


def features(given: Mapping[str, Any]) -> Features:
    """The features, with neutral values for those that were added later."""
    neutral: dict[str, Any] = {
        "opening_statement": "",
        "suggested_questions": [],
        "more_like_this": False,
        "name_conversations": False,
        "moderation": [],
        "suggest_after_answer": None,
        "response_schema": None,
        "files": None,
        "speech_to_text": False,
        "text_to_speech": TextToSpeech(enabled=False, voice="", language="", autoplay=False),
        "agent": None,
    }
    return cast("Features", {**neutral, **given})


class AnnotationReply(TypedDict):
    """Answers from annotations: questions that are close enough to a stored one get its answer."""

    enabled: Annotated[bool, "True if stored answers are given."]
    score_threshold: Annotated[float, "Minimum cosine of two questions, up to 1."]
    embedding: ChosenOrDefault


class KeptFile(TypedDict):
    """The file that an app was imported from."""

    file: Annotated[str, "Blob with the file, without secrets."]
    configuration: Annotated[int, "Number of the configuration that was made of it; 0 for none."]


class AnswerSettings(TypedDict):
    """The way an app answers."""

    model: ModelSettings
    prompt: str
    variables: list[Variable]
    datasets: list[str]
    retrieval: RetrievalSettings
    features: Features


class Configuration(AnswerSettings):
    """A numbered version of the way an app answers."""

    number: int


class AppWarning(TypedDict):
    """A need of a configuration that its model is known not to meet."""

    code: Annotated[str, "`ability_absent`, `window_smaller` or `not_a_chat`."]
    field: Annotated[str, "Field of `app.configure` with the need."]
    message: Annotated[str, "Sentence for people."]


class App(Aggregate):
    """An app and all of its configurations, by number."""

    TOPIC = "app"
    class_version = 3
    name: str
    description: str
    mode: str
    icon: Icon | None = field(default=None, init=False)
    site: Site | None = field(default=None, init=False)
    configurations: dict[str, Configuration] = field(default_factory=dict, init=False)
    annotation_reply: AnnotationReply | None = field(default=None, init=False)
    annotation_model: str | None = field(default=None, init=False)
    """The embedding model that all annotations are embedded with, and that questions are compared by."""
    file: KeptFile | None = field(default=None, init=False)
    triggers_enabled: bool = field(default=True, init=False)

    class Event(aggregate.Event):
        pass

    class Created(Event, aggregate.Created):
        """An app was created, not yet configured."""

        TOPIC = "app.created.v2"
        class_version = 2
        name: Annotated[str, "Name, for people."]
        description: Annotated[str, "Description, for people."]
        mode: Annotated[
            str,
            "`chat`; `completion`: each message stands for itself, without history; `agent-chat`: an agent; or, with a "
            "graph, `workflow` and `advanced-chat`.",
        ] = "chat"

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["mode"] = "chat"

    class Configured(Event):
        """The app answers by this configuration from now on; earlier ones keep their numbers."""

        TOPIC = "app.configured.v3"
        class_version = 3
        number: Annotated[int, "Number of the configuration, from 1."]
        model: Annotated[ModelSettings, "Chat model."]
        prompt: Annotated[
            str, "Instructions to the model; `{{name}}` stands for a variable. Empty for the built-in ones."
        ]
        variables: Annotated[list[Variable], "Values that a message gives."]
        datasets: Annotated[list[str], "Knowledge bases to search."]
        retrieval: Annotated[RetrievalSettings, "Retrieval settings."]
        features: Annotated[Features, "Functions around the answers."]

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["retrieval"] = settings(state["retrieval"])

        @staticmethod
        def upcast_v2_v3(state: dict[str, Any]) -> None:
            state["features"] = features({})

        def apply(self, app: App) -> None:
            app.configurations[str(self.number)] = Configuration(
                number=self.number,
                model=self.model,
                prompt=self.prompt,
                variables=self.variables,
                datasets=self.datasets,
                retrieval=self.retrieval,
                features=features(self.features),
            )

    class Warned(Event):
        """The model of a configuration is known to lack what it needs. The configuration holds all the same."""

        TOPIC = "app.warned.v1"
        number: Annotated[int, "Number of the configuration."]
        warnings: Annotated[list[AppWarning], "Needs that are not met."]

    class Renamed(Event):
        """The app has another name, or another description."""

        TOPIC = "app.renamed.v1"
        name: Annotated[str, "Name, for people."]
        description: Annotated[str, "Description, for people."]

        def apply(self, app: App) -> None:
            app.name, app.description = self.name, self.description

    class IconSet(Event):
        """The app has another icon."""

        TOPIC = "app.icon_set.v1"
        icon: Annotated[Icon | None, "Icon; null for none."]

        def apply(self, app: App) -> None:
            app.icon = self.icon

    class SiteSet(Event):
        """The app's site is this from now on."""

        TOPIC = "app.site_set.v1"
        site: Annotated[Site, "Site."]

        def apply(self, app: App) -> None:
            app.site = self.site

    class AnnotationReplySet(Event):
        """The app gives stored answers from now on, or no more."""

        TOPIC = "app.annotation_reply_set.v2"
        class_version = 2
        enabled: Annotated[bool, "True if stored answers are given."]
        score_threshold: Annotated[float, "Minimum cosine of two questions, up to 1."]
        embedding: ChosenOrDefault

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            _with_embedding(state)

        def apply(self, app: App) -> None:
            app.annotation_reply = AnnotationReply(
                enabled=self.enabled, score_threshold=self.score_threshold, embedding=self.embedding
            )

    class AnnotationsEmbedded(Event):
        """All annotations of the app are embedded with a model, by which questions are compared from now on."""

        TOPIC = "app.annotations_embedded.v1"
        embedding_model: Annotated[str, "Embedding model; of a provider: `<tenant>/<provider>/<model>`."]

        def apply(self, app: App) -> None:
            app.annotation_model = self.embedding_model

    class FileKept(Event):
        """The file that the app was imported from was kept, for its export."""

        TOPIC = "app.file_kept.v1"
        file: Annotated[str, "Blob with the file, without secrets."]
        configuration: Annotated[int, "Number of the configuration that was made of it; 0 for none."]

        def apply(self, app: App) -> None:
            app.file = KeptFile(file=self.file, configuration=self.configuration)

    class TriggersSet(Event):
        """The triggers of the app's workflow begin runs from now on, or no more."""

        TOPIC = "app.triggers_set.v1"
        enabled: Annotated[bool, "True if they begin runs."]

        def apply(self, app: App) -> None:
            app.triggers_enabled = self.enabled

    class Deleted(Event):
        """The app was deleted: it takes no more messages."""

        TOPIC = "app.deleted.v1"

        def apply(self, app: App) -> None:
            app.deleted = True

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        """Convert a snapshot, whose configurations may have either version."""
        for configuration in state["configurations"].values():
            configuration["retrieval"] = settings(configuration["retrieval"])

    @staticmethod
    def upcast_v2_v3(state: dict[str, Any]) -> None:
        """Convert a snapshot, whose annotations have an embedding model of the workers."""
        if reply := state.get("annotation_reply"):
            _with_embedding(reply)

    @property
    def configuration(self) -> Configuration | None:
        """The newest configuration, or None before the first."""
        return self.configurations.get(str(len(self.configurations)))

    @property
    def is_agent(self) -> bool:
        """True if it calls tools."""
        return self.mode == "agent-chat"

    @property
    def has_graph(self) -> bool:
        """True if its answers are runs of a workflow."""
        return self.mode in ("workflow", "advanced-chat")

    @property
    def is_completion(self) -> bool:
        """True if each message stands for itself."""
        return self.mode == "completion"

    def configure(self, at: datetime, warnings: Sequence[AppWarning] = (), **answer: Unpack[AnswerSettings]) -> None:
        number = len(self.configurations) + 1
        if self.configuration != {"number": number - 1, **answer}:
            self.record(self.Configured, at, number=number, **answer)
            if warnings:
                self.record(self.Warned, at, number=number, warnings=list(warnings))

    def rename(self, at: datetime, *, name: str, description: str) -> None:
        if (name, description) != (self.name, self.description):
            self.record(self.Renamed, at, name=name, description=description)

    def set_icon(self, at: datetime, *, icon: Icon | None) -> None:
        if icon != self.icon:
            self.record(self.IconSet, at, icon=icon)

    def set_site(self, at: datetime, *, site: Site) -> None:
        if site != self.site:
            self.record(self.SiteSet, at, site=site)

    def set_annotation_reply(self, at: datetime, **reply: Unpack[AnnotationReply]) -> None:
        if self.annotation_reply != reply:
            self.record(self.AnnotationReplySet, at, **reply)

    def annotations_embedded(self, at: datetime, *, embedding_model: str) -> None:
        if not self.deleted and self.annotation_model != embedding_model:
            self.record(self.AnnotationsEmbedded, at, embedding_model=embedding_model)

    def keep_file(self, at: datetime, *, file: str) -> None:
        kept = KeptFile(file=file, configuration=len(self.configurations))
        if kept != self.file:
            self.record(self.FileKept, at, **kept)

    def set_triggers(self, at: datetime, *, enabled: bool) -> None:
        """Raises: Rejection `wrong_mode`."""
        if self.mode != "workflow":
            raise Rejection("wrong_mode", f"App {self.id} is of mode {self.mode}, which has no triggers.", "app")
        if enabled != self.triggers_enabled:
            self.record(self.TriggersSet, at, enabled=enabled)

    def delete(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Deleted, at)

    def inputs(self, given: dict[str, str]) -> dict[str, str]:
        """The value of every variable of the newest configuration, with defaults.

        Raises: Rejection `not_configured`, `missing_input` or `unknown_input`.
        """
        if self.configuration is None:
            raise Rejection("not_configured", f"App {self.id} has no configuration; send app.configure first.", "app")
        variables = self.configuration["variables"]
        names = [variable["name"] for variable in variables]
        for name in given:
            if name not in names:
                known = ", ".join(names) or "none"
                raise Rejection(
                    "unknown_input", f"The app has no such variable; its variables are: {known}.", f"inputs.{name}"
                )
        return fill_in(variables, given)

    def check_files(self, files: Sequence[tuple[str, str]]) -> None:
        """Check the type and the method of each file of a question against the newest configuration.

        Raises: Rejection `not_allowed` or `too_many`.
        """
        allowed = self.configuration["features"]["files"] if self.configuration else None
        if files and allowed is None:
            raise Rejection("not_allowed", "The app takes no files; set features.files in its configuration.", "files")
        for number, (type, method) in enumerate(files):
            assert allowed is not None
            if type not in allowed["types"]:
                types = ", ".join(allowed["types"])
                raise Rejection(
                    "not_allowed", f"The app takes files of type {types}, not {type}.", f"files.{number}.type"
                )
            if method not in allowed["methods"]:
                way, field = ("its address", "url") if method == "remote_url" else ("its digest", "digest")
                raise Rejection("not_allowed", f"The app takes no file by {way}.", f"files.{number}.{field}")
        if allowed and len(files) > allowed["most"]:
            raise Rejection("too_many", f"The app takes at most {allowed['most']} files with a question.", "files")


def fill_in(variables: Sequence[Variable], given: Mapping[str, str]) -> dict[str, str]:
    """The value of every variable, with defaults, and without other values. Raises: Rejection `missing_input`."""
    values = {variable["name"]: given.get(variable["name"], variable["default"]) for variable in variables}
    for variable in variables:
        name = variable["name"]
        if values[name] is None and variable["required"]:
            raise Rejection("missing_input", "The app requires a value.", f"inputs.{name}")
    return {name: value or "" for name, value in values.items()}


def _with_embedding(state: dict[str, Any]) -> None:
    """Convert the stored settings of annotations of version 1."""
    state["embedding"] = of_workers(state.pop("embedding_model"))
