"""The routing table: a line for each command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict, TypeVar, Unpack

from domain.access.account import Account
from domain.access.api_key import ApiKey
from domain.access.bus_login import BusLogin
from domain.access.door import Door
from domain.access.end_user import EndUser
from domain.access.limits import Limits, Quantity
from domain.access.permissions import UNLIMITED, Permission
from domain.access.sql_login import SqlLogin
from domain.access.tenant import Tenant
from domain.aggregate import Aggregate
from domain.chat.annotation import Annotation
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.chat.speech import Speech
from domain.chat.tags import Tags
from domain.chat.transcription import Transcription
from domain.knowledge import curation
from domain.knowledge.dataset import Dataset
from domain.knowledge.dataset_query import DatasetQuery
from domain.knowledge.document import Document
from domain.knowledge.retrieval import Retrieval
from domain.models.default_model import DefaultModel
from domain.models.model import Model
from domain.models.provider import Provider
from domain.models.quota import Quota
from domain.models.replay import Replay
from domain.models.route import ModelRoute
from domain.tools.plugin import Plugin
from domain.tools.plugin_storage import PluginStorage
from domain.tools.plugin_use import PluginUse
from domain.tools.tool_call import ToolCall
from domain.tools.toolset import Toolset
from domain.tools.user_secrets import UserSecrets
from domain.work.dead_letter import DeadLetter
from domain.work.quarantine import Quarantine
from domain.workflows.run import Run
from domain.workflows.workflow import Workflow
from handlers.commands import (
    access,
    accounts,
    annotation,
    api_keys,
    apps,
    audio,
    audit,
    catalog,
    chat,
    knowledge,
    models,
    plugins,
    quotas,
    retrieval,
    runs,
    tags,
    tenants,
    tools,
    work,
    workflows,
)
from handlers.commands.fields import Command, references
from handlers.commands.preparation import Change, Make, MakeOrChange, Preparation, not_found

A = TypeVar("A", bound=Aggregate)
C = TypeVar("C", bound=Command)


class Handling(TypedDict, total=False):
    private: bool
    person: str
    gives: str
    counts: tuple[Quantity, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """Payload, aggregate and needs of a command."""

    noun: type[Aggregate]
    command: type[Command]
    permission: Permission
    prepare: Callable[[Any, Preparation], Awaitable[MakeOrChange[Any]]]
    """Load what the decision needs, and return the decision."""
    target: str | None
    """The field with the aggregate's id, `user` for the last person of that name, `email` for the one of that address;
    None: the id is the command's."""
    private: bool = False
    """The payload, or an error about it, may hold secrets or words of a person, as always where there is a `person`: no
    part of it is kept when the command is rejected."""
    person: str | None = None
    """The field that names the data subject: `user`, `email`, `account` (without one, the month of the report), or an
    aggregate that holds their words already."""
    gives: str | None = None
    """The name of the command's id in the outcome, where the result is another noun than the command's."""
    counts: tuple[Quantity, ...] = ()
    """Quantities that limits count it in, next to `commands`; with `tokens`, it is refused when those are spent."""
    references: Mapping[str, type[Aggregate]] = field(init=False)
    """The fields that name other aggregates, which must exist, and their kinds."""

    @property
    def house(self) -> bool | None:
        """True if the aggregate is in the house, False if it is in a tenant, None if it can be in both."""
        return None if self.noun in (Door, EndUser) else self.noun in (Account, Plugin, Tenant)

    def __post_init__(self) -> None:
        found = references(self.command)
        others = {path: kind for path, kind in found if path != self.target or kind is not self.noun}
        object.__setattr__(self, "references", others)
        object.__setattr__(self, "private", self.private or self.person is not None)
        object.__setattr__(self, "counts", () if self.permission in UNLIMITED else ("commands", *self.counts))


def creates(
    noun: type[A],
    command: type[C],
    permission: Permission,
    prepare: Callable[[C, Preparation], Awaitable[Make[A]]],
    **handling: Unpack[Handling],
) -> Route:
    """The command makes an aggregate, with the command's id."""

    async def decision(sent: C, given: Preparation) -> MakeOrChange[A]:
        make = await prepare(sent, given)
        return lambda known, id, at: known or make(id, at)

    return Route(noun, command, permission, decision, None, **handling)


