"""The routing table: what every command does, a line each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from domain.access.end_user import EndUser
from domain.aggregate import Aggregate
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.knowledge.dataset import Dataset
from domain.knowledge.dataset_query import DatasetQuery
from domain.knowledge.document import Document
from domain.knowledge.retrieval import Retrieval
from domain.models.budget import Budget
from domain.models.provider import Provider
from domain.models.replay import Replay
from domain.work.dead_letter import DeadLetter
from handlers.commands import access, chat, knowledge, models, retrieval, work
from handlers.commands.fields import Command, Fields, Preparation, not_found, plain


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


ROUTES: dict[str, Route] = {
    "app.create": creates(App, chat.CreateApp, App.create),
    "app.configure": changes(App, chat.ConfigureApp, App.configure, chat.searchable),
    "app.delete": changes(App, chat.DeleteApp, App.delete),
    "dataset.create": creates(Dataset, knowledge.CreateDataset, Dataset.create),
    "dataset.configure": changes(Dataset, knowledge.ConfigureDataset, Dataset.configure, knowledge.known_model),
    "dataset.reprocess": changes(Dataset, knowledge.ReprocessDataset, Dataset.reprocess),
    "dataset.test": replace(
        creates(DatasetQuery, retrieval.TestDatasets, DatasetQuery.request, retrieval.tested), gives=Retrieval.TOPIC
    ),
    "dataset.delete": changes(Dataset, knowledge.DeleteDataset, Dataset.delete),
    "document.upload": creates(Document, knowledge.UploadDocument, Document.upload, knowledge.store_document),
    "document.delete": changes(Document, knowledge.DeleteDocument, Document.delete),
    "dataset.add_metadata_field": changes(
        Dataset, knowledge.AddMetadataField, Dataset.add_metadata_field, knowledge.new_field
    ),
    "dataset.rename_metadata_field": changes(Dataset, knowledge.RenameMetadataField, Dataset.rename_metadata_field),
    "dataset.remove_metadata_field": changes(Dataset, knowledge.RemoveMetadataField, Dataset.remove_metadata_field),
    "document.disable": changes(Document, knowledge.DisableDocument, Document.disable),
    "document.enable": changes(Document, knowledge.EnableDocument, Document.enable),
    "document.archive": changes(Document, knowledge.ArchiveDocument, Document.archive),
    "document.unarchive": changes(Document, knowledge.UnarchiveDocument, Document.unarchive),
    "document.rename": changes(Document, knowledge.RenameDocument, Document.rename),
    "document.set_metadata": changes(Document, knowledge.SetMetadata, Document.set_metadata, knowledge.checked),
    "segment.add": changes(Document, knowledge.AddSegment, Document.add_segment, knowledge.new_segment),
    "segment.edit": changes(Document, knowledge.EditSegment, Document.edit_segment),
    "segment.disable": changes(Document, knowledge.DisableSegment, Document.disable_segment),
    "segment.enable": changes(Document, knowledge.EnableSegment, Document.enable_segment),
    "segment.delete": changes(Document, knowledge.DeleteSegment, Document.delete_segment),
    "document.reprocess": changes(Document, knowledge.ReprocessDocument, Document.reprocess, knowledge.own_rules),
    "document.retry": changes(Document, knowledge.RetryDocument, Document.retry),
    "message.send": Route(chat.SendMessage, Conversation, chat.converse, chat.fill_in, "conversation"),
    "message.stop": changes(Conversation, chat.StopMessage, Conversation.stop),
    "message.retry": changes(Conversation, chat.RetryMessage, Conversation.retry),
    "message.rate": changes(Conversation, chat.RateMessage, Conversation.rate),
    "conversation.rename": changes(Conversation, chat.RenameConversation, Conversation.rename),
    "conversation.delete": changes(Conversation, chat.DeleteConversation, Conversation.delete),
    "conversation.fork": creates(Conversation, chat.ForkConversation, Conversation.fork, chat.go_back),
    "replay.request": creates(Replay, models.RequestReplay, Replay.request, models.look_up),
    "budget.set": Route(models.SetBudget, Budget, models.set_budget, models.budgeted, "name"),
    "budget.remove": changes(Budget, models.RemoveBudget, Budget.remove),
    "end_user.erase": Route(
        access.EraseEndUser,
        EndUser,
        lambda known, id, at, fields: known or EndUser.erase(id, at, **fields),
        access.throw_away,
        "user",
    ),
    "provider.register": Route(models.RegisterProvider, Provider, models.register, models.seal, "name"),
    "provider.remove": changes(Provider, models.RemoveProvider, Provider.remove),
    "dead_letter.retry": changes(DeadLetter, work.RetryDeadLetter, DeadLetter.retry),
    "dead_letter.discard": changes(DeadLetter, work.DiscardDeadLetter, DeadLetter.discard),
}
