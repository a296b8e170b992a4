"""Quotas on real servers: leases of workers that died, alerts, and the view of budgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import psycopg
import pytest
from nats.aio.client import Client
from psycopg.rows import dict_row

from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.postgres import rebuild
from adapters.postgres.policies import TENANTS
from adapters.postgres.projector import Projector
from adapters.postgres.quotas import PostgresQuotas
from adapters.postgres.tables import connect, set_up, wait_for
from adapters.privacy.vault import AesVault
from domain.aggregate import new_id
from domain.log import EVENTS, Metadata, Position
from domain.models.budget import Budget
from domain.models.quota_window import QuotaWindow
from handlers.cause import Cause
from handlers.models.alert import Alert
from handlers.models.settle import Settle
from handlers.ports.quotas import ExpiredLease, Spent
from ops.cli.quota import QUOTAS as LISTED
from tests.adapters.test_postgres import RecordedLog, caught_up, following, recorded_files
from tests.handlers.desk import Desk, files_of
from tests.handlers.fakes import OneModel, Words, embedding_models
from tests.handlers.models.test_grants import Model, Worker, limit
from tests.projections.history import History


@pytest.fixture(scope="module")
async def url(module_database_url: str, nc: Client) -> AsyncIterator[str]:
    """Tables that follow the log."""
    await set_up(module_database_url)
    log = JetStreamLog(nc, JetStreamKeys(nc, AesVault(bytes(32))))
    projector = asyncio.create_task(Projector(module_database_url, log, files_of(nc)).run())
    yield module_database_url
    projector.cancel()
    await asyncio.gather(projector, return_exceptions=True)


class OwnQuotas(PostgresQuotas):
    """Those of one tenant: all tests share the streams."""

    def __init__(self, url: str, desk: Desk) -> None:
        self.log = JetStreamLog(desk.nc, JetStreamKeys(desk.nc, AesVault(bytes(32))))
        super().__init__(url, self.log.last, grace_s=0.0)
        self.tenant = desk.tenant

    async def expired(self) -> list[ExpiredLease]:
        return [lease for lease in await super().expired() if lease.tenant == self.tenant]

    async def spent(self) -> list[Spent]:
        return [spent for spent in await super().spent() if spent.tenant == self.tenant]


@pytest.fixture
def desk(nc: Client, tenant: str) -> Desk:
    return Desk(nc, tenant)


async def rows(url: str, query: str, **values: Any) -> list[dict[str, Any]]:
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        return await (await connection.execute(query.encode(), values)).fetchall()


async def in_tables(url: str, quotas: OwnQuotas) -> None:
    await wait_for(url, Position(EVENTS, await quotas.log.last(EVENTS)))


WINDOWS = "SELECT * FROM headrace.quota_windows WHERE tenant_id = %(tenant)s ORDER BY quota_id, subject"


async def test_the_lease_of_a_dead_worker_is_settled_by_the_tables(desk: Desk, url: str) -> None:
    await limit(desk, "tokens", 100_000)
    doomed, model, quotas = Worker(desk, lease_s=1.0, idle_s=60), Model(), OwnQuotas(url, desk)
    ended = await doomed.ask(model)
    model.go.clear()
    model.begun.clear()
    asking = asyncio.create_task(doomed.ask(model))
    await model.begun.wait()
    assert doomed.grants._upkeep is not None
    doomed.grants._upkeep.cancel()
    settle = Settle(desk.repository, quotas)
    assert await settle() == []
    await in_tables(url, quotas)
    [window] = await rows(url, WINDOWS, tenant=desk.tenant)
    assert (window["used"], window["granted"], window["most"]) == (0, 2000, 100_000)
    await asyncio.sleep(1.1)
    [lease] = await settle()
    assert ended in lease.calls
    assert len(lease.calls) == 2
    await in_tables(url, quotas)
    [window] = await rows(url, WINDOWS, tenant=desk.tenant)
    calls = await rows(url, "SELECT * FROM headrace.model_calls WHERE tenant_id = %(tenant)s", tenant=desk.tenant)
    paid = sum(grant["amount"] for call in calls for grant in call["grants"])
    assert (window["used"], window["granted"], window["leases"]) == (paid, 0, {})
    assert {call["error_code"] for call in calls} == {None, "lost"}
    assert await settle() == []
    asking.cancel()
    await asyncio.wait((asking,))


async def test_each_step_of_soft_and_hard_quotas_is_alerted_once(desk: Desk, url: str) -> None:
    await desk.done("quota.set", name="model", scope="model", subject="small", unit="tokens", period="hour", limit=300)
    await desk.done("quota.set", name="provider", scope="provider", unit="calls", period="month", limit=7, hard=False)
    await desk.done("budget.set", name="money", scope="tenant", amount_usd=1)
    worker, quotas = Worker(desk), OwnQuotas(url, desk)
    alert = Alert(desk.repository, quotas)
    await in_tables(url, quotas)
    assert await alert() == []
    for _ in range(3):
        await worker.ask(Model(), "small", max_tokens=100)
    await in_tables(url, quotas)
    assert await alert() == []
    await desk.done("quota.set", name="model", scope="model", subject="small", unit="tokens", period="hour", limit=200)
    await in_tables(url, quotas)
    [spent] = await alert()
    assert (spent.window.quota, spent.window.subject, spent.used, spent.limit) == ("tenant/model", "small", 126, 200)
    await in_tables(url, quotas)
    assert await alert() == []
    await desk.done("quota.set", name="model", scope="model", subject="small", unit="tokens", period="hour", limit=120)
    await in_tables(url, quotas)
    assert len(await alert()) == 1
    await in_tables(url, quotas)
    [window] = await rows(url, WINDOWS, tenant=desk.tenant)
    assert [(step["percent"], step["used"]) for step in window["alerts"]] == [(50, 126), (80, 126), (100, 126)]
    assert [event.TOPIC for event in await desk.events("quota_window", window["id"])].count(
        QuotaWindow.Alerted.TOPIC
    ) == 3
    await worker.grants.close()


async def test_embeddings_of_a_provider_are_counted_and_those_of_the_workers_are_not(desk: Desk, url: str) -> None:
    await desk.done("quota.set", name="all", scope="tenant", unit="calls", period="month", limit=1, hard=False)
    quotas, models = OwnQuotas(url, desk), embedding_models(desk.repository, OneModel(Words()))
    for name, used in (("words", []), (f"{desk.tenant}/lab/small", [1])):
        embedding = await models.get(name)
        cause = Cause(Metadata(new_id(), desk.tenant, new_id()), "document", new_id(), 1)
        _, recorded = await embedding.embed(cause, "embed", [embedding.input("The lock opens at six.")])
        await recorded
        await in_tables(url, quotas)
        assert [spent.used for spent in await quotas.spent()] == used


async def test_a_rolling_quota_is_alerted_by_the_calls_of_its_length(desk: Desk, url: str) -> None:
    rolling = {"unit": "calls", "period": "minute", "rolling": 30, "limit": 4}
    await desk.done("quota.set", name="rolls", **rolling)
    worker, quotas = Worker(desk), OwnQuotas(url, desk)
    alert = Alert(desk.repository, quotas)
    for _ in range(3):
        await worker.ask(Model())
    await worker.grants.close()
    await in_tables(url, quotas)
    [spent] = await alert()
    assert (spent.window.quota, spent.used, spent.limit) == ("tenant/rolls", 3, 4)
    await in_tables(url, quotas)
    assert await alert() == []
    [window] = await rows(url, WINDOWS, tenant=desk.tenant)
    assert (window["used"], sum(window["parts"].values()), window["ends_at"]) == (3, 3, None)
    assert [step["percent"] for step in window["alerts"]] == [50]
    [listed] = await rows(url, LISTED, tenant=desk.tenant)
    assert (listed["used"], listed["granted"], listed["alerts"], listed["rolling"]) == (3, 0, [50], 30)
    expired = "jsonb_build_object(now()::text, 3, now() + interval '1 h', 1)"
    earlier = "jsonb_set(alerts, '{0,at}', to_jsonb(now() - interval '31 minutes'))"
    async with connect(url) as owner:
        await owner.execute(
            f"UPDATE headrace.quota_windows SET parts = {expired}, alerts = {earlier} WHERE id = %s".encode(),
            [window["id"]],
        )
    [listed] = await rows(url, LISTED, tenant=desk.tenant)
    assert (listed["used"], listed["alerts"]) == (1, [])
    assert len(await quotas.spent()) == 1


async def test_budgets_are_the_soft_quotas_of_money_in_a_month(desk: Desk, url: str) -> None:
    quotas = OwnQuotas(url, desk)
    app = await desk.done("app.create", name="Guide")
    await desk.done("app.configure", app=app)
    await desk.done("message.send", app=app, query="?", user="eve")
    await desk.done("budget.set", name="all", scope="tenant", amount_usd=12.5)
    await desk.done("budget.set", name="eve", scope="user", subject="eve", amount_usd=3)
    await desk.done("budget.set", name="bob", scope="user", subject="bob", amount_usd=4)
    others: dict[str, dict[str, Any]] = {"hard": {"hard": True}, "day": {"period": "day"}, "calls": {"unit": "calls"}}
    others["zone"] = {"time_zone": "Europe/Berlin"}
    for name, fields in others.items():
        known: dict[str, Any] = {"unit": "money", "period": "month", "limit": 5, "hard": False}
        await desk.done("quota.set", name=name, **known | fields)
    await in_tables(url, quotas)
    query = "SELECT * FROM headrace.budgets WHERE tenant_id = %(tenant)s ORDER BY id"
    bob, _ = await desk.keys.last_person(desk.tenant, "bob")
    found = await rows(url, query, tenant=desk.tenant)
    assert [(row["id"], row["scope"], row["subject"], row["amount_usd"]) for row in found] == [
        ("all", "tenant", "", 12.5),
        ("bob", "user", bob, 4.0),
        ("eve", "user", "eve", 3.0),
    ]
    assert {type(row["created_at"]) for row in found} == {datetime}


OLD_TABLE = """
DROP VIEW headrace.budgets;
CREATE TABLE headrace.budgets (tenant_id text, id text, amount_usd double precision, PRIMARY KEY (tenant_id, id));
CREATE ROLE {login} LOGIN PASSWORD 'x';
GRANT USAGE ON SCHEMA headrace TO {login};
GRANT SELECT ON headrace.budgets TO {login};
"""


async def test_the_table_of_an_earlier_version_becomes_the_view_and_keeps_its_readers(
    database_url: str, tenant: str
) -> None:
    history = History()
    budget = Budget.begin(Budget.Set, "lab", history.now, scope="user", subject="ada", amount_usd=250.0)
    at = history.record(budget)
    async with following(database_url, history):
        await caught_up(database_url, history)
    login = f"reader_{tenant}"
    async with connect(database_url) as owner:
        await owner.execute(OLD_TABLE.format(login=login).encode())
    await set_up(database_url)
    query = f"""
    SELECT budgets.*, has_table_privilege('{login}', 'headrace.budgets', 'SELECT') AS kept,
        has_table_privilege('{TENANTS}', 'headrace.budgets', 'SELECT') AS tenants FROM headrace.budgets
    """
    [row] = await rows(database_url, query)
    assert row == {
        "tenant_id": "default",
        "id": "lab",
        "scope": "user",
        "subject": "ada",
        "amount_usd": 250.0,
        "created_at": at,
        "updated_at": at,
        "log_position": 1,
        "kept": True,
        "tenants": True,
    }
    await rebuild.rebuild(database_url, RecordedLog(history), recorded_files(history))
    assert await rows(database_url, query) == [row]
    async with connect(database_url) as owner:
        await owner.execute(f"DROP OWNED BY {login}; DROP ROLE {login}".encode())
