"""Run an OpenSearch server in the home until interrupted, and print its address."""

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
    say("Starting OpenSearch; the first start downloads 70 MB with Maven.")
    async with EmbeddedOpenSearch(Settings.load().home) as server:
        say(f"OpenSearch is ready. In another terminal: export HEADRACE_OPENSEARCH_URL={server.url}; headrace up")
        await stopped.wait()


try:
    asyncio.run(run())
except StartFailed as error:
    say(str(error))
    sys.exit(1)
