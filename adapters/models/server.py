"""Connections to the servers of models: requests, time limits and faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
import structlog

from adapters.egress.client import Egress
from adapters.models.circuit import Call, Circuit, LocalOutages
from adapters.models.faults import Fault, ServerError, fault_of
from adapters.models.limits import limits
from adapters.models.withheld import Withheld
from adapters.tracing import requesting
from handlers.ports.models import ModelError, Rest
from handlers.ports.outages import Outages

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """Time limits of a request, in seconds.

    `first_token` runs from the request to the first piece of the answer, `between_tokens` from one piece to the next,
    `total` over all of it.
    """

    connect: float = 5
    first_token: float = 60
    between_tokens: float = 30
    total: float = 600


PATIENCE = Patience()


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
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`path` is that of its requests, and may end the base URL; a query of the base URL goes with each. `headers`
        carry the key: by default as a bearer token. Without `outages`, this process alone knows of them.

        Raises: ModelError `unreachable` when the base URL is invalid.
        """
        self.address = address(base_url).removesuffix(path)
        self.path = path
        base_url, _, self._query = base_url.partition("?")
        self._base_url = base_url.rstrip("/").removesuffix(path)
        probe_s = patience.connect + patience.first_token
        self.circuit = Circuit(outages or LocalOutages(), tenant, self.address.rstrip("/") + path, probe_s)
        self.key = key
        self.withheld = Withheld([key])
        self.limits: dict[str, int] = {}
        """The limits that the headers of its last answers state, by name."""
        self.patience = patience
        self._headers = bearer(key) if headers is None else headers
        self._http = egress.client(tenant, connect_s=patience.connect)

    @property
    def name(self) -> str:
        """`host:port`."""
        return host_of(self.address)

    async def close(self) -> None:
        await self._http.aclose()

    def refusal(self) -> Fault | None:
        """The reason why no request can be sent."""
        return unsendable(self.key)

    def rest(self) -> Rest | None:
        """The time until which it is cut off; None where it is called."""
        return self.circuit.rest()

    async def begin(self) -> Call:
        """Begin a request. Raises: Failed where the server is cut off."""
        found = await self.circuit.enter()
        if isinstance(found, Fault):
            raise Failed(found)
        return found

    async def once(
        self,
        attempt: Callable[[float], AsyncGenerator[T]],
        learns: Callable[[Fault], bool] = lambda fault: False,
    ) -> AsyncGenerator[T]:
        """Yield what an attempt yields, which takes its deadline, as time of the loop, and raises Failed.

        What a client `learns` from a fault, so that the next request is another one, makes a try worth it at once.
        Raises: ModelError.
        """
        if fault := self.refusal():
            raise fault.error
        try:
            async with aclosing(attempt(asyncio.get_running_loop().time() + self.patience.total)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        except Failed as failed:
            fault = failed.fault
        # Outside of the except clause, so that an error of the transport (with the key) is not its context.
        raise (fault._replace(passing=True, pause=0.0) if learns(fault) else fault).error

    async def post(
        self,
        body: object = None,
        path: str | None = None,
        *,
        content: bytes | AsyncIterable[bytes] | None = None,
        content_type: str = "application/json",
    ) -> httpx2.Response:
        """The answer to a body of JSON, or to a `content`, as soon as it begins; it must be closed.

        Raises: ServerError, httpx2.HTTPError, httpx2.InvalidURL.
        """
        if content is None:
            content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        return await self._send("POST", path or self.path, content, {"Content-Type": content_type})

    async def get(self, path: str) -> httpx2.Response:
        """As `post`, without a body."""
        return await self._send("GET", path, None, {})

    async def _send(
        self, method: str, path: str, content: bytes | AsyncIterable[bytes] | None, headers: Mapping[str, str]
    ) -> httpx2.Response:
        path, _, query = path.partition("?")
        query = "&".join(filter(None, (self._query, query)))
        url = f"{self._base_url}{path}{'?' if query else ''}{query}"
        request = self._http.build_request(method, url, content=content, headers={**headers, **self._headers})
        with requesting(method, self.path, self.address):
            response = await self._http.send(request, stream=True)
            if response.status_code < 300:
                self.limits |= limits(response.headers)
                return response
            try:
                raise ServerError(_read(await response.aread()), response)
            finally:
                await response.aclose()

    async def ask(
        self,
        send: Callable[[], Awaitable[httpx2.Response]],
        read: Callable[[str], T],
        largest: int,
        learns: Callable[[Fault], bool] = lambda fault: False,
    ) -> T:
        """An answer that comes as a whole, of at most `largest` bytes; `read` raises ValueError for another form.

        Raises: ModelError.
        """
        async with aclosing(self.once(lambda deadline: self._ask(send, read, largest, deadline), learns)) as found:
            return await anext(found)

    async def _ask(
        self, send: Callable[[], Awaitable[httpx2.Response]], read: Callable[[str], T], largest: int, deadline: float
    ) -> AsyncGenerator[T]:
        """One request and its answer. Raises: Failed."""
        response: httpx2.Response | None = None
        call = await self.begin()
        try:
            async with asyncio.timeout_at(min(asyncio.get_running_loop().time() + self.patience.first_token, deadline)):
                response = await send()
                body = bytearray()
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > largest:
                        raise ValueError(f"more than {largest:,} bytes.")
            found = read(self.withheld.text(body.decode(errors="replace")))
        except TimeoutError:
            reason = f"{self.address} did not answer within {self.patience.first_token:g} s."
            fault = Fault("timeout", reason, outage=True)
        except (ServerError, httpx2.HTTPError, httpx2.InvalidURL, ValueError, RecursionError) as error:
            fault = self.fault(error, answering=response is not None, begun=False)
        else:
            await call.answered()
            yield found
            return
        finally:
            if response is not None:
                await response.aclose()
        await call.failed(fault)
        raise Failed(fault)

    def fault(self, error: Exception, *, answering: bool, begun: bool) -> Fault:
        """The fault of an error. What an internal server says is neither shown nor logged: it may quote a prompt."""
        internal = self._http.internal
        fault = fault_of(error, self.address, self.key, answering=answering, begun=begun, internal=internal)
        if internal:
            log.warning("failed", server=self.address, code=fault.code)
        return fault


def unsendable(key: str) -> Fault | None:
    """The fault of a key that cannot be in a header."""
    if key.isascii() and key.isprintable():
        return None
    return Fault("unauthorized", "The provider's key has characters that cannot be sent; register it again.")


def host_of(address: str) -> str:
    """`host:port` of an address."""
    parts = urlsplit(address)
    return parts.netloc if parts.port else f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _read(body: bytes) -> object:
    """JSON, or else text."""
    text = body.decode(errors="replace").strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


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
