"""Runs of workflows on real servers: through code, template, model, requests and a form, killed and finished."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.conftest import fresh_database
from tests.journeys.stack import PATIENCE_S, Row, Stack
from tests.journeys.test_kill import assert_no_event_is_twice, assert_tables_equal_a_rebuild

MODEL = {"provider": "lab", "name": "m", "mode": "chat", "completion_params": {}}


def document(url: str) -> dict[str, Any]:
    """A desk: code reads the question, a template asks, a model answers, a person agrees, and a ticket is made."""
    nodes = [
        ("start", "start", {"variables": [{"variable": "asked", "type": "paragraph", "required": True}]}),
        (
            "count",
            "code",
            {
                "code_language": "python3",
                "code": "def main(asked):\n    return {'words': len(asked.split())}",
                "variables": [{"variable": "asked", "value_selector": ["start", "asked"]}],
                "outputs": {"words": {"type": "number"}},
            },
        ),
        (
            "prompt",
            "template-transform",
            {
                "template": "{{ words }} words: {{ asked }}",
                "variables": [
                    {"variable": "words", "value_selector": ["count", "words"]},
                    {"variable": "asked", "value_selector": ["start", "asked"]},
                ],
            },
        ),
        ("level", "http-request", {"method": "get", "url": f"{url}/level", "authorization": {"type": "no-auth"}}),
        (
            "model",
            "llm",
            {
                "model": MODEL,
                "prompt_template": [{"role": "user", "text": "{{#prompt.output#}} {{#level.body#}}"}],
                "context": {"enabled": False},
                "vision": {"enabled": False},
            },
        ),
        (
            "ask",
            "human-input",
            {
                "form_content": "{{#model.text#}}",
                "inputs": [{"type": "paragraph", "output_variable_name": "note"}],
                "user_actions": [{"id": "yes", "title": "Yes"}, {"id": "no", "title": "No"}],
                "timeout": 3,
                "timeout_unit": "day",
            },
        ),
        (
            "ticket",
            "http-request",
            {
                "method": "post",
                "url": f"{url}/ticket",
                "headers": "X-Key:{{#env.KEY#}}",
                "authorization": {"type": "no-auth"},
                "body": {"type": "json", "data": [{"type": "text", "value": '{"note": "{{#ask.note#}}"}'}]},
            },
        ),
        (
            "end",
            "end",
            {
                "outputs": [
                    {"variable": "answer", "value_selector": ["model", "text"]},
                    {"variable": "ticket", "value_selector": ["ticket", "body"]},
                ]
            },
        ),
    ]
    edges = [("start", "count"), ("count", "prompt"), ("start", "level"), ("prompt", "model"), ("level", "model")]
    edges += [("model", "ask"), ("ticket", "end")]
    return {
        "app": {"mode": "workflow"},
        "workflow": {
            "graph": {
                "nodes": [{"id": id, "data": {"type": type, "title": id, **data}} for id, type, data in nodes],
                "edges": [
                    *({"source": a, "target": b, "sourceHandle": "source"} for a, b in edges),
                    {"source": "ask", "target": "ticket", "sourceHandle": "yes"},
                ],
            },
            "environment_variables": [{"name": "KEY", "value_type": "secret", "value": ""}],
        },
    }


class World:
    """A server of a model and of effects, which counts, and can hold a request until the test lets it go."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.bodies: list[str] = []
        self.holds = ""
        self.reached = asyncio.Event()
        self.free = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            _, path, _ = head.split(" ", 2)
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head.splitlines()[1:])}
            body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
            self.seen[path] += 1
            if path == "/ticket":
                self.keys.add(headers.get("x-key", ""))
                self.bodies.append(body)
            if path == self.holds:
                self.reached.set()
                await self.free.wait()
            kind, body = self._response(path)
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                f"Connection: close\r\n\r\n{body}".encode()
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _response(self, path: str) -> tuple[str, str]:
        if path == "/level":
            return "text/plain", "7 m"
        if path == "/ticket":
            return "application/json", '{"made": 1}'
        deltas = [{"role": "assistant", "content": "Open "}, {"content": "it."}]
        chunks = [{"choices": [{"index": 0, "delta": each}]} for each in deltas]
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
        lines = [
            json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", **each})
            for each in (*chunks, last)
        ]
        return "text/event-stream", "".join(f"data: {each}\n\n" for each in [*lines, "[DONE]"])


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[World, str]]:
    world = World()
    server = await asyncio.start_server(world.answer, "127.0.0.1", 0)
    async with server:
        yield world, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def published(stack: Stack, url: str) -> str:
    """An app with the graph."""
    await stack.send("provider.register", name="lab", kind="openai", base_url=f"{url}/v1", key="k")
    app = await stack.make("app.create", name="Desk", mode="workflow")
    await stack.send("workflow.save", app=app, document=document(url), secrets={"KEY": "sesame-7"})
    await stack.send("workflow.publish", workflow=app)
    return app


