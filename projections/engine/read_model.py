"""A read model: one table, and how the messages of the log change its rows.

An event clears rows, sets columns of rows, makes rows, and changes a row, in this order. The rules are pure: folding
the same messages gives the same rows, whatever the batches, so a rebuilt table equals the live one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, and_

from domain.log import Recorded
from projections.engine.columns import Id, required

Row = dict[str, Any]

Pick = Callable[[Any, Recorded], "str | None"]
"""Picks an id out of an event and its message; None when it names none."""

Picks = Callable[[Any, Recorded], "Iterable[str]"]
"""Picks ids likewise."""

Belongs = Callable[[Recorded], str]
"""Names the tenant that the rows of a message belong to."""

Make = Callable[..., "Row | Iterable[Row]"]
Change = Callable[..., "Row | None"]
Rule = TypeVar("Rule", bound=Callable[..., Any])


def originator(event: Any, message: Recorded) -> str:
    """The id of the aggregate that the event belongs to."""
    return event.originator_id  # type: ignore[no-any-return]


def correlation(event: Any, message: Recorded) -> str:
    """The id of the command that began the chain of causes."""
    return message.metadata.correlation


Other = tuple["ReadModel", Pick]
"""A row of a read model of the same group."""


@dataclass(frozen=True, slots=True)
class Clearing:
    """Deletes the rows whose `column` holds the id that the event names."""

    model: ReadModel
    column: str
    pick: Pick


class Keys(NamedTuple):
    """The column of JSON objects in which a key is renamed, or removed (None), as the event says."""

    column: str
    pick: Callable[[Any], tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class Setting:
    """Gives the values of `to` to the rows whose `column` holds the id that the event names and that match `only`.

    The columns `ended` get the time and the sequence of the event. With `keys`, a key of an object changes instead.
    """

    model: ReadModel
    column: str
    pick: Pick
    to: Row
    only: Row
    ended: tuple[str, str] | None
    keys: Keys | None = None

    def values(self, position: int, at: datetime) -> Row:
        return {**self.to, self.ended[0]: at, self.ended[1]: position} if self.ended else self.to

    def holds(self, row: Row) -> bool:
        return all(row[column] == value for column, value in self.only.items())


@dataclass(frozen=True, slots=True)
class Making:
    """Makes whole rows, in place of those with the same key, if the row `within` exists and the row `once` does not."""

    model: ReadModel
    make: Make
    within: Other | None
    once: Pick | None
    related: Other | None
    blob: Pick | None
    new: Pick | None
    values: bool
    among: Picks | None


@dataclass(frozen=True, slots=True)
class Changing:
    """Gives columns of one row new values, if the row exists."""

    model: ReadModel
    change: Change
    pick: Pick
    related: Other | None
    values: bool


class Link(Protocol):
    """A rule between the rows of two read models; see `links`."""

    @property
    def looks_at(self) -> ReadModel: ...


_VACUUM = {"autovacuum_vacuum_scale_factor": 0.05}
"""Storage parameters: a table is vacuumed once a twentieth of its rows were replaced; by default, a fifth."""


class ReadModel:
    """A table in schema `headrace`, and its rules.

    Every table has `tenant_id`, in its primary key because clients choose ids and two tenants may choose the same one,
    and `log_position`. The fold fills them in, and `created_at` and `updated_at` where a table has them.
    """

    def __init__(self, name: str, comment: str, *columns: Column[Any], belongs: Belongs | None = None) -> None:
        """`belongs` names the tenant of the rows where it is not that of the message, as for tenants themselves."""
        tenant = Column("tenant_id", Id, primary_key=True, comment="Tenant that the row belongs to.")
        position = required("log_position", BigInteger, "Sequence of the message of the log that last changed the row.")
        self.name = name
        self.belongs = belongs
        self.table = Table(name, MetaData(), tenant, *columns, position, comment=comment, postgresql_with=_VACUUM)
        self.key = next(str(column.name) for column in columns if column.primary_key)
        self.blank: Row = dict.fromkeys(str(column.name) for column in self.table.columns)
        self.dates = [name for name in ("created_at", "updated_at") if name in self.blank]
        self.cleared_by = [self.key]
        self.rules: list[tuple[type, Clearing | Setting | Making | Changing]] = []
        self.prices: tuple[str, ...] = ()
        self.derived: dict[str, Callable[[Row], Any]] = {}
        self.links: list[Link] = []
        self.lookups: set[str] = set()
        """Names of the indexes that the rules need."""

    def __repr__(self) -> str:
        return f"<ReadModel {self.name}>"

    def tenant(self, message: Recorded) -> str:
        """The tenant of the rows of a message."""
        return self.belongs(message) if self.belongs else message.subject.tenant

    def made(self, tenant: str, position: int, at: datetime, columns: Row) -> Row:
        """The whole row of these columns."""
        row = {**self.blank, "tenant_id": tenant, "log_position": position}
        for date in self.dates:
            row[date] = at
        row.update(columns)
        return self._complete(row)

    def changed(self, row: Row, position: int, at: datetime, columns: Row) -> Row:
        """The row with new values in these columns."""
        row = {**row, "log_position": position, **columns}
        if "updated_at" in self.blank:
            row["updated_at"] = at
        return self._complete(row)

    def _complete(self, row: Row) -> Row:
        if len(row) != len(self.blank):
            raise TypeError(f"Table {self.name} has no columns {', '.join(row.keys() - self.blank.keys())}.")
        for column, derive in self.derived.items():
            row[column] = derive(row)
        return row

    @property
    def parents(self) -> set[ReadModel]:
        """The read models whose rows decide what is in these."""
        others = {link.looks_at for link in self.links}
        for _, rule in self.rules:
            match rule:
                case Making():
                    others |= {other[0] for other in (rule.within, rule.related) if other}
                case Changing(related=(other, _)):
                    others.add(other)
        return others - {self}

    # --- rules ---

    def clears(self, event: type, *, column: str | None = None, pick: Pick = originator) -> None:
        """Delete the rows whose `column` (default: the key) holds the id that the event names."""
        column = column or self.key
        self.rules.append((event, Clearing(self, column, pick)))
        if column not in self.cleared_by:
            self.cleared_by.append(column)
            self.looked_up(column)

    def sets(
        self,
        event: type,
        to: Mapping[str, Any],
        *,
        column: str,
        pick: Pick = originator,
        only: Mapping[str, Any] | None = None,
        ended: tuple[str, str] | None = None,
    ) -> None:
        """Give these values to all rows whose `column` holds the id that the event names.

        That touches rows older than the event; with `only`, those with these values, which the event must replace;
        `ended` names columns that get the time and the sequence of the event. A column that rows are found by never
        changes.
        """
        only = dict(only or {})
        if {column, self.key, *self.cleared_by} & {*to, *(ended or ())}:
            raise ValueError(f"{event.__qualname__} sets a column that rows of {self.name} are found by.")
        if only and all(to.get(name, value) == value for name, value in only.items()):
            raise ValueError(f"Rows of {self.name} would be set again by {event.__qualname__}.")
        self.rules.append((event, Setting(self, column, pick, dict(to), only, ended)))
        self.looked_up(column, only)

    def moves_keys(self, event: type, json: str, *, column: str, keys: Callable[[Any], tuple[str, str | None]]) -> None:
        """Rename a key of the objects in `json`, or remove it (None), in all rows whose `column` holds the event's
        originator."""
        self.rules.append((event, Setting(self, column, originator, {}, {}, None, Keys(json, keys))))
        self.looked_up(column)

    def makes(
        self,
        *events: type,
        within: Other | None = None,
        once: Pick | None = None,
        related: Other | None = None,
        blob: Pick | None = None,
        new: Pick | None = None,
        values: bool = False,
        among: Picks | None = None,
    ) -> Callable[[Rule], Rule]:
        """Register the function that returns the row or rows an event makes; columns that it leaves out are null.

        It takes the event, its message, and in this order: the row `within`; the row `related` or None; the bytes of
        the digest `blob`; the fold's `Values`; by key, the rows with the keys `among` that exist. Nothing is
        made where the row with the key `once` exists, or `once` is None. `new` picks the key of the one row made, where
        no row with this key can exist before: it is not loaded.
        """

        def register(make: Rule) -> Rule:
            rule = Making(self, make, within, once, related, blob, new, values, among)
            self.rules.extend((event, rule) for event in events)
            return make

        return register

    def changes(
        self, *events: type, pick: Pick = originator, related: Other | None = None, values: bool = False
    ) -> Callable[[Rule], Rule]:
        """Register the function that returns the changed columns of the row that an event names, or None for no change.

        It takes the row, the event, its message, and in this order: the row `related` or None; the fold's `Values`.
        """

        def register(change: Rule) -> Rule:
            rule = Changing(self, change, pick, related, values)
            self.rules.extend((event, rule) for event in events)
            return change

        return register

    # --- columns and indexes ---

    def derives(self, column: str, derive: Callable[[Row], Any]) -> None:
        """Derive the column from the others of its row, which `sets` must not change."""
        self.derived[column] = derive

    def looked_up(self, column: str, only: Mapping[str, Any] | None = None) -> None:
        """Index the column, because rows are found by it; with `only`, the rows with these values."""
        name = f"ix_{self.name}_{column}" + ("_open" if only else "")
        if name not in {index.name for index in self.table.indexes}:
            where = and_(*(self.table.c[each] == value for each, value in only.items())) if only else None
            Index(name, self.table.c.tenant_id, self.table.c[column], postgresql_where=where)
            self.lookups.add(name)

    def priced(self, *columns: str) -> None:
        """Name the columns that depend on prices: with other prices, they differ."""
        self.prices = columns

    def sorted_by(self, name: str, *columns: str, within: Sequence[str] = ("tenant_id",), **options: Any) -> None:
        """Index the order that rows are read in; `options` are those of PostgreSQL."""
        Index(f"ix_{self.name}_{name}", *(self.table.c[each] for each in (*within, *columns)), **options)
