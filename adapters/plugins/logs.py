"""The entries about a plugin in the logs of the workers on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def entries(folder: Path, plugin: str, most: int, tenant: str = "") -> list[Mapping[str, Any]]:
    """The last entries, oldest first; of a tenant, only its own. Raises: OSError."""
    found = []
    for file in sorted(folder.glob("*.log*")):
        with file.open(encoding="utf-8", errors="replace") as text:
            for line in text:
                if '"plugin"' in line and (entry := _entry(line)) and entry.get("plugin") == plugin:
                    found.append(entry)
    mine = [each for each in found if not tenant or each.get("tenant") == tenant]
    return sorted(mine, key=lambda entry: str(entry.get("timestamp", "")))[-most:]


def _entry(line: str) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "event" in entry else None
