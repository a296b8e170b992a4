"""Links between the rows of read models, which traces need: a row follows rows that name it, and brings others.

A trace is rolled up from its spans and calls, so it follows them. Rows that are needed are loaded before a batch is
folded, so each link also says which rows a loaded row brings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain.log import Recorded
from projections.engine.read_model import Pick, ReadModel, Row, Rule
from projections.engine.rows import RowId, Tables

Follow = Callable[..., "Row | None"]
Redirect = Callable[[Recorded, Row], Recorded]


@dataclass(frozen=True, slots=True)
class Following:
    """When a row of `other` is made or changed, columns of the row that it names in `column` get new values."""

    model: ReadModel
    other: ReadModel
    column: str
    pick: Pick
    follow: Follow
    values: bool

    @property
    def looks_at(self) -> ReadModel:
        return self.other


@dataclass(frozen=True, slots=True)
class Bringing:
    """Rows of `other` are needed together with the rows of `model` that they name."""

    model: ReadModel
    other: ReadModel
    name: Callable[[Row], str | None]

    @property
    def looks_at(self) -> ReadModel:
        return self.other


@dataclass(frozen=True, slots=True)
class Redirecting:
    """All rules take the event's message as `redirect` returns it for a row of `other`."""

    event: type
    other: ReadModel
    pick: Pick
    redirect: Redirect

    @property
    def looks_at(self) -> ReadModel:
        return self.other


def follows(
    model: ReadModel, other: ReadModel, column: str, *, pick: Pick, values: bool = False
) -> Callable[[Rule], Rule]:
    """Register the function that changes a row of `model` when a row of `other` that names it in `column` is made or
    changed: it takes the row, the other before (None when it was just made) and after, and with `values` the fold's.

    `pick` names the row for the events that make rows of `other`. What `clears` and `sets` do is not followed.
    """

    def register(follow: Rule) -> Rule:
        model.links.append(Following(model, other, column, pick, follow, values))
        brings(other, model, lambda row: row[column])
        return follow

    return register


def brings(other: ReadModel, model: ReadModel, name: Callable[[Row], str | None]) -> None:
    """Load the row of `model` that a row of `other` names together with that row."""
    model.links.append(Bringing(model, other, name))


def redirects(model: ReadModel, events: Sequence[type], other: ReadModel, pick: Pick, redirect: Redirect) -> None:
    """Have the rules of these events take the message as the function returns it, which takes the row picked, too.

    The message stays as it is where there is no such row.
    """
    model.links.extend(Redirecting(event, other, pick, redirect) for event in events)


class Links:
    """The links of some read models."""

    def __init__(self, models: Collection[ReadModel]) -> None:
        self.followers: dict[ReadModel, list[Following]] = defaultdict(list)
        self.redirects: dict[type, Redirecting] = {}
        self._brings: dict[ReadModel, list[Bringing]] = defaultdict(list)
        for link in (link for model in models for link in model.links):
            match link:
                case Following():
                    self.followers[link.other].append(link)
                case Bringing():
                    self._brings[link.other].append(link)
                case Redirecting():
                    self.redirects[link.event] = link

    def brought(
        self, rows: Mapping[ReadModel, Iterable[Row]], known: Mapping[ReadModel, Collection[RowId]]
    ) -> dict[ReadModel, set[RowId]]:
        """The rows that these bring, without those that are known."""
        needed: dict[ReadModel, set[RowId]] = defaultdict(set)
        for other, loaded in rows.items():
            for link in self._brings.get(other, ()):
                ids = {(row["tenant_id"], key) for row in loaded if (key := link.name(row))}
                needed[link.model] |= ids.difference(known.get(link.model, ()))
        return {model: ids for model, ids in needed.items() if ids}

    def redirected(self, tables: Tables, event: Any, message: Recorded) -> Recorded:
        link = self.redirects[type(event)]
        row = tables[link.other][link.other.tenant(message), link.pick(event, message)]
        return message if row is None else link.redirect(message, row)

    def follow(
        self, tables: Tables, model: ReadModel, before: Row | None, after: Row, at: datetime, values: object
    ) -> None:
        """Change the rows that follow a row of `model`, which an event has made or changed."""
        for link in self.followers[model]:
            rows, id = tables[link.model], (after["tenant_id"], after[link.column])
            given = (values,) if link.values else ()
            if (row := rows[id]) and (columns := link.follow(row, before, after, *given)):
                rows.change(id, link.model.changed(row, after["log_position"], at, columns))
