"""Rules for all read models."""

from __future__ import annotations

import inspect

import pytest

from domain import aggregate
from domain.log import Outcome
from domain.nouns import NOUNS
from projections.catalog import IGNORED, KNOWN, READ_MODELS
from projections.engine.read_model import ReadModel

EVENTS = {
    event
    for noun in NOUNS.values()
    for _, event in inspect.getmembers(noun, inspect.isclass)
    if issubclass(event, aggregate.Event) and "TOPIC" in vars(event)
}


ACROSS_TENANTS = {
    "ix_traces_ended",
    "ix_spans_ended",
    "ix_traces_words",
    "ix_model_calls_open",
    "ix_tool_calls_held",
    "ix_tool_calls_open",
    "ix_model_calls_lost",
    "ix_quota_windows_leased",
}
"""Indexes that the exporter, the metrics, a search of words and the settling of leases use."""


def test_every_event_is_in_a_table_or_left_out_on_purpose() -> None:
    assert len(EVENTS) == 232
    assert EVENTS | {Outcome} == KNOWN
    assert not IGNORED & {event for model in READ_MODELS for event, _ in model.rules}


def test_no_noun_is_forgotten() -> None:
    ours = {noun for noun in aggregate.Aggregate.__subclasses__() if noun.__module__.startswith("domain.")}
    assert ours == set(NOUNS.values())


@pytest.mark.parametrize("model", READ_MODELS, ids=repr)
def test_every_table_and_column_has_a_comment(model: ReadModel) -> None:
    assert model.table.comment
    for column in model.table.columns:
        assert column.comment, column.name
        assert column.comment.endswith("."), column.name


@pytest.mark.parametrize("model", READ_MODELS, ids=repr)
def test_a_tenant_comes_first_in_every_key(model: ReadModel) -> None:
    assert [column.name for column in model.table.primary_key] == ["tenant_id", model.key]
    for index in model.table.indexes:
        first = next(iter(index.columns)).name
        assert first == "tenant_id" or index.name in ACROSS_TENANTS, "readers ask for the rows of one tenant"


def test_no_column_could_hold_a_key_of_a_provider() -> None:
    names = {column.name for model in READ_MODELS for column in model.table.columns}
    assert not names & {"sealed_key", "key", "api_key", "encrypted_config"}
