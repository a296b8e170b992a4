"""Packages of plugins for tests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from adapters.plugins import template
from handlers.commands.plugin_package import MANIFEST, pack

FILTER: dict[str, Any] = {
    "name": "mask",
    "version": "1.0.0",
    "description": "Masks numbers.",
    "kind": "filter",
    "hooks": {"before_invoke": "before"},
    "settings": {
        "type": "object",
        "properties": {"mark": {"type": "string"}, "token": {"type": "string", "secret": True}},
    },
}
"""Fields of the manifest of a filter."""

HELPER = (Path(template.__path__[0]) / "headrace_plugin.py").read_text()
"""The plugin's side of the protocol, as packages have it."""


def manifest(**fields: Any) -> dict[str, Any]:
    """The manifest of a filter with these fields."""
    return {**FILTER, **fields}


def package(program: str = "", manifest: dict[str, Any] = FILTER, **files: str | bytes) -> bytes:
    """The package with this program as its main file and these further files, `_` in their names standing for a dot."""
    named = {name.replace("_", "."): each for name, each in files.items()}
    content = {MANIFEST: json.dumps(manifest), manifest.get("main", "main.py"): program, **named}
    if program:
        content["headrace_plugin.py"] = HELPER
    encoded = (
        (name, name == manifest.get("main"), each.encode() if isinstance(each, str) else each)
        for name, each in content.items()
    )
    return pack(iter(encoded))


def wheel() -> bytes:
    """A wheel of a package `tide` 1.0 with one constant."""
    record = "tide-1.0.dist-info"
    files = {
        "tide.py": "HIGH = '18:05'\n",
        f"{record}/METADATA": "Metadata-Version: 2.1\nName: tide\nVersion: 1.0\n",
        f"{record}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{record}/RECORD": f"tide.py,,\n{record}/METADATA,,\n{record}/WHEEL,,\n{record}/RECORD,,\n",
    }
    return pack((name, False, text.encode()) for name, text in files.items())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


WHEEL = wheel()
WHEEL_HASH = digest(WHEEL)
