"""OpenSearch on loopback for development and tests: Maven assembles it from `pom.xml`; it needs Java 17 or newer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import httpx2

from ops.servers.daemon import Daemon, StartFailed
from ops.servers.embedded import HOST, checked, create_home, name_of, remember_port, remembered_port, taken

POM = Path(__file__).with_name("pom.xml")
JAVA = 17

PORTS = range(7200, 9290)
"""Ports to choose from; the server's launcher accepts none above them."""

SINGLE: Mapping[str, str | int] = MappingProxyType({"discovery.type": "single-node"})

TRIES = 3
MAVEN_WITHIN_S = 300.0


class EmbeddedOpenSearch:
    """A server with its data in the home, alone or in a `cluster`; `settings` go to its `opensearch.yml`."""

    def __init__(
        self,
        home: Path,
        *,
        cluster: str = "",
        settings: Mapping[str, str | int] = SINGLE,
        heap: str = "1g",
        ready_within: float = 120.0,
    ) -> None:
        self.home = home.resolve()
        self.cluster = cluster or name_of(self.home)
        self.settings = settings
        self.heap = heap
        self.ready_within = ready_within
        self.daemon = Daemon(self.home, "opensearch", signal.SIGTERM)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        """Start the server, or adopt the one already running on this home. Raises: StartFailed."""
        create_home(self.home)
        self.port = remembered_port(self.home, "opensearch")
        if self.daemon.process() is not None:
            await self._ready()
            return
        library = await asyncio.to_thread(jars)
        await asyncio.to_thread(checked, "opensearch", library, "remove this folder, and Maven fetches it again")
        for attempt in range(1, TRIES + 1):
            self.port = self._free()
            self._configure()
            try:
                # Without this, Java reads a path that is not ASCII by the rules of the locale.
                self.daemon.start(self._command(library), env={**os.environ, "LC_ALL": "C.UTF-8"})
                await self._ready()
                return
            except StartFailed:
                await self.daemon.stop()
                if attempt == TRIES:
                    raise

    async def stop(self) -> None:
        await self.daemon.stop()

    def _free(self) -> int:
        """The port that it had last, or a free one."""
        port = self.port
        while not port or taken(port):
            port = random.SystemRandom().choice(PORTS)
        remember_port(self.home, "opensearch", port)
        return port

    def _configure(self) -> None:
        folder = self.home / "opensearch" / "node_1" / "config"
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"network.host": HOST} | dict(self.settings)
        (folder / "opensearch.yml").write_text(
            json.dumps(settings, indent=2, ensure_ascii=False), "utf-8"
        )  # it is YAML

    def _command(self, library: Path) -> list[str]:
        options = {
            "basePath": str(self.home / "opensearch"),
            "numOfNode": "1",
            "baseHttpPort": str(self.port - 1),  # nodes are numbered from 1
            "clusterName": self.cluster,
            "pluginTypes": "org.opensearch.knn.plugin.KNNPlugin",
        }
        return [
            java(),
            f"-Xmx{self.heap}",
            "-XX:+UseSerialGC",
            "-cp",
            f"{library}/*",
            "org.codelibs.opensearch.runner.OpenSearchRunner",
            "-printOnFailure",
            *(part for name, value in options.items() for part in (f"-{name}", value)),
        ]

    async def _ready(self) -> None:
        """Wait until the stored indexes can be searched."""
        url = f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=2s"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.ready_within
        async with httpx2.AsyncClient(timeout=10) as http:
            while loop.time() < deadline:
                if self.daemon.process() is None:
                    raise self.daemon.failure("ended while it started")
                with suppress(httpx2.HTTPError):
                    if (await http.get(url)).status_code == 200:
                        return
                await asyncio.sleep(0.1)
        raise self.daemon.failure(f"was not ready within {self.ready_within:.0f} s")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def missing() -> str:
    """Missing prerequisites, as a sentence; empty when there are none."""
    try:
        java()
        if not _stamp(_library()).exists():
            maven()
    except StartFailed as error:
        return str(error)
    return ""


def java() -> str:
    """Raises: StartFailed."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else None
    found = found or shutil.which("java")
    if found:
        said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(\d+)', said)
        if version and int(version[1]) >= JAVA:
            return found
    raise StartFailed(
        f"OpenSearch needs Java {JAVA} or newer: install it "
        f"(on Debian and Ubuntu: apt install openjdk-{JAVA}-jre-headless)."
    )


def maven() -> str:
    """Raises: StartFailed."""
    if found := shutil.which("mvn"):
        return found
    raise StartFailed("OpenSearch is assembled by Maven: install it (on Debian and Ubuntu: apt install maven).")


def jars() -> Path:
    """Folder of the server's jars in the user's cache, filled by Maven if empty. Raises: StartFailed."""
    library = _library()
    if _stamp(library).exists():
        return library
    program = maven()
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as made:
        command = [program, "-q", "-B", "-f", str(POM), "process-resources", f"-Dlib={made}/lib"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MAVEN_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            raise StartFailed(f"Maven did not fetch OpenSearch within {MAVEN_WITHIN_S:.0f} s.") from error
        if done.returncode:
            raise StartFailed(f"Maven could not fetch OpenSearch:\n{(done.stdout + done.stderr)[-2000:]}")
        _stamp(Path(made, "lib")).touch()
        with suppress(OSError):  # another process was faster
            Path(made, "lib").rename(library)
    return library


def _library() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "headrace" / f"opensearch-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"


def _stamp(library: Path) -> Path:
    """Marker file of a complete folder."""
    return library / ".whole"
