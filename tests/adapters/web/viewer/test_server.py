"""Answers of the viewer when a server that it needs is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from nats.aio.client import Client
from psycopg.errors import QueryCanceled
from starlette.types import ASGIApp

from adapters.postgres import tables
from adapters.postgres.reader import login
from adapters.web.viewer.access import Access
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.server import create_app
from handlers.ports.log import Unavailable
from tests.adapters.web.viewer.site import text_of

SECRET = b"a secret of sixteen"
ACCESS = Access("the token of the tests", SECRET)


@asynccontextmanager
async def visiting(backend: Backend) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser that is logged in at a viewer of this desk."""
    app: ASGIApp = create_app(backend, ACCESS)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {ACCESS.token}", "Accept": "text/html"}
    async with backend, httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
        yield client


async def test_postgres_away(nc: Client) -> None:
    backend = Backend(nc, "postgresql://unknown@127.0.0.1:1/nothing")
    backend.pool.timeout = 0.1
    async with visiting(backend) as client:
        page = await client.get("/traces")
        assert page.status_code == 503
        assert "PostgreSQL does not answer" in text_of(page.text)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert (await client.get("/traces.json")).json()["error"] == "PostgreSQL does not answer"
        assert (await client.get("/healthz")).status_code == 503


async def test_the_operators_program_reads_the_tables_while_accounts_cannot_be_read(
    nc: Client, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Backend) -> None:
        raise Unavailable("NATS does not answer.")

    monkeypatch.setattr(Backend, "register", away)
    await tables.set_up(database_url)
    async with visiting(Backend(nc, database_url)) as client:
        assert (await client.get("/traces.json")).status_code == 200
        page = await client.get("/login", headers={"Authorization": ""})
        assert page.status_code == 503


async def test_nothing_is_set_up_and_then_it_is(nc: Client, database_url: str) -> None:
    async with visiting(Backend(nc, database_url)) as client:
        page = await client.get("/traces")
        assert page.status_code == 503
        assert "The tables are missing or outdated" in text_of(page.text)
        await tables.set_up(database_url)
        page = await client.get("/traces")
        assert page.status_code == 200
        assert "No traces yet" in text_of(page.text)


async def test_a_rebuild_swaps_the_tables_under_it(nc: Client, database_url: str) -> None:
    await tables.set_up(database_url)
    async with visiting(Backend(nc, await login(database_url, SECRET))) as client:
        for _ in range(8):
            assert (await client.get("/traces")).status_code == 200
        async with tables.connect(database_url) as connection:
            await connection.execute("ALTER TABLE headrace.traces ADD COLUMN another text")
        assert (await client.get("/traces")).status_code == 200


async def test_what_takes_too_long_is_given_up(nc: Client, database_url: str) -> None:
    backend = Backend(nc, database_url)
    async with backend, backend.reading(within_s=0.05) as connection:
        try:
            await connection.execute("SELECT pg_sleep(5)")
        except QueryCanceled:
            return
    raise AssertionError("it was not given up")


async def test_a_place_that_the_log_has_not(nc: Client, database_url: str) -> None:
    await tables.set_up(database_url)
    async with visiting(Backend(nc, database_url)) as client:
        page = await client.get("/log/999999")
        assert page.status_code == 404
        assert "has nothing at 999999 of the log" in text_of(page.text)
