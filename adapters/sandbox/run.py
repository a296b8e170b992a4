"""Runs a module of this code in a contained process, which may not list the folder above its packages: `python run.py
MODULE [ARGUMENT …]`."""

from __future__ import annotations

import os
import runpy
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location

ABOVE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Packages:
    """Finds packages by their names, without listing."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        folder = os.path.join(ABOVE, name)
        file = os.path.join(folder, "__init__.py")
        if "." in name or not os.path.isfile(file):
            return None
        return spec_from_file_location(name, file, submodule_search_locations=[folder])


if __name__ == "__main__":
    sys.meta_path.insert(0, Packages)  # type: ignore[arg-type]  # a class serves as a finder
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
