"""Packages of plugins from folders and zip files, with a lock file and wheels for their dependencies."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.plugins import template
from adapters.plugins.interpreters import RUNNING, interpreter
from domain.aggregate import Rejection
from handlers.commands import dify_package
from handlers.commands.plugin_package import LOCK, MANIFEST, WHEELS, Package, pack, parse, read
from ops import dify_requirements
from ops.resolve import Unpackable, resolve, run

LEFT_OUT = {"__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
"""Folders that are no part of a package."""

TEMPLATE = Path(template.__path__[0])
HELPER = "headrace_plugin.py"


def packed(path: Path, *, build: bool = False, pythons: str = "") -> Package:
    """The package of a folder or a zip file, with what its dependencies need; `build` runs the code of those that have
    no wheel, by this Python or one of `pythons`. Raises: Unpackable."""
    try:
        data = pack(_files(path)) if path.is_dir() else path.read_bytes()
        package = read(data)
        dify = package.manifest["kind"] == "dify"
        if dify and package.wheels and not package.lock:
            package = read(_locked_by_wheels(package))
        elif (package.manifest["dependencies"] or dify) and not package.wheels:
            package = read(_with_wheels(package, build, pythons))
    except OSError as error:
        raise Unpackable(f"{path} cannot be read: {error}.") from error
    except Rejection as rejection:
        raise Unpackable(f"{path} is no package: {rejection.message}") from rejection
    return package


def new(folder: Path, name: str, kind: str) -> list[Path]:
    """Write a plugin that works into a folder that is empty or missing. Raises: Unpackable."""
    hooks = {
        "filter": {"load": "load", "before_invoke": "before", "after_invoke": "after"},
        "monitor": {"load": "load", "after_invoke": "after", "on_error": "failed"},
    }
    manifest: dict[str, Any] = {
        "name": name,
        "version": "0.1.0",
        "description": "",
        "kind": kind,
        "main": "main.py",
        "dependencies": {},
        "hooks": hooks[kind],
    }
    if kind == "filter":
        mark = {"type": "string", "description": "Text in place of a number"}
        manifest["settings"] = {"type": "object", "properties": {"mark": mark}}
    parse(json.dumps(manifest).encode())
    if folder.exists() and any(folder.iterdir()):
        raise Unpackable(f"{folder} is not empty.")
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        MANIFEST: json.dumps(manifest, indent=2) + "\n",
        "main.py": (TEMPLATE / f"{kind}.txt").read_text("utf-8"),
        HELPER: (TEMPLATE / HELPER).read_text("utf-8"),
    }
    for file, text in files.items():
        (folder / file).write_text(text, "utf-8")
    return [folder / file for file in files]


def _files(folder: Path) -> Iterator[tuple[str, bool, bytes]]:
    """The files of a folder: path, whether it is a program, bytes; with the plugin's side of the protocol, unless it is
    there. Raises: OSError, Unpackable."""
    own = (folder / MANIFEST).exists() or not (folder / dify_package.MANIFEST).exists()
    if own and not (folder / HELPER).exists() and any(folder.glob("*.py")):
        yield HELPER, False, (TEMPLATE / HELPER).read_bytes()
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if LEFT_OUT & set(inner.parts) or path.is_dir():
            continue
        if path.is_symlink():
            raise Unpackable(f"{path} is a link, which no package has.")
        yield inner.as_posix(), os.access(path, os.X_OK), path.read_bytes()


def _with_wheels(package: Package, build: bool, pythons: str) -> bytes:
    """The package with the wheels of its dependencies, and a lock file of these. Raises: Unpackable."""
    with tempfile.TemporaryDirectory(prefix="headrace-") as name:
        folder = Path(name)
        lock, wheels = folder / LOCK, folder / "wheels"
        version = package.manifest["python"]
        if package.lock:
            lock.write_text(package.lock, "utf-8")
        elif package.manifest["kind"] == "dify":
            dify_requirements.lock(package, lock, build)
        else:
            wanted = "".join(f"{name}{version}\n" for name, version in package.manifest["dependencies"].items())
            resolve(wanted, version, lock, build)
        python = sys.executable
        if build and version not in ("", RUNNING):
            other = asyncio.run(interpreter(version, pythons))
            if other is None:
                raise Unpackable(f"Python {version}, for which its dependencies are built, is not on this machine.")
            python = str(other)
        how = ("wheel", "--wheel-dir") if build else ("download", "--dest")
        run(
            "The wheels cannot be had",
            *(python, "-m", "pip", how[0], "--quiet", "--disable-pip-version-check", "--no-deps"),
            *(() if build else ("--only-binary", ":all:")),
            *("--require-hashes", "--requirement", str(lock), how[1], str(wheels)),
            *(("--python-version", version) if version and not build else ()),
        )
        files = [*package.files()]
        kept = [file for file in files if file[0] != LOCK and not file[0].startswith(WHEELS)]
        found = [(wheel.name, wheel.read_bytes()) for wheel in sorted(wheels.iterdir())]
        locked = "".join(map(_locked, *zip(*found, strict=True))) if found else ""
        added = [(LOCK, False, locked.encode()), *((f"{WHEELS}{file}", False, data) for file, data in found)]
        return pack(iter([*kept, *added]))


def _locked_by_wheels(package: Package) -> bytes:
    """A package with wheels, and a lock file of these."""
    files = list(package.files())
    wheels = [(name.removeprefix(WHEELS), data) for name, _, data in files if name in package.wheels]
    lock = "".join(_locked(name, data) for name, data in sorted(wheels))
    return pack(iter([*files, (LOCK, False, lock.encode())]))


def _locked(wheel: str, data: bytes) -> str:
    """The line of a lock file for a wheel."""
    name, version, *_ = wheel.split("-")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(data).hexdigest()}\n"
