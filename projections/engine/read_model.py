"""A read model: one table, and how the messages of the log change its rows.

Its rules are pure. Folding the same messages gives the same rows however they are cut into batches, so a rebuilt table
equals the live one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1
from typing import Any, NamedTuple, TypeVar
from uuid import NAMESPACE_OID

from sqlalchemy import BigInteger, Column, DateTime, Index, MetaData, Table, Text, and_

from domain.log import Recorded

Row = dict[str, Any]

Pick = Callable[..., "str | None"]
"""Picks an id out of an event and its message; None when it names none."""

Make = Callable[..., "Row | Iterable[Row]"]
Change = Callable[..., "Row | None"]
Follow = Callable[[Row, "Row | None", Row], "Row | None"]
Rule = TypeVar("Rule", bound=Callable[..., Any])

Id = Text(collation="C")
Time = DateTime(timezone=True)


def originator(event: Any, message: Recorded) -> str:
    """The id of what the event is about."""
    return event.originator_id  # type: ignore[no-any-return]


def correlation(event: Any, message: Recorded) -> str:
    """The id of the command that began it all."""
    return message.metadata.correlation


def derived_id(text: str) -> str:
    """The UUIDv5 of a text in the namespace of object ids; `uuid5` takes three times as long."""
    digest = sha1(NAMESPACE_OID.bytes + text.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def key(name: str, comment: str) -> Column[Any]:
    """The column that is the primary key, together with the tenant."""
    return Column(name, Id, primary_key=True, comment=comment)


def required(name: str, type: Any, comment: str) -> Column[Any]:
    return Column(name, type, nullable=False, comment=comment)


def optional(name: str, type: Any, comment: str) -> Column[Any]:
    return Column(name, type, nullable=True, comment=comment)


def person() -> Column[Any]:
    """The column that says whose words the row holds, so that they can be erased."""
    return optional("person_id", Id, "Person whose words the row holds, erased with the person; null when nobody's.")


@dataclass(frozen=True, slots=True)
class Clearing:
    """The rows go whose `column` holds the id that the event names."""

    model: ReadModel
    column: str
    pick: Pick


class Keys(NamedTuple):
    """The column of JSON objects in which a key gets another name, or goes (None), as the event says."""

    column: str
    pick: Callable[[Any], tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class Setting:
    """The rows whose `column` holds the id that the event names, and that are as `only` says, get the values of `to`.

    The columns `ended` get the time and the sequence of the event; with `keys`, a key of an object changes instead.
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
    """Whole rows come, in place of those with the same key, while the row `within` is there and `unless` is not."""

    model: ReadModel
    make: Make
    within: Other | None
    unless: Other | None
    beside: Other | None
    through: bool
    blob: Pick | None
    new: Pick | None


@dataclass(frozen=True, slots=True)
class Changing:
    """Columns of one row get new values, if the row is there."""

    model: ReadModel
    change: Change
    pick: Pick
    beside: Other | None
    through: bool


@dataclass(frozen=True, slots=True)
class Following:
    """When a row of `other` comes or changes, columns of the row that it names in `column` get new values."""

    model: ReadModel
    other: ReadModel
    column: str
    follow: Follow


Other = tuple["ReadModel", Pick]
"""A row of another read model."""


