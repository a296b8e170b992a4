"""All read models, and all events that they know."""

from __future__ import annotations

from collections.abc import Mapping

from domain.access.bus_login import BusLogin
from domain.access.door import Door
from domain.access.limits import Limits
from domain.chat.conversation import Conversation
from domain.chat.tags import Tags
from domain.knowledge.dataset import Dataset
from domain.knowledge.dataset_query import DatasetQuery
from domain.knowledge.document import Document
from domain.models.quota import Quota
from domain.tools.user_secrets import UserSecrets
from domain.work.quarantine import Quarantine
from domain.workflows.workflow import Workflow
from projections.accounts import accounts
from projections.api_tokens import api_tokens
from projections.app_model_configs import app_model_configs
from projections.apps import apps
from projections.commands import commands
from projections.conversation_variables import conversation_variables
from projections.conversations import conversations
from projections.dataset_metadata import dataset_metadata
from projections.dataset_queries import dataset_queries
from projections.dataset_retriever_resources import dataset_retriever_resources
from projections.datasets import datasets
from projections.dead_letters import dead_letters
from projections.document_segments import child_chunks, document_segments
from projections.documents import documents
from projections.door_events import door_events
from projections.effects import effects
from projections.end_users import end_users
from projections.engine.read_model import ReadModel
from projections.human_input_forms import human_input_forms
from projections.limits import limits
from projections.message_annotations import (
    annotation_vectors,
    app_annotation_hit_histories,
    app_annotation_settings,
    message_annotations,
)
from projections.message_feedbacks import message_feedbacks
from projections.message_files import message_files, upload_files
from projections.message_moderations import message_moderations
from projections.messages import messages
from projections.model_calls import model_calls
from projections.pinned_conversations import pinned_conversations
from projections.plugin_runs import plugin_runs
from projections.plugin_storage import plugin_storage
from projections.plugin_uses import plugin_uses
from projections.plugins import plugins
from projections.provider_credentials import provider_credentials
from projections.provider_models import provider_models
from projections.providers import providers
from projections.quota_windows import quota_windows
from projections.quotas import quotas
from projections.replays import replays
from projections.retrievals import retrievals
from projections.routes import routes
from projections.saved_messages import saved_messages
from projections.schedules import schedules
from projections.sites import sites
from projections.speeches import speeches
from projections.sql_logins import sql_logins
from projections.tag_bindings import tag_bindings
from projections.tags import tags
from projections.tenant_account_joins import tenant_account_joins
from projections.tenant_default_models import tenant_default_models
from projections.tenant_invitations import tenant_invitations
from projections.tenants import tenants
from projections.texts import texts, turns
from projections.tool_calls import tool_calls
from projections.toolsets import toolsets
from projections.traces.spans import spans
from projections.traces.subjects import subjects
from projections.traces.traces import traces
from projections.transcriptions import transcriptions
from projections.user_secrets import user_secrets
from projections.workflow_node_executions import workflow_node_executions
from projections.workflow_runs import workflow_runs
from projections.workflows import workflows

GROUPS: Mapping[str, tuple[ReadModel, ...]] = {
    "knowledge": (datasets, dataset_metadata, documents, document_segments, child_chunks, dataset_queries),
    "chat": (
        apps,
        app_model_configs,
        workflows,
        schedules,
        sites,
        conversations,
        messages,
        conversation_variables,
        pinned_conversations,
        saved_messages,
        message_files,
        upload_files,
        transcriptions,
        speeches,
        message_feedbacks,
        message_moderations,
        message_annotations,
        annotation_vectors,
        app_annotation_settings,
        app_annotation_hit_histories,
        dataset_retriever_resources,
        end_users,
        providers,
        provider_credentials,
        tenant_default_models,
        routes,
        toolsets,
        user_secrets,
    ),
    "runs": (workflow_runs, workflow_node_executions, human_input_forms),
    "traces": (
        texts,
        provider_models,
        model_calls,
        tool_calls,
        effects,
        plugin_runs,
        turns,
        retrievals,
        replays,
        subjects,
        traces,
        spans,
    ),
    "work": (
        commands,
        door_events,
        quotas,
        quota_windows,
        limits,
        sql_logins,
        dead_letters,
        tags,
        tag_bindings,
        plugins,
        plugin_uses,
        plugin_storage,
    ),
    "access": (accounts, tenants, tenant_account_joins, tenant_invitations, api_tokens),
}
"""The tables that stand at one position together, in the order in which they are folded. No fold reads another group's
tables, so a group that halts stops no other."""

READ_MODELS: tuple[ReadModel, ...] = tuple(model for models in GROUPS.values() for model in models)
"""Every table of schema `headrace`."""

GROUP_OF: Mapping[str, str] = {model.name: group for group, models in GROUPS.items() for model in models}
"""The group of each table, by its name."""

IGNORED: frozenset[type] = frozenset(
    {
        *(Document.ReprocessRequested, Dataset.Reprocessed, DatasetQuery.Requested, Quarantine.Discarded),
        *(BusLogin.Opened, BusLogin.Issued, BusLogin.Closed, Limits.Begun, Quota.Begun, Tags.Begun),
        UserSecrets.Begun,
        *(Door.TraceOpened, Conversation.NamingRequested),
        *(Conversation.StrategyChanged, Conversation.ToolDecided, Workflow.Begun),
    }
)
"""Events that are in no table, on purpose."""

KNOWN: frozenset[type] = IGNORED | {event for model in READ_MODELS for event, _ in model.rules}
"""Every event that a projector may meet."""
