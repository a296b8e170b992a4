"""Runs a module of this code in a contained process, which may not list the folder above its packages: `python run.py
MODULE [ARGUMENT …]`."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location

ABOVE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Unlisted(MetaPathFinder):
    """Finds packages and modules of Python in folders that cannot be listed."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        for folder in () if "." in name else self._folders:
            place = os.path.join(folder, name)
            if os.path.isfile(file := os.path.join(place, "__init__.py")):
                return spec_from_file_location(name, file, submodule_search_locations=[place])
            if os.path.isfile(file := f"{place}.py"):
                return spec_from_file_location(name, file)
        return None


if __name__ == "__main__":
    sys.meta_path.append(Unlisted([ABOVE]))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
