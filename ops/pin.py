"""Write `ops/constraints.txt`: the version of every package, and the digests of its files on all platforms.

`python -m ops.pin` keeps the versions that the file has, and adds what is missing. `python -m ops.pin NAME …` takes the
newest version of these packages, `python -m ops.pin --upgrade` of all. uv resolves them by pip's index.
"""

from __future__ import annotations

import os
import subprocess
import sys

from ops.install import CONSTRAINTS, OLDEST, PYPROJECT, UNUSED, VENV, as_uv, listed, pip_settings

FOR_THE_INSTALLATION = ("uv", "setuptools")
"""Packages that the installation needs, besides those of the project."""


def compiled(*newest: str, excludes: str) -> list[str]:
    """The command that writes the file; `newest` are names of packages, or `--upgrade`.

    `excludes` is a file with the names of packages that are left out.
    """
    upgrades = ["--upgrade"] if "--upgrade" in newest else [f"--upgrade-package={name}" for name in newest]
    return [
        *(str(VENV / "bin" / "uv"), "pip", "compile", str(PYPROJECT), "-", "--extra=dev", *upgrades),
        *("--universal", f"--python-version={OLDEST[0]}.{OLDEST[1]}", "--generate-hashes", f"--excludes={excludes}"),
        *("--no-header", "--no-annotate", "--quiet", f"--output-file={CONSTRAINTS}"),
    ]


def main(*newest: str) -> int:
    further = "".join(f"{name}\n" for name in FOR_THE_INSTALLATION)
    environment = as_uv(pip_settings()) | os.environ
    with listed(*UNUSED) as excludes:
        command = compiled(*newest, excludes=excludes)
        return subprocess.run(command, input=further, text=True, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
