"""Models that tenants take by default: the table `tenant_default_models`."""

from __future__ import annotations

from sqlalchemy import Text

from domain.log import Recorded
from domain.models.default_model import DefaultModel
from projections.engine.columns import Id, Time, key, required
from projections.engine.read_model import ReadModel, Row, originator

tenant_default_models = ReadModel(
    "tenant_default_models",
    "The model that a tenant takes by default, one for each type. A type without a default has no row.",
    key("id", "Type: chat, embedding, rerank, transcription, speech or moderation."),
    required("provider_id", Id, "Provider: builtin, or a row in providers."),
    required("model", Text, "Name of the model at its provider."),
    required("created_at", Time, "When the default was set."),
    required("updated_at", Time, "Time of the last change."),
)
tenant_default_models.clears(DefaultModel.Removed)


def _row(event: DefaultModel.Chosen | DefaultModel.Changed) -> Row:
    return {"id": event.originator_id, "provider_id": event.provider, "model": event.model}


@tenant_default_models.makes(DefaultModel.Chosen, new=originator)
def chosen(event: DefaultModel.Chosen, message: Recorded) -> Row:
    return _row(event)


@tenant_default_models.makes(DefaultModel.Changed, once=originator)
def again(event: DefaultModel.Changed, message: Recorded) -> Row:
    """The default was removed before."""
    return _row(event)


@tenant_default_models.changes(DefaultModel.Changed)
def changed(row: Row, event: DefaultModel.Changed, message: Recorded) -> Row:
    return _row(event)
