"""Runs an OpenSearch server in the home until it is interrupted, and says how to use it."""

from __future__ import annotations

import asyncio
import signal
import sys

from ops.servers.daemon import StartFailed
from ops.servers.opensearch.server import EmbeddedOpenSearch
from ops.settings import Settings
from ops.terminal import say


async def run() -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    say("Starting OpenSearch; the first time, Maven fetches 70 MB.")
    async with EmbeddedOpenSearch(Settings.load().home) as server:
        say(f"OpenSearch answers. In another terminal: export HEADRACE_OPENSEARCH_URL={server.url}; headrace up")
        await stopped.wait()


try:
    asyncio.run(run())
except StartFailed as error:
    say(str(error))
    sys.exit(1)
