"""The routing table: what every command does, a line each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from domain.aggregate import Aggregate, Rejection
from domain.app import App
from domain.budget import Budget
from domain.conversation import Conversation
from domain.dataset import Dataset
from domain.dataset_query import DatasetQuery
from domain.dead_letter import DeadLetter
from domain.document import Document
from domain.end_user import EndUser
from domain.model_call import ModelCall, Source
from domain.provider import BUILTIN, Provider
from domain.replay import Replay
from domain.retrieval import Retrieval
from handlers import commands
from handlers.commands import Command
from handlers.media_types import media_type_of
from handlers.ports import Blobs, People, Vault
from handlers.repository import Repository

NAME_LENGTH = 60
"""Characters of a first question that become the conversation's name."""

DEFAULT_TOKENS = 512
"""Tokens reserved for the answer to a call that does not say how many."""

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a command may need before it is decided: the ports, and the aggregates that it names, by field."""

    tenant: str
    id: str
    repository: Repository
    blobs: Blobs
    vault: Vault
    named: dict[str, Aggregate]
    embedding_models: Collection[str]
    people: People | None = None
    rerank_model: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A command's way: its fields, the noun it changes, `prepare` for what needs the world, and the rule."""

    command: type[Command]
    noun: type[Aggregate]
    decide: Callable[[Aggregate | None, str, datetime, Fields], Aggregate]
    prepare: Callable[[Any, Preparation], Awaitable[Fields]]
    target: str | None
    """The field that names the aggregate, or None when the command makes it: its id is then the command's; `user` names
    the person who went by that name last."""
    gives: str | None = None
    """What the outcome calls the id of what comes of it, where that is not what the command is named after."""


async def plain(command: Command, preparation: Preparation) -> Fields:
    return command.model_dump()


async def store_document(command: commands.UploadDocument, preparation: Preparation) -> Fields:
    """Make sure of the blob, and name the type."""
    if command.text is not None:
        data = command.text.encode()
        digest, size = await preparation.blobs.put(preparation.tenant, data), len(data)
    else:
        digest = str(command.digest)
        found = await preparation.blobs.size(preparation.tenant, digest)
        if found is None:
            sentence = f"digest: there is no blob {preparation.tenant}/{digest}; put it into the object store first."
            raise Rejection("not_found", sentence, "digest")
        size = found
    name = PurePosixPath(PureWindowsPath(command.name).as_posix()).name
    if name in ("", ".", ".."):
        raise Rejection("invalid", "name: must end in a file name.", "name")
    guessed = media_type_of(name) or ("text/plain" if command.text is not None else "application/octet-stream")
    dataset = preparation.named["dataset"]
    assert isinstance(dataset, Dataset)
    dataset.check_metadata(command.metadata)
    return {
        "dataset": command.dataset,
        "name": name,
        "media_type": command.media_type or guessed,
        "digest": digest,
        "size": size,
        "metadata": command.metadata,
        "segmentation": rules_of(command.segmentation),
    }


async def checked(command: commands.SetMetadata, preparation: Preparation) -> Fields:
    """The values, which are of the types that the dataset wants."""
    document = await preparation.repository.get(Document, preparation.tenant, command.document)
    if document:
        dataset = await preparation.repository.get(Dataset, preparation.tenant, document.dataset)
        if dataset:
            dataset.check_metadata(command.metadata)
    return command.model_dump()


async def new_segment(command: commands.AddSegment, preparation: Preparation) -> Fields:
    return {**command.model_dump(), "segment": preparation.id}


async def new_field(command: commands.AddMetadataField, preparation: Preparation) -> Fields:
    return {**command.model_dump(), "field": preparation.id}


async def fill_in(command: commands.SendMessage, preparation: Preparation) -> Fields:
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


def rules_of(segmentation: commands.SegmentationRules | None) -> Fields | None:
    return segmentation.rules().plain() if segmentation else None


async def own_rules(command: commands.ReprocessDocument, preparation: Preparation) -> Fields:
    return {**command.model_dump(), "segmentation": rules_of(command.segmentation)}


async def known_model(command: commands.ConfigureDataset, preparation: Preparation) -> Fields:
    """Make sure that the embedding model is one of those in use."""
    if command.embedding_model and command.embedding_model not in preparation.embedding_models:
        raise Rejection(
            "unknown_model",
            f"embedding_model: no worker runs {command.embedding_model!r}; they run "
            f"{', '.join(preparation.embedding_models)}. Put it into HEADRACE_EMBEDDING_MODELS of all workers first.",
            "embedding_model",
        )
    return {**command.model_dump(), "segmentation": rules_of(command.segmentation)}


