"""Models of providers, with the facts known of them: the table `provider_models`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.log import Recorded
from domain.models.model import SOURCES, Facts, Model, merged
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator
from projections.engine.values import Values
from projections.values.prices import Call

provider_models = ReadModel(
    "provider_models",
    "Models of providers: those with an entry of the tenant, those that were checked, and those that servers listed. "
    "Each fact is the first that is known: of the entry, as measured, as listed by the server, of the catalogue.",
    key("id", "Model."),
    required("provider_id", Id, "Provider: builtin, or a row in providers."),
    required("model", Text, "Name of the model at its provider."),
    optional("type", Text, "chat, embedding, rerank, transcription, speech or moderation; null when unknown."),
    optional("context_window", BigInteger, "Maximum tokens of prompt and answer together; null when unknown."),
    optional("max_output", BigInteger, "Maximum tokens of an answer; null when unknown."),
    required("abilities", JSONB, "Abilities by name, true or false; one that is unknown is left out."),
    optional("prices", JSONB, "US dollars per million tokens: input, output, cached, cache_write; null when unknown."),
    optional("rpm", BigInteger, "Maximum requests per minute; null for no limit."),
    optional("tpm", BigInteger, "Maximum tokens per minute; null for no limit."),
    required("sources", JSONB, "Source of each fact by its name: entry, measured, listed or catalog."),
    optional("entry", JSONB, "Entry of the tenant; null for none."),
    optional("measured", JSONB, "Facts that the last check measured; null for none."),
    optional("listed", JSONB, "Facts that the server listed; null for none."),
    optional("catalog", JSONB, "Window and prices of the catalogue; null for none."),
    required("price_version", Text, "Catalogue, as in model_calls."),
    optional("check_id", Id, "Last check, the cause of its calls in model_calls; null for none."),
    optional("checked_at", Time, "Time of the last check; null for none."),
    required("created_at", Time, "When it was first recorded."),
    required("updated_at", Time, "Time of the last change."),
)
provider_models.priced("catalog", "context_window", "prices", "sources", "price_version")


@provider_models.makes(Model.Begun, new=originator, values=True)
def begun(event: Model.Begun, message: Recorded, values: Values) -> Row:
    row = {**dict.fromkeys(SOURCES), "provider_id": event.provider, "model": event.model}
    return {"id": event.originator_id, **row, **_known(row, event, values)}


@provider_models.changes(Model.Set, values=True)
def entered(row: Row, event: Model.Set, message: Recorded, values: Values) -> Row:
    return _with(row, event, values, entry={name: getattr(event, name) for name in Facts.__annotations__})


@provider_models.changes(Model.Removed, values=True)
def removed(row: Row, event: Model.Removed, message: Recorded, values: Values) -> Row:
    return _with(row, event, values, entry=None)


@provider_models.changes(Model.Listed, values=True)
def listed(row: Row, event: Model.Listed, message: Recorded, values: Values) -> Row:
    names = ("server", "type", "context_window", "max_output")
    return _with(row, event, values, listed={name: getattr(event, name) for name in names})


@provider_models.changes(Model.Checked, values=True)
def checked(row: Row, event: Model.Checked, message: Recorded, values: Values) -> Row:
    measured = {"abilities": event.abilities, "context_window": event.context_window}
    return _with(row, event, values, measured=measured, check_id=event.check, checked_at=event.timestamp)


def _with(row: Row, event: Model.Event, values: Values, **columns: object) -> Row:
    return columns | _known({**row, **columns}, event, values)


def _known(row: Row, event: Model.Event, values: Values) -> Row:
    """The catalogue's facts, and those of all sources together."""
    server = (row["listed"] or {}).get("server", "")
    catalog = values.prices.known(Call(row["provider_id"], server, row["model"], event.timestamp))
    facts, sources = merged({**{source: row[source] for source in SOURCES}, "catalog": catalog})
    return {**facts, "sources": sources, "catalog": catalog, "price_version": values.prices.version}
