"""The fold: a batch of messages of the log, and what it does to the rows of every table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from domain.log import Recorded
from projections.read_model import Changing, Clearing, Making, Pick, ReadModel, Row

RowId = tuple[str, str]
"""Tenant and key."""

BlobId = tuple[str, str]
"""Tenant and digest."""


class Unprojected(Exception):
    """No table knows what to do with an event, and it is not among those left out on purpose."""


class Rows:
    """The rows of one table that a batch works on, and what is to be done: first `cleared`, then `written`.

    `stored` are those that were loaded.
    """

    def __init__(self, model: ReadModel, loaded: Iterable[Row]) -> None:
        self.model = model
        self.rows: dict[RowId, Row] = {}
        self.stored: set[RowId] = set()
        self.written: set[RowId] = set()
        self.cleared: dict[str, set[RowId]] = defaultdict(set)
        self.holding: dict[str, dict[RowId, list[RowId]]] = {}
        for row in loaded:
            id = (row["tenant_id"], row[model.key])
            self.stored.add(id)
            self._hold(id, row)

    def __getitem__(self, id: RowId) -> Row | None:
        return self.rows.get(id)

    def make(self, row: Row) -> None:
        id = (row["tenant_id"], row[self.model.key])
        self._hold(id, row)
        self.written.add(id)

    def change(self, id: RowId, row: Row) -> None:
        """Columns that rows are cleared by never change, so what `holding` says stays true."""
        self.rows[id] = row
        self.written.add(id)

    def clear(self, column: str, tenant: str, value: str) -> None:
        self.cleared[column].add((tenant, value))
        if column not in self.holding:
            self.holding[column] = defaultdict(list)
            for id, held in self.rows.items():
                self.holding[column][id[0], held[column]].append(id)
        for id in self.holding[column].pop((tenant, value), ()):
            if (row := self.rows.get(id)) and row[column] == value:
                del self.rows[id]
                self.written.discard(id)

    def result(self) -> tuple[list[Row], list[Row]]:
        """The rows to write: those that were loaded, and the others."""
        new = [self.rows[id] for id in self.written - self.stored]
        return [self.rows[id] for id in self.written & self.stored], new

    def _hold(self, id: RowId, row: Row) -> None:
        self.rows[id] = row
        for column, holding in self.holding.items():
            holding[id[0], row[column]].append(id)


@dataclass(slots=True)
class Rules:
    """What one type of event does, in this order."""

    clearings: list[Clearing] = field(default_factory=list)
    makings: list[Making] = field(default_factory=list)
    changings: list[Changing] = field(default_factory=list)
    needs: list[tuple[ReadModel, Pick]] = field(default_factory=list)
    news: list[tuple[ReadModel, Pick]] = field(default_factory=list)
    blobs: list[Pick] = field(default_factory=list)


class Fold:
    """The rules of some read models; `known` are all the types of events there may be."""

    def __init__(self, models: Sequence[ReadModel], known: Collection[type]) -> None:
        self.models = models
        self.rules: dict[type, Rules] = {event: Rules() for event in known}
        for model in models:
            for event, rule in model.rules:
                self._add(self.rules[event], rule)
        self.picks = {event: rules.blobs for event, rules in self.rules.items() if rules.blobs}

    def _add(self, rules: Rules, rule: Clearing | Making | Changing) -> None:
        match rule:
            case Clearing():
                rules.clearings.append(rule)
            case Changing():
                rules.changings.append(rule)
                rules.needs.append((rule.model, rule.pick))
            case Making():
                rules.makings.append(rule)
                rules.needs.extend(condition for condition in (rule.within, rule.unless) if condition)
                rules.news.extend([(rule.model, rule.new)] if rule.new else [])
                rules.blobs.extend([rule.blob] if rule.blob else [])

    def _of(self, event: object, message: Recorded) -> Rules:
        try:
            return self.rules[type(event)]
        except KeyError:
            raise Unprojected(
                f"No table knows {type(event).__qualname__}, at {message.position.stream} {message.position.sequence}; "
                "run a version of Headrace that does."
            ) from None

    def blobs(self, message: Recorded) -> list[BlobId]:
        """The blobs that folding a message takes."""
        found: list[BlobId] = []
        for event in message.events:
            if picks := self.picks.get(type(event)):
                found += [(message.subject.tenant, pick(event)) for pick in picks]
        return found

    def needs(self, batch: Iterable[Recorded]) -> dict[ReadModel, set[RowId]]:
        """The rows that folding a batch takes, where they exist; those that it makes itself are left out."""
        needed: dict[ReadModel, set[RowId]] = defaultdict(set)
        made: dict[ReadModel, set[RowId]] = defaultdict(set)
        for message in batch:
            tenant = message.subject.tenant
            for event in message.events:
                rules = self._of(event, message)
                for model, pick in rules.needs:
                    if (id := (tenant, pick(event))) not in made[model]:
                        needed[model].add(id)
                for model, pick in rules.news:
                    made[model].add((tenant, pick(event)))
        return {model: ids for model, ids in needed.items() if ids}

    def __call__(
        self, batch: Iterable[Recorded], loaded: Mapping[ReadModel, Iterable[Row]], blobs: Mapping[BlobId, bytes]
    ) -> list[Rows]:
        """What a batch does to every table, given the rows and blobs it needs.

        Raises: Unprojected; KeyError for a blob that is needed and missing.
        """
        tables = {model: Rows(model, loaded.get(model, ())) for model in self.models}
        for message in batch:
            tenant, position = message.subject.tenant, message.position.sequence
            for event in message.events:
                rules = self._of(event, message)
                for clearing in rules.clearings:
                    tables[clearing.model].clear(clearing.column, tenant, clearing.pick(event))
                for making in rules.makings:
                    given: list[object] = [event, message]
                    if making.within:
                        model, pick = making.within
                        parent = tables[model][tenant, pick(event)]
                        if parent is None:
                            continue
                        given.append(parent)
                    if making.unless:
                        model, pick = making.unless
                        if tables[model][tenant, pick(event)] is not None:
                            continue
                    if making.blob:
                        given.append(blobs[tenant, making.blob(event)])
                    made = making.make(*given)
                    rows = tables[making.model]
                    for row in (made,) if isinstance(made, dict) else made:
                        rows.make(making.model.made(tenant, position, event.timestamp, row))
                for changing in rules.changings:
                    rows, id = tables[changing.model], (tenant, changing.pick(event))
                    if known := rows[id]:
                        change = changing.change(known, event, message)
                        rows.change(id, changing.model.changed(known, position, event.timestamp, change))
        return list(tables.values())
