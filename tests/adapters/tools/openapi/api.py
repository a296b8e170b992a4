"""An HTTP server of an API that keeps its requests, and a toolbox of the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from adapters.sandbox.choice import choose
from adapters.tools.openapi.reading import ContainedDocuments
from adapters.tools.openapi.toolbox import OpenApiToolbox, OpenApiToolboxes
from domain.chat.app import Configuration
from domain.log import Metadata
from domain.tools.tool import Definition
from domain.tools.toolset import Secret, Toolset
from handlers.cause import Cause
from handlers.commands.tools import OpenApiFields
from handlers.ports.log import Blobs
from handlers.ports.tools import Invocation
from tests.chat_servers import LOOPBACK, in_clear

DOCUMENTS: list[ContainedDocuments] = []
"""The reader of documents that tests share, where there is one: its processes take a while to start."""

AT = datetime(2026, 5, 4, tzinfo=UTC)


class Heard(NamedTuple):
    """A request that a server got; the names of its headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Writes(NamedTuple):
    """An answer of a server, as its bytes."""

    data: bytes


Answers = Callable[[Heard], Writes | Callable[[asyncio.StreamWriter], Awaitable[None]]]


def says(body: bytes | str = b"{}", status: int = 200, media_type: str = "application/json", **headers: str) -> Writes:
    data = body.encode() if isinstance(body, str) else body
    fields = {"Content-Type": media_type, "Content-Length": str(len(data)), "Connection": "close", **headers}
    lines = [f"HTTP/1.1 {status} Status", *(f"{k.replace('_', '-')}: {v}" for k, v in fields.items() if v)]
    return Writes("\r\n".join([*lines, "", ""]).encode() + data)


class Server:
    """Answers each request by `answers`; `heard` has the requests."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.heard: list[Heard] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
            method, target, _ = head[0].split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-1])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            heard = Heard(method, target, headers, body)
            self.heard.append(heard)
            answer = self.answers(heard)
            if isinstance(answer, Writes):
                writer.write(answer.data)
                await writer.drain()
            else:
                await answer(writer)
        writer.close()


@asynccontextmanager
async def serving(answers: Answers = lambda heard: says()) -> AsyncIterator[Server]:
    kept = Server(answers)
    server = await asyncio.start_server(kept.serve, "127.0.0.1", 0)
    kept.port = server.sockets[0].getsockname()[1]
    async with server:
        yield kept


@asynccontextmanager
async def making(**parts: Any) -> AsyncIterator[OpenApiToolboxes]:
    """Makes toolboxes whose servers, and those of redirects, may be on loopback unless `parts` says otherwise."""
    given = {"egress": LOOPBACK, "elsewhere": LOOPBACK, "unseal": in_clear, "blobs": cast("Blobs", None), **parts}
    if DOCUMENTS:
        yield OpenApiToolboxes(documents=DOCUMENTS[0], **given)
        return
    async with ContainedDocuments((await choose("auto")).sandbox) as documents:
        yield OpenApiToolboxes(documents=documents, **given)


def toolset(secret: str = "", timeout_s: float = 10.0, **fields: Any) -> Toolset:
    return Toolset.begin(
        Toolset.Registered,
        "api",
        AT,
        kind="openapi",
        description="",
        settings=OpenApiFields.model_validate(fields).model_dump(),
        secret=Secret(sealed=secret, hint="") if secret else None,
        timeout_s=timeout_s,
    )


def box(make: OpenApiToolboxes, secret: str = "", timeout_s: float = 10.0, **fields: Any) -> OpenApiToolbox:
    """The toolbox of tenant `acme` with these settings."""
    return make("acme", toolset(secret, timeout_s, **fields))


def document(paths: dict[str, Any], server: str = "https://api.example/v1", **more: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "T"}, "servers": [{"url": server}], "paths": paths, **more}


async def tools_of(toolbox: OpenApiToolbox) -> dict[str, Definition]:
    return {tool["name"]: tool for tool in (await toolbox.list()).tools}


def invocation(
    tool: Definition, arguments: dict[str, Any], user: str = "ada", id: str = "call-1", person: str | None = None
) -> Invocation:
    metadata = Metadata("cause", "acme", "s_default", "cause", "cause", person=person)
    cause = Cause(metadata, "message", "m", 1)
    return Invocation(id, cause, tool, arguments, cast("Configuration", {}), AT.isoformat(), user)


@asynccontextmanager
async def calling(
    answers: Answers, paths: dict[str, Any], *, secret: str = "", timeout_s: float = 10.0, **fields: Any
) -> AsyncIterator[tuple[Server, OpenApiToolbox, dict[str, Definition]]]:
    """A server, and the tools of its document."""
    async with serving(answers) as server, making() as make:
        text = json.dumps(document(paths, server.url))
        toolbox = box(make, secret, timeout_s, text=text, **fields)
        yield server, toolbox, await tools_of(toolbox)
