"""HTTP clients for addresses that a tenant chooses.

A name is looked up once per connection; all its addresses are checked, and the connection is made to one of them. The
name stays for TLS and `Host`. Neither proxies of the environment nor redirects are followed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from time import monotonic
from typing import cast

import httpcore2
import httpx2
import psutil

from adapters.egress.addresses import IP, Allowance, Rules, is_public, plain

MOST_BYTES = 16 * 2**20
"""Maximum size of an answer, in bytes."""

MOST_ERROR_BYTES = 64 * 2**10
"""Size at which the body of an error is cut off, in bytes."""

CONNECTIONS, IDLE_CONNECTIONS, IDLE_S = 1000, 20, 4.0
"""Of one client: the maximum number of connections, of idle ones, and the time that they are kept, in seconds.

Many servers, such as llama.cpp and uvicorn, close an idle connection after 5 s: a request that meets that is lost.
"""

FRESH_S = 30.0
"""Age up to which the addresses of our own servers and of this machine are reused, in seconds."""


class Refused(httpx2.ConnectError):
    """The address may not be called."""


class TooLarge(httpx2.ReadError):
    """An answer has more bytes than its client takes."""


async def no_tenant(tenant: str) -> bool:
    """Return False: no tenant may call model servers on this machine without a setting."""
    return False


class Egress:
    """The rules of an installation, by which it makes clients.

    `own` returns the servers (host, port) of Headrace itself. `local_models`: whether a tenant may call model servers
    on the usual ports of this machine.
    """

    def __init__(
        self,
        allowed: Sequence[Allowance] = (),
        own: Callable[[], Iterable[tuple[str, int]]] = tuple,
        local_models: Callable[[str], Awaitable[bool]] = no_tenant,
    ) -> None:
        self._allowed = allowed
        self._own = own
        self._local_models = local_models
        self._rules: tuple[float, Rules] | None = None

    def client(self, tenant: str, *, connect_s: float, most: int = MOST_BYTES) -> GuardedClient:
        """A client for the addresses that this tenant chooses; it waits for an answer without a time limit.

        `most` is the maximum size of an answer, in bytes.
        """
        return GuardedClient(self, tenant, connect_s, most)

    async def permitted(self, tenant: str, host: str, port: int) -> list[IP]:
        """The addresses of a host, each of which may be called. Raises: Refused; httpcore2.ConnectError."""
        rules = await self._fresh()
        found = await _looked_up(host, port)
        local_models = any(ip.is_loopback for ip in found) and await self._local_models(tenant)
        for ip in found:
            if rule := rules.refusal(host.rstrip(".").lower(), ip, port, local_models=local_models):
                name = f"{host}:{port}" if str(ip) == host else f"{host}:{port} ({ip})"
                raise Refused(f"{name} {rule}.")
        return found

    async def connect(self, tenant: str, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a host, at one of its permitted addresses. Raises: Refused, OSError."""
        try:
            addresses = await self.permitted(tenant, host, port)
        except httpcore2.ConnectError as error:
            raise OSError(str(error)) from error
        failed: OSError | None = None
        for ip in addresses:
            try:
                return await asyncio.open_connection(str(ip), port)
            except OSError as error:
                failed = error
        raise failed or OSError(f"{host} has no address.")

    async def _fresh(self) -> Rules:
        if self._rules is None or monotonic() > self._rules[0]:
            here = frozenset(
                plain(address.address)
                for addresses in psutil.net_if_addrs().values()
                for address in addresses
                if address.family in (socket.AF_INET, socket.AF_INET6)
            )
            own = frozenset([(ip, port) for host, port in self._own() for ip in await _known(host, port)])
            self._rules = monotonic() + FRESH_S, Rules(self._allowed, own, here)
        return self._rules[1]


async def _looked_up(host: str, port: int) -> list[IP]:
    """Raises: httpcore2.ConnectError."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(f"{host} has no address: {error}") from error
    return list(dict.fromkeys(plain(str(address[0])) for *_, address in found))


async def _known(host: str, port: int) -> list[IP]:
    """The addresses of one of our servers; none while its name is unknown."""
    try:
        return await _looked_up(host, port)
    except httpcore2.ConnectError:
        return []


class GuardedClient(httpx2.AsyncClient):
    """`internal` is False when the last connection went to a public address: only then may its answer be shown."""

    def __init__(self, egress: Egress, tenant: str, connect_s: float, most: int) -> None:
        self._backend = _Backend(egress, tenant)
        super().__init__(
            transport=_Transport(self._backend, most),
            timeout=httpx2.Timeout(None, connect=connect_s),
            trust_env=False,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity"},
        )

    @property
    def internal(self) -> bool:
        return self._backend.internal


class _Backend(httpcore2.AsyncNetworkBackend):
    """Connects to permitted addresses only."""

    def __init__(self, egress: Egress, tenant: str) -> None:
        self._egress = egress
        self._tenant = tenant
        self._network = httpcore2.AnyIOBackend()
        self.internal = True

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # as the interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raises: Refused, httpcore2.ConnectError, httpcore2.ConnectTimeout."""
        try:
            async with asyncio.timeout(timeout):
                return await self._connected(host, port, local_address, socket_options)
        except TimeoutError:
            raise httpcore2.ConnectTimeout(f"{host}:{port} accepted no connection within {timeout:g} s.") from None

    async def _connected(
        self,
        host: str,
        port: int,
        local_address: str | None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None,
    ) -> httpcore2.AsyncNetworkStream:
        failed: httpcore2.ConnectError | None = None
        for ip in await self._egress.permitted(self._tenant, host, port):
            try:
                stream = await self._network.connect_tcp(
                    str(ip), port, local_address=local_address, socket_options=socket_options
                )
            except httpcore2.ConnectError as error:
                failed = error
            else:
                self.internal = not is_public(ip)
                return stream
        raise failed or httpcore2.ConnectError(f"{host} has no address.")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  # as the interface
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise Refused("A socket of this machine is never called.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Transport(httpx2.AsyncBaseTransport):
    """httpx2's own transport takes no network backend."""

    def __init__(self, backend: _Backend, most: int) -> None:
        self._most = most
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=_tls(),
            max_connections=CONNECTIONS,
            max_keepalive_connections=IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_S,
            network_backend=backend,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        with _translated():
            answer = await self._pool.handle_async_request(
                httpcore2.Request(
                    request.method,
                    url,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        stream = _Bounded(answer, MOST_ERROR_BYTES if answer.status >= 300 else self._most, cut=answer.status >= 300)
        response = httpx2.Response(answer.status, headers=answer.headers, stream=stream, extensions=answer.extensions)
        if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            await stream.aclose()
            raise httpx2.RemoteProtocolError("The answer is compressed, which was not asked for.")
        return response

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer, which may be read in several goes; one of an error is cut off at its bound."""

    def __init__(self, answer: httpcore2.Response, most: int, *, cut: bool) -> None:
        self._answer = answer
        self._most = most
        self._cut = cut
        self._size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for part in cast("AsyncIterable[bytes]", self._answer.stream):
                self._size += len(part)
                if self._size > self._most:
                    if self._cut:
                        break
                    raise TooLarge(f"more than {self._most:,} bytes.")
                yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    """Raise errors of httpcore2 as those of httpx2, which have the same names."""
    try:
        yield
    except (
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.ProxyError,
        httpcore2.TimeoutException,
        httpcore2.UnsupportedProtocol,
    ) as error:
        raise getattr(httpx2, type(error).__name__)(str(error)) from error


@cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()