def changes(
    noun: type[A],
    command: type[C],
    permission: Permission,
    change: Callable[[A, datetime, C], None],
    **handling: Unpack[Handling],
) -> Route:
    """The command changes the aggregate in the field with the noun's name."""

    async def prepare(sent: C, given: Preparation) -> Change[A]:
        return lambda aggregate, at: change(aggregate, at, sent)

    return changes_prepared(noun, command, permission, prepare, **handling)


def changes_prepared(
    noun: type[A],
    command: type[C],
    permission: Permission,
    prepare: Callable[[C, Preparation], Awaitable[Change[A]]],
    **handling: Unpack[Handling],
) -> Route:
    """As `changes`, with a decision that needs the ports."""

    async def decision(sent: C, given: Preparation) -> MakeOrChange[A]:
        change = await prepare(sent, given)

        def decide(aggregate: A | None, id: str, at: datetime) -> A:
            if aggregate is None or aggregate.deleted:
                raise not_found(noun, id, noun.TOPIC)
            change(aggregate, at)
            return aggregate

        return decide

    return Route(noun, command, permission, decision, noun.TOPIC, **handling)


def makes_or_changes(
    noun: type[A],
    command: type[C],
    permission: Permission,
    prepare: Callable[[C, Preparation], Awaitable[MakeOrChange[A]]],
    *,
    target: str,
    **handling: Unpack[Handling],
) -> Route:
    """The command changes the aggregate that a field names, or makes it."""
    return Route(noun, command, permission, prepare, target, **handling)


