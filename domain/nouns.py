"""The nouns: every aggregate by its stored name."""

from __future__ import annotations

from domain.access.account import Account
from domain.access.api_key import ApiKey
from domain.access.bus_login import BusLogin
from domain.access.door import Door
from domain.access.end_user import EndUser
from domain.access.limits import Limits
from domain.access.sql_login import SqlLogin
from domain.access.tenant import Tenant
from domain.aggregate import Aggregate
from domain.chat.annotation import Annotation
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.chat.speech import Speech
from domain.chat.tags import Tags
from domain.chat.transcription import Transcription
from domain.knowledge.dataset import Dataset
from domain.knowledge.dataset_query import DatasetQuery
from domain.knowledge.document import Document
from domain.knowledge.retrieval import Retrieval
from domain.models.budget import Budget
from domain.models.default_model import DefaultModel
from domain.models.model import Model
from domain.models.model_call import ModelCall
from domain.models.passage import Passage
from domain.models.provider import Provider
from domain.models.quota import Quota
from domain.models.quota_window import QuotaWindow
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
from domain.workflows.effect import Effect
from domain.workflows.run import Run
from domain.workflows.workflow import Workflow

NOUNS: dict[str, type[Aggregate]] = {
    noun.TOPIC: noun
    for noun in (
        Account,
        Annotation,
        ApiKey,
        App,
        Budget,
        BusLogin,
        Conversation,
        Dataset,
        DatasetQuery,
        DeadLetter,
        DefaultModel,
        Document,
        Door,
        Effect,
        EndUser,
        Limits,
        Model,
        ModelCall,
        ModelRoute,
        Passage,
        Plugin,
        PluginStorage,
        PluginUse,
        Provider,
        Quarantine,
        Quota,
        QuotaWindow,
        Replay,
        Retrieval,
        Run,
        Speech,
        SqlLogin,
        Tags,
        Tenant,
        ToolCall,
        Toolset,
        Transcription,
        UserSecrets,
        Workflow,
    )
}
