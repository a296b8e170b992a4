"""The page that maps Dify's tables: it names each of them once, and nothing here that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapters.postgres.agent_thoughts import AGENT_THOUGHTS
from adapters.postgres.operation_logs import OPERATION_LOGS
from adapters.postgres.workflow_app_logs import WORKFLOW_APP_LOGS
from ops.settings import PREFIX, Settings
from projections.catalog import READ_MODELS

PAGE = (Path(__file__).resolve().parents[2] / "docs/dify-tables.md").read_text()

_NAMES = """
alembic_version account_integrates api_requests app_dataset_joins celery_taskmeta celery_tasksetmeta
dataset_process_rules dataset_queries dify_setups end_users installed_apps invitation_codes message_chains
message_feedbacks operation_logs pinned_conversations saved_messages accounts data_source_bindings tool_providers
document_segments provider_models tenant_default_models tenant_preferred_model_providers providers provider_orders
documents dataset_retriever_resources api_tokens api_based_extensions upload_files datasets
dataset_collection_bindings message_annotations app_annotation_hit_histories app_annotation_settings tenants
tool_builtin_providers tool_published_apps tool_model_invokes tool_conversation_variables tool_files message_files
app_model_configs tenant_account_joins dataset_keyword_tables embeddings workflow_app_logs workflow_node_executions
workflow_runs workflows apps conversations messages message_agent_thoughts tag_bindings tags recommended_apps sites
tool_api_providers tool_label_bindings tool_workflow_providers
"""

DIFY = _NAMES.split()
"""The tables of Dify 0.6.9."""

LATER = {"comes with workflows", "comes with the HTTP door"}

COLUMNS = {model.name: set(model.blank) for model in READ_MODELS}
COLUMNS |= {view.name: set(view.columns) for view in (OPERATION_LOGS, AGENT_THOUGHTS, WORKFLOW_APP_LOGS)}

ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_each_table_of_dify_has_one_row() -> None:
    assert len(DIFY) == 62
    assert [names(dify) for dify, _, _ in ROWS] == [[table] for table in DIFY]


@pytest.mark.parametrize(("dify", "here", "different"), ROWS, ids=DIFY)
def test_a_row_names_what_is_there_or_says_why_not(dify: str, here: str, different: str) -> None:
    if here == "dropped":
        assert different.endswith("."), "a reason"
    elif here not in LATER:
        assert names(here)
        assert not re.sub(r"`[a-z_.]+`|, ", "", here)
    for name in names(here):
        table, _, column = name.partition(".")
        assert table in COLUMNS, name
        assert not column or column in COLUMNS[table], name
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    of_the_row = {column for name in names(here) for column in COLUMNS.get(name.partition(".")[0], ())}
    for name in names(different):
        table, _, column = name.partition(".")
        known = name in COLUMNS or name in settings or name in of_the_row or name in OF_DIFY
        assert column in COLUMNS.get(table, ()) if column else known, name


OF_DIFY = {
    *DIFY,
    *("from_source", "permission", "introduction", "batch"),
    *("_house", "a_", "enabled", "jsonb", "headrace_cache", "datasets"),
}
"""Names in the last column that are Dify's, or neither tables nor columns."""


def test_the_names_of_dify_are_taken_where_there_is_such_a_table() -> None:
    """A table of Dify's name is that of the row."""
    for dify, here, _ in ROWS:
        [table] = names(dify)
        assert table not in COLUMNS or table in names(here), table
