"""`make matrix`: the tests without servers and one journey, on each version of Python that Headrace supports.

The version of `.venv` runs in it; each other has an environment of its own, `.venv-3.12` for instance. A version that
this machine lacks is named.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13")

WITHOUT_SERVERS = (
    "tests/domain",
    "tests/handlers",
    "tests/projections",
    "tests/golden",
    "tests/adapters/code",
    "tests/adapters/documents",
    "tests/adapters/egress",
    "tests/adapters/embedding/test_engine.py",
    "tests/adapters/models",
    "tests/adapters/privacy",
    "tests/adapters/sandbox",
    "tests/adapters/segmenting",
    "tests/adapters/test_pinned.py",
    "tests/contracts/test_away.py",
    "tests/contracts/test_code.py",
    "tests/contracts/test_code_results.py",
    "tests/contracts/test_extractor.py",
    "tests/contracts/test_sandbox.py",
    "tests/ops/bundle",
    "tests/ops/test_docs.py",
    "tests/ops/test_egress.py",
    "tests/ops/test_install.py",
    "tests/ops/test_patterns.py",
    "tests/ops/test_settings.py",
)
JOURNEY = "tests/journeys/test_handbook.py"


def main() -> int:
    results = {version: tried(version) for version in VERSIONS}
    for version, result in results.items():
        sys.stdout.write(f"Python {version}: {result}\n")
    return 1 if any(result.startswith("FAILED") for result in results.values()) else 0


def tried(version: str) -> str:
    """Result of the tests on a version."""
    python = interpreter(version)
    if python is None:
        return "NOT TESTED: this machine has no such Python"
    folder = ".venv" if version == f"{sys.version_info[0]}.{sys.version_info[1]}" else f".venv-{version}"
    if not succeeds(python, "ops/install.py", "dev", INSTALL_INTO=folder):
        return "FAILED: its environment could not be made"
    for tests in (WITHOUT_SERVERS, (JOURNEY,)):
        if not succeeds(f"{folder}/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests):
            return f"FAILED: {' '.join(tests)}"
    return "passed"


def interpreter(version: str) -> str | None:
    """The program that is this version: on the path, or kept by pyenv; the path may hold a shim that is none."""
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for found in (shutil.which(f"python{version}"), *map(str, reversed(kept))):
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    return None


def succeeds(*command: str, **variables: str) -> bool:
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