async def status(stack: Stack, run: str, *wanted: str) -> Row:
    [row] = await stack.until(
        "SELECT * FROM headrace.workflow_runs WHERE id = %(id)s AND status = ANY(%(wanted)s)",
        id=run,
        wanted=list(wanted),
    )
    return row


ENDS = ("succeeded", "partial-succeeded", "failed", "stopped")


async def test_a_run_goes_through_code_template_model_requests_and_a_form(headrace: Stack) -> None:
    async with serving() as (world, url):
        app = await published(headrace, url)
        refused = await headrace.refused("run.start", app=app, inputs={})
        assert (refused["code"], refused["field"]) == ("invalid", "inputs.asked")
        run = await headrace.make("run.start", app=app, inputs={"asked": "Is the gate open?"}, user="ada")
        await status(headrace, run, "paused", *ENDS)
        [form] = await headrace.until("SELECT * FROM headrace.human_input_forms WHERE workflow_run_id = %(id)s", id=run)
        assert (form["status"], form["rendered_content"]) == ("waiting", "Open it.")
        assert world.seen["/ticket"] == 0
        answer = {"run": run, "step": form["step"], "action": "yes", "fields": {"note": 'Say "now".'}}
        await headrace.send("run.answer", **answer)
        late = await headrace.refused("run.answer", **answer)
        assert late["code"] in ("already_answered", "already_ended")
        ended = await status(headrace, run, *ENDS)
    assert (ended["status"], ended["error"]) == ("succeeded", None)
    assert {name: value["data"] for name, value in ended["outputs"].items()} == {
        "answer": "Open it.",
        "ticket": '{"made": 1}',
    }
    assert (ended["total_tokens"], ended["exceptions_count"]) == (7, 0)
    assert world.keys == {"sesame-7"}
    assert json.loads(world.bodies[0]) == {"note": 'Say "now".'}
    effects = await headrace.sql("SELECT * FROM headrace.effects WHERE cause_id = %(id)s ORDER BY created_at", id=run)
    assert [(row["method"], row["status"], row["status_code"]) for row in effects] == [
        ("GET", "completed", 200),
        ("POST", "completed", 200),
    ]
    assert "sesame-7" not in json.dumps([row["request"] for row in effects])
    [call] = await headrace.sql("SELECT * FROM headrace.model_calls WHERE cause_id = %(id)s", id=run)
    assert (call["cause_noun"], call["status"]) == ("run", "completed")


