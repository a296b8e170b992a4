"""MCP on real servers: agents that call tools of a server and of another app, and apps as tools of MCP clients."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from tests.adapters.tools.mcp.servers import Recording, server, serving
from tests.adapters.tools.mcp.test_login import browser, protected
from tests.chat_servers import Exchange, faulty_server
from tests.journeys.stack import PATIENCE_S, Stack
from tests.journeys.test_models import provider_of

ARGUMENTS: dict[str, dict[str, Any]] = {"add": {"a": 2, "b": 3}, "order": {"city": "Rome"}, "ask": {}}


async def model(exchange: Exchange) -> None:
    """A model that calls each of its tools once, then repeats the last result; without tools, it gives the hour."""
    messages, tools = exchange.body["messages"], exchange.body.get("tools", [])
    results = [message["content"] for message in messages if message["role"] == "tool"]
    await exchange.begin()
    if len(results) < len(tools):
        function = tools[len(results)]["function"]
        arguments = ARGUMENTS.get(function["name"], {"query": "When?"})
        called = {"name": function["name"], "arguments": json.dumps(arguments)}
        delta = {"tool_calls": [{"index": 0, "id": f"call{len(results):05}", "type": "function", "function": called}]}
        await exchange.event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await exchange.say(finish="tool_calls")
    else:
        for text in (" and ".join(results) or "At six.").partition(" "):
            await exchange.say(text)
            await asyncio.sleep(0.1)
        await exchange.say(finish="stop")
    await exchange.event("[DONE]")
    await exchange.end()


@pytest.fixture(scope="module")
async def lab(headrace: Stack) -> AsyncIterator[str]:
    async with faulty_server(model) as served:
        name = provider_of(served.url)
        await headrace.send("provider.register", name=name, base_url=served.url, key="a-key-of-the-lab")
        yield name


async def app_of(headrace: Stack, lab: str, name: str, mode: str = "chat", **fields: Any) -> str:
    app = await headrace.make("app.create", name=name, mode=mode)
    await headrace.send("app.configure", app=app, model={"provider": lab, "name": "small"}, **fields)
    return app


async def registered(headrace: Stack, name: str, **fields: Any) -> None:
    await headrace.send("toolset.register", name=name, **fields)
    statement = "SELECT * FROM headrace.toolsets WHERE id = %(id)s AND refresh_status = 'ok'"
    await headrace.until(statement, id=name)


async def test_an_agent_calls_a_tool_of_a_server_and_an_app(headrace: Stack, lab: str) -> None:
    inner = await app_of(headrace, lab, "Guide")
    async with serving(server().streamable_http_app()) as port:
        url = f"http://127.0.0.1:{port}/mcp"
        await registered(headrace, "station", kind="mcp", mcp={"url": url})
        await registered(headrace, "guide", kind="app", app={"app": inner})
        tools = [{"toolset": "station", "tools": ["add"]}, {"toolset": "guide"}]
        agent = await app_of(headrace, lab, "Agent", "agent-chat", features={"agent": {"tools": tools}})
        frames = await headrace.ask(agent, "When?", user="ada")
    assert (frames[-1]["type"], frames[-1]["answer"]) == ("answered", "5 and At six."), frames[-1]
    statement = "SELECT * FROM headrace.tool_calls WHERE cause_id = %(id)s ORDER BY round"
    first, second = await headrace.until(statement, lambda rows: len(rows) == 2, id=frames[0]["message"])
    assert (first["toolset"], second["toolset"]) == ("station", "guide")
    [asked] = await headrace.until("SELECT * FROM headrace.messages WHERE tool_call_id = %(id)s", id=second["id"])
    assert (asked["app_id"], asked["end_user"], asked["answer"]) == (inner, "ada", "At six.")


async def test_a_server_asks_the_user_and_workers_are_restarted_meanwhile(headrace: Stack, lab: str) -> None:
    """A server of today keeps no session: what it asks, and its state, are recorded."""
    frames: list[Any] = []

    async def ask(app: str) -> None:
        async for frame in headrace.client.ask(app, "Order!", user="ada"):
            frames.append(frame)

    async with serving(server().streamable_http_app()) as port:
        await registered(headrace, "cakes", kind="mcp", mcp={"url": f"http://127.0.0.1:{port}/mcp"})
        tools = [{"toolset": "cakes", "tools": ["order"], "approve": "never"}]
        agent = await app_of(headrace, lab, "Baker", "agent-chat", features={"agent": {"tools": tools}})
        turn = asyncio.create_task(ask(agent))
        statement = "SELECT * FROM headrace.tool_calls WHERE toolset = 'cakes' AND status = 'held'"
        [held] = await headrace.until(statement)
        assert [each["message"] for each in held["questions"]] == ["How large for Rome?", "Which taste?"]
        statement = "SELECT * FROM headrace.messages WHERE id = %(id)s AND status = 'held'"
        await headrace.until(statement, id=held["cause_id"])
        await headrace.kill("answer")
        wrong = await headrace.refused("tool_call.release", tool_call=held["id"], answer={"size": "large"})
        assert (wrong["code"], wrong["field"]) == ("invalid", "answer")
        await headrace.send("tool_call.release", tool_call=held["id"], answer={"size": 3})
        await headrace.send("tool_call.release", tool_call=held["id"], answer={"taste": "sour"})
        await headrace.start("answer")
        async with asyncio.timeout(PATIENCE_S):
            await turn
    assert (frames[-1]["type"], frames[-1]["answer"]) == ("answered", "Rome: 3, sour"), frames[-1]
    assert [frame["text"] for frame in frames if frame["type"] == "question"] == ["How large for Rome?", "Which taste?"]
    statement = "SELECT * FROM headrace.tool_calls WHERE id = %(id)s AND status = 'completed'"
    [done] = await headrace.until(statement, id=held["id"])
    assert [each["content"] for each in done["questions"]] == [{"size": 3}, {"taste": "sour"}]


async def test_an_older_server_waits_in_a_session_that_is_lost_with_its_worker(headrace: Stack, lab: str) -> None:
    async with serving(server().sse_app()) as port:
        await registered(headrace, "sizes", kind="mcp", mcp={"url": f"http://127.0.0.1:{port}/sse"})
        tools = [{"toolset": "sizes", "tools": ["ask"], "approve": "never"}]
        agent = await app_of(headrace, lab, "Asker", "agent-chat", features={"agent": {"tools": tools}})
        statement = "SELECT * FROM headrace.tool_calls WHERE toolset = 'sizes' AND status = 'held' AND id <> %(not)s"
        first = ""
        for dies in (False, True):
            turn = asyncio.create_task(headrace.ask(agent, "How large?", user="ada"))
            [held] = await headrace.until(statement, **{"not": first})
            first = held["id"]
            if dies:
                await headrace.kill("answer")
                await headrace.start("answer")
            else:
                await headrace.send("tool_call.release", tool_call=first, answer={"size": 3})
            async with asyncio.timeout(PATIENCE_S):
                frames = await turn
            assert frames[-1]["type"] == "answered", frames[-1]
            assert ("It is unknown" if dies else "Size(size=3)") in frames[-1]["answer"]
    [lost] = await headrace.until("SELECT * FROM headrace.tool_calls WHERE id = %(id)s AND status = 'failed'", id=first)
    assert (lost["error_code"], lost["runs"]) == ("lost", 1)


async def test_each_user_calls_a_server_with_a_secret_of_their_own(headrace: Stack, lab: str) -> None:
    """The server knows its users by their keys, and lists its tools for its operator."""
    keys = {f"Bearer key-of-{user}" for user in ("the-list", "ada", "bob")}
    app = Recording(server().streamable_http_app())
    app._refuses = lambda headers: 0 if headers.get("authorization") in keys else 401
    async with serving(app) as port:
        mcp = {"url": f"http://127.0.0.1:{port}/mcp", "auth": {"type": "bearer", "per_user": True}}
        await registered(headrace, "crm", kind="mcp", mcp=mcp, secret="key-of-the-list")
        tools = [{"toolset": "crm", "tools": ["add"]}]
        agent = await app_of(headrace, lab, "Seller", "agent-chat", features={"agent": {"tools": tools}})
        for user in ("ada", "bob"):
            await headrace.send("user_secret.set", toolset="crm", user=user, secret=f"key-of-{user}")
            frames = await headrace.ask(agent, "When?", user=user)
            assert frames[-1]["answer"] == "5", frames[-1]
            assert app.requests[-1][1]["authorization"] == f"Bearer key-of-{user}"
        rows = await headrace.until("SELECT * FROM headrace.user_secrets", lambda rows: len(rows) == 2)
        await headrace.send("end_user.erase", user="bob")
        await headrace.until("SELECT * FROM headrace.user_secrets", lambda rows: len(rows) == 1)
        seen = len(app.requests)
        for user in ("bob", "cy"):
            frames = await headrace.ask(agent, "When?", user=user)
            assert "user_secret.set" in frames[-1]["answer"], frames[-1]
        assert len(app.requests) == seen
        await headrace.send("user_secret.remove", toolset="crm", user="ada")
        await headrace.until("SELECT * FROM headrace.user_secrets", lambda rows: not rows)
    assert {row["toolset"] for row in rows} == {"crm"}
    statement = "SELECT * FROM headrace.tool_calls WHERE toolset = 'crm' AND error_code = 'no_secret'"
    assert len(await headrace.until(statement, lambda rows: len(rows) == 2)) == 2


def command(headrace: Stack, *arguments: str) -> StdioServerParameters:
    variables = {
        "HEADRACE_HOME": str(headrace.settings.home),
        "HEADRACE_NATS_URL": headrace.nats_url,
        "HEADRACE_POSTGRES_URL": headrace.postgres_url,
    }
    return StdioServerParameters(command=sys.executable, args=["-m", "ops.cli", "mcp", *arguments], env=variables)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_calls_an_app(headrace: Stack, lab: str, mode: str) -> None:
    app = await app_of(headrace, lab, f"Guide of {mode} clients", variables=[{"name": "lock", "required": True}])
    await headrace.until("SELECT * FROM headrace.apps WHERE id = %(id)s AND app_model_config_id IS NOT NULL", id=app)
    seen: list[str | None] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append(message)

    async with Client(command(headrace, "--app", app, "--user", "ada"), mode=mode) as client:
        [tool] = (await client.list_tools()).tools
        arguments = {"query": "When?", "lock": "Nord"}
        given = await client.call_tool(tool.name, arguments, progress_callback=progress)
        assert not given.is_error, given
        answer = given.structured_content
        follow = await client.call_tool(tool.name, {**arguments, "conversation": answer["conversation"]})
        wrong = await client.call_tool(tool.name, {**arguments, "conversation": app})
    assert (answer["answer"], answer["citations"]) == ("At six.", [])
    assert seen
    assert follow.structured_content["conversation"] == answer["conversation"] == answer["message"]
    assert (wrong.is_error, wrong.structured_content["error"]["code"]) == (True, "not_found")
    statement = "SELECT * FROM headrace.messages WHERE app_id = %(app)s AND status = 'answered'"
    rows = await headrace.until(statement, lambda rows: len(rows) == 2, app=app)
    assert {row["end_user"] for row in rows} == {"ada"}


@asynccontextmanager
async def plain(headrace: Stack, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The server, as a process without a library in between."""
    made = command(headrace, *arguments)
    process = await asyncio.create_subprocess_exec(
        made.command,
        *made.args,
        env=os.environ | (made.env or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**22,
    )
    yield process
    assert process.stdin
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 30) == 0


