"""The fold: a batch of messages of the log, and what it does to the rows of every table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.log import Recorded
from projections.engine.links import Links
from projections.engine.read_model import Changing, Clearing, Making, Pick, Picks, ReadModel, Row, Setting
from projections.engine.rows import RowId, Rows, Set, Tables
from projections.engine.values import BUILT_IN, Values

BlobId = tuple[str, str]
"""Tenant and digest."""

Change = tuple[ReadModel, "Row | None", Row]
"""A row before (None when it was made) and after."""


class Unprojected(Exception):
    """An event that no table knows and that is not in the list of ignored ones."""


@dataclass(slots=True)
class Rules:
    """The rules of one type of event, in the order in which they apply, and the rows and blobs that they need."""

    clearings: list[Clearing] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    makings: list[Making] = field(default_factory=list)
    changings: list[Changing] = field(default_factory=list)
    needs: list[tuple[ReadModel, Pick]] = field(default_factory=list)
    among: list[tuple[ReadModel, Picks]] = field(default_factory=list)
    news: list[tuple[ReadModel, Pick]] = field(default_factory=list)
    blobs: list[Pick] = field(default_factory=list)


class Fold:
    """The rules of some read models; `known` are all types of events that may occur."""

    def __init__(self, models: Sequence[ReadModel], known: Collection[type], values: Values = BUILT_IN) -> None:
        self.models = models
        self.values = values
        self.links = Links(models)
        self.rules: dict[type, Rules] = {event: Rules() for event in known}
        for model in models:
            for event, rule in model.rules:
                self._add(self.rules[event], rule)
        for event, link in self.links.redirects.items():
            self.rules[event].needs.append((link.other, link.pick))
        self.picks = {event: rules.blobs for event, rules in self.rules.items() if rules.blobs}

    def _add(self, rules: Rules, rule: Clearing | Setting | Making | Changing) -> None:
        match rule:
            case Clearing():
                rules.clearings.append(rule)
            case Setting():
                rules.settings.append(rule)
            case Changing():
                rules.changings.append(rule)
                rules.needs.extend([rule.related] if rule.related else [])
                rules.needs.append((rule.model, rule.pick))
            case Making():
                rules.makings.append(rule)
                rules.needs.extend(other for other in (rule.within, rule.related) if other)
                rules.needs.extend([(rule.model, rule.once)] if rule.once else [])
                rules.needs.extend((link.model, link.pick) for link in self.links.followers.get(rule.model, ()))
                rules.news.extend([(rule.model, rule.new)] if rule.new else [])
                rules.among.extend([(rule.model, rule.among)] if rule.among else [])
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
        """The blobs that folding a message needs."""
        found: list[BlobId] = []
        for event in message.events:
            if picks := self.picks.get(type(event)):
                found += [(message.subject.tenant, digest) for pick in picks if (digest := pick(event, message))]
        return found

    def needs(self, batch: Iterable[Recorded]) -> dict[ReadModel, set[RowId]]:
        """The rows that folding a batch needs, where they exist, without those that the batch itself makes.

        Once they are loaded, they may bring more: see `Links.brought`.
        """
        needed: dict[ReadModel, set[RowId]] = defaultdict(set)
        made: dict[ReadModel, set[RowId]] = defaultdict(set)
        for message in batch:
            for event in message.events:
                rules = self._of(event, message)
                for model, pick in rules.news:
                    if key := pick(event, message):
                        made[model].add((model.tenant(message), key))
                for model, pick in rules.needs:
                    if (key := pick(event, message)) and (id := (model.tenant(message), key)) not in made[model]:
                        needed[model].add(id)
                for model, picks in rules.among:
                    needed[model] |= {(model.tenant(message), key) for key in picks(event, message)} - made[model]
        return {model: ids for model, ids in needed.items() if ids}

    def __call__(
        self, batch: Iterable[Recorded], loaded: Mapping[ReadModel, Iterable[Row]], blobs: Mapping[BlobId, bytes]
    ) -> list[Rows]:
        """The changes of a batch to every table, given the rows and blobs that it needs.

        Raises: Unprojected; KeyError for a blob that is needed and missing.
        """
        tables = {model: Rows(model, loaded.get(model, ())) for model in self.models}
        followers, redirects = self.links.followers, self.links.redirects
        for recorded in batch:
            for event in recorded.events:
                rules, message = self._of(event, recorded), recorded
                if type(event) in redirects:
                    message = self.links.redirected(tables, event, recorded)
                _sweep(tables, rules, event, message)
                changes: list[Change] = []
                for making in rules.makings:
                    changes += self._make(tables, making, event, message, blobs)
                for changing in rules.changings:
                    changes += self._change(tables, changing, event, message)
                for model, before, after in changes:
                    if model in followers:
                        self.links.follow(tables, model, before, after, event.timestamp, self.values)
        return list(tables.values())

    def _make(
        self, tables: Tables, making: Making, event: Any, message: Recorded, blobs: Mapping[BlobId, bytes]
    ) -> list[Change]:
        model = making.model
        tenant, rows = model.tenant(message), tables[model]
        if making.once and ((key := making.once(event, message)) is None or rows[tenant, key] is not None):
            return []
        given: list[object] = [event, message]
        if making.within:
            other, pick = making.within
            parent = tables[other][other.tenant(message), pick(event, message)]
            if parent is None:
                return []
            given.append(parent)
        if making.related:
            other, pick = making.related
            given.append(tables[other][other.tenant(message), pick(event, message)])
        if making.blob:
            given.append(blobs[message.subject.tenant, str(making.blob(event, message))])
        if making.values:
            given.append(self.values)
        if making.among:
            found = {key: rows[tenant, key] for key in making.among(event, message)}
            given.append({key: row for key, row in found.items() if row is not None})
        made = making.make(*given)
        changes: list[Change] = []
        for columns in (made,) if isinstance(made, dict) else made:
            row = model.made(tenant, message.position.sequence, event.timestamp, columns)
            changes.append((model, rows[tenant, row[model.key]], row))
            rows.make(row)
        return changes

    def _change(self, tables: Tables, changing: Changing, event: Any, message: Recorded) -> list[Change]:
        model = changing.model
        tenant, rows, key = model.tenant(message), tables[model], changing.pick(event, message)
        if not key or (before := rows[tenant, key]) is None:
            return []
        given: list[object] = [event, message]
        if changing.related:
            other, pick = changing.related
            given.append(tables[other][other.tenant(message), pick(event, message)])
        if changing.values:
            given.append(self.values)
        if not (columns := changing.change(before, *given)):
            return []
        row = model.changed(before, message.position.sequence, event.timestamp, columns)
        rows.change((tenant, key), row)
        return [(model, before, row)]


def _sweep(tables: Tables, rules: Rules, event: Any, message: Recorded) -> None:
    """Clear rows, and set columns of rows."""
    for clearing in rules.clearings:
        if value := clearing.pick(event, message):
            tables[clearing.model].clear(clearing.column, clearing.model.tenant(message), value)
    for setting in rules.settings:
        if value := setting.pick(event, message):
            keys = setting.keys.pick(event) if setting.keys else None
            done = Set(setting, setting.model.tenant(message), value, message.position.sequence, event.timestamp, keys)
            tables[setting.model].sets(done)
