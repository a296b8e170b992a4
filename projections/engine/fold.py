"""The fold: a batch of messages of the log, and what it does to the rows of every table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from domain.log import Recorded
from projections.engine.read_model import Changing, Clearing, Following, Making, Pick, ReadModel, Row, Setting

RowId = tuple[str, str]
"""Tenant and key."""

Tables = Mapping[ReadModel, "Rows"]

BlobId = tuple[str, str]
"""Tenant and digest."""


class Unprojected(Exception):
    """No table knows what to do with an event, and it is not among those left out on purpose."""


@dataclass(frozen=True, slots=True)
class Set:
    """What an event set in all rows that one id of a tenant is found by."""

    setting: Setting
    tenant: str
    value: str
    position: int
    at: datetime
    keys: tuple[str, str | None] | None = None
    """The key of an object, and what it is to be called."""

    def change(self, row: Row) -> Row | None:
        """The changed columns, or None when the row stays as it is."""
        setting = self.setting
        if not setting.holds(row):
            return None
        if setting.keys is None or self.keys is None:
            return setting.values(self.position, self.at)
        (old, new), known = self.keys, row[setting.keys.column]
        if old not in known:
            return None
        others = {name: value for name, value in known.items() if name != old}
        return {setting.keys.column: {**others, new: known[old]} if new else others}


class Rows:
    """The rows of one table that a batch works on, and what is to be done: first `cleared`, then `set`, then `written`.

    `stored` are those that were loaded.
    """

    def __init__(self, model: ReadModel, loaded: Iterable[Row]) -> None:
        self.model = model
        self.rows: dict[RowId, Row] = {}
        self.stored: set[RowId] = set()
        self.written: set[RowId] = set()
        self.cleared: dict[str, set[RowId]] = defaultdict(set)
        self.set: list[Set] = []
        self.holding: dict[str, dict[RowId, list[RowId]]] = {}
        for row in loaded:
            id = (row["tenant_id"], row[model.key])
            self.stored.add(id)
            self._hold(id, row)

    def __getitem__(self, id: tuple[str, str | None]) -> Row | None:
        return self.rows.get(id)  # type: ignore[arg-type]  # no row has the key None

    def make(self, row: Row) -> None:
        id = (row["tenant_id"], row[self.model.key])
        self._hold(id, row)
        self.written.add(id)

    def change(self, id: RowId, row: Row) -> None:
        """Columns that rows are found by never change, so what `holding` says stays true."""
        self.rows[id] = row
        self.written.add(id)

    def clear(self, column: str, tenant: str, value: str) -> None:
        self.cleared[column].add((tenant, value))
        for id in self._found(column).pop((tenant, value), ()):
            if (row := self.rows.get(id)) and row[column] == value:
                del self.rows[id]
                self.written.discard(id)

    def sets(self, done: Set) -> None:
        self.set.append(done)
        column = done.setting.column
        for id in self._found(column).get((done.tenant, done.value), ()):
            if (row := self.rows.get(id)) and row[column] == done.value and (columns := done.change(row)) is not None:
                self.change(id, self.model.changed(row, done.position, done.at, columns))

    def result(self) -> tuple[list[Row], list[Row]]:
        """The rows to write: those that were loaded, and the others."""
        new = [self.rows[id] for id in self.written - self.stored]
        return [self.rows[id] for id in self.written & self.stored], new

    def _found(self, column: str) -> dict[RowId, list[RowId]]:
        """The rows by what they have in a column."""
        if column not in self.holding:
            self.holding[column] = defaultdict(list)
            for id, held in self.rows.items():
                self.holding[column][id[0], held[column]].append(id)
        return self.holding[column]

    def _hold(self, id: RowId, row: Row) -> None:
        self.rows[id] = row
        for column, holding in self.holding.items():
            holding[id[0], row[column]].append(id)


@dataclass(slots=True)
class Rules:
    """What one type of event does, in this order."""

    clearings: list[Clearing] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
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
        self.followers: dict[ReadModel, list[Following]] = defaultdict(list)
        for model in models:
            for event, rule in model.rules:
                self._add(self.rules[event], rule)
            for following in model.followings:
                self.followers[following.other].append(following)
        self.picks = {event: rules.blobs for event, rules in self.rules.items() if rules.blobs}

    def _add(self, rules: Rules, rule: Clearing | Setting | Making | Changing) -> None:
        match rule:
            case Clearing():
                rules.clearings.append(rule)
            case Setting():
                rules.settings.append(rule)
            case Changing():
                rules.changings.append(rule)
                rules.needs.extend([rule.beside] if rule.beside else [])
                rules.needs.append((rule.model, _alone(rule.pick) if rule.through else rule.pick))
            case Making():
                rules.makings.append(rule)
                rules.needs.extend(other for other in (rule.within, rule.beside) if other)
                if rule.unless:
                    rules.needs.append((rule.unless[0], _alone(rule.unless[1]) if rule.through else rule.unless[1]))
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
                found += [(message.subject.tenant, digest) for pick in picks if (digest := pick(event, message))]
        return found

    def needs(self, batch: Iterable[Recorded]) -> dict[ReadModel, set[RowId]]:
        """The rows that folding a batch takes, where they exist; those that it makes itself are left out.

        The rows that are there may bring more: see `brought`.
        """
        needed: dict[ReadModel, set[RowId]] = defaultdict(set)
        made: dict[ReadModel, set[RowId]] = defaultdict(set)
        for message in batch:
            tenant = message.subject.tenant
            for event in message.events:
                rules = self._of(event, message)
                for model, pick in rules.needs:
                    if (key := pick(event, message)) and (id := (tenant, key)) not in made[model]:
                        needed[model].add(id)
                for model, pick in rules.news:
                    if key := pick(event, message):
                        made[model].add((tenant, key))
        return {model: ids for model, ids in needed.items() if ids}

    def brought(
        self, rows: Mapping[ReadModel, Iterable[Row]], known: Mapping[ReadModel, Collection[RowId]]
    ) -> dict[ReadModel, set[RowId]]:
        """The rows that are needed because these are, without those that are known to be."""
        needed: dict[ReadModel, set[RowId]] = {}
        for model, loaded in rows.items():
            for other, name in model.brings:
                if other in self.models:
                    ids = {(row["tenant_id"], key) for row in loaded if (key := name(row))}
                    needed.setdefault(other, set()).update(ids.difference(known.get(other, ())))
        return {model: ids for model, ids in needed.items() if ids}

    def __call__(
        self, batch: Iterable[Recorded], loaded: Mapping[ReadModel, Iterable[Row]], blobs: Mapping[BlobId, bytes]
    ) -> list[Rows]:
        """What a batch does to every table, given the rows and blobs it needs.

        Raises: Unprojected; KeyError for a blob that is needed and missing.
        """
        tables = {model: Rows(model, loaded.get(model, ())) for model in self.models}
        for message in batch:
            for event in message.events:
                rules = self._of(event, message)
                _sweep(tables, rules, event, message)
                for making in rules.makings:
                    self._make(tables, making, event, message, blobs)
                for changing in rules.changings:
                    self._change(tables, changing, event, message)
        return list(tables.values())

    def _make(
        self, tables: Tables, making: Making, event: Any, message: Recorded, blobs: Mapping[BlobId, bytes]
    ) -> None:
        tenant = message.subject.tenant
        given: list[object] = [event, message]
        if making.within:
            model, pick = making.within
            parent = tables[model][tenant, pick(event, message)]
            if parent is None:
                return
            given.append(parent)
        beside: list[Row | None] = []
        if making.beside:
            model, pick = making.beside
            beside.append(tables[model][tenant, pick(event, message)])
        if making.unless:
            model, pick = making.unless
            if tables[model][tenant, pick(event, message, *beside if making.through else ())] is not None:
                return
        given += beside
        if making.blob:
            given.append(blobs[tenant, str(making.blob(event, message))])
        made, model = making.make(*given), making.model
        rows = tables[model]
        for columns in (made,) if isinstance(made, dict) else made:
            row = model.made(tenant, message.position.sequence, event.timestamp, columns)
            if model in self.followers:
                before = rows[tenant, row[model.key]]
                rows.make(row)
                self._follow(tables, model, before, row, event.timestamp)
            else:
                rows.make(row)

    def _change(self, tables: Tables, changing: Changing, event: Any, message: Recorded) -> None:
        tenant, model = message.subject.tenant, changing.model
        given: list[object] = [event, message]
        if changing.beside:
            other, pick = changing.beside
            given.append(tables[other][tenant, pick(event, message)])
        rows, key = tables[model], changing.pick(*given if changing.through else (event, message))
        if not key or (before := rows[tenant, key]) is None:
            return
        if columns := changing.change(before, *given):
            row = model.changed(before, message.position.sequence, event.timestamp, columns)
            rows.change((tenant, key), row)
            if model in self.followers:
                self._follow(tables, model, before, row, event.timestamp)

    def _follow(self, tables: Tables, model: ReadModel, before: Row | None, after: Row, at: datetime) -> None:
        for following in self.followers[model]:
            rows, id = tables[following.model], (after["tenant_id"], after[following.column])
            if (row := rows[id]) and (columns := following.follow(row, before, after)):
                rows.change(id, following.model.changed(row, after["log_position"], at, columns))


def _alone(pick: Pick) -> Pick:
    """What it picks when the other row is not there."""
    return lambda event, message: pick(event, message, None)


def _sweep(tables: Tables, rules: Rules, event: Any, message: Recorded) -> None:
    """Clear rows, and set columns of rows."""
    tenant = message.subject.tenant
    for clearing in rules.clearings:
        if value := clearing.pick(event, message):
            tables[clearing.model].clear(clearing.column, tenant, value)
    for setting in rules.settings:
        if value := setting.pick(event, message):
            keys = setting.keys.pick(event) if setting.keys else None
            done = Set(setting, tenant, value, message.position.sequence, event.timestamp, keys)
            tables[setting.model].sets(done)
