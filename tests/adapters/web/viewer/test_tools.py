"""Tools in the viewer: calls on the pages of traces and conversations, calls that wait, and toolsets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.log import Subject
from domain.models.model_call import ModelCall
from domain.tools.question import Question
from domain.tools.tool_call import ToolCall
from domain.tools.toolset import Toolset
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import Site, serving, text_of
from tests.projections.history import TOKENS

EVIL = "<script>alert(1)</script>"


@dataclass
class Agent:
    site: Site
    app: App
    talk: Conversation


@pytest.fixture(scope="module")
async def agent(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Agent]:
    async with serving(tmp_path_factory.mktemp("tools"), lone_nats.url, module_database_url) as site:
        app = await site.app("Harbour master", "Be brief.")
        yield Agent(site, app, await site.conversation(app))


async def asked(agent: Agent) -> str:
    """A question that an agent begins to answer; gives its trace, which is its message, too."""
    site, talk, message = agent.site, agent.talk, new_id()
    talk.ask(site.now, message=message, app=agent.app.id, configuration=1, query="Rain?", inputs={}, user=talk.user)
    await site.record(talk, message)
    talk.answering(site.now, message=message)
    await site.record(talk, message)
    return message


async def thought(agent: Agent, message: str) -> str:
    """A call of the model that asks for tools; gives its id."""
    site = agent.site
    call = ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        site.now,
        kind="chat",
        provider="openai",
        model="gpt-4o-mini",
        cause_noun="message",
        cause_id=message,
        request={"messages": [], "parameters": {}},
    )
    await site.record(call, message)
    asked = [{"id": str(number), "name": "weather", "arguments": "{}"} for number in range(2)]
    call.complete(
        site.now,
        response=f"I look both up. {EVIL}",
        finish_reason="tool_calls",
        usage=TOKENS,
        first_token_ms=1.0,
        duration_ms=9.0,
        tool_calls=asked,
    )
    await site.record(call, message)
    return call.id


async def held(agent: Agent) -> tuple[str, ToolCall]:
    """An answer that waits for a person; gives its trace and the call of a tool."""
    message = await asked(agent)
    call = await agent.site.tool(
        message, message, agent.app, agent.talk, held=True, model_call=await thought(agent, message)
    )
    agent.talk.hold(agent.site.now, message=message, calls=[call.id])
    await agent.site.record(agent.talk, message)
    await agent.site.settled()
    return message, call


async def test_two_calls_of_one_tool_in_one_round_are_whole_on_the_page_of_the_trace(agent: Agent) -> None:
    site, message = agent.site, await asked(agent)
    of = {"model_call": await thought(agent, message), "picture": b"\x89PNG"}
    cities = [("Paris", 0), (f"Rome {EVIL}", 1)]
    first, second = [
        await site.tool(message, message, agent.app, agent.talk, arguments=city, position=place, **of)
        for city, place in cities
    ]
    await site.settled()
    page = await site.get(f"/traces/{message}", span="-")
    words = text_of(page)
    assert EVIL not in page
    assert "I look both up." in words
    assert words.index("weather ( Paris )") < words.index("weather ( Rome")
    assert words.partition("What caused it")[0].count("It rains.") == 2
    assert "2 calls" in words
    shown = text_of(one := await site.get(f"/traces/{message}", span=first.id))
    for said in (
        "execute_tool weather",
        "harbour",
        "api.example.com:443",
        "Paris",
        "It rains.",
        "The rain",
        '"rain": true',
    ):
        assert said in shown, said
    assert f'<img src="/traces/{message}/tools/{first.id}/0" alt="map.png"' in one
    picture = await site.client.get(f"/traces/{message}/tools/{first.id}/0")
    assert (picture.content, picture.headers["content-type"]) == (b"\x89PNG", "image/png")
    for path in (f"{first.id}/1", f"{first.id}/9", f"{new_id()}/0"):
        assert (await site.client.get(f"/traces/{message}/tools/{path}")).status_code == 404
    answer = await site.client.get(f"/traces/{second.id}", headers={"Accept": "text/html"})
    assert f"/traces/{message}" in str(answer.url)


@pytest.mark.parametrize("to", ["trace", "conversation", "tools"])
async def test_a_call_that_waits_is_released_by_a_button(agent: Agent, to: str) -> None:
    site = agent.site
    trace, call = await held(agent)
    path = f'action="/tools/calls/{call.id}/release"'
    pages = {"trace": f"/traces/{trace}", "conversation": f"/conversations/{agent.talk.id}", "tools": "/tools"}
    for page in pages.values():
        assert path in await site.get(page), page
    assert "held" in text_of(await site.get("/traces", state="held"))
    assert "wait for a person" in text_of(await site.get(f"/traces/{trace}")).replace("waits", "wait")
    after = await site.post(f"/tools/calls/{call.id}/release", to=to)
    assert str(after.url).startswith(f"{site.url}{pages[to]}")
    assert path not in await site.get(pages[to])
    await site.settled()
    [row] = (await site.json("/sql", query=f"SELECT status, decided_by FROM tool_calls WHERE id = '{call.id}'"))["rows"]
    assert row == ["released", "anon"]
    again = await site.client.post(f"/tools/calls/{call.id}/release")
    assert (again.status_code, "not held" in text_of(again.text)) == (400, True)


async def test_a_refusal_has_a_reason_and_an_unknown_call_none(agent: Agent) -> None:
    site = agent.site
    trace, call = await held(agent)
    await site.post(f"/tools/calls/{call.id}/refuse", reason=f"Not today. {EVIL}", to="trace")
    [commit] = (await site.store.load(Subject(site.tenant, "tool_call", call.id)))[1:]
    assert commit.events[0].reason == f"Not today. {EVIL}"  # type: ignore[attr-defined]
    page = await site.get(f"/traces/{trace}", span=call.id)
    assert "Not today." in text_of(page)
    assert "Refused by anon" in text_of(page)
    assert EVIL not in page
    for path in (f"{new_id()}/release", f"{call.id}/forget"):
        assert (await site.client.post(f"/tools/calls/{path}")).status_code == 404


async def test_a_question_of_a_server_is_a_form(agent: Agent) -> None:
    site = agent.site
    message = await asked(agent)
    of = message, message, agent.app, agent.talk
    call = await site.tool(*of, ended=False, model_call=await thought(agent, message))
    fields = {
        "size": {"type": "integer", "title": f"Size {EVIL}"},
        "taste": {"type": "string", "enum": ["sweet", EVIL]},
        "sure": {"type": "boolean"},
        "topping": {"type": "array", "items": {"anyOf": [{"const": "nuts", "title": "Nuts"}, {"const": "figs"}]}},
        "note": {"type": "string", "description": "What else?"},
    }
    schema = {"type": "object", "properties": fields, "required": ["size"]}
    size, rest = f"How large? {EVIL}", Question(name="b", message="And?", form={})
    questions = [Question(name="a", message=size, form=schema), rest]
    call.ask(site.now, questions=questions, state="", session=False, seconds=3 * 86400.0)
    await site.record(call, message)
    await site.settled()
    path = f"/tools/calls/{call.id}"
    for page in ("/tools", f"/conversations/{agent.talk.id}"):
        shown = await site.get(page)
        assert EVIL not in shown
        assert (f'action="{path}/release"' in shown, f'formaction="{path}/refuse"' in shown) == (True, True), page
        assert "How large?" in text_of(shown)
    wrong = await site.client.post(f"{path}/release", data={"answers": "1", "f.size": "big"})
    assert (wrong.status_code, "must be a number" in text_of(wrong.text)) == (400, True)
    filled = {"f.size": "3", "f.taste": "sweet", "f.sure": "true", "f.topping": ["nuts", "figs"], "f.note": ""}
    await site.post(f"{path}/release", answers="1", **filled)
    await site.settled()
    assert "And?" in text_of(await site.get("/tools"))
    await site.post(f"{path}/refuse", cancel="1")
    await site.settled()
    statement = f"SELECT status, questions FROM tool_calls WHERE id = '{call.id}'"
    [[status, questions]] = (await site.json("/sql", query=statement))["rows"]
    answered = json.loads(questions)
    assert (status, [each["action"] for each in answered]) == ("released", ["accept", "cancel"])
    assert answered[0]["content"] == {"size": 3, "taste": "sweet", "sure": True, "topping": ["nuts", "figs"]}


async def test_toolsets_are_shown_with_their_tools_and_refreshed_by_a_button(agent: Agent) -> None:
    site = agent.site
    settings: dict[str, Any] = {"text": "{}"}
    toolset = Toolset.begin(
        Toolset.Registered,
        "harbour",
        site.now,
        kind="openapi",
        description="",
        settings=settings,
        secret=None,
        timeout_s=30.0,
    )
    tool: Any = {"name": "weather", "description": f"The weather. {EVIL}", "destructive": False, "idempotent": True}
    toolset.request_refresh(site.now, refresh="one")
    toolset.refreshed(site.now, refresh="one", digest="d" * 64, tools=[tool], warnings=["GET /tides: no schema"])
    await site.record(toolset, new_id())
    await site.settled()
    page = await site.get("/tools")
    words = text_of(page)
    for said in (
        "harbour",
        "openapi",
        "1 tool",
        "weather",
        "The weather.",
        "GET /tides: no schema",
        "calculate",
        "builtin",
    ):
        assert said in words, said
    assert EVIL not in page
    await site.post("/tools/harbour/refresh")
    await site.settled()
    [listed] = (await site.json("/tools"))["toolsets"]
    assert listed["refresh_status"] == "requested"
    assert (await site.client.post("/tools/gone/refresh")).status_code == 404


async def test_the_proof_counts_what_waits_for_a_person(agent: Agent) -> None:
    await held(agent)
    found = await agent.site.json("/proof")
    assert all(equation["holds"] for equation in found["equations"].values()), found
    assert found["equations"]["Calls of tools"]["sum_of"]["held"] >= 1
    assert found["equations"]["Questions"]["sum_of"]["held"] >= 1
