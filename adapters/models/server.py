"""Connections to the servers of models: requests, time limits and retries."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
import structlog
from openai import AsyncOpenAI, AsyncStream, omit

from adapters.egress.client import Egress
from adapters.models.circuit import Call, Circuit, LocalOutages
from adapters.models.faults import Fault, fault_of
from adapters.tracing import requesting
from handlers.ports.models import ModelError, Rest
from handlers.ports.outages import Outages

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """Time limits, in seconds, and the maximum number of tries.

    `first_token` runs from the request to the first piece of the answer, `between_tokens` from one piece to the next,
    `total` over all tries and the pauses between them.
    """

    connect: float = 5
    first_token: float = 60
    between_tokens: float = 30
    total: float = 600
    tries: int = 3
    pause: float = 0.3
    longest_pause: float = 20


PATIENCE = Patience()

RESTS_S = {"rate_limited": 60.0, "unauthorized": 300.0, "payment_required": 300.0}
"""Time for which a key is not used where the provider has another, in seconds, by the code of the last fault."""


class Failed(Exception):
    """One try failed."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class ModelServer:
    """A server, and the connections to it. The key is never part of an error, not even where a server repeats it."""

    def __init__(
        self,
        egress: Egress,
        tenant: str,
        base_url: str,
        key: str,
        patience: Patience,
        path: str,
        outages: Outages | None,
    ) -> None:
        """`path` is that of all requests; a query of the base URL goes with each. Without `outages`, this process alone
        knows of them.

        Raises: ModelError `unreachable` when the base URL is invalid.
        """
        self.address = address(base_url).removesuffix(path)
        self.path = path
        base_url, _, query = base_url.partition("?")
        self._query = f"?{query}" if query else ""
        probe_s = patience.connect + patience.first_token
        self.circuit = Circuit(outages or LocalOutages(), tenant, self.address.rstrip("/") + path, probe_s)
        self.key = key
        self._rests_until = 0.0
        self.patience = patience
        self._http = egress.client(tenant, connect_s=patience.connect)
        self._client = AsyncOpenAI(
            base_url=base_url.rstrip("/").removesuffix(path),
            api_key=key or "none",
            max_retries=0,
            http_client=self._http,
        )
        self._client.organization = self._client.project = None
        self._credentials: dict[str, Any] = {} if key else {"Authorization": omit}
        if key and "api-version=" in query:  # Azure takes keys by a header of its own
            self._credentials = {"api-key": key}

    @property
    def name(self) -> str:
        """`host:port`."""
        parts = urlsplit(self.address)
        return parts.netloc if parts.port else f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}"

    async def close(self) -> None:
        await self._client.close()

    def refusal(self) -> Fault | None:
        """The reason why no request can be sent."""
        if self.key.isascii() and self.key.isprintable():
            return None
        return Fault("unauthorized", "The provider's key has characters that cannot be sent; register it again.")

    def rest(self) -> Rest | None:
        """As of the port."""
        return self.circuit.rest()

    def rests_until(self) -> float:
        """Time of the loop until which the key should not be used, since the server has refused it; 0 for none."""
        return self._rests_until

    async def begin(self) -> Call:
        """Begin a request. Raises: Failed where the server is cut off."""
        found = await self.circuit.enter()
        if isinstance(found, Fault):
            raise Failed(found)
        return found

    async def post(self, body: dict[str, Any]) -> AsyncStream[object]:
        """The answer, as soon as it begins; it must be closed. Raises: OpenAIError, httpx2.HTTPError."""
        with requesting("POST", self.path, self.address):
            return await self._client.post(
                self.path + self._query,
                cast_to=object,
                body=body,
                options={"headers": self._credentials},
                stream=True,
                stream_cls=AsyncStream[object],
            )

    def fault(self, error: Exception, *, answering: bool, begun: bool) -> Fault:
        """The fault of an error. What an internal server says is neither shown nor logged: it may quote a prompt."""
        internal = self._http.internal
        fault = fault_of(error, self.address, self.key, answering=answering, begun=begun, internal=internal)
        if rest := RESTS_S.get(fault.code):
            self._rests_until = asyncio.get_running_loop().time() + max(rest, fault.pause or 0.0)
        if internal:
            log.warning("failed", server=self.address, code=fault.code)
        return fault

    async def pause(self, fault: Fault, tries: int, deadline: float) -> None:
        """Wait before the next try, after `failed` failed ones. Raises: ModelError of the fault when no try is left."""
        if not fault.passing or tries >= self.patience.tries:
            raise fault.error
        pause = fault.pause or self.patience.pause * 2 ** (tries - 1) * random.uniform(0.5, 1.5)
        if pause > self.patience.longest_pause or asyncio.get_running_loop().time() + pause > deadline:
            raise fault._replace(reason=f"{fault.reason} The next try would have to wait {pause:.0f} s.").error
        await asyncio.sleep(pause)


def address(base_url: str) -> str:
    """A base URL without credentials and query. Raises: ModelError when it is none, or has a fragment."""
    try:
        parts = urlsplit(base_url)
        port = f":{parts.port}" if parts.port else ""
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        httpx2.URL(base_url)
    except (ValueError, httpx2.InvalidURL):
        parts = urlsplit("")
    if parts.scheme in ("http", "https") and parts.hostname and not set(base_url) & set("#\\"):
        return f"{parts.scheme}://{host}{port}{parts.path}"
    raise ModelError("unreachable", "The provider's base URL is not the address of a server; register it again.")