async def request(process: asyncio.subprocess.Process, id: int, method: str, **parameters: Any) -> dict[str, Any]:
    """The answer to a request of JSON-RPC, a line each; what comes before it is left out."""
    assert process.stdin
    assert process.stdout
    sent = {"jsonrpc": "2.0", "id": id, "method": method, "params": parameters}
    process.stdin.write(json.dumps(sent).encode() + b"\n")
    async with asyncio.timeout(PATIENCE_S):
        while line := await process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            if answer.get("id") == id:
                return answer
    raise AssertionError("The server has ended.")


async def test_a_request_that_is_sent_again_is_the_same_message(headrace: Stack, lab: str) -> None:
    app = await app_of(headrace, lab, "Guide of plain clients")
    await headrace.until("SELECT * FROM headrace.apps WHERE id = %(id)s AND app_model_config_id IS NOT NULL", id=app)
    async with plain(headrace) as process:
        info = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "plain", "version": "1"}}
        begun = await request(process, 1, "initialize", **info)
        assert begun["result"]["serverInfo"]["name"] == "headrace"
        assert process.stdin
        process.stdin.write(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
        tools = {tool["name"] for tool in (await request(process, 2, "tools/list"))["result"]["tools"]}
        assert "Guide_of_plain_clients" in tools
        call = {"name": "Guide_of_plain_clients", "arguments": {"query": "When?"}}
        first = (await request(process, 3, "tools/call", **call))["result"]["structuredContent"]
        again = (await request(process, 3, "tools/call", **call))["result"]["structuredContent"]
        other = (await request(process, 4, "tools/call", **call))["result"]["structuredContent"]
        gone = (await request(process, 5, "tools/call", name="Guide", arguments={}))["result"]
    assert first == again
    assert (first["answer"], other["answer"], first["message"] != other["message"]) == ("At six.", "At six.", True)
    assert gone["isError"]
    rows = await headrace.until(
        "SELECT id FROM headrace.messages WHERE app_id = %(app)s", lambda rows: len(rows) == 2, app=app
    )
    assert {row["id"] for row in rows} == {first["message"], other["message"]}


async def test_a_person_logs_in_from_the_command_line(headrace: Stack) -> None:
    async with protected() as (authority, url, _):
        await headrace.send("toolset.register", name="calendar", kind="mcp", mcp={"url": url})
        statement = "SELECT * FROM headrace.toolsets WHERE id = 'calendar' AND refresh_status = %(status)s"
        [row] = await headrace.until(statement, status="failed")
        assert row["error_code"] == "unauthorized"
        variables = (command(headrace).env or {}) | {"HEADRACE_EGRESS_ALLOW": "127.0.0.1:1-65535"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", "toolset", "login", "calendar", "--json"),
            env=os.environ | variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr
        async with asyncio.timeout(PATIENCE_S):
            shown = (await process.stderr.readline()).decode()
        tasks: list[asyncio.Task[None]] = []
        browser(tasks)(shown.rpartition(" ")[2].strip())
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        await asyncio.gather(*tasks)
        assert (process.returncode, json.loads(out)["status"]) == (0, "accepted")
        [row] = await headrace.until(statement, status="ok")
    assert (row["tool_count"] > 5, row["settings"]["auth"]["type"]) == (True, "oauth")
    assert authority.grants == ["authorization_code"]
    code, _ = await headrace.command("toolset", "login", "none")
    assert code == 1


async def test_an_app_that_is_not_there_is_refused_at_the_start(headrace: Stack) -> None:
    code, _ = await headrace.command("mcp", "--app", "019df200-507f-74b6-9c50-8c502347344d")
    assert code != 0
