"""Runs Python: its standard library, and the packages of the operator."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from types import ModuleType

from adapters.code.fault import Fault, raised

FILE = "<code>"

COMMON = (
    *("base64", "collections", "copy", "csv", "datetime", "decimal", "functools", "hashlib", "hmac", "html", "io"),
    *("itertools", "json", "math", "os", "random", "re", "statistics", "string", "textwrap", "time", "typing"),
    *("unicodedata", "urllib.parse", "uuid", "zoneinfo"),
)
"""Modules that code often imports: they are loaded once, for all calls."""

NETWORK = ("aiohttp", "httpx", "requests", "urllib3", "websockets")

_OURS = ("adapters", "domain", "handlers")


def prepare(packages: Sequence[str]) -> None:
    """Load what code often imports, and leave it nothing else but the standard library and these folders.

    Raises: OSError.
    """
    installed = "site-packages", "dist-packages"
    sys.path[:] = [*(path for path in sys.path if not path.endswith(installed)), *packages]
    sys.meta_path[:] = [each for each in sys.meta_path if each in (BuiltinImporter, FrozenImporter, PathFinder)]
    sys.argv[:] = [FILE]
    for folder in packages:
        os.listdir(folder)  # else a folder that others cannot read looks like one without packages
    for name in COMMON:
        import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
        del sys.modules[name]


def run(code: str, inputs: str) -> str:
    """The JSON of what `main` returns. Raises: Fault, MemoryError."""
    module = sys.modules["__main__"] = ModuleType("__main__")
    try:
        exec(compile(code, FILE, "exec", dont_inherit=True), vars(module))
        main = vars(module).get("main")
        if not callable(main):
            raise Fault("raised", "The code has no function main.")
        return _written(main(**json.loads(inputs)))
    except (Fault, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise raised(error, FILE, _advice(error.name or "")) from None
    except BaseException as error:
        raise raised(error, FILE) from None


def _written(value: object) -> str:
    if not isinstance(value, dict):
        raise Fault("not_json", f"main returned a value of type {type(value).__name__}: return an object (a dict).")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise Fault("not_json", "The result is nested too deeply.") from None
    except (TypeError, ValueError) as error:
        raise Fault("not_json", f"The result is not JSON: {error}.") from None


def _advice(name: str) -> str:
    if name.partition(".")[0] in NETWORK:
        return ". Code has no network: use a node or tool for HTTP."
    return ". Code has the standard library, and the packages that the operator has added."
