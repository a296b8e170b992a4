"""The rows of one table that a batch works on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from projections.engine.read_model import ReadModel, Row, Setting

RowId = tuple[str, str]
"""Tenant and key."""

Tables = Mapping[ReadModel, "Rows"]


@dataclass(frozen=True, slots=True)
class Set:
    """The values that an event set in all rows that one id of a tenant finds."""

    setting: Setting
    tenant: str
    value: str
    position: int
    at: datetime
    keys: tuple[str, str | None] | None = None
    """The key of an object, and its new name; None removes it."""

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
    """Rows of one table, and what must be written: first `cleared`, then `set`, then `written`.

    `stored` are the ids of those that were loaded.
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
        """Replace a row. Columns that rows are found by never change, so `holding` stays true."""
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
        """The ids of rows by tenant and the value of a column."""
        if column not in self.holding:
            self.holding[column] = defaultdict(list)
            for id, held in self.rows.items():
                self.holding[column][id[0], held[column]].append(id)
        return self.holding[column]

    def _hold(self, id: RowId, row: Row) -> None:
        self.rows[id] = row
        for column, holding in self.holding.items():
            holding[id[0], row[column]].append(id)
