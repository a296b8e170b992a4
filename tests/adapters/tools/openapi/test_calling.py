"""Calls of a real server: what it gets, and what comes of its answers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from base64 import b64encode
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest

from adapters.egress.addresses import allowances
from adapters.egress.client import Egress
from adapters.tools import tokens as tokens_module
from adapters.tools.openapi.answer import LARGEST_PART, LONGEST, LONGEST_ERROR
from adapters.tools.openapi.toolbox import NOT_PUBLIC
from handlers.ports.tools import Result, ToolError
from tests.adapters.tools.openapi.api import (
    Heard,
    Writes,
    box,
    calling,
    document,
    invocation,
    making,
    says,
    serving,
    tools_of,
    toolset,
)

SECRET = "s3cret-of-the-api"

PATHS: dict[str, Any] = {
    "/pets/{id}": {
        "get": {"operationId": "get", "parameters": [{"name": "id", "in": "path", "schema": {"type": "integer"}}]},
        "head": {"operationId": "head", "parameters": [{"name": "id", "in": "path"}]},
    },
    "/pets": {"post": {"operationId": "add", "requestBody": {"content": {"application/json": {}}}}},
}


async def got(answer: Writes | Any, tool: str = "get", **settings: Any) -> Result:
    """The result of a call whose server answers so."""
    async with calling(lambda heard: answer, PATHS, **settings) as (_, toolbox, tools):
        return await toolbox.call(invocation(tools[tool], {"id": 7}))


async def failed(answer: Writes | Any, tool: str = "get", **settings: Any) -> ToolError:
    with pytest.raises(ToolError) as raised:
        await got(answer, tool, **settings)
    return raised.value


async def test_a_call_is_one_request_with_its_arguments_and_its_id() -> None:
    async with calling(lambda heard: says('{"id":8}', 201), PATHS) as (server, toolbox, tools):
        assert tools["add"]["server"] == f"127.0.0.1:{server.port}"
        result = await toolbox.call(invocation(tools["add"], {"body": {"name": "Rex", "tags": ["a"]}}))
    [heard] = server.heard
    assert (heard.method, heard.target) == ("POST", "/pets")
    assert json.loads(heard.body) == {"name": "Rex", "tags": ["a"]}
    assert heard.headers["content-type"] == "application/json"
    assert heard.headers["idempotency-key"] == "call-1"
    assert "authorization" not in heard.headers
    assert result == Result('{"id":8}', parts=[{"type": "json", "value": {"id": 8}}])


# The document.


class Kept:
    """Blobs of one tenant."""

    def __init__(self, **data: bytes) -> None:
        self.data = data

    async def get(self, tenant: str, digest: str) -> bytes:
        return self.data[digest] if tenant == "acme" else b""


async def test_a_document_is_a_text_a_blob_or_at_an_address_that_a_manifest_may_name() -> None:
    digest = "a" * 64

    def describes(heard: Heard) -> Writes:
        if heard.target == "/moved":
            return says(b"", 301, Location="/openapi.json")
        if heard.target == "/ai-plugin.json":
            return says(json.dumps({"schema_version": "v1", "api": {"url": f"{server.url}/openapi.json"}}))
        return says(text) if heard.target == "/openapi.json" else says("none", 404)

    async with serving(describes) as server:
        text = json.dumps(document(PATHS, server.url))
        async with making(blobs=Kept(**{digest: text.encode()})) as make:
            lists = [
                await box(make, **where).list()
                for where in (
                    {"text": text},
                    {"digest": digest},
                    {"url": f"{server.url}/openapi.json"},
                    {"url": f"{server.url}/moved"},
                    {"url": f"{server.url}/ai-plugin.json"},
                )
            ]
            assert all(each == lists[0] for each in lists)
            assert [tool["name"] for tool in lists[0].tools] == ["get", "head", "add"]
            for where, code in (({"url": f"{server.url}/none"}, "unreachable"), ({"digest": "b" * 64}, "not_found")):
                with pytest.raises(ToolError) as raised:
                    await box(make, **where).list()
                assert raised.value.code == code


# The secret.


@pytest.mark.parametrize(
    ("auth", "where", "expected"),
    [
        ({"type": "header", "name": "X-Key"}, "x-key", SECRET),
        ({"type": "header", "prefix": "Token "}, "authorization", f"Token {SECRET}"),
        ({"type": "bearer"}, "authorization", f"Bearer {SECRET}"),
        ({"type": "cookie", "name": "sid"}, "cookie", f"sid={SECRET}"),
    ],
)
async def test_the_secret_goes_into_a_header(auth: dict[str, Any], where: str, expected: str) -> None:
    async with calling(lambda heard: says(), PATHS, secret=SECRET, auth=auth) as (server, toolbox, tools):
        await toolbox.call(invocation(tools["get"], {"id": 7}))
    assert server.heard[0].headers[where] == expected
    assert SECRET not in server.heard[0].target


async def test_the_secret_goes_into_the_query() -> None:
    auth = {"type": "query", "name": "api_key"}
    async with calling(lambda heard: says(), PATHS, secret="a&b=c12345", auth=auth) as (server, toolbox, tools):
        await toolbox.call(invocation(tools["get"], {"id": 7}))
    assert server.heard[0].target == "/pets/7?api_key=a%26b%3Dc12345"


async def test_basic_has_user_and_password() -> None:
    settings: dict[str, Any] = {"secret": "ada:pässword", "auth": {"type": "basic"}}
    async with calling(lambda heard: says(), PATHS, **settings) as (server, toolbox, tools):
        await toolbox.call(invocation(tools["get"], {"id": 7}))
    expected = b64encode("ada:pässword".encode()).decode()
    assert server.heard[0].headers["authorization"] == f"Basic {expected}"


async def test_a_secret_that_no_header_can_have_is_not_sent() -> None:
    settings: dict[str, Any] = {"secret": "a\r\nX: b12345", "auth": {"type": "bearer"}}
    async with calling(lambda heard: says(), PATHS, **settings) as (server, toolbox, tools):
        with pytest.raises(ToolError) as raised:
            await toolbox.call(invocation(tools["get"], {"id": 7}))
    assert (raised.value.code, server.heard) == ("unauthorized", [])
    assert "12345" not in raised.value.reason


async def test_without_the_secret_that_it_needs_nothing_is_listed() -> None:
    for auth in ({"type": "bearer"}, {"type": "none", "user_header": "X-User"}):
        with pytest.raises(ToolError) as raised:
            await got(says(), auth=auth)
        assert raised.value.code == "unauthorized"


async def test_a_secret_takes_no_header_of_the_connection() -> None:
    for auth in ({"type": "header", "name": "Host"}, {"type": "none", "user_header": "transfer-encoding"}):
        with pytest.raises(ToolError, match="belongs to the connection"):
            await got(says(), secret=SECRET, auth=auth)


async def test_the_secret_goes_only_where_the_document_is_from_or_where_it_is_sent_to() -> None:
    def describes(heard: Heard) -> Writes:
        return says(json.dumps(document(PATHS, api.url)))

    async with serving() as api, serving(describes) as docs, making() as make:
        auth = {"type": "bearer"}
        with pytest.raises(ToolError, match="the secret goes to http") as raised:
            await box(make, SECRET, url=f"{docs.url}/openapi.json", auth=auth).list()
        assert raised.value.code == "unsupported"
        toolbox = box(make, SECRET, url=f"{docs.url}/openapi.json", server=api.url, auth=auth)
        tools = await tools_of(toolbox)
        await toolbox.call(invocation(tools["get"], {"id": 7}))
        # A list that was stored before the settings were changed.
        other = box(make, SECRET, url=f"{docs.url}/openapi.json", auth=auth)
        with pytest.raises(ToolError) as raised:
            await other.call(invocation(tools["get"], {"id": 7}))
        assert raised.value.code == "unauthorized"
    assert [heard.headers.get("authorization") for heard in api.heard] == [f"Bearer {SECRET}"]
    assert [heard.headers.get("authorization") for heard in docs.heard] == [None, None]


CREDENTIALS: dict[str, Any] = {"type": "client_credentials", "client_id": "me+you", "scope": "read write"}


class Tokens:
    """A server of tokens and of the API, which takes the newest token only."""

    def __init__(self, *, basic: bool = True, **answer: Any) -> None:
        self.given = 0
        self.basic = basic
        self.answer = answer

    def __call__(self, heard: Heard) -> Writes:
        if heard.target != "/token":
            right = heard.headers.get("authorization") == f"Bearer token-number-{self.given}"
            return says("fine", media_type="text/plain") if right else says("{}", 401)
        form = parse_qs(heard.body.decode())
        expected = b64encode(f"me%2Byou:{SECRET}".encode()).decode()
        basic = heard.headers.get("authorization") == f"Basic {expected}"
        if basic != self.basic or (not basic and form.get("client_secret") != [SECRET]):
            return says('{"error": "invalid_client"}', 401)
        assert form["grant_type"] == ["client_credentials"]
        assert form["scope"] == ["read write"]
        self.given += 1
        return says(json.dumps({"access_token": f"token-number-{self.given}", "token_type": "Bearer", **self.answer}))


@pytest.mark.parametrize("basic", [True, False])
async def test_a_secret_is_changed_for_a_token_until_it_expires(basic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(basic=basic, expires_in=3600)
    async with serving(tokens) as server, making() as make:
        auth = {**CREDENTIALS, "token_url": f"{server.url}/token"}
        settings = {"text": json.dumps(document(PATHS, server.url)), "auth": auth}
        tools = await tools_of(box(make, SECRET, **settings))

        async def call() -> Result:
            return await box(make, SECRET, **settings).call(invocation(tools["get"], {"id": 7}))

        assert [found.text for found in await asyncio.gather(*(call() for _ in range(5)))] == ["fine"] * 5
        assert tokens.given == 1
        tokens.given += 1  # the server has forgotten the token
        assert (await call()).text == "fine"
        assert tokens.given == 3
        later = time.time() + 3580
        monkeypatch.setattr(tokens_module, "time", lambda: later)
        assert (await call()).text == "fine"
        assert tokens.given == 4


async def test_tokens_of_two_tenants_are_two() -> None:
    tokens = Tokens()
    async with serving(tokens) as server, making() as make:
        auth = {**CREDENTIALS, "token_url": f"{server.url}/token"}
        settings = {"text": json.dumps(document(PATHS, server.url)), "auth": auth}
        toolbox = box(make, SECRET, **settings)
        tools = await tools_of(toolbox)
        await toolbox.call(invocation(tools["get"], {"id": 7}))
        other = make("other", toolset(SECRET, **settings))
        await other.call(invocation(tools["get"], {"id": 7}))
    assert tokens.given == 2


@pytest.mark.parametrize(
    "answer",
    [says('{"error": "bad"}', 400), says("no json"), says('{"access_token": 7}'), says('{"access_token": "a\\nb"}')],
)
async def test_a_server_without_a_token_is_unauthorized(answer: Writes) -> None:
    async with serving(lambda heard: answer) as server, making() as make:
        auth = {**CREDENTIALS, "token_url": f"{server.url}/token"}
        toolbox = box(make, SECRET, text=json.dumps(document(PATHS, server.url)), auth=auth)
        tools = await tools_of(toolbox)
        with pytest.raises(ToolError, match="The server of tokens gave none") as raised:
            await toolbox.call(invocation(tools["get"], {"id": 7}))
    assert raised.value.code == "unauthorized"
    assert {heard.target for heard in server.heard} == {"/token"}


def verified(value: str, secret: str, now: float) -> str | None:
    """The user that a server reads from the header, as docs/tools.md says; None for a forged or old one."""
    said, _, signature = value.rpartition(",")
    expected = hmac.new(secret.encode(), said.encode(), hashlib.sha256).hexdigest()
    form, user, at, _call = said.split(",")
    fresh = abs(now - int(at)) < 300
    return unquote(user) if form == "v1" and fresh and hmac.compare_digest(signature, expected) else None


async def test_the_end_user_is_signed() -> None:
    parameters = [*PATHS["/pets/{id}"]["get"]["parameters"], {"name": "X-User", "in": "header", "required": True}]
    paths = {"/pets/{id}": {"get": {"operationId": "get", "parameters": parameters}}}
    auth = {"type": "none", "user_header": "X-User"}
    async with calling(lambda heard: says(), paths, secret=SECRET, auth=auth) as (server, toolbox, tools):
        assert list(tools["get"]["parameters"]["properties"]) == ["id"]
        await toolbox.call(invocation(tools["get"], {"id": 7}, user="Ada, 1 ü"))
        await toolbox.call(invocation(tools["get"], {"id": 7}, user=""))
    signed, unsigned = server.heard
    value = signed.headers["x-user"]
    assert verified(value, SECRET, time.time()) == "Ada, 1 ü"
    assert verified(value.replace("Ada", "Eve"), SECRET, time.time()) is None
    assert verified(value, "other", time.time()) is None
    assert verified(value, SECRET, time.time() + 400) is None
    assert ",call-1," in value
    assert "x-user" not in unsigned.headers
    assert SECRET not in str(server.heard)


async def test_each_user_has_a_secret_of_their_own() -> None:
    async def of_user(tenant: str, toolset: str, person: str) -> str:
        if person != "person-of-ada":
            raise ToolError("no_secret", "The user has none.")
        return f"key of {person} for {tenant} {toolset}"

    auth = {"type": "header", "name": "X-Key", "per_user": True}
    async with serving() as server, making(of_user=of_user) as make:
        toolbox = box(make, text=json.dumps(document(PATHS, server.url)), auth=auth)
        tools = await tools_of(toolbox)
        await toolbox.call(invocation(tools["get"], {"id": 7}, person="person-of-ada"))
        for person in ("person-of-bob", None):
            with pytest.raises(ToolError) as raised:
                await toolbox.call(invocation(tools["get"], {"id": 7}, person=person))
            assert raised.value.code == "no_secret"
    assert [heard.headers["x-key"] for heard in server.heard] == ["key of person-of-ada for acme api"]


# Answers.


async def test_json_is_compact_and_a_part_when_it_is_small() -> None:
    assert await got(says('{ "a" : [1, 2.50, "ü", "\\u00e4"],\n "b": null }')) == Result(
        '{"a":[1,2.5,"ü","ä"],"b":null}', parts=[{"type": "json", "value": {"a": [1, 2.5, "ü", "ä"], "b": None}}]
    )
    large = await got(says(json.dumps({"a": "x" * LARGEST_PART}), media_type="application/problem+json; charset=utf-8"))
    assert (len(large.text), large.parts) == (LARGEST_PART + 8, [])


@pytest.mark.parametrize("body", ['{"n": 123456789012345678901234567890}', "[NaN]", "[" * 240 + "]" * 240])
async def test_json_that_others_read_differently_is_only_text(body: str) -> None:
    found = await got(says(body))
    assert (found.text[:2], found.parts) == (body[:2], [])
    if "1234" in body:
        assert (found.text, found.parts) == ('{"n":123456789012345678901234567890}', [])


async def test_half_a_letter_is_replaced() -> None:
    assert await got(says('["\\ud800"]')) == Result('["?"]', parts=[{"type": "json", "value": ["?"]}])


@pytest.mark.parametrize("body", ["{no json", "[" * 100_000, "1" * 5000, b"\xff{"])
async def test_what_is_no_json_is_text(body: str | bytes) -> None:
    found = await got(says(body))
    assert found.text[:1] in ("{", "[", "1", "\ufffd")
    assert not found.parts


async def test_text_has_the_character_set_that_is_named_and_is_cut_with_a_note() -> None:
    assert (await got(says("grün".encode("latin-1"), media_type="text/plain; charset=ISO-8859-1"))).text == "grün"
    assert (await got(says("grün", media_type="text/html; charset=idna"))).text == "grün"
    assert (await got(says("grün", media_type=""))).text == "grün"
    long = await got(says("é" * (LONGEST + 1000), media_type="text/csv"))
    assert long.text == "é" * LONGEST + "\n[1,000 characters are left out: ask for less.]"


async def test_binary_results_are_files() -> None:
    [file] = (await got(says(b"\x89PNG\x00", media_type="image/png"))).files
    assert (file.name, file.media_type, file.data) == ("7", "image/png", b"\x89PNG\x00")
    named = 'attachment; filename="../../etc/a\\b report.pdf"'
    [file] = (await got(says(b"%PDF", media_type="application/pdf", Content_Disposition=named))).files
    assert file.name == "b report.pdf"
    [file] = (await got(says(b"\xff\xfe\x00", media_type=""))).files
    assert file.media_type == "application/octet-stream"


async def test_an_answer_without_content_says_so() -> None:
    assert (await got(says(b"", 204))).text == "Status 204, without content."
    assert (await got(says(b"", 201, Location="/pets/8"))).text == "Status 201, without content. Location: /pets/8"
    head = await got(says(b"", media_type="text/csv", ETag="abc", Set_Cookie="sid=1"), "head")
    assert "ETag: abc" in head.text or "etag: abc" in head.text
    assert "sid=1" not in head.text


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (401, "unauthorized"),
        (403, "unauthorized"),
        (404, "not_found"),
        (410, "not_found"),
        (418, "bad_request"),
        (422, "bad_request"),
        (429, "rate_limited"),
        (500, "server_error"),
        (503, "server_error"),
        (504, "timeout"),
        (304, "bad_request"),
    ],
)
async def test_another_status_is_an_error_with_the_words_of_the_server(status: int, code: str) -> None:
    error = await failed(says('{"error":  "why"}' if status != 304 else b"", status))
    assert error.code == code
    assert error.reason.startswith(f"The server answered with status {status}")
    assert status == 304 or error.reason.endswith(': {"error": "why"}')


async def test_the_words_of_an_error_are_cut() -> None:
    error = await failed(says("ü" * 100_000, 500, "text/html"))
    assert len(error.reason.partition(": ")[2].encode()) == LONGEST_ERROR


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "image/png"])
@pytest.mark.parametrize("status", [200, 400])
async def test_the_secret_is_withheld_from_every_answer(media_type: str, status: int) -> None:
    secret = f"ada:{SECRET}"
    sent = b64encode(secret.encode()).decode()
    body = json.dumps({"all": secret, "word": SECRET, "sent": sent, "url": f"a={SECRET}"})
    answer = says(body, status, media_type, Content_Disposition=f"attachment; filename={SECRET}.png")
    try:
        found = str(await got(answer, secret=secret, auth={"type": "basic"}))
    except ToolError as error:
        found = error.reason
    assert SECRET not in found
    assert sent not in found
    assert "***" in found


async def test_a_secret_with_signs_is_withheld_as_json_and_addresses_have_it() -> None:
    secret = 'p"ss/wörd & more'
    body = json.dumps({"raw": secret, "url": "q=p%22ss%2Fw%C3%B6rd%20%26%20more"})
    found = await got(says(body), secret=secret, auth={"type": "query", "name": "key"})
    assert found.text == '{"raw":"***","url":"q=***"}'


async def test_a_token_is_withheld() -> None:
    def answers(heard: Heard) -> Writes:
        return (
            says('{"access_token": "tok-en-of-today"}')
            if heard.target == "/t"
            else says(heard.headers["authorization"], 500)
        )

    async with serving(answers) as server, making() as make:
        auth = {**CREDENTIALS, "token_url": f"{server.url}/t"}
        toolbox = box(make, SECRET, text=json.dumps(document(PATHS, server.url)), auth=auth)
        tools = await tools_of(toolbox)
        with pytest.raises(ToolError) as raised:
            await toolbox.call(invocation(tools["get"], {"id": 7}))
    assert raised.value.reason == "The server answered with status 500: Bearer ***"


# Limits.


async def test_a_large_answer_is_not_read_to_its_end() -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")
        while sent < 100 * 2**20:
            writer.write(b"x" * 2**20)
            sent += 2**20
            await writer.drain()

    error = await failed(endless)
    assert (error.code, error.reason) == ("too_large", "The answer has more than 16 MiB.")
    assert sent < 40 * 2**20


async def test_a_slow_answer_ends_at_the_limit_of_the_toolset() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    began = time.monotonic()
    error = await failed(drip, timeout_s=0.5)
    assert (error.code, error.reason) == ("timeout", "No whole answer came within 0.5 s.")
    assert time.monotonic() - began < 3
    assert "unknown whether it did something" in (await failed(drip, "add", timeout_s=0.2)).reason


@pytest.mark.parametrize(
    "answer",
    [
        says(b"\x1f\x8b", media_type="text/plain", Content_Encoding="gzip"),
        Writes(b"no http\r\n\r\n"),
        Writes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"),
        Writes(b""),
        Writes(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n"),
    ],
)
async def test_a_broken_answer_is_an_error(answer: Writes) -> None:
    assert (await failed(answer)).code == "unreachable"


# Redirects.


async def test_a_redirect_on_the_same_server_keeps_what_was_sent() -> None:
    def answers(heard: Heard) -> Writes:
        return says(b"", 307, Location="/pets/") if heard.target == "/pets" else says("done", media_type="text/plain")

    async with calling(answers, PATHS, secret=SECRET, auth={"type": "bearer"}) as (server, toolbox, tools):
        assert (await toolbox.call(invocation(tools["add"], {"body": {"a": 1}}))).text == "done"
    assert [(each.method, each.target, each.body) for each in server.heard] == [
        ("POST", "/pets", b'{"a":1}'),
        ("POST", "/pets/", b'{"a":1}'),
    ]
    assert {each.headers["authorization"] for each in server.heard} == {f"Bearer {SECRET}"}
    assert {each.headers["idempotency-key"] for each in server.heard} == {"call-1"}


async def test_another_server_gets_neither_secret_nor_arguments() -> None:
    async with serving(lambda heard: says("there", media_type="text/plain")) as other:
        auth = {"type": "header", "name": "X-Key", "user_header": "X-User"}
        moved = says(b"", 302, Location=f"{other.url}/new")
        assert (await got(moved, secret=SECRET, auth=auth)).text == "there"
        [heard] = other.heard
        assert not {"x-key", "x-user", "idempotency-key", "cookie"} & set(heard.headers)
        error = await failed(says(b"", 307, Location=f"{other.url}/new"), "add")
        assert error.reason == "It is redirected to another server, which does not get what was sent."
        assert len(other.heard) == 1


async def test_see_other_is_a_get_and_moved_is_nothing_that_a_post_follows() -> None:
    def answers(heard: Heard) -> Writes:
        return says(b"", 303, Location="/done") if heard.method == "POST" else says("got", media_type="text/plain")

    async with calling(answers, PATHS) as (server, toolbox, tools):
        assert (await toolbox.call(invocation(tools["add"], {"body": {}}))).text == "got"
    assert (server.heard[1].body, server.heard[1].headers.get("content-type")) == (b"", None)
    error = await failed(says(b"", 301, Location="/done"), "add")
    assert (error.code, error.reason) == ("bad_request", "The server redirects with status 301, which a POST cannot.")


@pytest.mark.parametrize(
    "target",
    ["http://169.254.169.254/latest/meta-data", "http://localhost:{port}/", "http://[::1]:{port}/", "http://10.0.0.1/"],
)
async def test_a_redirect_inwards_is_refused(target: str) -> None:
    """The server itself may be called: the operator has allowed its network. What it redirects to may not."""
    async with serving(lambda heard: says("inner")) as inner:
        where = target.format(port=inner.port)
        async with serving(lambda heard: says(b"", 302, Location=where)) as server, making(elsewhere=Egress()) as make:
            toolbox = box(make, text=json.dumps(document(PATHS, server.url)))
            tools = await tools_of(toolbox)
            with pytest.raises(ToolError) as raised:
                await toolbox.call(invocation(tools["get"], {"id": 7}))
    assert (raised.value.code, inner.heard) == ("unreachable", [])
    assert raised.value.reason == NOT_PUBLIC


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "gopher://a", "//\x00", "http://", "/pets/7", "http://[::1", "http://h:99999/"]
)
async def test_other_redirects_end(target: str) -> None:
    async with calling(lambda heard: says(b"", 302, Location=target), PATHS) as (server, toolbox, tools):
        with pytest.raises(ToolError):
            await toolbox.call(invocation(tools["get"], {"id": 7}))
    assert len(server.heard) <= 6


async def test_a_server_that_may_not_be_called_is_named_to_those_who_register_it_alone() -> None:
    async with serving() as server, making(egress=Egress(allowances("127.0.0.1:9"))) as make:
        url = f"http://127.0.0.1:{server.port}"
        with pytest.raises(ToolError, match=r"127\.0\.0\.1:\d+ is on this machine; .*HEADRACE_EGRESS_ALLOW="):
            await box(make, url=f"{url}/openapi.json").list()
        toolbox = box(make, text=json.dumps(document(PATHS, url)))
        tools = await tools_of(toolbox)
        with pytest.raises(ToolError) as raised:
            await toolbox.call(invocation(tools["get"], {"id": 7}))
    assert (raised.value.code, server.heard) == ("unreachable", [])
    assert "127.0.0.1" not in raised.value.reason