ROUTES: dict[str, Route] = {
    "app.create": creates(App, chat.CreateApp, "app.manage", chat.create),
    "app.configure": changes_prepared(App, chat.ConfigureApp, "app.manage", chat.configure),
    "app.set_annotation_reply": changes_prepared(
        App, annotation.SetAnnotationReply, "app.manage", annotation.set_reply
    ),
    "app.delete": changes(App, chat.DeleteApp, "app.manage", lambda app, at, _: app.delete(at)),
    "app.rename": changes(App, apps.RenameApp, "app.manage", apps.rename),
    "app.set_icon": changes_prepared(App, apps.SetIcon, "app.manage", apps.set_icon),
    "app.set_site": changes_prepared(App, apps.SetSite, "app.manage", apps.set_site),
    "app.set_triggers": changes(App, apps.SetTriggers, "app.manage", apps.set_triggers),
    "app.keep_file": changes_prepared(App, workflows.KeepFile, "app.manage", workflows.keep_file),
    "workflow.save": makes_or_changes(
        Workflow, workflows.SaveWorkflow, "app.manage", workflows.save, target="app", private=True
    ),
    "workflow.publish": changes_prepared(Workflow, workflows.PublishWorkflow, "app.manage", workflows.publish),
    "workflow.restore": changes(Workflow, workflows.RestoreWorkflow, "app.manage", workflows.restore),
    "run.start": creates(Run, runs.StartRun, "chat", runs.start, person="user", counts=("tokens",)),
    "run.try": creates(Run, runs.TryWorkflow, "app.manage", runs.try_draft, person="user", counts=("tokens",)),
    "run.retry": creates(Run, runs.RetryRun, "chat", runs.retry, person="source", counts=("tokens",)),
    "run.fork": creates(Run, runs.ForkRun, "app.manage", runs.fork, person="source", counts=("tokens",)),
    "run.stop": changes(Run, runs.StopRun, "chat", runs.stop, private=True),
    "run.answer": changes(Run, runs.AnswerForm, "chat", runs.answer, private=True),
    "tag.create": makes_or_changes(Tags, tags.CreateTag, "dataset.manage", tags.create, target="kind"),
    "tag.rename": makes_or_changes(Tags, tags.RenameTag, "dataset.manage", tags.rename, target="kind"),
    "tag.delete": makes_or_changes(Tags, tags.DeleteTag, "dataset.manage", tags.delete, target="kind"),
    "tag.bind": makes_or_changes(Tags, tags.BindTag, "dataset.manage", tags.bind, target="kind"),
    "tag.unbind": makes_or_changes(Tags, tags.UnbindTag, "dataset.manage", tags.unbind, target="kind"),
    "annotation.create": creates(
        Annotation, annotation.CreateAnnotation, "app.manage", annotation.create, person="conversation"
    ),
    "annotation.edit": changes(Annotation, annotation.EditAnnotation, "app.manage", annotation.edit, private=True),
    "annotation.remove": changes(
        Annotation,
        annotation.RemoveAnnotation,
        "app.manage",
        lambda known, at, _: known.remove(at),
        private=True,
    ),
    "dataset.create": creates(Dataset, knowledge.CreateDataset, "dataset.manage", knowledge.create),
    "dataset.configure": changes_prepared(Dataset, knowledge.ConfigureDataset, "dataset.manage", knowledge.configure),
    "dataset.reprocess": changes(
        Dataset, knowledge.ReprocessDataset, "dataset.manage", lambda dataset, at, _: dataset.reprocess(at)
    ),
    "dataset.test": creates(
        DatasetQuery,
        retrieval.TestDatasets,
        "dataset.query",
        retrieval.query,
        person="user",
        gives=Retrieval.TOPIC,
        counts=("tokens",),
    ),
    "dataset.delete": changes(
        Dataset, knowledge.DeleteDataset, "dataset.manage", lambda dataset, at, _: dataset.delete(at)
    ),
    "document.upload": creates(
        Document,
        knowledge.UploadDocument,
        "dataset.edit",
        knowledge.upload,
        person="user",
        counts=("documents", "bytes"),
    ),
    "document.delete": changes(
        Document, knowledge.DeleteDocument, "dataset.edit", lambda document, at, _: document.delete(at)
    ),
    "dataset.add_metadata_field": changes_prepared(
        Dataset, knowledge.AddMetadataField, "dataset.manage", knowledge.add_field
    ),
    "dataset.rename_metadata_field": changes(
        Dataset, knowledge.RenameMetadataField, "dataset.manage", knowledge.rename_field
    ),
    "dataset.remove_metadata_field": changes(
        Dataset, knowledge.RemoveMetadataField, "dataset.manage", knowledge.remove_field
    ),
    "document.disable": changes(
        Document, knowledge.DisableDocument, "dataset.edit", lambda document, at, _: curation.disable(document, at)
    ),
    "document.enable": changes(
        Document, knowledge.EnableDocument, "dataset.edit", lambda document, at, _: curation.enable(document, at)
    ),
    "document.archive": changes(
        Document, knowledge.ArchiveDocument, "dataset.edit", lambda document, at, _: curation.archive(document, at)
    ),
    "document.unarchive": changes(
        Document, knowledge.UnarchiveDocument, "dataset.edit", lambda document, at, _: curation.unarchive(document, at)
    ),
    "document.rename": changes(Document, knowledge.RenameDocument, "dataset.edit", knowledge.rename, private=True),
    "document.set_metadata": changes_prepared(
        Document, knowledge.SetMetadata, "dataset.edit", knowledge.set_metadata, private=True
    ),
    "segment.add": changes_prepared(
        Document, knowledge.AddSegment, "dataset.edit", knowledge.add_segment, private=True
    ),
    "segment.edit": changes(Document, knowledge.EditSegment, "dataset.edit", knowledge.edit_segment, private=True),
    "segment.disable": changes(Document, knowledge.DisableSegment, "dataset.edit", knowledge.disable_segment),
    "segment.enable": changes(Document, knowledge.EnableSegment, "dataset.edit", knowledge.enable_segment),
    "segment.delete": changes(Document, knowledge.DeleteSegment, "dataset.edit", knowledge.delete_segment),
    "document.reprocess": changes(
        Document, knowledge.ReprocessDocument, "dataset.edit", knowledge.reprocess, counts=("documents",)
    ),
    "document.retry": changes(
        Document,
        knowledge.RetryDocument,
        "dataset.edit",
        lambda document, at, _: document.retry(at),
        counts=("documents",),
    ),
    "message.send": makes_or_changes(
        Conversation,
        chat.SendMessage,
        "chat",
        chat.send,
        target="conversation",
        person="user",
        counts=("messages", "tokens", "bytes"),
    ),
    "message.stop": changes(Conversation, chat.StopMessage, "chat", chat.stop, private=True),
    "message.retry": changes(
        Conversation, chat.RetryMessage, "chat", chat.retry, private=True, counts=("messages", "tokens")
    ),
    "message.regenerate": changes_prepared(
        Conversation,
        chat.RegenerateMessage,
        "chat",
        chat.regenerate,
        private=True,
        gives="message",
        counts=("messages", "tokens"),
    ),
    "message.more_like_this": creates(
        Conversation,
        chat.MoreLikeThis,
        "chat",
        chat.more_like_this,
        person="conversation",
        gives="message",
        counts=("messages", "tokens"),
    ),
    "message.save": changes(Conversation, chat.SaveMessage, "chat", chat.save, private=True),
    "message.unsave": changes(Conversation, chat.UnsaveMessage, "chat", chat.unsave, private=True),
    "message.suggest": changes_prepared(
        Conversation, chat.SuggestQuestions, "chat", chat.suggest, private=True, counts=("tokens",)
    ),
    "message.rate": changes(Conversation, chat.RateMessage, "chat", chat.rate, private=True),
    "conversation.rename": changes(Conversation, chat.RenameConversation, "chat", chat.rename, private=True),
    "conversation.request_name": changes_prepared(
        Conversation, chat.RequestName, "chat", chat.request_name, private=True, counts=("tokens",)
    ),
    "conversation.pin": changes(
        Conversation, chat.PinConversation, "chat", lambda conversation, at, _: conversation.pin(at), private=True
    ),
    "conversation.unpin": changes(
        Conversation, chat.UnpinConversation, "chat", lambda conversation, at, _: conversation.unpin(at), private=True
    ),
    "conversation.delete": changes(
        Conversation, chat.DeleteConversation, "chat", lambda conversation, at, _: conversation.delete(at), private=True
    ),
    "conversation.fork": creates(Conversation, chat.ForkConversation, "chat", chat.fork, person="conversation"),
    "audio.transcribe": creates(
        Transcription,
        audio.Transcribe,
        "chat",
        audio.transcribe,
        person="user",
        gives=Transcription.TOPIC,
        counts=("bytes", "tokens"),
    ),
    "audio.speak": creates(
        Speech, audio.Speak, "chat", audio.speak, person="user", gives=Speech.TOPIC, counts=("tokens",)
    ),
    "replay.request": creates(
        Replay, models.RequestReplay, "replay", models.replay, person="call", counts=("replays", "tokens")
    ),
    "toolset.register": makes_or_changes(
        Toolset, tools.RegisterToolset, "tool.manage", tools.register, target="name", private=True
    ),
    "toolset.refresh": changes_prepared(Toolset, tools.RefreshToolset, "tool.manage", tools.refresh, private=True),
    "toolset.remove": changes(
        Toolset, tools.RemoveToolset, "tool.manage", lambda toolset, at, _: toolset.remove(at), private=True
    ),
    "user_secret.set": makes_or_changes(
        UserSecrets, tools.SetUserSecret, "tool.manage", tools.set_user_secret, target="user", person="user"
    ),
    "user_secret.remove": makes_or_changes(
        UserSecrets, tools.RemoveUserSecret, "tool.manage", tools.remove_user_secret, target="user", person="user"
    ),
    "tool_call.release": changes(ToolCall, tools.ReleaseCall, "tool.release", tools.release, private=True),
    "tool_call.refuse": changes(ToolCall, tools.RefuseCall, "tool.release", tools.refuse, private=True),
    "route.configure": makes_or_changes(
        ModelRoute, models.ConfigureRoute, "provider.manage", models.configure_route, target="name"
    ),
    "route.remove": changes(ModelRoute, models.RemoveRoute, "provider.manage", lambda route, at, _: route.remove(at)),
    "budget.set": makes_or_changes(
        Quota, quotas.SetBudget, "budget.manage", quotas.set_budget, target="side", private=True
    ),
    "budget.remove": makes_or_changes(Quota, quotas.RemoveBudget, "budget.manage", quotas.remove_budget, target="side"),
    "quota.set": makes_or_changes(
        Quota, quotas.SetQuota, "limits.manage", quotas.set_quota, target="side", private=True
    ),
    "quota.remove": makes_or_changes(
        Quota, quotas.RemoveQuota, "limits.manage", quotas.remove_quota, target="side", private=True
    ),
    "quota.impose": makes_or_changes(
        Quota, quotas.ImposeQuota, "limits.impose", quotas.set_quota, target="side", private=True
    ),
    "quota.lift": makes_or_changes(
        Quota, quotas.LiftQuota, "limits.impose", quotas.remove_quota, target="side", private=True
    ),
    "limits.set": makes_or_changes(
        Limits, access.SetLimit, "limits.manage", access.set_limit, target="side", private=True
    ),
    "limits.remove": makes_or_changes(
        Limits, access.RemoveLimit, "limits.manage", access.remove_limit, target="side", private=True
    ),
    "limits.impose": makes_or_changes(
        Limits, access.ImposeLimit, "limits.impose", access.set_limit, target="side", private=True
    ),
    "limits.lift": makes_or_changes(
        Limits, access.LiftLimit, "limits.impose", access.remove_limit, target="side", private=True
    ),
    "end_user.erase": makes_or_changes(
        EndUser, access.EraseEndUser, "end_user.erase", access.erase, target="user", private=True
    ),
    "bus_login.open": makes_or_changes(BusLogin, access.OpenBusLogin, "bus.manage", access.open_login, target="name"),
    "bus_login.close": changes(BusLogin, access.CloseBusLogin, "bus.manage", lambda login, at, _: login.close(at)),
    "sql_login.create": creates(SqlLogin, access.CreateSqlLogin, "sql.manage", access.create_sql_login, private=True),
    "sql_login.revoke": changes(SqlLogin, access.RevokeSqlLogin, "sql.manage", lambda login, at, _: login.revoke(at)),
    "account.create": makes_or_changes(
        Account, accounts.CreateAccount, "account.manage", accounts.create, target="email", person="email"
    ),
    "account.create_service": creates(Account, accounts.CreateService, "account.manage", accounts.create_service),
    "account.rename": changes(
        Account,
        accounts.RenameAccount,
        "account.own",
        lambda account, at, command: account.rename(at, name=command.name),
        private=True,
    ),
    "account.change_password": changes(
        Account,
        accounts.ChangePassword,
        "account.own",
        lambda account, at, command: account.change_password(at, password=command.password),
        private=True,
    ),
    "account.sign_out": changes(
        Account, accounts.SignOutEverywhere, "account.own", lambda account, at, _: account.sign_out(at)
    ),
    "account.disable": changes(
        Account, accounts.DisableAccount, "account.manage", lambda account, at, _: account.disable(at)
    ),
    "account.enable": changes(
        Account, accounts.EnableAccount, "account.manage", lambda account, at, _: account.enable(at)
    ),
    "account.erase": changes_prepared(Account, accounts.EraseAccount, "account.own", accounts.erase),
    "tenant.create": makes_or_changes(Tenant, tenants.CreateTenant, "tenant.create", tenants.create, target="tenant"),
    "tenant.rename": changes(
        Tenant,
        tenants.RenameTenant,
        "tenant.manage",
        lambda tenant, at, command: tenant.rename(at, name=command.name),
    ),
    "tenant.add_member": changes_prepared(Tenant, tenants.AddMember, "member.manage", tenants.add),
    "tenant.set_role": changes_prepared(Tenant, tenants.SetRole, "member.manage", tenants.set_role),
    "tenant.remove_member": changes_prepared(Tenant, tenants.RemoveMember, "member.manage", tenants.remove),
    "tenant.transfer": changes_prepared(Tenant, tenants.TransferTenant, "tenant.transfer", tenants.transfer),
    "tenant.invite": changes(Tenant, tenants.Invite, "member.manage", tenants.invite),
    "tenant.accept": changes_prepared(Tenant, tenants.AcceptInvitation, "door", tenants.accept),
    "tenant.withdraw": changes(
        Tenant,
        tenants.WithdrawInvitation,
        "member.manage",
        lambda tenant, at, command: tenant.withdraw(at, digest=command.digest),
    ),
    "tenant.archive": changes(
        Tenant, tenants.ArchiveTenant, "tenant.transfer", lambda tenant, at, _: tenant.archive(at)
    ),
    "tenant.unarchive": changes(
        Tenant, tenants.UnarchiveTenant, "tenant.transfer", lambda tenant, at, _: tenant.unarchive(at)
    ),
    "api_key.create": creates(ApiKey, api_keys.CreateKey, "key.manage", api_keys.create),
    "api_key.rename": changes(
        ApiKey, api_keys.RenameKey, "key.manage", lambda key, at, command: key.rename(at, name=command.name)
    ),
    "api_key.replace": changes(ApiKey, api_keys.ReplaceKey, "key.manage", api_keys.replace),
    "api_key.revoke": changes(ApiKey, api_keys.RevokeKey, "key.manage", lambda key, at, _: key.revoke(at)),
    "provider.register": makes_or_changes(
        Provider, models.RegisterProvider, "provider.manage", models.register, target="name", private=True
    ),
    "provider.check": changes_prepared(Provider, models.CheckProvider, "provider.manage", models.check, private=True),
    "provider.add_credential": changes_prepared(
        Provider, models.AddCredential, "provider.manage", models.add_credential, private=True
    ),
    "provider.remove_credential": changes(
        Provider,
        models.RemoveCredential,
        "provider.manage",
        lambda provider, at, command: provider.remove_credential(at, name=command.name),
        private=True,
    ),
    "provider.remove": changes(
        Provider, models.RemoveProvider, "provider.manage", lambda provider, at, _: provider.remove(at), private=True
    ),
    "plugin.install": makes_or_changes(
        Plugin, plugins.InstallPlugin, "plugin.install", plugins.install, target="plugin", private=True
    ),
    "plugin.remove": changes(
        Plugin, plugins.RemovePlugin, "plugin.install", lambda plugin, at, _: plugin.remove(at), private=True
    ),
    "plugin.enable": makes_or_changes(
        PluginUse, plugins.EnablePlugin, "plugin.manage", plugins.enable, target="plugin", private=True
    ),
    "plugin.disable": makes_or_changes(
        PluginUse, plugins.DisablePlugin, "plugin.manage", plugins.disable, target="plugin", private=True
    ),
    "plugin.configure": makes_or_changes(
        PluginUse, plugins.ConfigurePlugin, "plugin.manage", plugins.configure, target="plugin", private=True
    ),
    "plugin.clear": makes_or_changes(
        PluginStorage, plugins.ClearPlugin, "plugin.manage", plugins.clear, target="plugin", private=True
    ),
    "model.set": makes_or_changes(Model, catalog.SetModel, "provider.manage", catalog.set_model, target="id"),
    "model.remove": makes_or_changes(Model, catalog.RemoveModel, "provider.manage", catalog.remove_model, target="id"),
    "model.set_default": makes_or_changes(
        DefaultModel, catalog.SetDefaultModel, "provider.manage", catalog.set_default, target="type"
    ),
    "model.remove_default": makes_or_changes(
        DefaultModel, catalog.RemoveDefaultModel, "provider.manage", catalog.remove_default, target="type"
    ),
    "door.report_sign_in": creates(Door, audit.ReportSignIn, "door", audit.reported(Door.SignedIn), person="account"),
    "door.report_refusals": creates(Door, audit.ReportRefusals, "door", audit.reported(Door.Refused), person="account"),
    "door.report_use": creates(Door, audit.ReportUse, "door", audit.reported(Door.Used), person="account"),
    "trace.open": creates(Door, audit.OpenTrace, "read", audit.reported(Door.TraceOpened), person="account"),
    "trace.search": creates(
        Door, audit.SearchTraces, "read", audit.reported(Door.TracesSearched), person="account", gives=Door.TOPIC
    ),
    "dead_letter.retry": changes(DeadLetter, work.RetryDeadLetter, "operate", lambda letter, at, _: letter.retry(at)),
    "dead_letter.discard": changes(
        DeadLetter, work.DiscardDeadLetter, "operate", lambda letter, at, _: letter.discard(at)
    ),
    "quarantine.discard": makes_or_changes(
        Quarantine, work.DiscardQuarantined, "operate", work.discard, target="quarantine"
    ),
}


PRIVATE_NOUNS = {route.noun.TOPIC for route in ROUTES.values() if route.private}
"""The nouns whose events may hold secrets or words of a person."""


def is_private(name: str) -> bool:
    """Return whether a command, or an error about it, may hold secrets or words of a person; an unknown command may."""
    route = ROUTES.get(name)
    return route is None or route.private
