"""The audit over HTTP: what the viewer reports, its page, and reads that are commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from adapters.jetstream import doors
from adapters.jetstream.sessions import Sessions
from adapters.web.viewer import guesses, reads
from adapters.web.viewer.pages import audit
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import TOKEN, Site, serving, text_of

HTML = {"Accept": "text/html"}
AGENT = "Firefox of the tests"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "reads"])
async def site(
    request: pytest.FixtureRequest, folder: Path, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doors, "EVERY_S", 0.1)
        async with serving(folder, lone_nats.url, module_database_url, audit_reads=request.param) as served:
            yield served


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "FREE", 1000)


async def operations(site: Site, **query: Any) -> list[dict[str, Any]]:
    await site.settled()
    found: list[dict[str, Any]] = (await site.json("/audit", **query))["operations"]
    return found


async def test_sign_ins_and_refusals_are_in_the_house(site: Site) -> None:
    async with httpx2.AsyncClient(base_url=site.url, timeout=30, headers={"User-Agent": AGENT}) as client:
        origin = {"Origin": site.url}
        for _ in range(3):
            assert (await client.post("/login", data={"token": "wrong"}, headers=origin)).status_code == 403
        assert (await client.get("/login", params={"code": "stale"})).status_code == 403
        assert (await client.post("/login", data={"token": TOKEN}, headers=origin)).status_code == 303
        assert (await client.get(await Sessions(site.wiring.nc).link(site.url))).status_code == 303
    signed_in = await operations(site, tenant=HOUSE, outcome="signed_in")
    assert [row["code"] for row in signed_in[:2]] == ["link", "token"]
    assert {(row["action"], row["address"], row["browser"], row["door"]) for row in signed_in[:2]} == {
        ("door.signed_in", "127.0.0.1", AGENT, "viewer")
    }
    refused: list[dict[str, Any]] = []
    while sum(int(row["detail"]) for row in refused) < 4:
        refused = await operations(site, tenant=HOUSE, outcome="refused")
    assert {(row["code"], row["address"]) for row in refused} == {("token", "127.0.0.1"), ("link", "127.0.0.1")}
    page = text_of(await site.get("/audit", tenant=HOUSE))
    assert "door.signed_in" in page
    assert "token" in page
    assert AGENT in page


async def test_a_command_of_a_page_names_the_browser_that_sent_it(site: Site) -> None:
    form = {"name": f"monthly-{new_id()[-6:]}", "scope": "tenant", "unit": "money", "period": "month", "limit": "100"}
    for _ in range(2):
        await site.client.post("/costs/quotas", data=form, headers=HTML | {"User-Agent": AGENT})
    rows = await operations(site, action="quota.set")
    assert {(row["outcome"], row["target_id"], row["address"], row["browser"]) for row in rows[:2]} == {
        ("accepted", "tenant", "127.0.0.1", AGENT)
    }
    used = await operations(site, tenant=HOUSE, outcome="used")
    assert [row["actor"] for row in used if row["browser"] == AGENT] == ["anon"]


async def test_the_page_filters_and_turns(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "ROWS", 2)
    client = site.wiring.nc
    for number in range(5):
        headers = {"Headrace-Id": new_id()}
        await client.jetstream().publish(
            "cmd.default.s_crm.app.create", b'{"name": ""}' if number % 2 else b'{"name": "A"}', headers=headers
        )
    rows = await operations(site, actor="s_crm")
    while len(rows) < 2 or await pending(site):
        rows = await operations(site, actor="s_crm")
    seen, cursor = list[str](), None
    while True:
        found = await site.json("/audit", actor="s_crm", action="app", **({"before": cursor} if cursor else {}))
        seen += [row["id"] for row in found["operations"]]
        if (cursor := found["older"]) is None:
            break
    assert len(seen) == len(set(seen)) >= 5
    [first, *_] = rejected = await operations(site, actor="s_crm", outcome="rejected", door="bus")
    assert {(row["outcome"], row["door"], row["address"]) for row in rejected} == {("rejected", "bus", None)}
    assert first["code"] == "invalid"
    page = text_of(await site.get("/audit", actor="s_crm", outcome="rejected"))
    assert "app.create" in page
    assert "Must not be blank" in page
    assert "Nothing matches" in text_of(await site.get("/audit", actor="s_other"))
    assert "range must be one of" in text_of(await site.get("/audit", range="2h"))
    assert await operations(site, actor="s_crm", to="2020-01-01") == []
    assert await operations(site, **{"from": "2020-01-01", "range": "24h", "actor": "s_crm"}) != []


async def pending(site: Site) -> int:
    return (await site.wiring.nc.jetstream().stream_info("COMMANDS")).state.messages


async def test_reads_are_commands_where_the_setting_asks_for_it(site: Site, request: pytest.FixtureRequest) -> None:
    app = await site.app(f"Guide {new_id()}")
    trace, _, _ = await site.answer(app, await site.conversation(app), "How high is the gate?")
    await site.settled()
    await site.get(f"/traces/{trace}")
    await site.get(f"/traces/{trace}", part="panel")
    await site.get("/traces", q="gate", state="ok")
    await site.get("/traces", q="gate", state="ok", part="rows")
    await site.get("/sql", query="SELECT 1")
    await site.get("/audit")
    found = await operations(site, action="trace")
    if "reads" not in request.node.callspec.id:
        assert found == []
        return
    opened = [row for row in found if row["action"] == "trace.open" and row["target_id"] == trace]
    assert [(row["outcome"], row["actor"], row["address"]) for row in opened] == [("accepted", "anon", "127.0.0.1")]
    searched = [row["detail"] for row in found if row["action"] == "trace.search"]
    assert searched.count("/traces?q=gate&state=ok") == 1
    assert searched.count("/sql?query=SELECT+1") == 1
    assert not [text for text in searched if text.startswith("/audit")]


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [(("trace.open", {"trace": ""}), 403, "and this was rejected"), (("Open", {}), 503, "The command was not sent")],
)
async def test_what_cannot_be_recorded_is_not_shown(
    site: Site,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, dict[str, str]],
    status: int,
    says: str,
) -> None:
    monkeypatch.setattr(reads, "reading", lambda request: command)
    page = await site.get("/traces", status if "reads" in request.node.callspec.id else 200, q=new_id())
    assert (says in page) is ("reads" in request.node.callspec.id)
