from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client
from prometheus_client import CollectorRegistry

from adapters.jetstream.codec import encode_commit
from adapters.jetstream.store import JetStreamEventStore
from adapters.telemetry.metrics import calls as module
from adapters.telemetry.metrics.calls import OTHER, CallMetrics
from domain.aggregate import new_id
from domain.log import Metadata, Subject
from domain.models.model_call import ModelCall
from tests.projections.history import History

USAGE: Any = {
    "prompt_tokens": 100,
    "completion_tokens": 11,
    "estimated": False,
    "cached_tokens": None,
    "cache_write_tokens": None,
    "reasoning_tokens": None,
    "raw": {},
}


def requested(model: str = "gpt-x", kind: str = "chat") -> ModelCall:
    request = {"messages": [{"role": "user", "pieces": [{"text": "Said in private."}]}]}
    what: Any = {"kind": kind, "provider": "openai", "model": model, "request": request}
    return ModelCall.begin(
        ModelCall.Requested, new_id(), datetime.now(UTC), cause_noun="message", cause_id=new_id(), attempt=1, **what
    )


def complete(call: ModelCall, usage: Any = USAGE, first: float | None = 250.0) -> None:
    timing: Any = {"first_token_ms": first, "duration_ms": 1250.0}
    call.complete(datetime.now(UTC), response="Yes.", finish_reason="stop", usage=usage, **timing)


def observe(metrics: CallMetrics, call: ModelCall, tenant: str = "t") -> None:
    body, _ = encode_commit(call.pending(), Metadata(new_id(), tenant, new_id()))
    metrics.observe(f"evt.{tenant}.model_call.{call.id}", body)


@pytest.fixture
def metrics() -> CallMetrics:
    return CallMetrics(Client(), CollectorRegistry())


def value(
    metrics: CallMetrics, name: str, operation: str = "chat", model: str = "gpt-x", **labels: str
) -> float | None:
    provider = OTHER if model == OTHER else "openai"
    all = {
        "gen_ai_operation_name": operation,
        "gen_ai_provider_name": provider,
        "gen_ai_request_model": model,
        **labels,
    }
    return metrics.registry.get_sample_value(name, all)