async def searchable(command: commands.ConfigureApp | commands.TestDatasets, preparation: Preparation) -> Fields:
    """Make sure of the built-in reranker, where the retrieval is to use it."""
    rerank, known = command.retrieval.rerank, preparation.rerank_model
    if rerank and rerank.provider == BUILTIN and rerank.model != known:
        if not known:
            sentence = "no worker runs a reranker; set HEADRACE_RERANK_MODEL of all workers first."
            raise Rejection("unknown_model", f"retrieval.rerank.provider: {sentence}", "retrieval.rerank.provider")
        if rerank.model:
            sentence = f"retrieval.rerank.model: no worker runs the reranker {rerank.model!r}; they run {known}."
            raise Rejection("unknown_model", sentence, "retrieval.rerank.model")
    return command.model_dump()


async def tested(command: commands.TestDatasets, preparation: Preparation) -> Fields:
    """Who asks is known by the key that the words are kept under."""
    fields = await searchable(command, preparation)
    return {name: value for name, value in fields.items() if name != "user"}


async def look_up(command: commands.RequestReplay, preparation: Preparation) -> Fields:
    """What was recorded of the call, where the command does not say otherwise."""
    call = preparation.named["call"]
    assert isinstance(call, ModelCall)
    made = await preparation.repository.first(ModelCall, preparation.tenant, call.id)
    recorded = made and made.events[0]
    assert isinstance(recorded, ModelCall.Requested)
    if call.kind != "chat":
        raise Rejection("not_a_chat", f"call: {call.id} is of kind {call.kind}; only a chat can be replayed.", "call")
    if not recorded.request:
        raise Rejection("erased", f"call: what {call.id} sent was erased.", "call")
    app = await instructed(command.configuration, recorded.sources, preparation) if command.configuration else None
    return {
        "call": call.id,
        "provider": command.model.provider if command.model else call.provider,
        "model": command.model.name if command.model else call.model,
        "max_tokens": command.max_tokens or recorded.request.get("max_tokens", DEFAULT_TOKENS),
        "parameters": recorded.request["parameters"] if command.parameters is None else command.parameters,
        "app": app,
        "configuration": command.configuration,
    }


async def instructed(number: int, sources: Sequence[Source], preparation: Preparation) -> str:
    """The app whose instructions were sent, and which has a configuration of this number."""
    id = next((source["app"] for source in sources if source["from"] == "instructions"), None)
    app = await preparation.repository.get(App, preparation.tenant, id) if id else None
    if app is None:
        sentence = "configuration: it is not on record where the instructions of this call came from."
        raise Rejection("unknown_prompt", sentence, "configuration")
    if str(number) not in app.configurations:
        sentence = f"configuration: app {app.id} has {len(app.configurations)}, and no number {number}."
        raise Rejection("not_found", sentence, "configuration")
    return app.id


async def go_back(command: commands.ForkConversation, preparation: Preparation) -> Fields:
    return {"source": preparation.named["conversation"], "message": command.message, "name": command.name}


async def budgeted(command: commands.SetBudget, preparation: Preparation) -> Fields:
    """Make sure of the app."""
    if command.scope == "app" and not await preparation.repository.get(App, preparation.tenant, command.subject):
        raise not_found(App, command.subject, "subject")
    return command.model_dump(exclude={"name"})


async def seal(command: commands.RegisterProvider, preparation: Preparation) -> Fields:
    return {"base_url": command.base_url, "sealed_key": preparation.vault.seal(preparation.tenant, command.key)}


async def throw_away(command: commands.EraseEndUser, preparation: Preparation) -> Fields:
    """Erase the key before that is on record: what comes after the record in the log can surely not be read."""
    people = preparation.people
    assert people is not None
    person, known = await people.last_person(preparation.tenant, command.user)
    await people.erase(preparation.tenant, person)
    return {"known": known}


def converse(conversation: Aggregate | None, id: str, at: datetime, fields: Fields) -> Aggregate:
    if conversation is None or conversation.deleted:
        if id != fields["message"]:
            raise not_found(Conversation, id, "conversation")
        name = " ".join(fields["query"].split())[:NAME_LENGTH].rstrip()
        conversation = Conversation.start(id, at, app=fields["app"], user=fields["user"], name=name)
    assert isinstance(conversation, Conversation)
    conversation.ask(at, **fields)
    return conversation


def register(provider: Aggregate | None, id: str, at: datetime, fields: Fields) -> Aggregate:
    if provider is None:
        return Provider.register(id, at, **fields)
    assert isinstance(provider, Provider)
    provider.change(at, **fields)
    return provider


def set_budget(budget: Aggregate | None, id: str, at: datetime, fields: Fields) -> Aggregate:
    if budget is None:
        return Budget.set(id, at, **fields)
    assert isinstance(budget, Budget)
    budget.change(at, **fields)
    return budget


def creates(
    noun: type[Aggregate],
    command: type[Command],
    make: Callable[..., Aggregate],
    prepare: Callable[[Any, Preparation], Awaitable[Fields]] = plain,
) -> Route:
    """The command makes an aggregate, with the command's own id."""
    return Route(command, noun, lambda known, id, at, fields: known or make(id, at, **fields), prepare, None)


