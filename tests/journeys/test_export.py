"""Every call of a model gets to the tables and, once, to a collector: through kills, and an outage that never ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from adapters.telemetry.otlp.checkpoint import Checkpoints
from adapters.telemetry.otlp.endpoint import target
from adapters.trace_ids import span_id, trace_id
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from ops.upkeep.rebuild import rebuild
from tests.chat_servers import Exchange, FaultyServer, faulty_server
from tests.conftest import fresh_database
from tests.journeys.stack import Stack
from tests.otlp_receiver import Receiver, receiving, values
from tests.phoenix import NotInstalled, Phoenix, install, serving

MODEL = "gpt-x"
PRICES = """
[[price]]
provider = "lab"
input = 100
output = 1000
"""
COST = (7 * 100 + 2 * 1000) / 10**6
"""Of the tokens that the fake provider counts."""

KILLED = ("before the first token", "in the middle")
ASKED = ["one", "two", *KILLED, "refused", "three"]


class Provider:
    """Answers; but a question that must be killed only from the second time on, and the refused one never."""

    def __init__(self) -> None:
        self.hung: set[str] = set()

    async def __call__(self, exchange: Exchange) -> None:
        question = exchange.body["messages"][-1]["content"]
        if question == "refused":
            await exchange.fail(400, "I do not serve bob@example.com.")
        elif question in KILLED and question not in self.hung:
            if question == "in the middle":
                await exchange.begin()
                await exchange.say("Half of ")
            self.hung.add(question)
            await asyncio.Event().wait()
        else:
            await exchange.finish(f"You said {question}.")


@pytest.fixture(scope="module")
async def phoenix(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Phoenix]:
    """Phoenix, which is installed first; that takes a minute."""
    folder = tmp_path_factory.mktemp("phoenix")
    try:
        command = await install(folder)
    except NotInstalled as error:
        pytest.skip(f"Phoenix cannot be had here: {error}")
    async with serving(command, folder) as phoenix:
        yield phoenix
    await (await asyncio.create_subprocess_exec("rm", "-rf", folder)).wait()  # in a fifth of shutil's time


@pytest.fixture(scope="module")
async def provider() -> AsyncIterator[tuple[FaultyServer, Provider]]:
    behaviour = Provider()
    async with faulty_server(behaviour) as server:
        yield server, behaviour


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    """A collector that is away."""
    async with receiving() as receiver:
        await receiver.stop()
        yield receiver


def to(receiver: Receiver) -> dict[str, str]:
    """Variables of workers."""
    return {
        "HEADRACE_OTLP_ENDPOINT": receiver.url,
        "HEADRACE_OTLP_CONTENT": "masked",
        "HEADRACE_OTLP_INFRASTRUCTURE": "true",
    }


@pytest.fixture(scope="module")
async def stack(
    postgres: EmbeddedPostgres, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    home: Path = tmp_path_factory.mktemp("export")
    prices = home / "prices.toml"
    prices.write_text(PRICES)
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url, prices=prices)
        async with Stack.running(settings, ("commands", "answer")) as stack:
            await stack.spawn("project", HEADRACE_PRICES=str(prices), **to(receiver))
            await stack.spawn("export", **to(receiver))
            await stack.ready("project", "export")
            yield stack


@pytest.fixture(scope="module")
async def asked(stack: Stack, provider: tuple[FaultyServer, Provider], receiver: Receiver) -> Stack:
    """A Headrace that was asked, whose worker was killed in the middle of it, while the collector was away."""
    server, behaviour = provider
    await stack.send("provider.register", name="lab", base_url=server.url, key="sk-x")
    app = await stack.make("app.create", name="talker")
    await stack.send("app.configure", app=app, model={"provider": "lab", "name": MODEL})
    for question in ASKED:
        await stack.make("message.send", app=app, query=question, user="ann")
    ended = "SELECT id FROM headrace.messages WHERE status IN ('answered', 'failed')"
    await stack.until(ended, lambda rows: len(rows) == len(ASKED) - len(KILLED) == len(ASKED) - len(behaviour.hung))
    await stack.kill("answer")
    await stack.start("answer", **to(receiver))
    await stack.until(ended, lambda rows: len(rows) == len(ASKED))
    await stack.until("SELECT id FROM headrace.spans WHERE status = 'running'", lambda rows: not rows)
    return stack


async def recorded(stack: Stack) -> list[bytes]:
    """The ids of the spans that the tables have."""
    rows = await stack.sql(
        "SELECT tenant_id, id FROM headrace.spans UNION ALL SELECT tenant_id, id FROM headrace.traces"
    )
    return sorted(span_id(row["tenant_id"], row["id"]) for row in rows)


def sent(receiver: Receiver) -> list[Span]:
    """Return the spans of the record, without those of infrastructure."""
    return [span for about, span in receiver.spans if about["service.name"] == "headrace"]


def ids(spans: list[Span]) -> list[bytes]:
    return sorted(span.span_id for span in spans)


async def test_every_request_that_the_provider_got_is_a_recorded_call(
    asked: Stack, provider: tuple[FaultyServer, Provider]
) -> None:
    got = Counter(exchange.body["messages"][-1]["content"] for exchange in provider[0].requests)
    assert got == Counter([*ASKED, *KILLED])
    rows = await asked.sql(
        "SELECT status, error_code, sent.request #>> '{messages,-1,content}' AS question "
        "FROM headrace.model_calls JOIN headrace.model_call_requests sent USING (tenant_id, id)"
    )
    assert Counter(row["question"] for row in rows) == got
    lost = [row["question"] for row in rows if row["error_code"] == "lost"]
    assert Counter(lost) == Counter(KILLED)
    [traced] = await asked.sql("SELECT sum(model_calls) AS calls, sum(unknown_calls) AS unknown FROM headrace.traces")
    assert (traced["calls"], traced["unknown"]) == (got.total(), len(KILLED))


async def test_a_collector_that_was_away_gets_every_span_once(asked: Stack, receiver: Receiver) -> None:
    assert receiver.spans == []
    await receiver.start()
    expected = await recorded(asked)
    await receiver.until(lambda it: len(sent(it)) >= len(expected))
    assert ids(sent(receiver)) == expected

    calls = [span for span in sent(receiver) if span.name == f"chat {MODEL}"]
    assert len(calls) == len(ASKED) + len(KILLED)
    states = Counter(_values(span)["headrace.status"] for span in calls)
    assert states == {"ok": len(ASKED) - 1, "error": 1, "unknown": len(KILLED)}
    [refused] = [span for span in calls if _values(span).get("error.type") == "bad_request"]
    assert "bob@example.com" not in refused.status.message
    parents = {span.span_id: span for span in sent(receiver)}
    for span in sent(receiver):
        if span.parent_span_id:
            parent = parents[span.parent_span_id]
            assert parent.trace_id == span.trace_id
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
    roots = [span for span in sent(receiver) if not span.parent_span_id]
    assert len(roots) == len(ASKED)
    assert {len(span.trace_id) for span in roots} == {16}
    [found] = [all for all in map(_values, calls) if all.get("output.value") == "You said one."]
    assert found["gen_ai.usage.input_tokens"] == 7
    assert found["gen_ai.usage.cost"] == pytest.approx(COST)
    assert found["llm.input_messages.0.message.content"]


def _values(span: Span) -> dict[str, Any]:
    return values(span.attributes)


async def test_tables_that_are_rebuilt_are_not_sent_again(asked: Stack, receiver: Receiver) -> None:
    before = len(sent(receiver))
    await rebuild(asked.settings, [])
    await asked.kill("export")
    await asked.start("export", **to(receiver))
    message = await ask(asked, "once more")
    expected = await recorded(asked)
    await receiver.until(lambda it: any(span.trace_id == trace_id(asked.client.tenant, message) for span in sent(it)))
    assert ids(sent(receiver)) == expected
    assert len(expected) == before + 3
    [last] = await asked.sql("SELECT max(ended_sequence) AS sequence FROM headrace.spans")
    checkpoints = Checkpoints(asked.client.connection)
    async with asyncio.timeout(20):
        while (await checkpoints.get(target(receiver.url))).place.sequence != last["sequence"]:
            await asyncio.sleep(0.05)


async def ask(stack: Stack, question: str) -> str:
    """The id of a message that was answered."""
    [app] = await stack.sql("SELECT id FROM headrace.apps")
    message = await stack.make("message.send", app=app["id"], query=question)
    await stack.until("SELECT FROM headrace.messages WHERE id = %(id)s AND status = 'answered'", id=message)
    return message


async def test_infrastructure_is_in_the_traces_of_live_work_alone(asked: Stack, receiver: Receiver) -> None:
    message = await ask(asked, "what else")

    def own(it: Receiver) -> list[Span]:
        return [span for about, span in it.spans if about["service.name"] == "headrace-worker"]

    await receiver.until(
        lambda it: any(
            span.name == "handle answer" and span.trace_id == trace_id(asked.client.tenant, message) for span in own(it)
        )
    )
    # WITH is the query for the tenants, of whom only one may call this machine's models.
    known = {"handle answer", "publish EVENTS", "POST /chat/completions", "WITH"}
    assert {span.name for span in own(receiver)} <= known
    of_message = [span for span in own(receiver) if span.trace_id == trace_id(asked.client.tenant, message)]
    names = Counter(span.name for span in of_message)
    assert names["POST /chat/completions"] == 1
    assert names["publish EVENTS"] >= 3
    tops = {span.parent_span_id for span in of_message if span.name == "handle answer"}
    assert tops == {span_id(asked.client.tenant, message)}


@pytest.mark.long
async def test_phoenix_shows_models_messages_tokens_cost_and_sessions(asked: Stack, phoenix: Phoenix) -> None:
    """Another target gets all there is, from the beginning."""
    await asked.kill("export")
    await asked.start("export", HEADRACE_OTLP_ENDPOINT=phoenix.url, HEADRACE_OTLP_CONTENT="masked")
    expected = await recorded(asked)
    project = f"/v1/projects/headrace-{asked.tenant}"
    spans: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while len(spans) < len(expected):
            await asyncio.sleep(0.2)
            with suppress(HTTPError):  # there is no such project before its first span
                spans = await asyncio.to_thread(phoenix.ask, f"{project}/spans?limit=1000")
    assert sorted(span["context"]["span_id"] for span in spans) == [id.hex() for id in expected]
    calls = [span["attributes"] for span in spans if span["span_kind"] == "LLM"]
    [call] = [call for call in calls if call.get("output.value") == "You said two."]
    assert call["llm.model_name"] == MODEL
    assert call["llm.token_count.prompt"] == 7
    assert call["llm.token_count.total"] == 9
    assert call["llm.cost.total"] == pytest.approx(COST)
    assert call["llm.output_messages.0.message.content"] == "You said two."
    assert "two" in [value for name, value in call.items() if name.endswith("message.content")]
    talks = await asked.sql("SELECT id FROM headrace.conversations")
    sessions = await asyncio.to_thread(phoenix.ask, f"{project}/sessions?limit=1000")
    assert {session["session_id"] for session in sessions} == {talk["id"] for talk in talks}
    roots = [span for span in spans if not span["parent_id"]]
    assert {span["name"] for span in roots} == {"message.send"}
