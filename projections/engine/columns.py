"""Columns of read tables, and the ids in them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, DateTime, Text

Id = Text(collation="C")
Time = DateTime(timezone=True)


def key(name: str, comment: str) -> Column[Any]:
    """The column that is the primary key, together with the tenant."""
    return Column(name, Id, primary_key=True, comment=comment)


def required(name: str, type: Any, comment: str) -> Column[Any]:
    return Column(name, type, nullable=False, comment=comment)


def optional(name: str, type: Any, comment: str) -> Column[Any]:
    return Column(name, type, nullable=True, comment=comment)


def person() -> Column[Any]:
    """The column that names the person whose words the row holds, so that they can be erased."""
    return optional("person_id", Id, "Person whose words the row holds, erased with the person; null for no person.")
