"""A read model: one table, and how the messages of the log change its rows.

Its rules are pure. Folding the same messages gives the same rows however they are cut into batches, so a rebuilt table
equals the live one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1
from typing import Any, TypeVar
from uuid import NAMESPACE_OID

from sqlalchemy import BigInteger, Column, DateTime, Index, MetaData, Table, Text

Row = dict[str, Any]

Pick = Callable[[Any], str]
"""Picks an id out of an event."""

Make = Callable[..., "Row | Iterable[Row]"]
Change = Callable[..., Row]
Rule = TypeVar("Rule", bound=Callable[..., Any])

Id = Text(collation="C")
Time = DateTime(timezone=True)


def originator(event: Any) -> str:
    """The id of what the event is about."""
    return event.originator_id  # type: ignore[no-any-return]


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


@dataclass(frozen=True, slots=True)
class Clearing:
    """The rows go whose `column` holds the id that the event names."""

    model: ReadModel
    column: str
    pick: Pick


@dataclass(frozen=True, slots=True)
class Making:
    """Whole rows come, in place of those with the same key, while the row `within` is there and `unless` is not."""

    model: ReadModel
    make: Make
    within: tuple[ReadModel, Pick] | None
    unless: tuple[ReadModel, Pick] | None
    blob: Pick | None
    new: Pick | None


@dataclass(frozen=True, slots=True)
class Changing:
    """Columns of one row get new values, if the row is there."""

    model: ReadModel
    change: Change
    pick: Pick


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
        self.rules: list[tuple[type, Clearing | Making | Changing]] = []

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
        return row

    @property
    def parents(self) -> set[ReadModel]:
        """The read models whose rows decide whether one of these comes."""
        conditions = (
            condition for _, rule in self.rules if isinstance(rule, Making) for condition in (rule.within, rule.unless)
        )
        return {condition[0] for condition in conditions if condition} - {self}

    def clears(self, event: type, *, column: str | None = None, pick: Pick = originator) -> None:
        """The event takes away the rows whose `column` (the key, if not named) holds the id it names.

        That comes before anything else the event does.
        """
        column = column or self.key
        self.rules.append((event, Clearing(self, column, pick)))
        if column not in self.cleared_by:
            self.cleared_by.append(column)
            self.looked_up(column)

    def looked_up(self, column: str) -> None:
        """Rows are found by this column, so it has an index."""
        Index(f"ix_{self.name}_{column}", self.table.c.tenant_id, self.table.c[column])

    def makes(
        self,
        event: type,
        *,
        within: tuple[ReadModel, Pick] | None = None,
        unless: tuple[ReadModel, Pick] | None = None,
        blob: Pick | None = None,
        new: Pick | None = None,
    ) -> Callable[[Rule], Rule]:
        """The function gives the row or rows that come with an event; columns that it leaves out are null.

        It takes the event and its message; then, with `within`, that row; then, with `blob`, the bytes of that digest.
        `new` picks the key of the one row that comes, where none with this key can have been before.
        """

        def register(make: Rule) -> Rule:
            self.rules.append((event, Making(self, make, within, unless, blob, new)))
            return make

        return register

    def changes(self, event: type, *, pick: Pick = originator) -> Callable[[Rule], Rule]:
        """The function takes the row that the event names, the event and its message, and gives the changed columns."""

        def register(change: Rule) -> Rule:
            self.rules.append((event, Changing(self, change, pick)))
            return change

        return register
