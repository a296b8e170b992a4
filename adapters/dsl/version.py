"""The version of an app file, compared with the newest one that is known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from domain.aggregate import Rejection

NEWEST: Final = (0, 7, 0)
OLDEST: Final = "0.1.0"
"""Version of a file that names none."""

_VERSION: Final = re.compile(r"v?(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?(?:[-+].{0,60})?")


@dataclass(frozen=True)
class Version:
    """`import` takes the file as it is, `warn` too, `confirm` only when a person says so."""

    text: str
    advice: Literal["import", "warn", "confirm"]
    reason: str = ""


def version(document: Mapping[str, Any]) -> Version:
    """The version of a document. Raises: Rejection."""
    stated = document.get("version")
    if stated is None:
        stated = OLDEST
    if not isinstance(stated, str):
        rule = f'A version is a text: write it in quotes, as version: "{OLDEST}".'
        raise Rejection("invalid", rule, "version")
    match = _VERSION.fullmatch(stated.strip())
    if match is None:
        raise Rejection("invalid", f'A version has numbers and points, as "{OLDEST}".', "version")
    major, minor, patch = (int(part or 0) for part in match.groups())
    newest = ".".join(map(str, NEWEST))
    if (major, minor, patch) > NEWEST:
        return Version(stated, "confirm", f"Version {stated} is newer than {newest}, the newest one that is known.")
    if major < NEWEST[0]:
        return Version(stated, "confirm", f"Version {stated} is much older than {newest}.")
    if minor < NEWEST[1]:
        return Version(stated, "warn", f"Version {stated} is older than {newest}; old names are read, too.")
    return Version(stated, "import")
