"""The routing table: what every command does, a line each."""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from domain.aggregate import Aggregate, Rejection
from domain.app import App
from domain.conversation import Conversation
from domain.dataset import Dataset
from domain.dead_letter import DeadLetter
from domain.document import Document
from domain.provider import Provider
from handlers import commands
from handlers.commands import Command
from handlers.ports import Blobs, Vault

NAME_LENGTH = 60
"""Characters of a first question that become the conversation's name."""

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a command may need before it is decided: the ports, and the aggregates that it names, by field."""

    tenant: str
    id: str
    blobs: Blobs
    vault: Vault
    named: dict[str, Aggregate]
    embedding_models: Collection[str]


@dataclass(frozen=True, slots=True)
class Route:
    """A command's way: its fields, the noun it changes, `prepare` for what needs the world, and the rule."""

    command: type[Command]
    noun: type[Aggregate]
    decide: Callable[[Aggregate | None, str, datetime, Fields], Aggregate]
    prepare: Callable[[Any, Preparation], Awaitable[Fields]]
    target: str | None
    """The field that names the aggregate, or None when the command makes it: its id is then the command's."""


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
    guessed = mimetypes.guess_type(name)[0] or (
        "text/plain" if command.text is not None else "application/octet-stream"
    )
    return {
        "dataset": command.dataset,
        "name": name,
        "media_type": command.media_type or guessed,
        "digest": digest,
        "size": size,
        "metadata": command.metadata,
    }


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


async def known_model(command: commands.ConfigureDataset, preparation: Preparation) -> Fields:
    """Make sure that the embedding model is one of those in use."""
    if command.embedding_model not in preparation.embedding_models:
        raise Rejection(
            "unknown_model",
            f"embedding_model: no worker runs {command.embedding_model!r}; they run "
            f"{', '.join(preparation.embedding_models)}. Put it into HEADRACE_EMBEDDING_MODELS of all workers first.",
            "embedding_model",
        )
    return command.model_dump()


async def seal(command: commands.RegisterProvider, preparation: Preparation) -> Fields:
    return {"base_url": command.base_url, "sealed_key": preparation.vault.seal(preparation.tenant, command.key)}


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
    "app.configure": changes(App, commands.ConfigureApp, App.configure),
    "app.delete": changes(App, commands.DeleteApp, App.delete),
    "dataset.create": creates(Dataset, commands.CreateDataset, Dataset.create),
    "dataset.configure": changes(Dataset, commands.ConfigureDataset, Dataset.configure, known_model),
    "dataset.delete": changes(Dataset, commands.DeleteDataset, Dataset.delete),
    "document.upload": creates(Document, commands.UploadDocument, Document.upload, store_document),
    "document.delete": changes(Document, commands.DeleteDocument, Document.delete),
    "document.retry": changes(Document, commands.RetryDocument, Document.retry),
    "message.send": Route(commands.SendMessage, Conversation, converse, fill_in, "conversation"),
    "message.stop": changes(Conversation, commands.StopMessage, Conversation.stop),
    "message.retry": changes(Conversation, commands.RetryMessage, Conversation.retry),
    "message.rate": changes(Conversation, commands.RateMessage, Conversation.rate),
    "conversation.rename": changes(Conversation, commands.RenameConversation, Conversation.rename),
    "conversation.delete": changes(Conversation, commands.DeleteConversation, Conversation.delete),
    "provider.register": Route(commands.RegisterProvider, Provider, register, seal, "name"),
    "provider.remove": changes(Provider, commands.RemoveProvider, Provider.remove),
    "dead_letter.retry": changes(DeadLetter, commands.RetryDeadLetter, DeadLetter.retry),
    "dead_letter.discard": changes(DeadLetter, commands.DiscardDeadLetter, DeadLetter.discard),
}
