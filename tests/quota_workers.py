"""Workers that call a model as fast as quotas allow, in processes that a test kills: `python -m tests.quota_workers`.

The program forks them, and another one for each that dies, and prints their process ids. On SIGTERM they end in order.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress

import structlog

from adapters.jetstream import nats_py
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.privacy.vault import AesVault
from domain.aggregate import new_id
from domain.log import Metadata
from handlers.cause import Cause
from handlers.models.grants import Grants
from handlers.models.model_calls import ModelCalls
from handlers.models.prompt import Record
from handlers.ports.log import Unavailable
from handlers.ports.models import ChatMessage, ChatRequest, ChatUsage, Delta, ModelError
from handlers.repository import Repository
from tests.handlers.fakes import Only

AT_ONCE = 2
"""Calls of one process at a time."""

LEASE_S = 4.0


class Model:
    """Takes some time, and counts tokens."""

    server = "lab:1"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        await asyncio.sleep(random.uniform(0.0, 2 * self._seconds))
        if random.random() < 0.05:
            raise ModelError("server_error", "It failed.")
        yield Delta("At six.", "stop", ChatUsage(random.randint(1, 20), random.randint(1, 50)))


async def work(url: str, tenant: str, seconds: float) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    nc = await nats_py.connect(url)
    keys = JetStreamKeys(nc, AesVault(bytes(32)))
    repository = Repository(JetStreamEventStore(nc, keys), JetStreamSnapshots(nc, keys))
    grants = Grants(repository, lease_s=LEASE_S, idle_s=0.5, patience_s=2.0)
    calls, model = ModelCalls(repository, None, grants), Model(seconds)

    async def ask() -> None:
        while not stopping.is_set():
            id = new_id()
            cause = Cause(Metadata(id, tenant, id, actor="s_load"), "message", id, 1)
            request = ChatRequest("small", [ChatMessage("user", "When?")], 50)
            try:
                async for _ in calls.chat(cause, Only("lab", model, "small"), request, Record([], {})).texts():
                    pass
            except ModelError as error:
                if error.code == "quota_exceeded":
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stopping.wait(), random.uniform(0.2, 1.0))
            except Unavailable:
                await asyncio.sleep(0.1)

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    await grants.close()
    await nc.close()


def main(url: str, tenant: str, count: int, seconds: float) -> None:
    children = set[int]()
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    while children or not stopping:
        while len(children) < count and not stopping:
            if (child := os.fork()) == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                random.seed()
                asyncio.run(work(url, tenant, seconds))
                os._exit(0)
            children.add(child)
            sys.stdout.write(f"{child}\n")
            sys.stdout.flush()
        with suppress(InterruptedError, ChildProcessError):
            ended, _ = os.wait()
            children.discard(ended)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
