"""Sessions with MCP servers, over HTTP or the pipes of a process. Imported late: the package `mcp` takes a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.auth import OAuthFlowError
from mcp.client.session import ElicitationFnT
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared import _otel, jsonrpc_dispatcher
from mcp.shared.message import SessionMessage
from mcp_types import (
    CONNECTION_CLOSED,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    REQUEST_TIMEOUT,
    UNSUPPORTED_PROTOCOL_VERSION,
    URL_ELICITATION_REQUIRED,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    DiscoverResult,
    Implementation,
    InputRequiredResult,
    InputResponses,
    PaginatedRequestParams,
    Tool,
    jsonrpc_message_adapter,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from opentelemetry.trace import NoOpTracer
from pydantic import TypeAdapter, ValidationError

from adapters.egress.client import Refused, TooLarge
from adapters.sandbox.child import Child
from adapters.tools.mcp.questions import written
from handlers.ports.tools import Answered, ToolError

MOST_BYTES = 16 * 2**20
"""Maximum size of an answer, in bytes."""

MOST_TOOLS = 1000
"""Maximum number of tools of a list."""

MOST_PAGES = 100
"""Maximum number of pages of a list."""

MOST_NOTES = 10_000
"""Maximum number of notices, such as of progress, in a session over HTTP."""

AGAIN_S = 0.25
"""Pause before a call is repeated for a server that asks for time, in seconds."""

END_S = 2.0
"""Time limit of the end of a session, in seconds."""

LEGACY, SSE = "legacy", "sse"
"""Servers with a handshake, by Streamable HTTP; and by HTTP+SSE, which came before that."""

Era = str | DiscoverResult
"""The way that a server is spoken to: `LEGACY`, `SSE`, or without a handshake, by what it said of itself."""

_RESULT: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)

# The package logs what servers send, and records spans with it.
logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)
logging.getLogger("client").setLevel(logging.CRITICAL + 1)
_otel._tracer = NoOpTracer()
jsonrpc_dispatcher.inject_trace_context = lambda meta: None  # type: ignore[attr-defined]


class Http:
    """A session over HTTP: `status` is that of the last answer to a message, `era` how the server is spoken to."""

    def __init__(
        self, make: Callable[[], httpx2.AsyncClient], url: str, era: Era | None, asks: ElicitationFnT | None = None
    ) -> None:
        """`make` makes a client that sends the credentials; `asks` answers what the server asks the user."""
        self._make = make
        self._asks = asks
        self._url = url
        self._session = ""
        self._notes = 0
        self._limit = asyncio.timeout(None)
        self.era = era
        self.status = 0

    def _client(self, **_: object) -> httpx2.AsyncClient:
        client = self._make()
        client.event_hooks = {"response": [self._note]}
        return client

    async def _note(self, answer: httpx2.Response) -> None:
        if answer.request.method == "POST":
            self.status = answer.status_code
            self._session = answer.headers.get("mcp-session-id", self._session)

    @property
    def is_flooded(self) -> bool:
        return self._notes > MOST_NOTES

    async def _count(self, message: object) -> None:
        """Count a notice; end the session after too many."""
        self._notes += 1
        if self.is_flooded and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        """Connect as the server was spoken to before; else find out how. Raises: errors of the package."""
        async with self._limit, AsyncExitStack() as stack:
            if self.era == SSE:
                yield await self._by_sse(stack)
                return
            http = await stack.enter_async_context(self._client())
            client = await self._streamable(stack, http)
            try:
                yield client
            finally:
                if self._session:
                    await self._end(http)

    async def _streamable(self, stack: AsyncExitStack, http: httpx2.AsyncClient) -> Client:
        transport = streamable_http_client(
            self._url, http_client=http, terminate_on_close=False, max_sse_event_size=MOST_BYTES
        )
        known = self.era if isinstance(self.era, DiscoverResult) else None
        mode = next((each for each in MODERN_PROTOCOL_VERSIONS if known and each in known.supported_versions), "auto")
        try:
            mode = LEGACY if self.era == LEGACY else mode
            client = await stack.enter_async_context(_client(transport, mode, self._asks, known, self._count))
        except Exception:
            if self.era or self.status not in (400, 404, 405, 406, 415):
                raise
            return await self._by_sse(stack)
        self.era = client.session.discover_result or LEGACY
        return client

    async def _by_sse(self, stack: AsyncExitStack) -> Client:
        transport = sse_client(self._url, httpx_client_factory=self._client)  # type: ignore[arg-type]
        client = await stack.enter_async_context(_client(transport, LEGACY, self._asks, notes=self._count))
        self.era = SSE
        return client

    async def _end(self, http: httpx2.AsyncClient) -> None:
        with suppress(httpx2.HTTPError, TimeoutError, RuntimeError):
            with anyio.fail_after(END_S):
                await http.delete(self._url, headers={"mcp-session-id": self._session})


def over_pipes(child: Child, ended: Callable[[], None], asks: ElicitationFnT) -> Client:
    """A session with a process; `ended` is called when that writes no more."""
    return _client(_pipes(child, ended), "auto", asks)


def _client(
    transport: Any, mode: str, asks: ElicitationFnT | None, known: DiscoverResult | None = None, notes: Any = None
) -> Client:
    info = Implementation(name="headrace", version=version("headrace"))
    return Client(
        transport,
        mode=mode,
        prior_discover=known,
        cache=None,
        client_info=info,
        message_handler=notes,
        elicitation_callback=asks,
    )


@asynccontextmanager
async def _pipes(child: Child, ended: Callable[[], None]) -> AsyncIterator[Any]:
    into, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, out = anyio.create_memory_object_stream[SessionMessage](0)

    async def receive() -> None:
        try:
            async for line in _lines(child):
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:  # what a program prints, too
                    continue
                await into.send(SessionMessage(message))
        finally:
            ended()
            await into.aclose()

    async def send() -> None:
        with suppress(OSError):
            async for each in out:
                child.stdin.write(each.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await child.stdin.drain()
        await into.aclose()

    async with into, read, write, out, anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        tasks.start_soon(send)
        try:
            yield read, write
        finally:
            tasks.cancel_scope.cancel()


async def _lines(child: Child) -> AsyncIterator[bytes]:
    """Raises: TooLarge."""
    kept = bytearray()
    while data := await child.stdout.read(2**16):
        *lines, rest = data.split(b"\n")
        for line in lines:
            yield bytes(kept) + line
            kept.clear()
        kept += rest
        if len(kept) > MOST_BYTES:
            raise TooLarge(f"more than {MOST_BYTES:,} bytes.")


async def tools(client: Client, *, until: str | None = None) -> list[Tool]:
    """The tools of a server; with `until`, up to the page that has this one.

    Raises: ToolError, errors of the package.
    """
    found: list[Tool] = []
    cursors: set[str] = set()
    cursor: str | None = None
    while True:
        page = await client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        found += page.tools
        if len(found) > MOST_TOOLS:
            raise ToolError("too_large", f"It lists more than {MOST_TOOLS:,} tools.")
        cursor = page.next_cursor
        if not cursor or any(tool.name == until for tool in page.tools):
            return found
        if cursor in cursors or len(cursors) >= MOST_PAGES:
            raise ToolError("server_error", "Its list of tools has no end.")
        cursors.add(cursor)


async def call(
    client: Client, name: str, arguments: dict[str, Any], key: str, answered: Answered | None
) -> CallToolResult | InputRequiredResult:
    """Call a tool, whose result is not checked by its schema here. Raises: ToolError, errors of the package."""
    given: InputResponses | None = None
    state: str | None = None
    if answered:
        given = {each: written(answer) for each, answer in answered.answers.items()}
        state = answered.state or None
    while True:
        result = await _called(client, name, arguments, key, given, state)
        if not isinstance(result, InputRequiredResult) or result.input_requests:
            return result
        given, state = None, result.request_state  # it asks for time alone
        await asyncio.sleep(AGAIN_S)


async def _called(
    client: Client, name: str, arguments: dict[str, Any], key: str, given: InputResponses | None, state: str | None
) -> CallToolResult | InputRequiredResult:
    parameters = CallToolRequestParams(
        name=name,
        arguments=arguments,
        input_responses=given,
        request_state=state,
        _meta={"headrace/idempotencyKey": key},
    )
    request = CallToolRequest(params=parameters)
    try:
        return await client.session.send_request(request, _RESULT)
    except MCPError as error:
        if error.code != HEADER_MISMATCH:
            raise
    await tools(client, until=name)  # the session learns which arguments go into headers
    return await client.session.send_request(request, _RESULT)


def fault(error: BaseException, status: int = 0, *, listing: bool = False, flooded: bool = False) -> ToolError:
    """The reason why a server gave no result; only who lists tools reads which address is refused, and why."""
    found = list(_leaves(error))
    if flooded:
        return ToolError("too_large", f"The server sent more than {MOST_NOTES:,} notices.")
    for each in found:
        if isinstance(each, ToolError):
            return each
    if any(isinstance(each, TooLarge) for each in found):
        return ToolError("too_large", f"The answer has more than {MOST_BYTES // 2**20} MiB.")
    for each in found:
        if isinstance(each, Refused):
            return ToolError("unreachable", str(each) if listing else "The address of the server may not be called.")
    if said := _of_status(status):
        return said
    for each in found:
        if isinstance(each, MCPError) and each.code != CONNECTION_CLOSED:
            return _of_protocol(each)
    for each in found:
        if isinstance(each, httpx2.HTTPStatusError) and (said := _of_status(each.response.status_code)):
            return said
        if isinstance(each, TimeoutError | httpx2.TimeoutException):
            return ToolError("timeout", "The server does not answer in time.")
        if isinstance(each, httpx2.TransportError | httpx2.InvalidURL):
            return ToolError("unreachable", f"The server does not answer ({type(each).__name__}).")
        if isinstance(each, ValidationError):
            return ToolError("server_error", "The answer of the server does not keep to the protocol.")
    closed = next((each.message for each in found if isinstance(each, MCPError)), "")
    return ToolError("server_error", f"The server ended the connection{f': {closed}' if closed else ''}."[:500])


def login_fault(error: BaseException, status: int) -> ToolError:
    """The reason why a person could not log in."""
    for each in _leaves(error):
        if isinstance(each, OAuthFlowError):
            return ToolError("unauthorized", f"The login failed: {str(each)[:500]}")
    return fault(error, status, listing=True)


def is_fault_of_tool(error: BaseException) -> bool:
    """True where the server was understood."""
    return any(isinstance(each, ToolError) for each in _leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _of_status(status: int) -> ToolError | None:
    if status in (401, 403):
        return ToolError("unauthorized", f"The server refused the secret, with status {status}.")
    if status == 429:
        return ToolError("rate_limited", "The server takes no more requests for now, with status 429.")
    if status == 404:
        return ToolError("not_found", "The server has nothing at this address, with status 404.")
    if status >= 500:
        return ToolError("server_error", f"The server failed, with status {status}.")
    if 300 <= status < 400:
        return ToolError("bad_request", f"The server redirects to another address, with status {status}.")
    return None


CODES: Mapping[int, str] = {
    INVALID_PARAMS: "invalid_arguments",
    METHOD_NOT_FOUND: "unsupported",
    REQUEST_TIMEOUT: "timeout",
    UNSUPPORTED_PROTOCOL_VERSION: "unsupported",
    URL_ELICITATION_REQUIRED: "unsupported",
}


def _of_protocol(error: MCPError) -> ToolError:
    return ToolError(CODES.get(error.code, "server_error"), f"The server failed ({error.code}): {error.message[:500]}")
