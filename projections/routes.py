"""Routes of models: the table `routes`."""

from __future__ import annotations

from sqlalchemy import Boolean, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.log import Recorded
from domain.models.route import ModelRoute
from projections.engine.columns import Time, key, required
from projections.engine.read_model import ReadModel, Row, originator

routes = ReadModel(
    "routes",
    "Routes: models that apps use by one name, in groups. A removed route has no row.",
    key("id", "Name that apps call the route by."),
    required("groups", JSONB, "Groups, in their order: strategy, and members with provider, model, weight, window."),
    required("reactions", JSONB, "Reactions to error codes that differ from the usual ones: next, larger or stop."),
    required("restart", Boolean, "An answer that has begun may begin again with another model."),
    required("wait_s", Integer, "Time to wait for a model when all of them rest, in seconds."),
    required("created_by", Text, "Actor who configured it first."),
    required("created_at", Time, "When it was configured first, or again after it was removed."),
    required("updated_at", Time, "Time of the last change."),
)
routes.clears(ModelRoute.Removed)


def _settings(event: ModelRoute.Configured | ModelRoute.Changed) -> Row:
    return {
        "groups": event.groups,
        "reactions": event.reactions,
        "restart": event.restart,
        "wait_s": event.wait_s,
    }


@routes.makes(ModelRoute.Configured, new=originator)
def configured(event: ModelRoute.Configured, message: Recorded) -> Row:
    return {"id": event.originator_id, **_settings(event), "created_by": message.metadata.actor}


@routes.makes(ModelRoute.Changed, once=originator)
def again(event: ModelRoute.Changed, message: Recorded) -> Row:
    """The route was removed before."""
    return {"id": event.originator_id, **_settings(event), "created_by": message.metadata.actor}


@routes.changes(ModelRoute.Changed)
def changed(row: Row, event: ModelRoute.Changed, message: Recorded) -> Row:
    return _settings(event)
