"""The figures as a table in the terminal and as the page `docs/performance.md`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import dropwhile, takewhile
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from ops.bench.agent import COMMITS, ROUNDS
from ops.bench.answer import IN_FLIGHT
from ops.bench.machine import machine
from ops.bench.measure import Measure
from ops.bench.memory import LARGEST, READERS, SMALLEST
from ops.bench.stack import Sizes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"

MARKS = {None: "", True: "yes", False: "no"}


def table(measures: Sequence[Measure]) -> Table:
    grid = Table(title=machine(), title_style="dim", title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in _HEADER:
        right = name in ("figure", "limit", "ratio")
        grid.add_column(
            name, justify="right" if right else "left", no_wrap=name != "aim", min_width=14 * (name == "aim")
        )
    for measure in measures:
        colour = {None: "", True: "green", False: "red"}[measure.met]
        grid.add_row(*_cells(measure), style=colour)
    return grid


_HEADER = ("measure", "figure", "limit", "ratio", "unit", "aim", "met")


def _cells(measure: Measure) -> list[str]:
    figures = [_number(measure.value), _number(measure.limit), _number(measure.ratio)]
    return [measure.name, *figures, measure.unit, str(measure.aim or ""), MARKS[measure.met]]


def _number(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


GROUPS = (
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
    "verify",
    "traces",
    "policies",
    "storage",
    "ingest",
    "memory",
    "scale",
)


def page(measures: Sequence[Measure], chosen: Sizes, server_versions: str, before: str = "") -> str:
    """The page with these figures, and with those of other measures on the page `before` if the machine is the same."""
    when = " ".join([f"{datetime.now(UTC):%Y-%m-%d}", *_unusual(chosen)])
    rows = [f"| {' | '.join([*_cells(measure), when])} |" for measure in measures]
    fresh = {measure.name.partition(".")[0] for measure in measures}
    if machine() in before:
        rows += [row for row in _rows(before) if _group(row) not in fresh]
    rows.sort(key=lambda row: GROUPS.index(_group(row)))
    sizes = Sizes()
    parts = ", ".join(f"{name} {version(name)}" for name in ("nats-py", "faststream", "psycopg", "torch"))
    return f"""# Performance

Measured on {machine()}.
{server_versions}, {parts}. Everything ran on this one machine:
servers, workers and the measuring program, which takes its share of the cores.

| {" | ".join(_HEADER)} | when, and sizes other than below |
| --- | ---: | ---: | ---: | --- | --- | --- | --- |
{chr(10).join(rows)}

The limit is the result of the bare parts in the same run on the same servers, measured in turns with the figure, so
that a slow moment of the machine affects both. Figure and limit are medians of {sizes.rounds} rounds where there are
rounds; the ratio is the figure as a multiple of the limit.

- **commands**: `app.create`, published and acknowledged with 100 at once, {sizes.commands:,} a round, from the
  first publish to the last outcome. Limit: acknowledged JetStream publishes of the same bytes, 100 at once, to a
  stream with the same settings: on disk, synced before every acknowledgement. `p50` and `p95`:
  {sizes.singles:,} commands one at a time, each to its outcome. Limit: single acknowledged publishes. What the
  boundary between tenants costs each command: `import`, the publish by a service of a tenant, whose limit is the
  publish by a user of the account of the streams; `lookup`, whether the command has an outcome already; `codes`,
  signing a commit and an outcome and checking both; `boundary`, the sum of what these add, with `p50` as the limit.
