"""Columns of read tables, and the ids in them."""

from __future__ import annotations

from hashlib import sha1
from typing import Any
from uuid import NAMESPACE_OID

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


def derived_id(text: str) -> str:
    """The UUIDv5 of a text in the namespace of object ids; `uuid5` takes three times as long."""
    digest = sha1(NAMESPACE_OID.bytes + text.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
