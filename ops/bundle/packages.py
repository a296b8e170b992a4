"""The packages of a bundle: the wheels of `ops/constraints.txt` for one platform and Python, by digest."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ops import install
from ops.pin import FOR_THE_INSTALLATION

OLDEST_GLIBC = 5
"""Minor version of the oldest glibc that wheels name, as in `manylinux_2_5`."""

_PLATFORM = re.compile(r"manylinux_2_(\d+)_(x86_64|aarch64)")
_MARKER = re.compile(r" ;[^\\\n]*")


class Failed(Exception):
    """The bundle cannot be made; the message has the reason."""


@dataclass(frozen=True, slots=True)
class Target:
    """The platform, such as `manylinux_2_28_x86_64`, and the version of Python, such as `3.12`, to install on."""

    platform: str
    python: str

    @classmethod
    def here(cls) -> Self:
        return cls(f"manylinux_2_28_{platform.machine()}", ".".join(platform.python_version_tuple()[:2]))

    def check(self) -> None:
        """Raises: Failed for another kind of platform or version."""
        if not _PLATFORM.fullmatch(self.platform):
            raise Failed(
                f"{self.platform}: a platform must be manylinux_2_<minor version of glibc>_<x86_64 or aarch64>, "
                "such as manylinux_2_28_aarch64."
            )
        if not re.fullmatch(r"3\.\d+", self.python) or tuple(map(int, self.python.split("."))) < install.OLDEST:
            raise Failed(f"{self.python}: a version of Python must be 3.11 or newer, such as 3.12.")

    def for_pip(self) -> list[str]:
        """Options of pip: the version of Python, and the tags of all wheels that the platform runs."""
        _, _, glibc, machine = self.platform.split("_", 3)
        tags = [f"manylinux_2_{minor}_{machine}" for minor in range(int(glibc), OLDEST_GLIBC - 1, -1)]
        tags += [f"{tag}_{machine}" for tag in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
        only = ["--implementation=cp", f"--python-version={self.python}", "--only-binary=:all:"]
        return [*(f"--platform={tag}" for tag in tags), *only]

    def for_uv(self) -> list[str]:
        *_, machine = self.platform.split("_", 3)
        return [f"--python-platform={machine}-manylinux_2_28", f"--python-version={self.python}"]


def download(target: Target, extra: str, folder: Path, advance: Callable[[str, int, int], None]) -> None:
    """Download the wheels of Headrace and its installation into a folder. Raises: Failed."""
    version = install.pinned("torch")
    index = None if install.wants_cuda() else install.cpu_build_index(version, *target.for_pip())
    entries = resolved(target, extra, cpu_build=index is not None)
    done = 0

    def count(line: str) -> None:
        nonlocal done
        if line.startswith(("Collecting ", "Processing ")):
            done += 1
            advance("download  packages", done, len(entries) + (index is not None))

    with install.listed(*map(install.exact, entries)) as requirements:
        _pip("--require-hashes", "--requirement", requirements, *target.for_pip(), folder=folder, each=count)
    if index is not None:
        options = (*install.indexed(index), *target.for_pip())
        _pip(f"torch=={version}+cpu", *options, folder=folder, each=count)


def resolved(target: Target, extra: str, cpu_build: bool) -> list[str]:
    """The entries of the constraints that the target needs, without markers, and without torch for its CPU build.

    Raises: Failed.
    """
    uv = install.VENV / "bin" / "uv"
    if not uv.exists():
        raise Failed(f"uv chooses the packages, and it is not in {install.VENV}: run make install where it can be had.")
    further = [f"--extra={extra}"] if extra else []
    further += ["--no-index"] if install.no_index() else []
    with install.listed(*install.unneeded(cpu_build)) as excludes:
        command = [
            *(str(uv), "pip", "compile", str(install.PYPROJECT), "-", *further, *target.for_uv()),
            *("--constraint", str(install.CONSTRAINTS), "--excludes", excludes, "--only-binary=:all:"),
            *("--no-header", "--no-annotate", "--quiet"),
        ]
        environment = install.as_uv(install.pip_settings()) | os.environ
        torch = "torch" if cpu_build else install.exact(f"torch=={install.pinned('torch')}")
        own = "\n".join([*FOR_THE_INSTALLATION, torch])
        found = subprocess.run(command, input=own, capture_output=True, text=True, env=environment, check=False)
    if found.returncode:
        raise Failed(f"The packages could not be chosen:\n{found.stderr.strip()}")
    names = [line.partition("==")[0] for line in found.stdout.splitlines()]
    return [_MARKER.sub("", install.requirement(name)) for name in names if not (cpu_build and name == "torch")]


def _pip(*arguments: str, folder: Path, each: Callable[[str], None]) -> None:
    """Run `pip download`, and call `each` with every line that it prints. Raises: Failed."""
    options = ["--disable-pip-version-check", "--progress-bar=off", "--no-deps", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, *arguments]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            lines.append(line)
            each(line)
    if process.returncode:
        raise Failed(f"The packages could not be downloaded:\n{''.join(lines[-10:]).strip()}")
