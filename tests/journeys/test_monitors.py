"""Monitors get every call, through an outage of the collector and kills of the plugin, the worker and both."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from adapters.trace_ids import span_id, trace_id
from ops.plugin_files import packed
from ops.resolve import Unpackable
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.chat_servers import Exchange, FaultyServer, faulty_server
from tests.conftest import fresh_database
from tests.journeys.stack import Stack
from tests.journeys.test_plugins import install, plugin_process
from tests.otlp_receiver import receiving, values
from tests.packages import manifest, package

POST = """
import json, urllib.error, urllib.request
from headrace_plugin import *

def load(settings):
    global endpoint
    endpoint = settings["endpoint"]

def after(call):
    return post(call)

def failed(call):
    return post(call)

def post(call):
    request = urllib.request.Request(endpoint, json.dumps(call).encode(), {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=5).read()
    except urllib.error.URLError as error:
        return later(str(error))

serve(globals(), threads=4)
"""
HOOKS = {"load": "load", "after_invoke": "after", "on_error": "failed"}
SETTINGS = {"type": "object", "properties": {"endpoint": {"type": "string"}}, "required": ["endpoint"]}
MONITOR = manifest(
    name="post", kind="monitor", hooks=HOOKS, settings=SETTINGS, network=["$endpoint"], timeout_ms=10_000
)


class Collector:
    """Takes calls as JSON, or is away."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.away = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/calls"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            body = json.loads(await reader.readexactly(size))
            if not self.away:
                self.calls.append(body)
            status = "503 Away" if self.away else "200 OK"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    async def until(self, ids: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(90):
                while not set(ids) <= {call["id"] for call in self.calls}:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{len(self.calls)} of {len(ids)} calls: {self.calls[-3:]}") from None


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    server = await asyncio.start_server(collector.serve, "127.0.0.1", 0)
    collector.port = server.sockets[0].getsockname()[1]
    yield collector
    server.close()


@pytest.fixture(scope="module")
async def stack(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home: Path = tmp_path_factory.mktemp("monitors")
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        async with Stack.running(settings, ("commands", "answer", "project")) as stack:
            yield stack


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[FaultyServer]:
    async def says(exchange: Exchange) -> None:
        question = exchange.body["messages"][-1]["content"]
        if "refused" in question:
            await exchange.fail(400, "I do not serve bob@example.com.")
        else:
            await exchange.finish(f"You said {question}.")

    async with faulty_server(says) as server:
        yield server


@pytest.fixture(scope="module")
async def app(stack: Stack, server: FaultyServer) -> str:
    await stack.send("provider.register", name="lab", base_url=server.url, key="sk-x")
    app = await stack.make("app.create", name="talker")
    await stack.send("app.configure", app=app, model={"provider": "lab", "name": "m"})
    return app


async def calls_of(stack: Stack, messages: Sequence[str]) -> list[dict[str, Any]]:
    return await stack.until(
        "SELECT * FROM headrace.model_calls WHERE cause_id = ANY(%(ids)s) AND status <> 'requested'",
        lambda rows: {row["cause_id"] for row in rows} == set(messages),
        ids=list(messages),
    )


async def ask(stack: Stack, app: str, *questions: str) -> list[str]:
    return [(await stack.ask(app, question))[0]["message"] for question in questions]


async def test_every_call_is_delivered_whatever_is_killed(stack: Stack, app: str) -> None:
    async with collecting() as collector:
        await install(stack, package(POST, MONITOR), "post", "masked")
        await stack.send("plugin.configure", plugin="post", settings={"endpoint": collector.url})
        before = await ask(stack, app, "before it is enabled")
        await stack.send("plugin.enable", plugin="post")
        messages = await ask(stack, app, "one", "two", "I am ada@example.com", "refused")
        calls = await calls_of(stack, messages)
        await collector.until([call["id"] for call in calls])
        assert Counter(call["id"] for call in collector.calls) == Counter(call["id"] for call in calls)
        delivered = {call["id"]: call for call in collector.calls}
        assert not {call["id"] for call in await calls_of(stack, before)} & delivered.keys()
        sent = json.dumps(collector.calls, ensure_ascii=False)
        assert "ada@example.com" not in sent
        assert "‹email›" in sent
        failed = [call for call in collector.calls if "code" in call]
        assert {call["code"] for call in failed} == {"bad_request"}

        collector.away = True
        messages += await ask(stack, app, "three", "four")
        await asyncio.sleep(1)
        os.kill((await plugin_process(stack)).pid, signal.SIGKILL)
        await stack.kill("answer")
        await stack.start("answer")
        collector.away = False
        messages += await ask(stack, app, "five")
        for number in range(3):
            asking = asyncio.create_task(ask(stack, app, f"kill {number}", "and one"))
            await asyncio.sleep(0.4)
            if number != 1:
                with suppress(psutil.Error, ProcessLookupError):
                    os.kill((await plugin_process(stack)).pid, signal.SIGKILL)
            if number:
                await stack.kill("answer")
                await stack.start("answer")
            messages += await asking
        calls = await calls_of(stack, messages)
        await collector.until([call["id"] for call in calls])
        counted = Counter(call["id"] for call in collector.calls)
        assert set(counted) == {call["id"] for call in calls}
        for call in collector.calls:  # one that comes again after a kill is the same
            assert call == next(each for each in collector.calls if each["id"] == call["id"])
        await stack.send("plugin.disable", plugin="post")


async def test_a_tenant_can_refuse_texts(stack: Stack, app: str) -> None:
    async with collecting() as collector:
        await install(stack, package(POST, MONITOR), "post", "full")
        await stack.send("plugin.configure", plugin="post", settings={"endpoint": collector.url})
        await stack.send("plugin.enable", plugin="post", content=False)
        calls = await calls_of(stack, await ask(stack, app, "My secret"))
        await collector.until([call["id"] for call in calls])
        assert "My secret" not in json.dumps(collector.calls[-1])
        await stack.send("plugin.disable", plugin="post")


@pytest.mark.long
async def test_traceloop_gets_every_call_once_after_kills_too(stack: Stack, app: str) -> None:
    folder = Path(__file__).parents[2] / "examples" / "plugins" / "traceloop"
    try:
        data = (await asyncio.to_thread(packed, folder, build=True)).data
    except Unpackable as error:
        pytest.skip(f"Traceloop's SDK cannot be had here: {error}")
    async with receiving() as receiver:
        await install(stack, data, "traceloop", "masked")
        await stack.send("plugin.configure", plugin="traceloop", settings={"endpoint": receiver.url, "api_key": "t-1"})
        await stack.send("plugin.enable", plugin="traceloop")
        messages = await ask(stack, app, *(f"question {number}" for number in range(10)), "refused")
        await receiver.until(lambda it: len(it.ids) >= 11, within=120)
        await receiver.stop()
        messages += await ask(stack, app, "while it is away")
        await stack.kill("answer")
        await stack.start("answer")
        messages += await ask(stack, app, "after the kill")
        await receiver.start()
        calls = {span_id(stack.tenant, call["id"]): call for call in await calls_of(stack, messages)}
        await receiver.until(lambda it: set(calls) <= set(it.ids), within=120)
        assert set(receiver.ids) == set(calls)
        assert all(count == 1 for count in Counter(receiver.ids).values())
        spans: dict[bytes, Span] = {span.span_id: span for _, span in receiver.spans}
        for id, call in calls.items():
            span, found = spans[id], values(spans[id].attributes)
            assert span.trace_id == trace_id(stack.tenant, call["correlation_id"])
            assert span.start_time_unix_nano == int(call["created_at"].timestamp() * 10**6) * 1000
            assert (found["gen_ai.request.model"], found["llm.request.type"]) == ("m", "chat")
            failed = call["status"] != "completed"
            assert span.status.code == (Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_OK)
            if not failed:
                assert found["gen_ai.usage.input_tokens"] == call["prompt_tokens"]
                assert found["gen_ai.completion.0.content"] == call["response"]
        assert {headers.get("authorization") for headers in receiver.headers} == {"Bearer t-1"}
        await stack.send("plugin.disable", plugin="traceloop")
