"""Dependencies of plugins, resolved by uv."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from adapters.plugins.interpreters import RUNNING
from ops.install import as_uv, pip_settings
from ops.plugins import uv


class Unpackable(Exception):
    """A package cannot be made; the message says why."""


def resolve(wanted: str, version: str, lock: Path, build: bool) -> None:
    """Write the lock file of these requirements, for a version of Python. Raises: Unpackable."""
    run(
        "The dependencies cannot be resolved",
        *(program(), "pip", "compile", "-", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"),
        *(() if build else ("--only-binary", ":all:")),
        *("--python-version", version or RUNNING, "--output-file", str(lock)),
        given=wanted,
    )


def program() -> str:
    """The path of uv. Raises: Unpackable."""
    found = uv()
    if found is None:
        raise Unpackable("uv, which resolves dependencies, is not installed.")
    return str(found)


def run(problem: str, *command: str, given: str = "") -> None:
    """Raises: Unpackable."""
    environment = as_uv(pip_settings()) | os.environ
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise Unpackable(f"{problem}: {(done.stderr or done.stdout).strip()[-800:]}")