def changes(
    noun: type[Aggregate],
    command: type[Command],
    verb: Callable[..., None],
    prepare: Callable[[Any, Preparation], Awaitable[Fields]] = plain,
) -> Route:
    """The command changes the aggregate that the field named as the noun names."""
    target = noun.TOPIC

    def decide(aggregate: Aggregate | None, id: str, at: datetime, fields: Fields) -> Aggregate:
        if aggregate is None or aggregate.deleted:
            raise not_found(noun, id, target)
        verb(aggregate, at, **{name: value for name, value in fields.items() if name != target})
        return aggregate

    return Route(command, noun, decide, prepare, target)


def not_found(noun: type[Aggregate], id: str, field: str) -> Rejection:
    return Rejection("not_found", f"{field}: there is no {noun.TOPIC} {id}.", field)


ROUTES: dict[str, Route] = {
    "app.create": creates(App, commands.CreateApp, App.create),
    "app.configure": changes(App, commands.ConfigureApp, App.configure, searchable),
    "app.delete": changes(App, commands.DeleteApp, App.delete),
    "dataset.create": creates(Dataset, commands.CreateDataset, Dataset.create),
    "dataset.configure": changes(Dataset, commands.ConfigureDataset, Dataset.configure, known_model),
    "dataset.reprocess": changes(Dataset, commands.ReprocessDataset, Dataset.reprocess),
    "dataset.test": replace(
        creates(DatasetQuery, commands.TestDatasets, DatasetQuery.request, tested), gives=Retrieval.TOPIC
    ),
    "dataset.delete": changes(Dataset, commands.DeleteDataset, Dataset.delete),
    "document.upload": creates(Document, commands.UploadDocument, Document.upload, store_document),
    "document.delete": changes(Document, commands.DeleteDocument, Document.delete),
    "dataset.add_metadata_field": changes(Dataset, commands.AddMetadataField, Dataset.add_metadata_field, new_field),
    "dataset.rename_metadata_field": changes(Dataset, commands.RenameMetadataField, Dataset.rename_metadata_field),
    "dataset.remove_metadata_field": changes(Dataset, commands.RemoveMetadataField, Dataset.remove_metadata_field),
    "document.disable": changes(Document, commands.DisableDocument, Document.disable),
    "document.enable": changes(Document, commands.EnableDocument, Document.enable),
    "document.archive": changes(Document, commands.ArchiveDocument, Document.archive),
    "document.unarchive": changes(Document, commands.UnarchiveDocument, Document.unarchive),
    "document.rename": changes(Document, commands.RenameDocument, Document.rename),
    "document.set_metadata": changes(Document, commands.SetMetadata, Document.set_metadata, checked),
    "segment.add": changes(Document, commands.AddSegment, Document.add_segment, new_segment),
    "segment.edit": changes(Document, commands.EditSegment, Document.edit_segment),
    "segment.disable": changes(Document, commands.DisableSegment, Document.disable_segment),
    "segment.enable": changes(Document, commands.EnableSegment, Document.enable_segment),
    "segment.delete": changes(Document, commands.DeleteSegment, Document.delete_segment),
    "document.reprocess": changes(Document, commands.ReprocessDocument, Document.reprocess, own_rules),
    "document.retry": changes(Document, commands.RetryDocument, Document.retry),
    "message.send": Route(commands.SendMessage, Conversation, converse, fill_in, "conversation"),
    "message.stop": changes(Conversation, commands.StopMessage, Conversation.stop),
    "message.retry": changes(Conversation, commands.RetryMessage, Conversation.retry),
    "message.rate": changes(Conversation, commands.RateMessage, Conversation.rate),
    "conversation.rename": changes(Conversation, commands.RenameConversation, Conversation.rename),
    "conversation.delete": changes(Conversation, commands.DeleteConversation, Conversation.delete),
    "conversation.fork": creates(Conversation, commands.ForkConversation, Conversation.fork, go_back),
    "replay.request": creates(Replay, commands.RequestReplay, Replay.request, look_up),
    "budget.set": Route(commands.SetBudget, Budget, set_budget, budgeted, "name"),
    "budget.remove": changes(Budget, commands.RemoveBudget, Budget.remove),
    "end_user.erase": Route(
        commands.EraseEndUser,
        EndUser,
        lambda known, id, at, fields: known or EndUser.erase(id, at, **fields),
        throw_away,
        "user",
    ),
    "provider.register": Route(commands.RegisterProvider, Provider, register, seal, "name"),
    "provider.remove": changes(Provider, commands.RemoveProvider, Provider.remove),
    "dead_letter.retry": changes(DeadLetter, commands.RetryDeadLetter, DeadLetter.retry),
    "dead_letter.discard": changes(DeadLetter, commands.DiscardDeadLetter, DeadLetter.discard),
}
