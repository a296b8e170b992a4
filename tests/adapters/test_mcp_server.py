"""Apps as tools of an MCP server, to clients of the package `mcp`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import pytest
from mcp import Client

from adapters import mcp_server
from adapters.jetstream.client import Frame, NoOutcome, Rejected, Unreachable
from adapters.mcp_server import Caller, SharedApp, server
from domain.aggregate import new_id

GUIDE = SharedApp(
    "019df200-507f-74b6-9c50-8c502347344d",
    "Guide to locks",
    "Knows all locks.",
    "chat",
    [{"name": "canal", "required": True, "default": None}, {"name": "season", "required": False, "default": "summer"}],
)

CITED = {
    "position": 1,
    "document": "d",
    "document_name": "locks.md",
    "page": None,
    "heading": "Hours",
    "content": "At six.",
}

ANSWERED: Frame = {"type": "answered", "answer": "At six [1].", "citations": [{**CITED, "score": 0.5}], "usage": {}}


class Bus:
    """In place of the client of the bus: a question gets these frames, or this error."""

    def __init__(self, *frames: Frame | Exception) -> None:
        self.frames = frames
        self.asked: list[dict[str, Any]] = []
        self.posted: list[tuple[str, dict[str, Any]]] = []

    async def ask(self, app: str, query: str, **fields: Any) -> AsyncGenerator[Frame]:
        self.asked.append({"app": app, "query": query, **fields})
        for frame in self.frames:
            if isinstance(frame, Exception):
                raise frame
            await asyncio.sleep(frame.pop("wait", 0))
            yield frame

    async def post(self, name: str, payload: dict[str, Any], id: str) -> None:
        self.posted.append((name, payload))


class Known:
    """The tables: these apps, and the last frame of an answer from its third look on."""

    def __init__(self, apps: Sequence[SharedApp]) -> None:
        self._apps = apps
        self.looks = Counter[str]()

    async def apps(self) -> Sequence[SharedApp]:
        return self._apps

    async def ended(self, message: str) -> Frame | None:
        self.looks[message] += 1
        return ANSWERED if self.looks[message] > 2 else None


def client(bus: Bus, *apps: SharedApp, session: str = "", mode: str = "auto") -> Client:
    caller = Caller(cast("Any", bus), "ada", session or new_id())
    return Client(server(Known(apps or [GUIDE]), caller), mode=mode)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_app_is_a_tool_with_its_variables(mode: str) -> None:
    bus = Bus({"type": "accepted"}, {"type": "token", "text": "At "}, ANSWERED)
    seen: list[tuple[float, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, message))

    async with client(bus, mode=mode) as mcp:
        [tool] = (await mcp.list_tools()).tools
        assert (tool.name, tool.title, tool.description) == ("Guide_to_locks", "Guide to locks", "Knows all locks.")
        assert list(tool.input_schema["properties"]) == ["query", "canal", "season", "conversation"]
        assert tool.input_schema["required"] == ["query", "canal"]
        arguments = {"query": "When?", "canal": "Ludwig", "conversation": "c"}
        given = await mcp.call_tool(tool.name, arguments, progress_callback=progress)
    assert not given.is_error
    [asked] = bus.asked
    assert (asked["app"], asked["query"], asked["inputs"], asked["user"], asked["conversation"]) == (
        GUIDE.id,
        "When?",
        {"canal": "Ludwig"},
        "ada",
        "c",
    )
    assert given.structured_content == {
        "answer": "At six [1].",
        "citations": [CITED],
        "message": asked["id"],
        "conversation": "c",
    }
    assert given.content[0].model_dump()["text"] == "At six [1]."
    assert seen == [(1.0, "At ")]


async def test_a_repeated_call_is_the_same_message() -> None:
    bus = Bus(ANSWERED)
    session, arguments = new_id(), {"query": "When?", "canal": "Ludwig"}
    for _ in range(2):
        async with client(bus, session=session) as mcp:
            await mcp.session.call_tool("Guide_to_locks", arguments)
            await mcp.session.call_tool("Guide_to_locks", arguments)
    async with client(bus) as mcp:
        await mcp.session.call_tool("Guide_to_locks", arguments)
        for _ in range(2):
            await mcp.session.call_tool("Guide_to_locks", arguments, meta={mcp_server.KEY: "call-1"})  # type: ignore[typeddict-unknown-key]
    ids = [asked["id"] for asked in bus.asked]
    assert ids[:2] == ids[2:4]
    assert ids[5] == ids[6]
    assert len(set(ids)) == 4


async def test_a_repeated_request_is_answered_from_the_tables() -> None:
    bus = Bus(ANSWERED)
    async with client(bus) as mcp:
        for _ in range(4):
            meta: Any = {mcp_server.KEY: "call-1"}
            given = await mcp.session.call_tool("Guide_to_locks", {"query": "When?", "canal": "x"}, meta=meta)
    assert given.structured_content["answer"] == "At six [1]."
    assert len(bus.asked) == 2


async def test_an_answer_that_the_log_gives_without_words_is_read_from_the_tables() -> None:
    async with client(Bus({"type": "answered", "answer": "", "citations": [], "message": "m"})) as mcp:
        given = await mcp.call_tool("Guide_to_locks", {"query": "When?", "canal": "x"})
    assert (given.structured_content["answer"], given.structured_content["citations"]) == ("At six [1].", [CITED])


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([{"type": "failed", "code": "unauthorized", "reason": "No key."}], "unauthorized"),
        ([{"type": "stopped", "answer": "At"}], "stopped"),
        ([Rejected({"code": "not_found", "message": "There is no app.", "field": "app"})], "not_found"),
        ([Unreachable("NATS does not answer.")], "unreachable"),
        ([NoOutcome("No answer.")], "timeout"),
    ],
)
async def test_errors_are_results_with_our_codes(frames: list[Frame | Exception], code: str) -> None:
    async with client(Bus(*frames)) as mcp:
        given = await mcp.call_tool("Guide_to_locks", {"query": "When?", "canal": "x"})
    assert given.is_error
    assert given.structured_content["error"]["code"] == code
    assert given.content[0].model_dump()["text"].startswith(f"{code}: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"query": "When?"}, "canal"),
        ({"query": "", "canal": "x"}, "query"),
        ({"query": 5, "canal": "x"}, "query"),
        ({"query": "When?", "canal": "x", "colour": "red"}, "colour"),
    ],
)
async def test_wrong_arguments_ask_nothing(arguments: dict[str, Any], said: str) -> None:
    bus = Bus(ANSWERED)
    async with client(bus) as mcp:
        given = await mcp.call_tool("Guide_to_locks", arguments)
        unknown = await mcp.call_tool("Guide", {"query": "When?"})
    assert given.structured_content["error"]["code"] == "invalid_arguments"
    assert said in given.structured_content["error"]["message"]
    assert unknown.structured_content["error"]["code"] == "not_found"
    assert bus.asked == []


async def test_a_cancelled_call_stops_the_answer() -> None:
    bus = Bus({"type": "accepted"}, {"type": "token", "text": "At ", "wait": 30.0}, ANSWERED)
    async with client(bus, mode="legacy") as mcp:
        task = asyncio.create_task(mcp.call_tool("Guide_to_locks", {"query": "When?", "canal": "x"}))
        async with asyncio.timeout(10):
            while not bus.asked:
                await asyncio.sleep(0.01)
            task.cancel()
            while not bus.posted:
                await asyncio.sleep(0.01)
    id = bus.asked[0]["id"]
    assert bus.posted == [("message.stop", {"conversation": id, "message": id})]


async def test_apps_of_one_name_have_tools_of_different_names() -> None:
    other = GUIDE._replace(id="019df200-507f-74b6-9c50-aaaaaaaaaaaa", mode="completion")
    odd = GUIDE._replace(id="019df200-507f-74b6-9c50-bbbbbbbbbbbb", name="Schleuse 水门", description="", variables=[])
    async with client(Bus(), GUIDE, other, odd) as mcp:
        tools = {tool.name: tool for tool in (await mcp.list_tools()).tools}
    assert list(tools) == ["Guide_to_locks_8c502347344d", "Guide_to_locks_aaaaaaaaaaaa", "Schleuse"]
    assert list(tools["Guide_to_locks_aaaaaaaaaaaa"].input_schema["properties"]) == ["query", "canal", "season"]
    assert tools["Schleuse"].description == "Ask the app 'Schleuse 水门'."