- **answer**: from the publishing of `message.send` to the first token on the live subject, with the
  built-in model, which takes next to no time itself: what Headrace adds to a model's own time. {sizes.questions:,}
  questions one at a time, to an app without a knowledge base and (`retrieved`) to one with the handbook of the
  examples, where the question is embedded and searched for too. Limit: a NATS request to a worker and its reply.
  `at`: the median time at which a question reaches each stage; commits count as they reach the log. `stored`: the
  command is acknowledged; `asked`: it is decided; `begun`: a worker has begun the answer; `embed` and `embedded`: the
  request of the embedding call, and its end; `retrieval`: the passages found; `chat` and `said`: the request of the
  model's call, and its end. `rate`: answers per second, {IN_FLIGHT} questions at a time,
  {2 * sizes.questions:,} a round. Limit: publishes per second, as of `commands`, divided by `messages`, the messages
  that a question stores. `processor`: processor time of each process for a question meanwhile, until the tables show
  it.
- **agent**: from the end of a model's answer with a call of a tool to the request of the next round, without the time
  of the tool: what the loop of an agent adds to its model and its tools. {ROUNDS} rounds a question,
  {sizes.questions // 4} questions one at a time, with an instant model behind HTTP and the calculator. Limit: as many
  acknowledged publishes as a round waits for, {COMMITS}. `record`: from the record of a tool call to that of its end in
  the log, without the time of the tool; limit: a publish. `at`: the median time at which a round reaches each stage:
  `said`, the end of the model's call; `tool` and `result`, the request of the tool's call and its end; `next`, the
  request of the model's next call, as they reach the log; `request`, the next request at the model's server.
  `messages`: commits of calls for a round with a tool.
- **route**: time that a route of three models and two hard quotas add to a call of a model, with 10, 100 and 500 in
  flight in one process: to choose the model, to reserve in leases of the windows, to charge and to settle. `quota`: the
  quotas alone. The first leases are taken before.
- **plugin**: time that a filter of a plugin adds to a call of a model before it is recorded, with a prompt of two
  messages and 1,700 characters, one of which it changes: the round trip to its contained process and back, and the new
  request. `none`: the time to find out that there is no plugin. A monitor is not on the way of a call.
- **code**: a call of [code](code.md) of some ten lines, from the inputs to the result, in a process that waits for it:
  Python, JavaScript, and a template. `first`: the first call of a tenant, which takes a process that has served none.
- **workflow**: a run from its command to its end, with a start and an end node; limit: one command to its outcome.
  `runs`: in a second, 64 at a time; limit: commands. `pure` and `code`: a node more. `item`: an item of a parallel
  iteration over 1,000, each with a node without calls, or with a template; and the commits of the run with templates.
- **fairness**: the same time for the questions of one tenant, 50 of them, while messages of another one wait: 64, 1,000
  and {sizes.waiting:,} of them, and then ten each of {sizes.waiting // 100:,} tenants in addition. The provider of the
  others sends a token every five seconds, and does not end its answers. One worker answers. Limit: the same without
  other tenants.
- **connects**: connections to the bus with an API key, about which NATS asks a worker, {sizes.connects:,} a round, 16
  at once. Limit: those of a user that the server lists. `checks`: keys that a register of 100,000 checks in a second,
  from the text of a key to its permissions; `memory`: what the register takes.
- **search**: {sizes.segments:,} segments of real texts, docstrings of the installed packages, in a knowledge base of a
  database that holds nothing else; {sizes.searches:,} questions one at a time, each some words of a text, for ten hits.
  Vectors are synthetic, about as dense as a model's. Limit of `hybrid`: a hand-written statement with the same result,
  over a bare connection. `weighted`: hybrid as a weighted sum. `ten`: the same segments in ten
  knowledge bases, all asked about at once; limit: in one. `tenth`: one of the ten alone. `recall`: the share of the ten
  nearest segments, by comparison with all, that are among the ten that semantic search finds.
- **ingest**: texts whose segments are nearly full, from the first upload to the last searchable document:
  {f"{sizes.ingest:,} segments" if sizes.ingest else "as many as take the limit some time"} in a round. Limit:
  `SentenceTransformer.encode`, 32-bit numbers, batches of 32, all cores, over the same segments, for about
  {sizes.seconds:g} s, while everything else is idle. `tokeniser`: limit: segmenting and tokenising alone, on all cores.
  `extract`, `tokenise`, `embed`, `index` and `record`: processor time of each stage; limit: that of all, so that the
  ratio is the stage's share. `memory`: resident memory of the ingest and embed workers in the last quarter of the run;
  limit: in the second quarter. `question`: embedding a question during ingest; limit: on an idle system.
  `card`, with a GPU: limit: segments it could embed if it did nothing but multiply large matrices.
- **rebuild**: all tables from a log of {sizes.commits:,} commits of documents, conversations and model calls, and
  the outcomes of their commands. Limit: an ordered consumer that reads the same streams without decoding, then
  COPY of the same rows into tables without indexes.
- **verify**: `headrace verify` on the same log: every message is read once, audited, and folded into fresh tables for
  comparison. `verify.log`: the audit alone. Limit: reading the same streams without decoding.
- **traces**: {sizes.calls:,} synthetic model calls, as events in memory. `projected`: spans that the fold writes into
  the tables in a second, all tables together. The others are pages of the viewer over HTTP, from the request to the
  last byte, rendering included: the list (`size` in bytes, and as `sent` with gzip), a search for a word
  that is in every prompt and for some that are together in few, a trace of 1,000 and one of 10,000 spans.
- **policies**: row-level security, with the traces of {sizes.calls:,} model calls of two tenants: the newest 50 of one
  (`list`), those of them with a word that most traces have (`common`), and with four words that few have (`rare`), each
  {sizes.searches:,} times. `reader`: our own readers; `tenant`: an SQL login of the tenant; `gateway`: a door. Limit:
  the owner, to whom no policy applies. For tenants and doors, PostgreSQL does not use the index of words.
- **storage**: bytes that a question with retrieval takes, by stream and by table with its indexes, over
  {5 * sizes.questions:,} questions. `conversation`: bytes of a message in NATS in the last quarter of one with
  {2 * sizes.questions:,} questions; limit: in the second quarter. Prompts quote what is recorded already: see
  [prompts](prompts.md).
- **memory**: resident memory when idle, after a document and a question, by process with its children; shared pages are
  divided among the processes. `summed`: shared pages count in each process. `large_commits`: a NATS server after
  {sizes.large} messages of {SMALLEST / 1e6:g} to {LARGEST / 1e6:g} MB, read by {READERS} consumers; limit: its memory
  limit.

{_profile(before)}## Repeat it

```
make bench                                     # the table
.venv/bin/python -m ops.bench all --write      # this page
.venv/bin/python -m ops.bench ingest --write   # its rows of this page
.venv/bin/python -m ops.bench commands --json
.venv/bin/python -m ops.bench scale --commits 775000   # a million events; slow
```

Each measure starts servers and workers of its own, in a temporary folder. `--rounds`, `--commands`,
`--singles`, `--questions`, `--seconds`, `--ingest`, `--commits`, `--calls`, `--segments`, `--searches`,
`--waiting`, `--large` and `--connects` set the sizes; with `--check` the command exits with 1 if a figure misses its
aim. Compare ratios rather than figures: a shared machine changes from minute to minute. Another command measures the
quality of search: see [quality](quality.md).
"""


def _unusual(chosen: Sizes) -> list[str]:
    """Options that differ from their defaults."""
    usual = asdict(Sizes())
    return [f"--{name} {size:g}" for name, size in asdict(chosen).items() if size != usual[name]]


def _rows(page: str) -> list[str]:
    """Rows of its first table, without the header."""
    lines = dropwhile(lambda line: not line.startswith("| "), page.splitlines())
    return list(takewhile(lambda line: line.startswith("| "), lines))[2:]


def _profile(page: str) -> str:
    """The part of the page that is written by people: where time and memory go."""
    found = re.search(r"^## Where the .*?(?=^## Repeat it)", page, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def _group(row: str) -> str:
    return re.split(r"[ .]", row.removeprefix("| "), maxsplit=1)[0]