def chatflow() -> dict[str, Any]:
    """A model that answers with memory, and a count of the turns."""
    model = {"model": MODEL, "prompt_template": [{"role": "system", "text": "Be brief."}]}
    parts = {"memory": {"window": {"enabled": False}}, "context": {"enabled": False}, "vision": {"enabled": False}}
    target = {"variable_selector": ["conversation", "turns"], "input_type": "constant", "operation": "+=", "value": 1}
    nodes = [
        ("start", "start", {"variables": []}),
        ("model", "llm", {**model, **parts}),
        ("say", "answer", {"answer": "{{#model.text#}}"}),
        ("count", "assigner", {"version": "2", "items": [target]}),
        ("turns", "answer", {"answer": " ({{#conversation.turns#}})"}),
    ]
    edges = [("start", "model"), ("model", "say"), ("say", "count"), ("count", "turns")]
    return {
        "app": {"mode": "advanced-chat"},
        "workflow": {
            "graph": {
                "nodes": [{"id": id, "data": {"type": type, "title": id, **data}} for id, type, data in nodes],
                "edges": [{"source": a, "target": b, "sourceHandle": "source"} for a, b in edges],
            },
            "conversation_variables": [{"name": "turns", "value_type": "number", "value": 0}],
        },
    }


async def test_a_chatflow_answers_with_memory_and_variables(headrace: Stack) -> None:
    async with serving() as (_, url):
        await headrace.send("provider.register", name="lab", kind="openai", base_url=f"{url}/v1", key="k")
        app = await headrace.make("app.create", name="Talk", mode="advanced-chat")
        await headrace.send("workflow.save", app=app, document=chatflow())
        unready = await headrace.refused("message.send", app=app, query="When?")
        assert (unready["code"], unready["field"]) == ("not_published", "app")
        await headrace.send("workflow.publish", workflow=app)
        frames = await headrace.ask(app, "When?", user="ada")
        talk = frames[0]["conversation"]
        assert [frame["text"] for frame in frames if frame["type"] == "token"][:2] == ["Open ", "it."]
        assert frames[-1]["answer"] == "Open it. (1)"
        frames = await headrace.ask(app, "And now?", user="ada", conversation=talk)
        assert frames[-1]["answer"] == "Open it. (2)"
    rows = await headrace.until(
        "SELECT * FROM headrace.messages WHERE conversation_id = %(id)s ORDER BY created_at",
        lambda rows: [row["status"] for row in rows] == ["answered", "answered"],
        id=talk,
    )
    assert rows[0]["message_tokens"] == 5
    [variable] = await headrace.until(
        "SELECT * FROM headrace.conversation_variables WHERE conversation_id = %(id)s AND workflow_run_id = %(run)s",
        id=talk,
        run=rows[1]["workflow_run_id"],
    )
    assert variable["data"] == {"type": "number", "data": 2}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("held", ["/level", "/v1/chat/completions", "/ticket"])
async def test_a_run_whose_worker_is_killed_ends(postgres: EmbeddedPostgres, tmp_path: Path, held: str) -> None:
    """The worker is killed while a request is under way; another one goes on, and repeats what is harmless alone."""
    async with EmbeddedNats(tmp_path) as nats, fresh_database(postgres) as database, serving() as (world, url):
        settings = Settings.load(home=tmp_path, nats_url=nats.url, postgres_url=database)
        async with Stack.running(settings, ("commands", "project", "embed", "answer")) as stack:
            app = await published(stack, url)
            world.holds = held if held != "/ticket" else ""
            run = await stack.make("run.start", app=app, inputs={"asked": "Is it open?"}, user="ada")
            if held != "/ticket":
                await _kill(stack, world)
            await status(stack, run, "paused")
            await stack.kill("answer")  # while the form waits, no worker is there
            world.holds = held if held == "/ticket" else ""
            answer = {"run": run, "step": "ask", "action": "yes", "fields": {"note": "x"}}
            await stack.send("run.answer", **answer)
            await stack.start("answer")
            if held == "/ticket":
                await _kill(stack, world)
            row = await status(stack, run, *ENDS)
            assert world.seen["/ticket"] == 1
            if held == "/ticket":
                assert (row["status"], "unknown" in row["error"]) == ("failed", True)
            else:
                assert (row["status"], world.seen[held]) == ("succeeded", 2)
            await assert_no_event_is_twice(stack)
            await assert_tables_equal_a_rebuild(stack)


async def _kill(stack: Stack, world: World) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await world.reached.wait()
    await stack.kill("answer")
    world.holds = ""
    world.free.set()
    world.reached.clear()
    await stack.start("answer")
