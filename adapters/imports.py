"""Imports of libraries without optional packages that Headrace does not use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def replaced(packages: dict[str, ModuleType | None]) -> Iterator[None]:
    """Have imports within this context find these modules, or none; those that are loaded already stay."""
    added = {name: module for name, module in packages.items() if name not in sys.modules}
    sys.modules.update(added)  # type: ignore[arg-type]  # None is how the import system marks a missing one
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
