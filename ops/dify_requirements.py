"""Lock files of packages of Dify: of their `uv.lock`, `pyproject.toml` or `requirements.txt`."""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from handlers.commands.plugin_package import MOST_LOCK, Package
from ops.resolve import Unpackable, program, resolve, run

PROJECT, UV_LOCK, REQUIREMENTS = "pyproject.toml", "uv.lock", "requirements.txt"

OFFLINE = re.compile(r"(?:--no-index|(?:--find-links|-f)[ =]?(?:\./)?wheels/?)(?:\s|$)")
"""Options of a package that brings its wheels along."""


def lock(package: Package, place: Path, build: bool) -> None:
    """Write the lock file of a package without one, for its version of Python. Raises: Unpackable."""
    version = package.manifest["python"]
    files = {name: data for name, _, data in package.files() if name in (PROJECT, UV_LOCK, REQUIREMENTS)}
    if large := [name for name, data in files.items() if len(data) > MOST_LOCK]:
        raise Unpackable(f"{large[0]} has more than {MOST_LOCK:,} bytes.")
    if UV_LOCK in files and PROJECT in files:
        place.write_text("".join(_exported(files, version)), "utf-8")
        return
    if REQUIREMENTS in files:
        lines: Iterable[str] = files[REQUIREMENTS].decode("utf-8-sig", errors="replace").splitlines()
        name = REQUIREMENTS
    elif PROJECT in files:
        lines, name = _table(files[PROJECT], PROJECT).get("project", {}).get("dependencies", []), PROJECT
    else:
        raise Unpackable(f"It has none of {UV_LOCK}, {PROJECT} and {REQUIREMENTS}, which name what it needs.")
    resolve("".join(f"{each}\n" for each in _requirements(lines, name)), version, place, build)


def _requirements(lines: Iterable[str], name: str) -> Iterator[str]:
    """The requirements: names of packages of an index, and nothing else. Raises: Unpackable."""
    for line in lines:
        bare = str(line).partition(" #")[0].strip()
        if not bare or bare.startswith("#") or OFFLINE.match(bare):
            continue
        try:
            requirement = Requirement(bare)
        except InvalidRequirement:
            raise Unpackable(f"{name}: {bare[:100]!r} is no package with versions.") from None
        if requirement.url:
            raise Unpackable(f"{name}: {requirement.name} is named by an address.")
        yield str(requirement)


def _exported(files: dict[str, bytes], version: str) -> Iterator[str]:
    """The lines of a lock file of uv, as far as they are for this version. Raises: Unpackable."""
    with tempfile.TemporaryDirectory(prefix="headrace-") as name:
        folder = Path(name)
        (folder / UV_LOCK).write_bytes(files[UV_LOCK])
        (folder / PROJECT).write_bytes(files[PROJECT])
        exported = folder / "exported.txt"
        run(
            "Its lock file cannot be read",
            *(program(), "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-config"),
            *("--no-header", "--no-annotate", "--format", "requirements-txt", "--project", str(folder)),
            *("--output-file", str(exported)),
        )
        text = exported.read_text("utf-8")
    here = {"python_version": version, "python_full_version": f"{version}.0"}
    for line in text.replace("\\\n", " ").splitlines():
        wanted, *hashes = line.strip().split(" --hash=")
        if not wanted.strip():
            continue
        requirement = Requirement(wanted)
        if requirement.marker is None or requirement.marker.evaluate(here):
            requirement.marker = None
            yield "".join([str(requirement), *(f" --hash={each.strip()}" for each in hashes), "\n"])


def _table(data: bytes, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Unpackable(f"{name} cannot be read: {str(error)[:200]}.") from None
