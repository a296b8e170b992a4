"""MCP servers for tests: one made with the package `mcp`, over HTTP or pipes, and raw ones that keep to no rules.

`python -m tests.adapters.tools.mcp.servers` speaks over its pipes; with `quiet`, it ignores what it does not know.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal

import uvicorn
from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ResourceLink,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
)
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Weather(BaseModel):
    city: str
    degrees: float


class Size(BaseModel):
    size: int


class Taste(BaseModel):
    taste: Literal["sweet", "sour"]


def how_large(city: str) -> Elicit[Size]:
    return Elicit(f"How large for {city}?", Size)


def which_taste() -> Elicit[Taste]:
    return Elicit("Which taste?", Taste)


def server() -> MCPServer:
    made = MCPServer("weather station")
    count = 0

    @made.tool(annotations=ToolAnnotations(read_only_hint=True), title="Add two numbers")
    def add(a: int, b: int) -> int:
        """Return the sum."""
        return a + b

    @made.tool(annotations=ToolAnnotations(idempotent_hint=True, destructive_hint=False))
    def weather(city: str) -> Weather:
        """Return the weather of a city."""
        return Weather(city=city, degrees=21.5)

    @made.tool()
    def fail(why: str) -> str:
        """Fail."""
        raise ToolError(why)

    @made.tool(structured_output=False)
    def draw() -> list[Any]:
        """Draw a picture."""
        return ["Here it is.", Image(data=PNG, format="png")]

    @made.tool(structured_output=False)
    def files() -> CallToolResult:
        """Give files and links."""
        blob = BlobResourceContents(uri="file:///tmp/table.csv", mime_type="text/csv", blob="YTtiCg==")
        text = TextResourceContents(uri="note://1", mime_type="text/plain", text="A note.")
        link = ResourceLink(type="resource_link", uri="https://example.com/a", name="a", title="Page A")
        return CallToolResult(
            content=[
                EmbeddedResource(type="resource", resource=blob),
                EmbeddedResource(type="resource", resource=text),
                link,
                TextContent(type="text", text="Done."),
            ]
        )

    @made.tool()
    async def ask(ctx: Context) -> str:
        """Ask for more."""
        answer = await ctx.elicit("How large?", Size)
        return str(answer)

    @made.tool()
    async def order(
        city: str,
        size: Annotated[Size, Resolve(how_large)],
        taste: Annotated[ElicitationResult[Taste], Resolve(which_taste)],
    ) -> str:
        """Order a cake, once both questions are answered."""
        taste_of = taste.data.taste if isinstance(taste, AcceptedElicitation) else taste.action
        return f"{city}: {size.size}, {taste_of}"

    @made.tool()
    async def slow(seconds: float, ctx: Context) -> str:
        """Take time, and report progress."""
        for number in range(3):
            await ctx.report_progress(number, 3)
            await asyncio.sleep(seconds / 3)
        return "slept"

    @made.tool()
    def environment(name: str) -> str:
        """Return a variable, the process, and the number of calls."""
        nonlocal count
        count += 1
        return json.dumps({"value": os.environ.get(name), "pid": os.getpid(), "calls": count})

    @made.tool()
    def connect(host: str, port: int) -> str:
        """Open a connection."""
        try:
            socket.create_connection((host, port), timeout=2).close()
        except OSError as error:
            return f"refused: {type(error).__name__}"
        return "connected"

    @made.tool()
    def read(path: str) -> str:
        """Read a file."""
        try:
            with open(path) as file:
                return file.read(100)
        except OSError as error:
            return f"refused: {type(error).__name__}"

    @made.tool()
    def echo_secret(length: int) -> str:
        """Return the variable SECRET, and `length` characters."""
        return os.environ.get("SECRET", "") + "x" * length

    @made.tool()
    def die() -> str:
        """End the process."""
        os._exit(3)

    return made


class Recording:
    """An application of ASGI that keeps the headers of its requests, and may refuse them."""

    def __init__(self, app: Starlette, refuses: Callable[[dict[str, str]], int] = lambda headers: 0) -> None:
        self.app: ASGIApp = app
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._refuses = refuses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            self.requests.append((scope["method"], headers))
            if status := self._refuses(headers):
                await send({"type": "http.response.start", "status": status, "headers": []})
                await send({"type": "http.response.body", "body": b"no"})
                return
        await self.app(scope, receive, send)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    """Serve an application; yield its port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1, ws="none")
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.01)
    try:
        yield running.servers[0].sockets[0].getsockname()[1]
    finally:
        running.should_exit = True
        await task


Reply = Callable[[dict[str, Any]], Any]
"""The result of a request, or the bytes of a whole answer, by the request."""


@asynccontextmanager
async def raw(reply: Reply) -> AsyncIterator[tuple[int, list[dict[str, Any]]]]:
    """A server of HTTP without a library; yields its port and the requests that it got.

    Where `reply` returns an exception, its text is the error of the answer; an integer is the status of an answer
    without a body.
    """
    got: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next((int(line[15:]) for line in head.splitlines() if line.startswith("content-length:")), 0)
                body = await reader.readexactly(length)
                request = {"verb": head.split()[0], **(json.loads(body) if body else {})}
                got.append(request)
                writer.write(_answer(request, reply(request)))
                await writer.drain()
        writer.close()

    made = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with made:
        yield made.sockets[0].getsockname()[1], got


def _answer(request: dict[str, Any], given: Any) -> bytes:
    if isinstance(given, bytes):
        return given
    if isinstance(given, int):
        return f"HTTP/1.1 {given} Status\r\nContent-Length: 0\r\n\r\n".encode()
    fields = {"error": {"code": -32601, "message": str(given)}} if isinstance(given, Exception) else {"result": given}
    body = json.dumps({"jsonrpc": "2.0", "id": request.get("id"), **fields}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def asks_over_pipes() -> None:
    """Speak the first revision, whose only tool asks the user, and returns the answer."""
    for line in sys.stdin:
        match json.loads(line):
            case {"method": "initialize", "id": id}:
                info = {"name": "old", "version": "1"}
                result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
                _write({"id": id, "result": result})
            case {"method": "tools/call", "id": id}:
                schema = {"type": "object", "properties": {"size": {"type": "integer"}}}
                params = {"message": "How large?", "requestedSchema": schema}
                _write({"id": f"of-{id}", "method": "elicitation/create", "params": params})
            case {"id": str(of), **answer}:
                text = json.dumps(answer.get("result") or answer.get("error"))
                _write({"id": int(of.removeprefix("of-")), "result": {"content": [{"type": "text", "text": text}]}})
            case {"id": id}:
                _write({"id": id, "error": {"code": -32601, "message": "Method not found"}})


def _write(message: dict[str, Any]) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)  # noqa: T201


if __name__ == "__main__":
    if "asks" in sys.argv:
        asks_over_pipes()
        sys.exit()
    if "loud" in sys.argv:
        print("This line is no message.", flush=True)  # noqa: T201
    if "silent" in sys.argv:
        sys.stdin.read()
    if "flood" in sys.argv:
        while True:
            sys.stdout.write("x" * 2**20)
    server().run("stdio")
