"""Agents on real servers: a model behind HTTP calls tools by a script, and workers are killed at every step."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.chat_servers import faulty_server
from tests.journeys.stack import Row, Stack
from tests.journeys.test_models import provider_of
from tests.scripted_agent import Call, Scripts, scripted

FACT = "The sluice at Elmford opens when the river stands at 4.2 metres."

TWO = [Call("calculate", {"expression": "6 * 7"}), Call("calculate", {"expression": "2 ^ 10"})]


def last_results(messages: list[dict[str, Any]]) -> str:
    """An answer from the last result, with the number of its passage."""
    result = str(messages[-1]["content"])
    found = re.search(r"\[(\d+)\]", result)
    return f"The sluice opens when the river stands at 4.2 metres [{found[1]}]." if found else f"I read: {result}"


SCRIPTS: Scripts = {
    "sluice": [
        [Call("time", {"zone": "Europe/Paris"})],
        [Call("calculate", {"expression": "42 / 10"})],
        [Call("search_knowledge", {"query": "When does the sluice at Elmford open?"})],
        last_results,
    ],
    "twice": [TWO, "It is 42 and 1024."],
    "allowed": [[Call("calculate", {"expression": "1 + 1"})], "It is two."],
}


@pytest.fixture(scope="module")
async def provider(headrace: Stack) -> AsyncIterator[str]:
    async with faulty_server(scripted(SCRIPTS)) as server:
        name = provider_of(server.url)
        await headrace.send("provider.register", name=name, base_url=server.url, key="a-key-of-the-agent")
        yield name


async def agent(headrace: Stack, provider: str, *, datasets: tuple[str, ...] = (), **settings: Any) -> str:
    app = await headrace.make("app.create", name="Agent", mode="agent-chat")
    settings = {"tools": [{"toolset": "builtin"}], **settings}
    await headrace.send(
        "app.configure",
        app=app,
        model={"provider": provider, "name": "scripted"},
        datasets=list(datasets),
        features={"agent": settings},
    )
    return app


async def made(headrace: Stack, message: str, count: int) -> list[Row]:
    """The calls of tools of a message that have ended, in order."""
    statement = "SELECT * FROM headrace.tool_calls WHERE cause_id = %(id)s AND finished_at IS NOT NULL"
    return await headrace.until(f"{statement} ORDER BY round, position", lambda rows: len(rows) == count, id=message)


async def test_an_agent_asks_the_clock_the_calculator_and_the_knowledge_base(
    headrace: Stack, provider: str, tmp_path: Path
) -> None:
    dataset = await headrace.make("dataset.create", name="of the river")
    (tmp_path / "sluice.txt").write_text(FACT)
    [document] = await headrace.upload(dataset, tmp_path / "sluice.txt")
    await headrace.ended([document])
    frames = await headrace.ask(await agent(headrace, provider, datasets=(dataset,)), "When does the sluice open?")
    assert frames[-1]["type"] == "answered", frames[-1]
    assert frames[-1]["answer"] == "The sluice opens when the river stands at 4.2 metres [1]."
    [cited] = frames[-1]["citations"]
    assert (cited["document"], cited["content"]) == (document, FACT)
    kinds = [frame["type"] for frame in frames]
    assert [kinds.count(kind) for kind in ("thought", "tool", "observation", "token")] == [3, 3, 3, 1]
    message = frames[0]["message"]
    clock, sum, search = await made(headrace, message, 3)
    assert [row["status"] for row in (clock, sum, search)] == ["completed"] * 3
    assert "UTC+0" in clock["result"]
    assert "4.2" in sum["result"]
    assert [part["document"] for part in search["parts"]] == [document]
    [trace] = await headrace.until(
        "SELECT * FROM headrace.traces WHERE message_id = %(id)s AND status = 'ok'", id=message
    )
    assert (trace["tool_calls"], trace["open_calls"], trace["errors"]) == (3, 0, 0)
    spans = await headrace.sql(
        "SELECT s.kind, s.name, p.kind AS parent FROM headrace.spans s LEFT JOIN headrace.spans p "
        "ON p.tenant_id = s.tenant_id AND p.id = s.parent_id WHERE s.trace_id = %(trace)s ORDER BY s.sequence",
        trace=trace["id"],
    )
    tree = [(row["kind"], row["parent"]) for row in spans]
    rounds = [("chat", "handler"), ("tool", "handler")]
    assert tree == [("handler", None), *rounds, *rounds, *rounds, ("embedding", "tool"), ("chat", "handler")]


async def test_two_calls_of_one_tool_in_one_step_are_whole_everywhere(headrace: Stack, provider: str) -> None:
    """Where results are kept by the name of the tool, one of them is lost."""
    frames = await headrace.ask(await agent(headrace, provider), "Calculate twice.")
    assert frames[-1]["answer"] == "It is 42 and 1024.", frames[-1]
    message = frames[0]["message"]
    rows = await made(headrace, message, 2)
    assert [(row["round"], row["position"]) for row in rows] == [(1, 0), (1, 1)]
    assert ["42" in rows[0]["result"], "1024" in rows[1]["result"]] == [True, True]
    thoughts = await headrace.sql(
        "SELECT * FROM headrace.message_agent_thoughts WHERE message_id = %(id)s ORDER BY call_position", id=message
    )
    assert [row["thought"] for row in thoughts] == ["Let me see."] * 2
    assert [row["observation"] for row in thoughts] == [row["result"] for row in rows]
    assert [row["tokens"] for row in thoughts] == [48, 0]


async def test_a_call_waits_until_a_command_releases_it(headrace: Stack, provider: str) -> None:
    app = await agent(headrace, provider, approve="always")
    frames = []
    async for frame in headrace.client.ask(app, "Is it allowed?"):
        frames.append(frame)
        if frame["type"] == "held":
            message, [call] = frames[0]["message"], frame["calls"]
            statement = "SELECT * FROM headrace.{} WHERE id = %(id)s AND status = 'held'"
            [held] = await headrace.until(statement.format("tool_calls"), id=call)
            assert (held["runs"], held["held_why"]) == (0, "approval")
            assert await headrace.until(statement.format("messages"), id=message)
            await headrace.send("tool_call.release", tool_call=call)
    assert (frames[-1]["type"], frames[-1]["answer"]) == ("answered", "It is two.")
    [done] = await made(headrace, message, 1)
    assert (done["status"], done["runs"], done["decided_by"]) == ("completed", 1, "anon")
    again = await headrace.refused("tool_call.release", tool_call=call)
    assert again["code"] == "not_held"
