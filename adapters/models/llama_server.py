"""llama.cpp's server of the OpenAI protocol, as a program: its arguments are the `Served` model as JSON.

It answers one request at a time, by one thread: two would spin against each other on a busy machine. Others wait. Its
key is in the environment, where other users cannot read it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import NamedTuple

KEY = "MODEL_SERVER_KEY"
"""Variable with the key that a request must have."""

CONNECTIONS = 32
"""Requests that are read at a time: all but one wait for their turn, and health checks need one."""


class Served(NamedTuple):
    """A model of a file in GGUF, by its name, on a port of loopback; `window` is its context in tokens."""

    file: str
    name: str
    port: int
    window: int


def main() -> None:
    """Serve until a signal ends the process. Raises: RuntimeError when the model or the port cannot be had."""
    from xllamacpp import CommonParams, Server  # type: ignore[import-untyped]

    served = Served(*json.loads(sys.argv[1]))
    settings = CommonParams()
    settings.model.path = served.file
    settings.model_alias = {served.name}
    settings.port = served.port
    settings.n_ctx = served.window
    settings.n_parallel = 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.n_threads_http = CONNECTIONS
    settings.api_keys = [os.environ.pop(KEY)]
    settings.ui = settings.endpoint_slots = False
    settings.offline = True
    settings.cache_ram_mib = settings.n_ctx_checkpoints = 0  # else up to 8 GiB of earlier prompts
    server = Server(settings)
    while server:
        signal.pause()


if __name__ == "__main__":
    main()
