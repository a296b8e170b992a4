"""Fields whose names are offered while they are typed, with more names than a list could show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from adapters.postgres.tenants import tenants
from adapters.web.viewer.names import OFFERED
from domain.aggregate import new_id
from domain.chat.app import App
from domain.log import OUTCOMES
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer.site import Site, serving, text_of

MANY = 1050


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Site]:
    async with serving(tmp_path_factory.mktemp("names"), lone_nats.url, module_database_url) as served:
        yield served


@pytest.fixture(scope="module")
async def busy(site: Site) -> App:
    """The oldest app, which has all the traffic; many came after it."""
    app = await site.app("Gatehouse", "Be brief.", model="gpt-4o-mini")
    talk = await site.conversation(app, "ada lovelace", "Of gates")
    await site.answer(app, talk, "How high is the gate?")
    for number in range(MANY):
        await site.app(f"App {number:04}")
    await site.settled()
    return app


async def offered(site: Site, kind: str, **typed: str) -> tuple[list[str], bool]:
    found = await site.json(f"/names/{kind}", **typed)
    return [name["value"] for name in found["names"]], found["more"]


async def traces(site: Site, **filters: str) -> list[str]:
    return [row["question"] for row in (await site.json("/traces", **filters))["traces"]]


async def test_every_app_can_be_found_and_a_list_says_when_there_are_more(site: Site, busy: App) -> None:
    names, more = await offered(site, "app")
    assert (len(names), more) == (OFFERED, True)
    assert "and more: type on" in await site.get("/names/app")
    assert await offered(site, "app", app="gate") == (["Gatehouse"], False)
    assert await offered(site, "app", app="0042") == (["App 0042"], False)
    assert await offered(site, "app", app="no such app") == ([], False)
    assert await offered(site, "app", app=" GATE\0 ") == (["Gatehouse"], False)
    assert await offered(site, "app", app="%_'\\\"<script>") == ([], False)


async def test_names_of_other_kinds_are_offered(site: Site, busy: App) -> None:
    assert await offered(site, "model", model="4o") == (["gpt-4o-mini"], False)
    assert await offered(site, "provider", provider="open") == (["openai"], False)
    assert await offered(site, "target", **{"model-1": "mini"}) == (["openai/gpt-4o-mini"], False)
    assert await offered(site, "user", user="love") == (["ada lovelace"], False)
    subjects = (await site.json("/names/subject", subject="gate"))["names"]
    assert subjects == [{"value": busy.id, "label": "app Gatehouse"}]
    await site.get("/names/secrets", 404)


async def test_an_app_is_filtered_by_its_name_a_part_of_it_or_its_id(site: Site, busy: App) -> None:
    for said in ("Gatehouse", "gateHOUSE", "teho", busy.id):
        assert await traces(site, app=said) == ["How high is the gate?"], said
        talks = (await site.json("/conversations", app=said))["conversations"]
        assert [talk["name"] for talk in talks] == ["Of gates"], said
    assert await traces(site, app="App 0001") == []
    assert 'value="Gatehouse"' in await site.get("/traces", app=busy.id)
    too_many = text_of(await site.get("/traces", app="app "))
    assert "is in the names of more than 1,000 apps" in too_many
    assert len(await site.get("/traces")) < 60_000


async def test_two_apps_of_one_name_are_both_meant_and_apart_by_their_ids(site: Site, busy: App) -> None:
    apps = [await site.app("Twin", "Be brief.") for _ in range(2)]
    for app in apps:
        await site.answer(app, await site.conversation(app), f"Asked {app.id}?")
    await site.settled()
    assert len(await traces(site, app="twin")) == 2
    assert await traces(site, app=apps[0].id) == [f"Asked {apps[0].id}?"]
    assert f'value="{apps[0].id}"' in await site.get("/traces", app=apps[0].id)


async def test_a_tenant_with_rejected_commands_alone_is_none(site: Site) -> None:
    """As a typing error in a subject makes them."""
    await send(site, "acme", "app.create", name=5)
    assert await offered(site, "tenant") == ([], False)
    await send(site, site.tenant, "app.create", name="Own")
    await send(site, "acme.eu", "app.create", name=5)
    assert await offered(site, "tenant") == ([site.tenant], False)
    assert await tenants(site.wiring.settings.postgres_url) == [site.tenant]
    assert 'name="tenant"' not in await site.get("/errors")
    await send(site, "other", "app.create", name="Theirs")
    assert await offered(site, "tenant", tenant="oth") == (["other"], False)
    assert 'name="tenant"' in await site.get("/errors", tenant="other")


async def send(site: Site, tenant: str, command: str, /, **fields: Any) -> None:
    """Send a command, and wait for its outcome in the tables."""
    js = site.wiring.nc.jetstream()
    before = (await js.stream_info(OUTCOMES)).state.last_seq
    await js.publish(f"cmd.{tenant}.anon.{command}", orjson.dumps(fields), headers={"Headrace-Id": new_id()})
    async with asyncio.timeout(20):
        while (await js.stream_info(OUTCOMES)).state.last_seq == before:
            await asyncio.sleep(0.01)
    await site.settled()
