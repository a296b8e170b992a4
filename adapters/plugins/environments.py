"""Packages of plugins on this machine's disk, and their environments of Python, built before any call.

An environment is made by uv from the wheels of the package, without a network, in a contained process, and shared by
all packages with the same lock file.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from adapters.plugins import interpreters
from adapters.sandbox.child import Limits, Rights, Sandbox, python
from domain.access.tenant import HOUSE
from domain.aggregate import Rejection
from domain.tools.plugin import Manifest
from handlers.commands.plugin_package import WHEELS, Package, read

log = structlog.get_logger(__name__)

BUILD_S = 600.0
"""Time limit of a build, in seconds."""

LIMITS = Limits(memory=None, cpu_s=600, file=2**30, files=1024, tasks=512, forks=True, scratch=2**30)
"""Limits of a build; uv reserves much address space."""


START = Path(__file__).with_name("start.py")
"""The first program of a plugin of Dify."""


class Packages(Protocol):
    """Blobs of packages."""

    async def get(self, tenant: str, digest: str) -> bytes:
        """Raises: KeyError, ValueError, Unavailable."""
        ...


class NotBuilt(Exception):
    """A package cannot be used on this machine; the message says why."""


class Built(NamedTuple):
    """A package on disk: its manifest and folder, the command that starts it, and the paths that it reads."""

    manifest: Manifest
    folder: Path
    program: list[str]
    readable: list[Path]


class Environments:
    """Each package is unpacked, and each environment built, once; several workers of a machine may share the folder."""

    def __init__(self, home: Path, blobs: Packages, sandbox: Sandbox, uv: Path | None, pythons: str = "") -> None:
        """`pythons` are paths of interpreters, which `:` separates."""
        self._packages = home / "plugins" / "packages"
        self._environments = home / "plugins" / "environments"
        self._blobs = blobs
        self._sandbox = sandbox
        self._uv = uv
        self._pythons = pythons
        self._building: dict[str, asyncio.Task[Built]] = {}

    async def get(self, digest: str) -> Built:
        """The package, once it can be started. Raises: NotBuilt, Unavailable."""
        building = self._building.get(digest)
        if building is None or (building.done() and (building.cancelled() or building.exception())):
            building = self._building[digest] = asyncio.create_task(self._build(digest))
        return await asyncio.shield(building)

    async def close(self) -> None:
        for building in self._building.values():
            building.cancel()
        await asyncio.gather(*self._building.values(), return_exceptions=True)

    async def _build(self, digest: str) -> Built:
        try:
            package = await asyncio.to_thread(read, await self._blobs.get(HOUSE, digest))
        except (KeyError, ValueError) as error:
            raise NotBuilt(f"The package {digest} is missing: {error}.") from error
        except Rejection as rejection:
            raise NotBuilt(rejection.message) from rejection
        try:
            folder = await asyncio.to_thread(self._unpack, digest, package)
            return await self._built(package, folder)
        except OSError as error:
            raise NotBuilt(f"The package cannot be unpacked: {error}.") from error

    def _unpack(self, digest: str, package: Package) -> Path:
        """The folder with the files of the package. Raises: OSError, NotBuilt."""
        folder = self._packages / digest
        if folder.exists():
            return folder
        self._packages.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._packages, prefix="new-") as name:
            made = Path(name) / "package"
            made.mkdir()
            try:
                for path, program, data in package.files():
                    file = made / path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(data)
                    file.chmod(0o755 if program else 0o644)
            except Rejection as rejection:
                raise NotBuilt(rejection.message) from rejection
            for each in (made, *(path for path in made.rglob("*") if path.is_dir())):
                each.chmod(0o755)  # whatever the umask: another user reads them
            _publish(made, folder)
        return folder

    async def _built(self, package: Package, folder: Path) -> Built:
        """Raises: NotBuilt, OSError."""
        manifest = package.manifest
        main = folder / manifest["main"]
        if main.suffix != ".py":
            return Built(manifest, folder, [str(main)], [folder])
        interpreter = await interpreters.interpreter(manifest["python"], self._pythons)
        if interpreter is None:
            raise NotBuilt(f"It needs Python {manifest['python']}, which is not found on this machine.")
        bare = await asyncio.to_thread(interpreter.resolve)
        dify = manifest["kind"] == "dify"
        started = ["-s", "-P", str(START), str(folder), main.stem] if dify else ["-s", str(main)]
        readable = [folder, bare.parent.parent, *([START] if dify else [])]
        if not manifest["dependencies"] and not dify:
            return Built(manifest, folder, [str(bare), *started], readable)
        if not package.lock or not package.wheels:
            raise NotBuilt("It has dependencies, but no lock file with wheels for them.")
        named = hashlib.sha256(json.dumps([package.lock, str(bare)]).encode()).hexdigest()
        if self._uv is None:
            raise NotBuilt("It has dependencies, and uv, which installs them, is missing on this machine.")
        environment = self._environments / named
        if not environment.exists():
            await self._make(self._uv, bare, folder, environment)
        return Built(manifest, folder, [str(environment / "bin" / "python"), *started], [*readable, environment])

    async def _make(self, uv: Path, interpreter: Path, folder: Path, environment: Path) -> None:
        """Build an environment in a contained process. Raises: NotBuilt, OSError."""
        self._environments.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._environments, prefix="new-") as name:
            room = Path(name) / "room"
            room.mkdir()
            made = room / "environment"
            steps: Sequence[Sequence[str]] = (
                ("venv", "--offline", "--no-project", "--relocatable", "--python", str(interpreter), str(made)),
                (
                    *("pip", "install", "--offline", "--no-index", "--no-deps", "--require-hashes", "--no-build"),
                    *("--find-links", str(folder / WHEELS), "--python", str(made / "bin" / "python")),
                    *("--requirement", str(folder / "requirements.lock")),
                ),
            )
            variables = {
                "UV_CACHE_DIR": str(room / "cache"),
                "UV_LINK_MODE": "hardlink",
                "UV_NO_CONFIG": "1",
                "HOME": "/tmp",
            }
            child = await self._sandbox.start(
                python("adapters.plugins.build", str(uv), json.dumps(steps)),
                LIMITS,
                [uv, folder, interpreter.parent.parent],
                Rights({**variables, "HOME": "/tmp"}, writable=room),
            )
            try:
                async with asyncio.timeout(BUILD_S):
                    said = await child.stdout.read()
            except TimeoutError:
                raise NotBuilt(f"Its environment was not built within {BUILD_S:g} s.") from None
            finally:
                ending = await child.end()
            if ending.status:
                reason = (said + ending.said).decode(errors="replace").strip()[-500:]
                raise NotBuilt(f"Its environment cannot be built: {reason or f'status {ending.status}'}.")
            _publish(made, environment)
        log.info("plugin.built", environment=environment.name)


def _publish(made: Path, place: Path) -> None:
    """Move a finished folder to its place, unless another process was first. Raises: OSError."""
    try:
        made.rename(place)
    except OSError:
        if not place.exists():
            raise
        shutil.rmtree(made, ignore_errors=True)
