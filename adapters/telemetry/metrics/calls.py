"""The GenAI client metrics of OpenTelemetry, and those of calls of tools, observed from the log while it grows."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from prometheus_client import CollectorRegistry, Counter, Histogram

from adapters.jetstream.direct import DirectReader, sequence
from domain.log import EVENTS
from domain.models.model_call import ModelCall
from domain.tools.tool_call import ToolCall
from handlers.ports.log import Unavailable

log = structlog.get_logger(__name__)

SUBJECTS = tuple(f"evt.*.{noun.TOPIC}.*" for noun in (ModelCall, ToolCall))

SECONDS = tuple(0.01 * 2**step for step in range(14))
TOKENS = tuple(4**step for step in range(14))
"""Buckets of the conventions."""

OPERATIONS = {"chat": "chat", "embedding": "embeddings", "rerank": "rerank"}

OPEN = 100_000
"""Maximum number of open calls that are tracked; the oldest are dropped."""

MODELS = 200
"""Maximum number of models with metrics of their own; tenants choose names, so further ones count as one."""

OTHER = "_OTHER"

PAUSE_S = 1.0
"""Interval between two reads of the log, in seconds."""

CANCELLED = "cancelled"

_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


class Called(NamedTuple):
    """The called model: values of the labels of all metrics."""

    operation: str
    provider: str
    model: str


class CallMetrics:
    """Metrics of calls from the end of the log on; a call that was requested before is not counted."""

    def __init__(self, nc: Client, registry: CollectorRegistry) -> None:
        self._nc = nc
        self.registry = registry
        self._open: OrderedDict[str, Called] = OrderedDict()
        self._models: set[Called] = set()
        self._tools: OrderedDict[str, str] = OrderedDict()
        """Kinds of the toolsets of open calls of tools."""
        self.tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of a call that were sent (input) or came back (output).",
            (*_LABELS, "gen_ai_token_type"),
            buckets=TOKENS,
            registry=registry,
        )
        self.duration = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "Time from sending a call to its end, whatever that was.",
            (*_LABELS, "error_type"),
            buckets=SECONDS,
            registry=registry,
        )
        self.first_chunk = Histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Time from sending a call to its first token.",
            _LABELS,
            buckets=SECONDS,
            registry=registry,
        )
        self.per_chunk = Histogram(
            "gen_ai_client_operation_time_per_output_chunk_seconds",
            "Mean time between two tokens of an answer after the first, once for each call.",
            _LABELS,
            buckets=SECONDS,
            registry=registry,
        )
        self.ended = Counter(
            "headrace_model_calls_ended",
            "Calls that ended; error_type is empty when all went well, cancelled, or the code of the error.",
            (*_LABELS, "error_type"),
            registry=registry,
        )

        self.tools = Histogram(
            "headrace_tool_call_duration_seconds",
            "Time from the request of a call of a tool to its end, where it was made.",
            ("kind", "error_type"),
            buckets=SECONDS,
            registry=registry,
        )
        self.tools_ended = Counter(
            "headrace_tool_calls_ended",
            "Calls of tools that ended, by the kind of the toolset; error_type as for calls of models, or refused.",
            ("kind", "error_type"),
            registry=registry,
        )

    async def follow(self) -> None:
        """Observe new messages of the log until cancelled, through outages."""
        js, reader = self._nc.jetstream(timeout=5.0), DirectReader(self._nc, timeout_s=5.0)
        reached: dict[str, int] = {}
        while True:
            try:
                end = int((await js.stream_info(EVENTS)).state.last_seq)
                for subject in SUBJECTS:
                    after = reached[subject] = min(reached.get(subject, end), end)
                    for message in await reader.messages(EVENTS, subject, after=after) if after < end else ():
                        reached[subject] = sequence(message)
                        self.observe((message.headers or {})["Nats-Subject"], message.data)
            except (nats.errors.Error, Unavailable) as error:
                log.warning("metrics.waiting", reason=repr(error))
            await asyncio.sleep(PAUSE_S)

    def observe(self, subject: str, body: bytes) -> None:
        """Count the events of a commit. Texts of models are not read, so no key is needed."""
        call = subject.partition(".")[2]
        for event in orjson.loads(body):
            kind, state = event["type"].rpartition(".v")[0], event["state"]
            if kind == _stem(ModelCall.Requested):
                self._begin(call, state)
            elif kind in _ENDS and (called := self._open.pop(call, None)):
                self._end(called, kind, state)
            elif kind == _stem(ToolCall.Requested):
                self._tools[call] = state["kind"]
                if len(self._tools) > OPEN:
                    self._tools.popitem(last=False)
            elif kind in _TOOL_ENDS and (toolset := self._tools.pop(call, None)) is not None:
                self._end_tool(toolset, kind, state)

    def _begin(self, call: str, state: Mapping[str, Any]) -> None:
        called = Called(OPERATIONS.get(state["kind"], state["kind"]), state["provider"], state["model"])
        if called not in self._models and len(self._models) >= MODELS:
            called = Called(called.operation, OTHER, OTHER)
        self._models.add(called)
        self._open[call] = called
        if len(self._open) > OPEN:
            self._open.popitem(last=False)

    def _end(self, called: Called, kind: str, state: Mapping[str, Any]) -> None:
        error = CANCELLED if kind == _stem(ModelCall.Cancelled) else state.get("code") or ""
        self.ended.labels(*called, error).inc()
        if (duration := state["duration_ms"]) is not None:
            self.duration.labels(*called, error).observe(duration / 1000)
        if usage := state.get("usage"):
            self._usage(called, usage, state.get("first_token_ms"), duration)

    def _end_tool(self, toolset: str, kind: str, state: Mapping[str, Any]) -> None:
        error = CANCELLED if kind == _stem(ToolCall.Cancelled) else state.get("code") or ""
        self.tools_ended.labels(toolset, error).inc()
        if (duration := state.get("duration_ms")) is not None:
            self.tools.labels(toolset, error).observe(duration / 1000)

    def _usage(self, called: Called, usage: Mapping[str, Any], first: float | None, duration: float) -> None:
        self.tokens.labels(*called, "input").observe(usage["prompt_tokens"])
        if called.operation == "chat":
            self.tokens.labels(*called, "output").observe(usage["completion_tokens"])
        if first is not None:
            self.first_chunk.labels(*called).observe(first / 1000)
            if (further := usage["completion_tokens"] - 1) > 0:
                self.per_chunk.labels(*called).observe(max(0.0, duration - first) / 1000 / further)


def _stem(event: type[ModelCall.Event | ToolCall.Event]) -> str:
    """The name of an event without its version."""
    return event.TOPIC.rpartition(".v")[0]


_ENDS = {_stem(ModelCall.Completed), _stem(ModelCall.Failed), _stem(ModelCall.Cancelled)}
_TOOL_ENDS = {_stem(each) for each in (ToolCall.Completed, ToolCall.Failed, ToolCall.Refused, ToolCall.Cancelled)}
