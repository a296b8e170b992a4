"""`python -m ops.bench`: benchmarks with the raw limit and the aim of each figure."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import fields
from importlib import import_module

import psycopg
import uvloop
from rich.console import Console
from rich.progress import Progress

from ops import terminal
from ops.bench import report
from ops.bench.measure import Measure
from ops.bench.stack import Sizes, Stack, running

MEASURES = (
    *(
        "commands",
        "answer",
        "agent",
        "route",
        "plugin",
        "code",
        "workflow",
        "fairness",
        "connects",
        "search",
        "rebuild",
        "traces",
        "policies",
        "storage",
    ),
    *("ingest", "memory"),
)
"""In this order: ingest loads torch into this process, in which a rebuild runs too."""

ALONE = ("scale",)
"""Not part of `all`: too slow at a meaningful size."""

_HELP = {
    "rounds": "rounds of figure and limit; medians are reported",
    "commands": "commands per round",
    "singles": "commands sent one at a time",
    "questions": "questions per app",
    "seconds": "duration of embedding per round, at the speed of the limit",
    "ingest": "segments per round; 0: as many as the limit embeds in --seconds",
    "commits": "commits in the log to rebuild from",
    "calls": "model calls in the traces",
    "segments": "segments in the searched knowledge base",
    "searches": "searches per mode",
    "waiting": "messages of another tenant that wait for a slow provider",
    "large": "large commits of the measure memory",
    "connects": "connections to the bus per round",
}


def main() -> None:
    if sys.argv[1:2] == ["quality"]:  # it has options of its own
        sys.exit(import_module("ops.bench.quality").main(sys.argv[2:]))
    quality = "Search quality: python -m ops.bench quality --help"
    parser = argparse.ArgumentParser(prog="python -m ops.bench", description=__doc__, epilog=quality)
    parser.add_argument("what", choices=(*MEASURES, *ALONE, "all"))
    parser.add_argument("--json", action="store_true", help="print each measure as a line of JSON")
    parser.add_argument("--write", action="store_true", help="write the figures to docs/performance.md")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a figure misses its aim")
    for field in fields(Sizes):
        parser.add_argument(
            f"--{field.name}", type=type(field.default), default=field.default, help=_HELP[field.name], metavar="N"
        )
    options = vars(parser.parse_args())
    sizes = Sizes(**{field.name: options[field.name] for field in fields(Sizes)})
    names = MEASURES if options["what"] == "all" else (options["what"],)
    measures = uvloop.run(run(names, sizes, as_json=options["json"], write=options["write"]))
    if options["check"] and any(measure.met is False for measure in measures):
        sys.exit(1)


async def run(names: tuple[str, ...], sizes: Sizes, *, as_json: bool, write: bool) -> list[Measure]:
    measures: list[Measure] = []
    servers = ""
    with terminal.progress(Console(stderr=True), transient=True) as bars:
        for name in names:
            starting = bars.add_task(f"{name}: starting", total=None)
            async with running() as stack:
                bars.remove_task(starting)
                servers = servers or await _servers(stack)
                async for measure in _measured(name, stack, sizes, bars):
                    measures.append(measure)
                    if as_json:
                        print(json.dumps(measure.line(), ensure_ascii=False), flush=True)
            for task in bars.task_ids:
                bars.remove_task(task)
    if not as_json:
        Console().print(report.table(measures))
    if write:
        page = report.page(measures, sizes, servers, report.PAGE.read_text("utf-8"))
        report.PAGE.write_text(page, "utf-8")
    return measures


async def _measured(name: str, stack: Stack, sizes: Sizes, bars: Progress) -> AsyncIterator[Measure]:
    for measure in await import_module(f"ops.bench.{name}").measure(stack, sizes, bars):
        yield measure


async def _servers(stack: Stack) -> str:
    """The versions of the servers."""
    nats = stack.client.connection.connected_server_version
    async with await psycopg.AsyncConnection.connect(stack.settings.postgres_url) as connection:
        postgres = connection.info.server_version // 10000, connection.info.server_version % 10000
    return f"NATS {nats.major}.{nats.minor}.{nats.patch}, PostgreSQL {postgres[0]}.{postgres[1]}"


if __name__ == "__main__":
    main()
