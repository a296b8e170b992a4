"""Toolsets of MCP servers: real ones over HTTP, old ones, and hostile ones."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from adapters.egress.addresses import allowances
from adapters.egress.client import Egress
from adapters.tools.mcp import session
from adapters.tools.mcp.processes import Processes
from adapters.tools.mcp.toolbox import McpToolboxes
from domain.tools.question import Answer, Question
from domain.tools.toolset import Toolset
from handlers.commands.tools import AuthFields
from handlers.ports.tools import Answered, Ask, Invocation, NeedsAnswers, Result, Toolbox, ToolError, no_user
from tests.adapters.tools.mcp.servers import PNG, Recording, raw, serving
from tests.adapters.tools.mcp.servers import server as weather_station

SECRET = "sk-secret-0123456789"


async def _no_sandbox() -> Any:
    raise AssertionError("No program is configured.")


def boxes(*ports: int, processes: Processes | None = None, **ways: Any) -> McpToolboxes:
    allowed = allowances(",".join(f"127.0.0.1:{port}" for port in ports))
    processes = processes or Processes(_no_sandbox, {})
    return McpToolboxes(Egress(allowed), lambda tenant, sealed: sealed, processes, **ways)


def toolset(
    url: str | None, secret: str = "", timeout_s: float = 20.0, server: str | None = None, **auth: Any
) -> Toolset:
    settings = {"url": url, "server": server, "auth": AuthFields(**auth).model_dump()}
    sealed = {"sealed": secret, "hint": ""} if secret else None
    return cast("Toolset", SimpleNamespace(id="box", settings=settings, secret=sealed, timeout_s=timeout_s))


async def call(
    box: Toolbox,
    name: str,
    /,
    *,
    user: str = "ann",
    answered: Answered | None = None,
    ask: Ask = no_user,
    **arguments: Any,
) -> Result:
    cause = SimpleNamespace(metadata=SimpleNamespace(tenant="acme", person=f"person-of-{user}"))
    tool: Any = {"name": name}
    about = "call-1", cast("Any", cause), tool, arguments, cast("Any", {}), "", user
    return await box.call(Invocation(*about, answered, ask))


async def failed(box: Toolbox, name: str, /, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(ToolError) as raised:
        await call(box, name, **arguments)
    return raised.value.code, raised.value.reason


async def unlisted(box: Toolbox) -> tuple[str, str]:
    with pytest.raises(ToolError) as raised:
        await box.list()
    return raised.value.code, raised.value.reason


@asynccontextmanager
async def station(**options: Any) -> AsyncIterator[tuple[Toolbox, Recording]]:
    app = Recording(weather_station().streamable_http_app(**options))
    async with serving(app) as port:
        yield boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/mcp")), app


async def test_tools_are_listed_with_what_the_server_hints() -> None:
    async with station() as (box, _):
        found = {tool["name"]: tool for tool in (await box.list()).tools}
    assert [(found[name]["destructive"], found[name]["idempotent"]) for name in ("add", "weather", "fail")] == [
        (False, True),
        (False, True),
        (True, False),
    ]
    assert (found["add"]["label"], found["add"]["description"]) == ("Add two numbers", "Return the sum.")
    assert found["add"]["parameters"]["required"] == ["a", "b"]
    assert box.server.startswith("127.0.0.1:")


@pytest.mark.parametrize("options", [{}, {"json_response": True}, {"stateless_http": True}])
async def test_a_call_takes_one_request_once_the_server_is_known(options: dict[str, Any]) -> None:
    async with station(**options) as (box, app):
        assert (await call(box, "add", a=2, b=3)).text == "5"
        before = len(app.requests)
        assert (await call(box, "add", a=4, b=3)).text == "7"
        [(verb, headers)] = app.requests[before:]
    assert (verb, headers["mcp-method"], headers["mcp-name"]) == ("POST", "tools/call", "add")
    assert headers["idempotency-key"] == "call-1"
    assert "traceparent" not in headers


async def test_results_have_parts_and_files() -> None:
    async with station() as (box, _):
        weather, draw, files = [
            await call(box, "weather", city="Rome"),
            await call(box, "draw"),
            await call(box, "files"),
        ]
    assert list(weather.parts) == [{"type": "json", "value": {"city": "Rome", "degrees": 21.5}}]
    assert json.loads(weather.text) == {"city": "Rome", "degrees": 21.5}
    [picture] = draw.files
    assert (draw.text, picture) == ("Here it is.", ("image-1.png", "image/png", PNG))
    assert [(file.name, file.media_type, file.data) for file in files.files] == [("table.csv", "text/csv", b"a;b\n")]
    assert files.text == "note://1\nA note.\n\nPage A: https://example.com/a\n\nDone."
    assert list(files.parts) == [{"type": "link", "url": "https://example.com/a", "title": "Page A"}]


async def test_errors_of_tools_have_a_code() -> None:
    async with station() as (box, _):
        assert await failed(box, "fail", why="The sky is closed.") == (
            "server_error",
            "The tool failed: Error executing tool fail: The sky is closed.",
        )
        code, reason = await failed(box, "add", a="many")
        assert (code, "validation" in reason) == ("server_error", True)
        assert (await failed(box, "no_such_tool"))[0] in ("invalid_arguments", "server_error")
        code, reason = await failed(box, "ask")
        assert (code, "elicitation/create" in reason) == ("server_error", True)


def new(request: dict[str, Any], result: Any = None) -> Any:
    """A server without a handshake."""
    complete = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public"}
    match request:
        case {"method": "server/discover"}:
            return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **complete}
        case {"method": "tools/call"}:
            return result
    return 405


def says(action: str, **content: Any) -> Answer:
    return Answer(action=action, content=content)


async def test_a_server_asks_the_user_and_goes_on_with_the_answers() -> None:
    async with station() as (box, _):
        with pytest.raises(NeedsAnswers) as raised:
            await call(box, "order", city="Rome")
        size, taste = raised.value.questions
        assert [size["message"], taste["message"]] == ["How large for Rome?", "Which taste?"]
        assert size["form"]["properties"]["size"]["type"] == "integer"
        answers = {size["name"]: says("accept", size=3), taste["name"]: says("accept", taste="sour")}
        again = Answered(answers, raised.value.state)
        assert (await call(box, "order", city="Rome", answered=again)).text == "Rome: 3, sour"
        again = Answered({**answers, taste["name"]: says("decline")}, raised.value.state)
        assert (await call(box, "order", city="Rome", answered=again)).text == "Rome: 3, decline"
        again = Answered({**answers, size["name"]: says("cancel")}, raised.value.state)
        with pytest.raises(ToolError, match="was cancel"):
            await call(box, "order", city="Rome", answered=again)


async def test_an_older_server_waits_in_its_session_which_has_no_time_limit_meanwhile() -> None:
    asked: list[Question] = []

    async def ask(question: Question) -> Answer:
        asked.append(question)
        await asyncio.sleep(2.0)
        return says("accept", size=4)

    async with serving(Recording(weather_station().sse_app())) as port:
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/sse", timeout_s=1.5))
        await box.list()
        assert (await call(box, "ask", ask=ask)).text == "action='accept' data=Size(size=4)"
        assert (await call(box, "ask")).text == "action='cancel'"
    assert [(each["name"], each["message"]) for each in asked] == [("", "How large?")]


def form(**schema: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {}, **schema}
    return {"mode": "form", "message": f"For {SECRET}?", "requestedSchema": schema}


def elicits(**params: Any) -> dict[str, Any]:
    return {"method": "elicitation/create", "params": params}


NESTED, LARGE = form(properties={"a": {"type": "object"}}), form(title="x" * 20_000)
LONG = form(properties={str(number): {"type": "string"} for number in range(51)})


@pytest.mark.parametrize(
    ("requests", "code"),
    [
        ({"a": elicits(**NESTED)}, "unsupported"),
        ({"a": elicits(**LONG)}, "unsupported"),
        ({"a": elicits(mode="url", message="Go", url="https://a.example")}, "unsupported"),
        ({"a": {"method": "roots/list"}}, "unsupported"),
        ({"a": elicits(**LARGE)}, "too_large"),
        ({str(number): elicits(**form()) for number in range(11)}, "too_large"),
    ],
)
async def test_what_is_no_form_is_not_asked(requests: dict[str, Any], code: str) -> None:
    asks = {"resultType": "input_required", "inputRequests": requests, "requestState": "state"}
    async with raw(lambda request: new(request, asks)) as (port, _):
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/", SECRET, type="bearer"))
        found, reason = await failed(box, "add")
    assert (found, SECRET in reason) == (code, False)


async def test_a_question_withholds_the_secret_and_time_may_be_asked_for() -> None:
    field = {"type": "string", "title": SECRET}
    params = form(properties={"a": field})
    later = {"resultType": "input_required", "requestState": "later"}
    asks = {"resultType": "input_required", "inputRequests": {"a": elicits(**params)}}

    def answer(request: dict[str, Any]) -> Any:
        return new(request, asks if (request.get("params") or {}).get("requestState") == "later" else later)

    async with raw(answer) as (port, got):
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/", SECRET, type="bearer"))
        with pytest.raises(NeedsAnswers) as raised:
            await call(box, "add")
    [question] = raised.value.questions
    assert (question["message"], question["form"]["properties"]["a"]["title"]) == ("For ***?", "***")
    assert [request["method"] for request in got] == ["server/discover", "tools/call", "tools/call"]


async def test_time_is_limited() -> None:
    async with serving(weather_station().streamable_http_app()) as port:
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/mcp", timeout_s=1.5))
        await box.list()
        began = time.perf_counter()
        assert await failed(box, "slow", seconds=30.0) == ("timeout", "The server gave no answer within 1.5 s.")
        assert time.perf_counter() - began < 5
        assert (await call(box, "slow", seconds=0.1)).text == "slept"


async def test_a_server_with_the_older_transport_is_found() -> None:
    async with serving(Recording(weather_station().sse_app())) as port:
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/sse"))
        assert (await call(box, "add", a=2, b=3)).text == "5"
        assert (await call(box, "add", a=2, b=4)).text == "6"
        assert (await failed(box, "fail", why="No."))[1] == "The tool failed: Error executing tool fail: No."


def old(request: dict[str, Any], result: Any = None) -> Any:
    """A server of the first revision, which knows no more than it must."""
    match request:
        case {"method": "initialize"}:
            info = {"name": "old", "version": "1"}
            return {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": info}
        case {"method": "tools/list"}:
            return {"tools": [{"name": "add", "inputSchema": {"type": "object"}}]}
        case {"method": "tools/call"}:
            return {"content": [{"type": "text", "text": "5"}]} if result is None else result
        case {"verb": "post", "id": _}:
            return ValueError("Method not found")
        case {"verb": "post"}:
            return 202
    return 405


async def test_a_server_of_the_first_revision_is_spoken_to_as_it_asks() -> None:
    async with raw(old) as (port, got):
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/mcp"))
        [tool] = (await box.list()).tools
        assert (tool["destructive"], tool["idempotent"], tool["parameters"]) == (True, False, {"type": "object"})
        got.clear()
        assert (await call(box, "add")).text == "5"
    methods = [request.get("method") for request in got if request["verb"] == "post"]
    assert methods == ["initialize", "notifications/initialized", "tools/call"]


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        ({"type": "bearer"}, "authorization", f"Bearer {SECRET}"),
        ({"type": "header", "name": "X-Key", "prefix": "k "}, "x-key", f"k {SECRET}"),
        ({"type": "cookie", "name": "session"}, "cookie", f"session={SECRET}"),
    ],
)
async def test_the_secret_is_sent_as_the_server_asks_for_it(auth: dict[str, Any], name: str, value: str) -> None:
    app = Recording(weather_station().streamable_http_app(), lambda headers: 0 if headers.get(name) == value else 401)
    async with serving(app) as port:
        url = f"http://127.0.0.1:{port}/mcp"
        assert (await call(boxes(port)("acme", toolset(url, SECRET, **auth)), "add", a=1, b=1)).text == "2"
        assert await unlisted(boxes(port)("acme", toolset(url, "sk-another-one", **auth))) == (
            "unauthorized",
            "The server refused the secret, with status 401.",
        )


async def test_a_token_is_fetched_and_a_refused_one_is_fetched_again() -> None:
    given: list[str] = []

    async def token(request: Request) -> JSONResponse:
        form = dict(await request.form())
        assert form == {"grant_type": "client_credentials", "scope": "tools"}
        assert request.headers["authorization"] == "Basic Y2xpZW50OnNrLXNlY3JldC0wMTIzNDU2Nzg5"
        given.append(f"token-number-{len(given) + 1}")
        return JSONResponse({"access_token": given[-1], "expires_in": 3600})

    valid = "token-number-1"
    app = Recording(
        weather_station().streamable_http_app(),
        lambda headers: 0 if headers.get("authorization") == f"Bearer {valid}" else 401,
    )
    async with serving(app) as port, serving(Starlette(routes=[Route("/token", token, methods=["POST"])])) as other:
        auth: dict[str, Any] = {"type": "client_credentials", "client_id": "client", "scope": "tools"}
        auth["token_url"] = f"http://127.0.0.1:{other}/token"
        box = boxes(port, other)("acme", toolset(f"http://127.0.0.1:{port}/mcp", SECRET, **auth))
        for number in (1, 1, 2):
            valid = f"token-number-{number}"
            assert (await call(box, "add", a=1, b=1)).text == "2"
    assert given == ["token-number-1", "token-number-2"]


async def test_the_user_is_named_in_a_signed_header() -> None:
    app = Recording(weather_station().streamable_http_app())
    async with serving(app) as port:
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/mcp", SECRET, user_header="X-User"))
        await call(box, "add", user="Zoë", a=1, b=1)
    said, _, signature = app.requests[-1][1]["x-user"].rpartition(",")
    form, user, at, id = said.split(",")
    assert (form, user, id) == ("v1", "Zo%C3%AB", "call-1")
    assert abs(int(at) - time.time()) < 60
    assert signature == hmac.new(SECRET.encode(), said.encode(), "sha256").hexdigest()


async def test_each_user_has_a_secret_and_the_list_that_of_the_toolset() -> None:
    app = Recording(weather_station().streamable_http_app())

    async def of_user(tenant: str, name: str, person: str) -> str:
        return f"key-of-{person}"

    async with serving(app) as port:
        url = f"http://127.0.0.1:{port}/mcp"
        for secret, listed in (("", None), (SECRET, f"Bearer {SECRET}")):
            box = boxes(port, of_user=of_user)("acme", toolset(url, secret, type="bearer", per_user=True))
            await box.list()
            assert app.requests[-1][1].get("authorization") == listed
            for user in ("ann", "bob"):
                await call(box, "add", user=user, a=1, b=1)
                assert app.requests[-1][1]["authorization"] == f"Bearer key-of-person-of-{user}"


async def test_secrets_do_not_come_back() -> None:
    def answer(request: dict[str, Any]) -> Any:
        said = {
            "content": [{"type": "text", "text": f"Your key is {SECRET}."}],
            "structuredContent": {SECRET: [SECRET]},
        }
        return old(request, said)

    async with raw(answer) as (port, _):
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/", SECRET, type="bearer"))
        result = await call(box, "add")
    assert (result.text, list(result.parts)) == ("Your key is ***.", [{"type": "json", "value": {"***": ["***"]}}])


async def test_an_address_that_is_not_allowed_is_never_called() -> None:
    async with raw(old) as (port, got):
        box = boxes()("acme", toolset(f"http://127.0.0.1:{port}/"))
        code, reason = await unlisted(box)
        assert (code, "HEADRACE_EGRESS_ALLOW" in reason) == ("unreachable", True)
        assert await failed(box, "add") == ("unreachable", "The address of the server may not be called.")
    assert got == []


async def test_a_redirect_is_not_followed_elsewhere() -> None:
    async with raw(old) as (inner, got):
        moved = f"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:{inner}/\r\nContent-Length: 0\r\n\r\n".encode()
        async with raw(lambda request: moved) as (port, _):
            box = boxes(port, inner)("acme", toolset(f"http://127.0.0.1:{port}/"))
            assert (await unlisted(box))[0] == "bad_request"
    assert got == []


async def test_a_server_that_is_not_there() -> None:
    made = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = made.sockets[0].getsockname()[1]
    box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/"))
    async with made:
        assert (await unlisted(box))[0] == "unreachable"
    assert (await unlisted(box))[0] == "unreachable"


def answers(**fields: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("kind", ["json", "events"])
async def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(session, "MOST_BYTES", 2**20)
    chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"

    def answer(request: dict[str, Any]) -> Any:
        if request.get("method") != "tools/call":
            return old(request)
        media_type = "application/json" if kind == "json" else "text/event-stream"
        return answers(Content_Type=media_type, Transfer_Encoding="chunked") + chunk * 100

    async with raw(answer) as (port, _):
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/"))
        assert (await failed(box, "add"))[0] == ("too_large" if kind == "json" else "server_error")


async def test_notices_without_end_end_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MOST_NOTES", 100)
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
    event = f"data: {json.dumps(note)}\n\n".encode()

    def answer(request: dict[str, Any]) -> Any:
        if request.get("method") != "tools/call":
            return old(request)
        done = {"jsonrpc": "2.0", "id": request["id"], "result": {"content": []}}
        body = event * notes + f"data: {json.dumps(done)}\n\n".encode()
        return answers(Content_Type="text/event-stream", Content_Length=str(len(body))) + body

    async with raw(answer) as (port, _):
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/"))
        notes = 100
        await call(box, "add")
        notes = 5000
        assert await failed(box, "add") == ("too_large", "The server sent more than 100 notices.")


async def test_a_slow_drip_ends_with_the_time_limit() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers(Content_Type="text/event-stream", Transfer_Encoding="chunked"))
        try:
            while True:
                writer.write(b"3\r\n:\n\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            writer.close()

    made = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with made:
        port = made.sockets[0].getsockname()[1]
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/", timeout_s=1.0))
        began = time.perf_counter()
        assert (await failed(box, "add"))[0] == "timeout"
        assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ({"tools": [], "nextCursor": "again"}, ("server_error", "Its list of tools has no end.")),
        (
            {"tools": [{"name": str(number), "inputSchema": {"type": "object"}} for number in range(1001)]},
            ("too_large", "It lists more than 1,000 tools."),
        ),
        ({"tools": 5}, ("server_error", "The answer of the server does not keep to the protocol.")),
    ],
)
async def test_a_list_that_is_no_list(page: dict[str, Any], expected: tuple[str, str]) -> None:
    async with raw(lambda request: page if request.get("method") == "tools/list" else old(request)) as (port, _):
        assert await unlisted(boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/"))) == expected


async def test_tools_that_no_model_can_call_are_left_out() -> None:
    schema = {"type": "object"}
    odd = [
        {"name": "good", "inputSchema": schema},
        {"name": "good", "inputSchema": schema},
        {"name": "x" * 300, "inputSchema": schema},
        {"name": "large", "inputSchema": {**schema, "description": "x" * 70_000}},
    ]
    async with raw(lambda request: {"tools": odd} if request.get("method") == "tools/list" else old(request)) as (
        port,
        _,
    ):
        found = await boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/")).list()
    assert [tool["name"] for tool in found.tools] == ["good"]
    assert len(found.warnings) == 3


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"content": [{"type": "image", "mimeType": "image/png", "data": "not base64!"}]}, "server_error"),
        ({"content": [], "structuredContent": {"text": "x" * 2**21}}, "too_large"),
        ({"content": [{"type": "text", "text": "x" * (2**20 + 1)}]}, "too_large"),
        ({"content": [{"type": "image", "mimeType": "image/png", "data": ""}] * 21}, "too_large"),
        ({"content": [{"type": "hologram"}]}, "server_error"),
        ({"content": "text"}, "server_error"),
        ([], "server_error"),
    ],
)
async def test_a_result_that_is_none(result: Any, code: str) -> None:
    async with raw(lambda request: old(request, result)) as (port, _):
        box = boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/"))
        assert (await failed(box, "add"))[0] == code


@pytest.mark.parametrize(
    ("status", "code"), [(403, "unauthorized"), (429, "rate_limited"), (500, "server_error"), (404, "not_found")]
)
async def test_a_status_gives_the_code(status: int, code: str) -> None:
    async with raw(lambda request: status) as (port, _):
        assert (await unlisted(boxes(port)("acme", toolset(f"http://127.0.0.1:{port}/"))))[0] == code
