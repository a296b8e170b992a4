"""Each measure at its smallest, on a Headrace of its own; the figures themselves do not matter here."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import import_module

import pytest
from rich.progress import Progress

from ops.bench import __main__ as bench
from ops.bench import report
from ops.bench.__main__ import ALONE, MEASURES
from ops.bench.answer import ORDER
from ops.bench.corpus import Corpus
from ops.bench.documents import sentences, written
from ops.bench.machine import machine
from ops.bench.measure import Aim, Measure, in_turns, percentile
from ops.bench.prose import passages
from ops.bench.search import MODES
from ops.bench.stack import Sizes, Stack, running
from ops.roles import ROLES

SMALLEST = Sizes(
    rounds=1,
    commands=10,
    singles=3,
    questions=2,
    seconds=0.2,
    commits=100,
    calls=60,
    segments=300,
    searches=3,
    waiting=100,
    large=3,
    connects=20,
)

NAMES = {
    "commands": ["commands", *(f"commands.{it}" for it in ("p50", "p95", "import", "lookup", "codes", "boundary"))],
    "answer": [
        *("answer.p50", "answer.p95"),
        *(f"answer.at.{stage}" for stage in ORDER if stage not in ("embed", "embedded", "retrieval")),
        *("answer.retrieved.p50", "answer.retrieved.p95"),
        *(f"answer.retrieved.at.{stage}" for stage in ORDER),
        *(
            f"{name}.{figure}"
            for name in ("answer", "answer.retrieved")
            for figure in (
                "rate",
                "messages",
                *(f"processor.{server}" for server in ("supervisor", "nats", "postgres")),
                *(f"processor.worker-{role}" for role in ROLES),
            )
        ),
    ],
    "agent": [
        *(f"agent.{figure}.p{percent}" for percent in (50, 95) for figure in ("round", "record")),
        *(f"agent.at.{stage}" for stage in ("said", "tool", "result", "next", "request")),
        "agent.messages",
    ],
    "route": [
        f"route{part}.p{percent}.of{number}"
        for number in (10, 100, 500)
        for percent in (50, 99)
        for part in ("", ".quota")
    ],
    "plugin": ["plugin.none.p50", "plugin.p50", "plugin.p95"],
    "code": [
        *(f"code.{language}.p{percent}" for language in ("python3", "javascript", "jinja2") for percent in (50, 95)),
        "code.first.p50",
    ],
    "workflow": [
        *(f"workflow.{figure}" for figure in ("empty.p50", "runs", "pure", "code")),
        *(f"workflow.{figure}" for figure in ("item", "item.template", "item.commits")),
    ],
    "fairness": ["fairness.alone", "fairness.64", "fairness.100", "fairness.1x10"],
    "connects": ["connects.key", "connects.checks", "connects.memory"],
    "search": [
        "search.pgvector.filled",
        *(f"search.pgvector.{mode}.p{percent}" for mode in MODES for percent in (50, 95)),
        "search.pgvector.ten.p50",
        "search.pgvector.tenth.p50",
        "search.pgvector.recall",
    ],
    "policies": [
        f"policies.{query}.{role}" for query in ("list", "common", "rare") for role in ("reader", "tenant", "gateway")
    ],
    "ingest": [
        "ingest",
        "ingest.tokeniser",
        *(f"ingest.{stage}" for stage in ("extract", "tokenise", "embed", "index", "record")),
        "ingest.memory",
        "ingest.question.p50",
    ],
    "rebuild": ["rebuild", "verify", "verify.log"],
    "traces": [
        "traces.projected",
        "traces.list.p50",
        "traces.list.p95",
        "traces.list.size",
        "traces.list.sent",
        *(f"traces.{page}.{figure}" for page in ("search.common", "search.rare") for figure in ("p50", "p95")),
        *(f"traces.{spans}.{figure}" for spans in (1000, 10_000) for figure in ("p50", "p95", "sent")),
    ],
    "scale": ["scale.rebuild", "scale.commands.p50"],
    "storage": [
        *("storage.nats", "storage.nats.EVENTS", "storage.nats.OUTCOMES", "storage.postgres", "storage.conversation"),
    ],
    "memory": [
        "memory",
        "memory.summed",
        "memory.supervisor",
        "memory.nats",
        "memory.postgres",
        *(f"memory.worker-{role}" for role in ROLES),
        "memory.large_commits",
    ],
}


def has_gpu() -> bool:
    import torch  # seconds, which the collection of tests would take in every process

    return torch.cuda.is_available()


LIMITED = (
    *("commands", "rate", "64", "100", "1x10", "ingest", "rebuild", "scale", "hybrid", "ten", "large_commits"),
    *("conversation", "policies", "key", "empty", "runs"),
)
"""Measures, and parts of one, that have a limit."""


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with running() as stack:
        yield stack
    assert not stack.settings.home.exists()


async def test_the_command_prints_lines_for_programs_only(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def the_one() -> AsyncIterator[Stack]:
        yield stack

    monkeypatch.setattr(bench, "running", the_one)
    await bench.run(("commands",), SMALLEST, as_json=True, write=False)
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == NAMES["commands"]


def test_the_command_takes_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    async def run(names: tuple[str, ...], sizes: Sizes, *, as_json: bool, write: bool) -> list[Measure]:
        asked.extend((names, sizes, as_json, write))
        return []

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(sys, "argv", ["bench", "commands", "--json", "--rounds", "1", "--commands", "10"])
    bench.main()
    assert asked == [("commands",), Sizes(rounds=1, commands=10), True, False]


@pytest.mark.parametrize(("value", "status"), [(0.98, None), (0.97, 1)])
def test_a_figure_that_misses_its_aim_can_fail(
    monkeypatch: pytest.MonkeyPatch, value: float, status: int | None
) -> None:
    async def run(*_: object, **__: object) -> list[Measure]:
        return [Measure("speed", 1, "ms"), Measure("search.pgvector.recall", value, "of 10", aim=Aim(at_least=0.98))]

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(sys, "argv", ["bench", "search", "--check"])
    if status is None:
        bench.main()
        return
    with pytest.raises(SystemExit) as caught:
        bench.main()
    assert caught.value.code == status


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in ("search", "ingest") else [])
        for name in sorted(NAMES, key=lambda name: name in ("rebuild", "scale"))  # which leave workers paused
    ],
)
async def test_a_measure_gives_complete_lines(stack: Stack, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_OPENSEARCH_URL", raising=False)
    with Progress(disable=True) as bars:
        measures: list[Measure] = await import_module(f"ops.bench.{name}").measure(stack, SMALLEST, bars)
    lines = [json.loads(json.dumps(measure.line())) for measure in measures]
    names = NAMES[name] + ["ingest.card"] * (name == "ingest" and has_gpu())
    grown = ("storage.postgres.", "storage.nats.KV_")  # of which a small run may or may not grow some
    lines = [line for line in lines if not line["name"].startswith(grown)]
    found = [line["name"] for line in lines]
    if name == "answer":  # stages come in the order in which questions reach them
        found, names = sorted(found), sorted(names)
    assert found == names
    for line in lines:
        assert set(line) == {"name", "value", "unit", "limit", "ratio", "aim", "met", "machine"}
        assert line["value"] > 0 or ".processor." in line["name"]
        assert line["unit"]
        assert line["machine"] == machine()
        limited = any(part in LIMITED for part in (name, *line["name"].split(".")))
        limited |= name in ("agent", "answer") and line["name"].endswith((".p50", ".p95"))
        assert (line["limit"] is not None) == (line["ratio"] is not None) == limited
        assert (line["aim"] is None) == (line["met"] is None)
        if line["limit"]:
            assert line["ratio"] == pytest.approx(line["value"] / line["limit"], rel=0.01)
    assert report.page(measures, SMALLEST, "NATS 2").count("\n| ") == 2 + len(measures)


def test_a_measure_alone_takes_the_place_of_its_rows() -> None:
    figures = [("memory", 1), ("memory.nats", 2), ("commands", 3), ("commands.p50", 4)]
    page = report.page([Measure(name, value, "MB") for name, value in figures], Sizes(), "NATS 2")
    again = [Measure("commands", 5, "commands/s")]

    def rows(page: str) -> list[list[str]]:
        return [line.split(" | ")[:2] for line in page.splitlines() if line.startswith("| ")][2:]

    known = [["| memory", "1"], ["| memory.nats", "2"]]
    assert rows(report.page(again, Sizes(), "NATS 2", page)) == [["| commands", "5"], *known]
    elsewhere = page.replace("GiB", "MiB")
    assert rows(report.page(again, replace(Sizes(), commands=7), "NATS 2", elsewhere)) == [["| commands", "5"]]
    assert "--commands 7 |" in report.page(again, replace(Sizes(), commands=7), "NATS 2")


def test_every_measure_is_tested() -> None:
    assert set(NAMES) == {*MEASURES, *ALONE}


def test_an_aim_says_what_it_takes() -> None:
    aim = Aim(at_least=1000, ratio=0.1)
    assert str(aim) == "≥ 0.1 × limit and ≥ 1,000"
    assert [
        Measure("x", value, "/s", limit, aim).met for value, limit in ((1000, 10_000), (999, 999), (1000, 10_001))
    ] == [
        True,
        False,
        False,
    ]
    assert [Measure("x", value, "ms", aim=Aim(at_most=15)).met for value in (15, 15.1)] == [True, False]
    assert Measure("x", 1, "ms").met is None


async def test_figures_are_medians_taken_in_turns() -> None:
    order: list[str] = []

    async def ours(number: int) -> float:
        order.append(f"ours {number}")
        return [1.0, 100.0, 3.0][number]

    async def limit(number: int) -> float:
        order.append(f"limit {number}")
        return [10.0, 30.0, 20.0][number]

    assert await in_turns(3, ours, limit) == (3.0, 20.0)
    assert order == ["ours 0", "limit 0", "ours 1", "limit 1", "ours 2", "limit 2"]
    assert [percentile([3.0, 1.0, 2.0], percent) for percent in (0, 50, 95, 100)] == [1.0, 2.0, 3.0, 3.0]


def test_written_documents_read_like_the_handbook_and_differ() -> None:
    assert written(7, 3) == written(7, 3) != written(8, 3)
    assert len(written(7, 3).split("\n\n")) == 3
    assert len(sentences()) > 50


@pytest.mark.long
def test_a_corpus_is_the_same_each_time_and_its_questions_have_near_segments() -> None:
    corpus, again = Corpus.made(500, 5), Corpus.made(500, 5)
    assert corpus.texts == again.texts == passages(500)
    assert (corpus.vectors == again.vectors).all()
    assert len(set(corpus.texts)) == 500
    for query in corpus.queries:
        near = corpus.vectors @ query.vector
        assert (near >= query.tenth).sum() == 10
        assert near.max() > 0.3 > near.mean()
