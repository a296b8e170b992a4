from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import nats
import psycopg
import pytest
from nats.aio.client import Client
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from adapters.jetstream.streams import set_up as make_streams
from adapters.postgres.tables import set_up
from adapters.telemetry.metrics import state
from adapters.telemetry.metrics.page import Metrics
from adapters.telemetry.metrics.state import FIGURES
from adapters.telemetry.otlp.checkpoint import Checkpoints
from adapters.telemetry.otlp.ended import Place
from adapters.web.viewer.access import Access
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.server import create_app
from domain.aggregate import new_id
from ops.servers.embedded import EmbeddedNats

TARGET = "http://host:4318/v1/traces"


@pytest.fixture
async def backend(nc: Client, module_database_url: str) -> AsyncIterator[Backend]:
    await set_up(module_database_url)
    async with Backend(nc, module_database_url) as backend:
        yield backend


@pytest.fixture
def metrics(nc: Client, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Metrics:
    monkeypatch.setattr(state, "FRESH_S", 0.0)
    return Metrics(nc, backend.reading, TARGET)


async def figures(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """The values by name and labels, in the order of their names."""
    text = (await metrics.page()).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_page_says_how_everything_is(nc: Client, metrics: Metrics, module_database_url: str) -> None:
    js = nc.jetstream()
    await js.publish("cmd.t.anon.app.create", b"{}", headers={"Headrace-Id": new_id()})
    await js.publish("out.t.x", json.dumps({}).encode())
    checkpoints = Checkpoints(nc)
    await checkpoints.put((await checkpoints.get(TARGET)).moved(Place(7, 0, "x"), sent=41, set_aside=2))
    found = await figures(metrics)
    assert found["headrace_up", "nats"] == found["headrace_up", "postgresql"] == 1
    assert found["headrace_queue_waiting", "commands"] == 1
    assert found["headrace_queue_in_hand", "commands"] == 0
    assert found["headrace_stream_messages", "COMMANDS"] == 1
    assert found["headrace_log_missing_messages", "EVENTS"] == 0
    assert found["headrace_projector_lag_messages", "work", "OUTCOMES"] == 1
    assert 0 < found["headrace_projector_lag_seconds", "work", "OUTCOMES"] < 60
    assert found["headrace_projector_lag_seconds", "chat", "EVENTS"] == 0
    assert found["headrace_projector_halted", "chat"] == 0
    assert found["headrace_dead_letters",] == 0
    assert found["headrace_open_calls",] == found["headrace_unknown_calls",] == 0
    assert found["headrace_export_sent_spans_total",] == 41
    assert found["headrace_export_refused_spans_total",] == 2
    assert found["headrace_export_waiting_spans",] == found["headrace_export_lag_seconds",] == 0
    of_quotas = {"headrace_budget_usd", "headrace_budget_used_usd", "headrace_quota_alerted_percent"}
    assert {name for name, *_ in found} >= FIGURES.keys() - of_quotas


async def test_a_budget_is_there_with_what_is_spent_of_it(metrics: Metrics, module_database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(module_database_url, autocommit=True) as connection:
        await connection.execute(
            """
            INSERT INTO headrace.quotas (tenant_id, id, set_by, name, scope, subject, unit, period, time_zone, rolling,
                most, hard, log_position, created_at, updated_at)
            VALUES ('t', 'tenant/all', 'tenant', 'all', 'tenant', '', 'money', 'month', 'UTC', 0, 10, false, 1, now(),
                now()),
                ('t', 'tenant/small', 'tenant', 'small', 'model', 'm', 'money', 'month', 'UTC', 0, 2, false, 1, now(),
                now());
            INSERT INTO headrace.quota_windows (tenant_id, id, quota_id, scope, subject, unit, period, time_zone,
                rolling, begins_at, ends_at, granted, used, parts, leases, alerts, log_position, created_at, updated_at)
            SELECT 't', quota, 'tenant/' || quota, 'model', 'm', 'calls', period, 'UTC', rolling,
                now() - interval '2 h', ends, 0, 0, '{}', '{}', jsonb_build_array(
                    jsonb_build_object('percent', 50, 'at', now() - interval '3 minutes'),
                    jsonb_build_object('percent', 80, 'at', now() - interval '61 minutes')
                ), 1, now(), now()
            FROM (VALUES ('small', 'month', 0, now() + interval '1 h'), ('rolls', 'hour', 1, NULL),
                ('quiet', 'minute', 2, NULL), ('past', 'hour', 0, now() - interval '1 h')
            ) w (quota, period, rolling, ends)
            """
        )
    found = await figures(metrics)
    assert found["headrace_budget_usd", "all", "t"] == 10
    assert found["headrace_budget_used_usd", "all", "t"] == 0
    assert found["headrace_budget_usd", "small", "t"] == 2
    alerted = {key[1]: found[key] for key in found if key[0] == "headrace_quota_alerted_percent"}
    assert alerted == {"tenant/small": 80, "tenant/rolls": 50}


async def test_the_viewer_serves_it_to_those_who_have_the_token(metrics: Metrics, backend: Backend) -> None:
    token = "a token of the test"
    app = create_app(backend, Access(token, b"key"), metrics)

    def ask(**headers: str) -> tuple[int, str, str]:
        answer = TestClient(app, "http://localhost").get("/metrics", headers=headers, follow_redirects=False)
        return answer.status_code, answer.headers["content-type"], answer.text

    metrics.state._until = time.monotonic() + 60
    status, kind, text = await asyncio.to_thread(ask, authorization=f"Bearer {token}")
    assert status == 200
    assert kind.startswith("text/plain; version=")
    assert "# HELP headrace_up 1 when the server answers, else 0." in text
    status, _, text = await asyncio.to_thread(ask)
    assert status != 200
    assert "headrace_up" not in text


async def test_many_scrapes_are_one_question(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "FRESH_S", 60.0)
    asked = 0
    ask = metrics.state._nats

    async def count(samples: state.Samples) -> object:
        nonlocal asked
        asked += 1
        return await ask(samples)

    monkeypatch.setattr(metrics.state, "_nats", count)
    pages = await asyncio.gather(*(metrics.page() for _ in range(20)))
    assert asked == 1
    assert len({*pages}) == 1


async def test_a_server_that_is_down_delays_no_other(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "FRESH_S", 0.0)
    monkeypatch.setattr(state, "PATIENCE_S", 0.5)

    async def quiet(error: Exception) -> None: ...

    async with EmbeddedNats(tmp_path) as server:
        nc = await nats.connect(server.url, error_cb=quiet, max_reconnect_attempts=-1)
        await make_streams(nc.jetstream())
        metrics = Metrics(nc, backend.reading)
        assert (await figures(metrics))["headrace_up", "nats"] == 1
    began = time.monotonic()
    found = await figures(metrics)
    assert time.monotonic() - began < 2.5
    assert found["headrace_up", "nats"] == 0
    assert found["headrace_up", "postgresql"] == 1
    assert ("headrace_queue_waiting", "commands") not in found
    await backend.pool.close()
    assert (await figures(metrics))["headrace_up", "postgresql"] == 0
    with suppress(ConnectionError):
        await nc.close()
