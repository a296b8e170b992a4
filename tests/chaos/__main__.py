"""`python -m tests.chaos`: a storm over a whole Headrace, and the proof that it lost nothing and did nothing twice."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom

import structlog
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from tests.chaos import report
from tests.chaos.plan import Round
from tests.chaos.report import Report
from tests.chaos.trial import Passed, Say, trial


@contextmanager
def progress(rounds: int, *, silent: bool) -> Iterator[tuple[Say, Passed]]:
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=silent, transient=True) as bars:
        task = bars.add_task("storm", total=rounds)

        def passed(round: Round) -> None:
            hit = ", ".join(f"{blow.kind} {blow.target}" for blow in round.blows)
            bars.update(task, completed=round.number, description=hit)

        began = time.monotonic()

        def say(text: str) -> None:
            if not silent:
                bars.console.print(f"{time.monotonic() - began:6.1f} s  {text}", style="dim", highlight=False)

        yield say, passed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, metavar="N")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="the same makes the same storm")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in this folder, and leave it there")
    parser.add_argument("--write", action="store_true", help="write the figures to docs/reliability.md")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    seed = SystemRandom().randrange(10**6) if options.seed is None else options.seed
    home = (options.keep or Path(tempfile.mkdtemp(prefix="headrace-chaos-", dir=_disk()))).resolve()
    home.mkdir(parents=True, exist_ok=True)
    if any(home.iterdir()):
        parser.error(f"--keep: {home} is not empty; two storms in one folder would spoil each other's servers")
    # So that nothing is left behind: a process in the background of a shell ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with progress(options.rounds, silent=options.json) as (say, passed):
        say(f"seed {seed}, {options.rounds} rounds, in {home}")
        try:
            found = uvloop.run(trial(home, seed, options.rounds, say, passed))
        except KeyboardInterrupt:
            _say_kept(home, seed, options.rounds)
            sys.exit(130)
        except Exception:
            _say_kept(home, seed, options.rounds)
            raise
    if options.json:
        sys.stdout.write(json.dumps(found.line(), ensure_ascii=False) + "\n")
    else:
        _show(found)
    if options.write:
        report.write(found)
    if found.good and not options.keep:
        shutil.rmtree(home)
    if not found.good:
        _say_kept(home, seed, options.rounds)
        sys.exit(1)


def _say_kept(home: Path, seed: int, rounds: int) -> None:
    Console(stderr=True).print(f"Kept in {home}. Again: make chaos ROUNDS={rounds} SEED={seed}", soft_wrap=True)


def _show(found: Report) -> None:
    console = Console(highlight=False)
    console.print(report.table(found))
    for finding in found.findings[:50]:
        console.print(Text(finding.kind, "red") + Text(f" {finding.what}", ""), soft_wrap=True)


def _disk() -> str | None:
    """A folder on a disk, where the one for temporary files may be in memory."""
    return "/var/tmp" if Path("/var/tmp").is_dir() else None


if __name__ == "__main__":
    main()
