"""Installs the packages of plugins in a folder of the operator's, by commands, where they are new or have changed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path

import structlog

from adapters.jetstream.client import Client, NoOutcome, NotSent, Unreachable, rejection
from adapters.privacy.masters import replace
from domain.access.tenant import HOUSE
from handlers.commands import dify_package
from handlers.commands.plugin_package import MANIFEST, Package
from ops.plugin_files import LEFT_OUT, packed
from ops.resolve import Unpackable
from ops.settings import Settings

log = structlog.get_logger(__name__)

STATE = "plugin-folder.json"
"""File in the home with the digests of the sources that were installed, by name."""

PACKED = (".zip", ".difypkg")

Install = Callable[[Package], Awaitable[str]]
"""Installs a package; returns why it was not installed, empty where it was."""


async def install_all(settings: Settings, client: Client, say: Callable[[str], None]) -> None:
    """Install what is new or has changed since the last start; report each, and each that cannot be installed."""
    house = Client(client.connection, HOUSE)

    async def install(package: Package) -> str:
        try:
            fields = {"plugin": package.manifest["name"], "package": await house.upload_blob(package.data)}
            outcome = await house.send("plugin.install", fields, wait=60)
        except (NoOutcome, NotSent, Unreachable) as error:
            return str(error)
        return rejection(outcome) if outcome["status"] == "rejected" else ""

    state = settings.home / STATE
    known = json.loads(state.read_text("utf-8")) if state.exists() else {}
    async for name, said in scan(Path(settings.plugin_folder), known, install, settings.plugin_python):
        say(f"plugin     {name}: {said}")
        replace(state, json.dumps(known, indent=2))


async def scan(
    folder: Path, known: dict[str, str], install: Install, pythons: str = ""
) -> AsyncGenerator[tuple[str, str]]:
    """Install the packages whose digests are not `known`, which are noted there; yield the name and the end of each."""
    try:
        sources = await asyncio.to_thread(_packages, folder)
    except OSError as error:
        yield str(folder), f"cannot be read: {error}"
        return
    for path in sources:
        try:
            digest = await asyncio.to_thread(_digest, path)
            if known.get(path.name) == digest:
                continue
            package = await asyncio.to_thread(packed, path, pythons=pythons)
            reason = await install(package)
        except (Unpackable, OSError) as error:
            reason = str(error)
        if reason:
            log.error("plugin.not_installed", source=str(path), reason=reason)
            yield path.name, f"not installed: {reason}"
            continue
        known[path.name] = digest
        yield path.name, f"{package.manifest['name']} {package.manifest['version']} installed"


def _packages(folder: Path) -> list[Path]:
    """Raises: OSError."""
    return sorted(path for path in folder.iterdir() if _is_package(path))


def _is_package(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in (MANIFEST, dify_package.MANIFEST))
    return path.suffix in PACKED


def _digest(path: Path) -> str:
    """The SHA-256 of a source: of a zip file, or of the names and bytes of a folder's files. Raises: OSError."""
    whole = hashlib.sha256()
    for name, file in _files(path):
        with file.open("rb") as opened:
            inner = hashlib.file_digest(opened, "sha256").hexdigest()
        whole.update(f"{name}\0{inner}\n".encode())
    return whole.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield path.name, path
        return
    for file in sorted(path.rglob("*")):
        inner = file.relative_to(path)
        if file.is_file() and not LEFT_OUT & set(inner.parts):
            yield inner.as_posix(), file
