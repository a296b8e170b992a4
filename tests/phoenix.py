"""Phoenix, a viewer of traces that others make: installed into an environment of its own, and run."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from tests.chat_servers import free_port

PHOENIX = "arize-phoenix==20.26.0"
NOT_AFTER = "2026-11-20"
"""Its dependencies are those of this day."""

READY_S = 200.0


class NotInstalled(Exception):
    """The package registry did not give it."""


class Phoenix:
    """A server at `url`; what it stored is read back over its own interface."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, query: str | None = None) -> Any:
        """Return its answer, to a query of GraphQL as well."""
        body = json.dumps({"query": query}).encode() if query else None
        request = Request(f"{self.url}{path}", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())["data"]


async def install(folder: Path) -> Path:
    """Its command, in a fresh environment in the folder. Raises: NotInstalled."""
    environment = os.environ | {"UV_CACHE_DIR": str(folder / "cache"), "UV_LINK_MODE": "hardlink"}
    uv, python = folder / "uv" / "bin" / "uv", folder / "env" / "bin" / "python"
    for command in (
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder / "uv"), "uv"],
        [str(uv), "venv", "--quiet", "--python", sys.executable, str(folder / "env")],
        [str(uv), "pip", "install", "--quiet", "--python", str(python), "--exclude-newer", NOT_AFTER, PHOENIX],
    ):
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise NotInstalled(said.decode()[-2000:])
    return python.with_name("phoenix")


@asynccontextmanager
async def serving(command: Path, folder: Path) -> AsyncIterator[Phoenix]:
    phoenix = Phoenix(f"http://127.0.0.1:{free_port()}")
    environment = os.environ | {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": phoenix.url.rpartition(":")[2],
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(str(command), "serve", env=environment, stdout=log, stderr=log)
        try:
            until = time.monotonic() + READY_S
            while True:
                with suppress(URLError, ConnectionError, TimeoutError):
                    await asyncio.to_thread(phoenix.ask, "/v1/projects")
                    break
                said = (folder / "log").read_text()[-4000:]
                assert process.returncode is None, f"it ended: {said}"
                assert time.monotonic() < until, f"it is not ready: {said}"
                await asyncio.sleep(0.2)
            yield phoenix
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