def test_a_call_is_counted_when_it_ended(metrics: CallMetrics) -> None:
    call = requested()
    observe(metrics, call)
    assert value(metrics, "headrace_model_calls_ended_total", error_type="") is None
    complete(call)
    observe(metrics, call)
    assert value(metrics, "headrace_model_calls_ended_total", error_type="") == 1
    duration = "gen_ai_client_operation_duration_seconds"
    assert value(metrics, f"{duration}_sum", error_type="") == 1.25
    assert value(metrics, f"{duration}_bucket", error_type="", le="0.64") == 0
    assert value(metrics, f"{duration}_bucket", error_type="", le="1.28") == 1
    assert value(metrics, "gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 100
    assert value(metrics, "gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 11
    assert value(metrics, "gen_ai_client_operation_time_to_first_chunk_seconds_sum") == 0.25
    assert value(metrics, "gen_ai_client_operation_time_per_output_chunk_seconds_sum") == pytest.approx(0.1)


def test_the_buckets_are_those_of_the_conventions() -> None:
    assert module.SECONDS[0] == 0.01
    assert module.SECONDS[-1] == pytest.approx(81.92)
    assert module.TOKENS[-1] == 67_108_864


def test_an_embedding_has_no_output(metrics: CallMetrics) -> None:
    call = requested("minilm", "embedding")
    complete(call, USAGE | {"completion_tokens": 0}, None)
    observe(metrics, call)
    assert value(metrics, "gen_ai_client_token_usage_sum", "embeddings", "minilm", gen_ai_token_type="input") == 100
    assert value(metrics, "gen_ai_client_token_usage_sum", "embeddings", "minilm", gen_ai_token_type="output") is None
    assert value(metrics, "gen_ai_client_operation_time_to_first_chunk_seconds_sum", "embeddings", "minilm") is None


def test_a_failure_has_its_code(metrics: CallMetrics) -> None:
    failed, lost, cancelled = requested(), requested(), requested()
    at = datetime.now(UTC)
    failed.fail(at, code="rate_limited", reason="Slow down.", response="", duration_ms=20.0)
    lost.fail(at, code="lost", reason="The worker died.", response="", duration_ms=None)
    cancelled.cancel(at, response="", duration_ms=30.0)
    for call in (failed, lost, cancelled):
        observe(metrics, call)
    ends = [value(metrics, "headrace_model_calls_ended_total", error_type=code) for code in ("rate_limited", "lost")]
    assert ends == [1, 1]
    assert value(metrics, "headrace_model_calls_ended_total", error_type="cancelled") == 1
    assert value(metrics, "gen_ai_client_operation_duration_seconds_count", error_type="rate_limited") == 1
    assert value(metrics, "gen_ai_client_operation_duration_seconds_count", error_type="lost") is None


def test_tokens_of_a_call_that_does_not_end_are_counted(metrics: CallMetrics) -> None:
    failed, cancelled = requested(), requested()
    at = datetime.now(UTC)
    failed.fail(at, code="broken_off", reason="Gone.", response="Ye", usage=USAGE, duration_ms=20.0)
    cancelled.cancel(at, response="Ye", usage=USAGE, duration_ms=30.0)
    for call in (failed, cancelled):
        observe(metrics, call)
    for kind in ("input", "output"):
        assert value(metrics, "gen_ai_client_token_usage_count", gen_ai_token_type=kind) == 2


def test_a_call_of_a_tool_is_counted_by_the_kind_of_its_toolset(metrics: CallMetrics) -> None:
    history = History()
    done, refused, lost, faulty = (history.tool_call("m", held=number == 1) for number in range(4))
    at = datetime.now(UTC)
    done.complete(at, text="5", parts=[], duration_ms=250.0)
    refused.refuse(at, code="refused", reason="No.")
    lost.fail(at, code="lost", reason="The worker died.", duration_ms=None)
    faulty.fail(at, code="invalid_arguments", reason="No city.", duration_ms=None)
    for message, call in zip(history.messages, (done, refused, lost, faulty), strict=True):
        for events in (message.events, call.pending()):
            body, _ = encode_commit(events, Metadata(new_id(), "t", new_id()))  # type: ignore[arg-type]
            metrics.observe(f"evt.t.tool_call.{call.id}", body)
    ended = {
        code: metrics.registry.get_sample_value(
            "headrace_tool_calls_ended_total", {"kind": "builtin", "error_type": code}
        )
        for code in ("", "refused", "lost", "invalid_arguments")
    }
    assert ended == dict.fromkeys(ended, 1)
    duration = "headrace_tool_call_duration_seconds_sum"
    assert metrics.registry.get_sample_value(duration, {"kind": "builtin", "error_type": ""}) == 0.25
    assert metrics.registry.get_sample_value(duration, {"kind": "builtin", "error_type": "lost"}) is None


def test_models_beyond_the_limit_are_counted_as_one(metrics: CallMetrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODELS", 2)
    for model in ("a", "b", "c", "d", "a"):
        call = requested(model)
        complete(call)
        observe(metrics, call)
    name = "headrace_model_calls_ended_total"
    assert value(metrics, name, model="a", error_type="") == 2
    assert value(metrics, name, model="c", error_type="") is None
    assert value(metrics, name, model=OTHER, error_type="") == 2


def test_what_never_ends_is_forgotten_in_the_end(metrics: CallMetrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN", 1)
    first, second = requested(), requested()
    for call in (first, second):
        observe(metrics, call)
        complete(call)
    observe(metrics, first)
    observe(metrics, second)
    assert value(metrics, "headrace_model_calls_ended_total", error_type="") == 1


@pytest.fixture
async def following(nc: Client, metrics: CallMetrics) -> AsyncIterator[CallMetrics]:
    """Metrics that follow the log, in which there was a call before."""
    before = requested()
    complete(before)
    await append(nc, before)
    metrics._nc = nc
    task = asyncio.create_task(metrics.follow())
    yield metrics
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def append(nc: Client, call: ModelCall) -> None:
    metadata = Metadata(new_id(), "t", new_id())
    await JetStreamEventStore(nc).append(Subject("t", "model_call", call.id), call.pending(), metadata, 0)


async def test_what_comes_to_the_log_from_now_on_is_counted(nc: Client, following: CallMetrics) -> None:
    seen = 0.0
    async with asyncio.timeout(20):
        while not seen:  # until it has begun to follow
            call = requested()
            complete(call)
            await append(nc, call)
            await asyncio.sleep(0.05)
            seen = value(following, "headrace_model_calls_ended_total", error_type="") or 0
    written = int((await nc.jetstream().stream_info("EVENTS")).state.last_seq)
    assert seen < written
    call = requested("later")
    complete(call)
    await append(nc, call)
    async with asyncio.timeout(20):
        while value(following, "headrace_model_calls_ended_total", model="later", error_type="") != 1:
            await asyncio.sleep(0.02)