class ReadModel:
    """A table in schema `headrace`, and its rules.

    Every table has `tenant_id`, in its primary key because clients choose ids and two tenants may choose the same one,
    and `log_position`. The fold fills them in, and `created_at` and `updated_at` where a table has them.
    """

    def __init__(self, name: str, comment: str, *columns: Column[Any]) -> None:
        tenant = Column("tenant_id", Id, primary_key=True, comment="Tenant that the row belongs to.")
        position = required("log_position", BigInteger, "Sequence of the message of the log that last changed the row.")
        self.name = name
        self.table = Table(name, MetaData(), tenant, *columns, position, comment=comment)
        self.key = next(str(column.name) for column in columns if column.primary_key)
        self.blank: Row = dict.fromkeys(str(column.name) for column in self.table.columns)
        self.dates = [name for name in ("created_at", "updated_at") if name in self.blank]
        self.cleared_by = [self.key]
        self.rules: list[tuple[type, Clearing | Setting | Making | Changing]] = []
        self.prices: tuple[str, ...] = ()
        self.derived: dict[str, Callable[[Row], Any]] = {}
        self.followings: list[Following] = []
        self.brings: list[tuple[ReadModel, Callable[[Row], str | None]]] = []

    def __repr__(self) -> str:
        return f"<ReadModel {self.name}>"

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
        others: set[ReadModel] = {following.other for following in self.followings}
        for _, rule in self.rules:
            match rule:
                case Making():
                    others |= {other[0] for other in (rule.within, rule.unless, rule.beside) if other}
                case Changing(beside=(other, _)):
                    others.add(other)
        return others - {self}

    def clears(self, event: type, *, column: str | None = None, pick: Pick = originator) -> None:
        """The event takes away the rows whose `column` (the key, if not named) holds the id it names.

        That comes before anything else the event does.
        """
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
        """The event gives these values to the rows whose `column` holds the id it names, however many there are.

        That touches rows that came before the event, of those the ones with the values of `only`, which they then have
        no longer; `ended` names columns that get the time and the sequence of the event. A column that rows are found
        by never changes.
        """
        only = dict(only or {})
        if {column, self.key, *self.cleared_by} & {*to, *(ended or ())}:
            raise ValueError(f"Rows of {self.name} are found by what {event.__qualname__} is to set.")
        if only and all(to.get(name, value) == value for name, value in only.items()):
            raise ValueError(f"Rows of {self.name} would be set again.")
        self.rules.append((event, Setting(self, column, pick, dict(to), only, ended)))
        self.looked_up(column, only)

    def moves_keys(self, event: type, json: str, *, column: str, keys: Callable[[Any], tuple[str, str | None]]) -> None:
        """The event gives a key of the objects in `json` another name, or takes it away (None), in all rows whose
        `column` holds the event's originator."""
        self.rules.append((event, Setting(self, column, originator, {}, {}, None, Keys(json, keys))))
        self.looked_up(column)

    def derives(self, column: str, derive: Callable[[Row], Any]) -> None:
        """The column is made of the others of its row, which nothing that `sets` may change."""
        self.derived[column] = derive

    def looked_up(self, column: str, only: Mapping[str, Any] | None = None) -> None:
        """Rows are found by this column, so it has an index, of the rows with the values of `only`."""
        name = f"ix_{self.name}_{column}" + ("_open" if only else "")
        if name not in {index.name for index in self.table.indexes}:
            where = and_(*(self.table.c[each] == value for each, value in only.items())) if only else None
            Index(name, self.table.c.tenant_id, self.table.c[column], postgresql_where=where)

    def priced(self, *columns: str) -> None:
        """These columns say what prices make of the row: with other prices, they are others."""
        self.prices = columns

    def sorted_by(self, name: str, *columns: str, within: Sequence[str] = ("tenant_id",), **options: Any) -> None:
        """Rows are read in this order, so there is an index of it; `options` are those of PostgreSQL."""
        Index(f"ix_{self.name}_{name}", *(self.table.c[each] for each in (*within, *columns)), **options)

    def makes(
        self,
        event: type,
        *,
        within: Other | None = None,
        unless: Other | None = None,
        beside: Other | None = None,
        through: bool = False,
        blob: Pick | None = None,
        new: Pick | None = None,
    ) -> Callable[[Rule], Rule]:
        """The function gives the row or rows that come with an event; columns that it leaves out are null.

        It takes the event and its message; then, with `within`, that row; then, with `beside`, that row or None; then,
        with `blob`, the bytes of that digest. `new` picks the key of the one row that comes, where none with this key
        can have been before. What picks `unless` takes the row `beside` as well when it picks `through` it.
        """

        def register(make: Rule) -> Rule:
            self.rules.append((event, Making(self, make, within, unless, beside, through, blob, new)))
            return make

        return register

    def changes(
        self, event: type, *, pick: Pick = originator, beside: Other | None = None, through: bool = False
    ) -> Callable[[Rule], Rule]:
        """The function takes the row that the event names, the event and its message, and gives the changed columns,
        or None when nothing changes.

        With `beside`, the function takes that row or None too, and so does `pick` when it picks `through` it. What is
        picked through a row was needed too when the row became what it is, or the row brings it (`brought_by`).
        """

        def register(change: Rule) -> Rule:
            self.rules.append((event, Changing(self, change, pick, beside, through)))
            return change

        return register

    def follows(self, other: ReadModel, column: str) -> Callable[[Rule], Rule]:
        """The function takes a row, and one of `other` that names it in `column`, as that was (None when it has just
        come) and as an event left it; it gives the changed columns, or None.

        What `clears` and `sets` do is not followed.
        """

        def register(follow: Rule) -> Rule:
            self.followings.append(Following(self, other, column, follow))
            self.brought_by(other, lambda row: row[column])
            return follow

        return register

    def brought_by(self, other: ReadModel, name: Callable[[Row], str | None]) -> None:
        """Whoever works on a row of `other` needs the row of this one that it names."""
        other.brings.append((self, name))
