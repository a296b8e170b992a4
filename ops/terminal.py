"""What the command line prints: lines for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from adapters.jetstream.client import Outcome
from domain.aggregate import sentence

if TYPE_CHECKING:
    pass


out = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)


def emit(value: Any) -> None:
    """A line of JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=as_text) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    show(Text(clean(text)))


def complain(text: str) -> None:
    """A sentence on standard error."""
    Console(stderr=True, highlight=False).print(Text(clean(f"✗ {text}"), "red"), soft_wrap=True)


def show(what: Text | Table) -> None:
    out.print(what, soft_wrap=isinstance(what, Text))


def show_rows(names: list[str], rows: list[tuple[Any, ...]]) -> None:
    table = Table(*names)
    for row in rows:
        table.add_row(*(Text("" if value is None else clean(as_text(value))) for value in row))
    show(table)
    show(Text(f"{len(rows)} row{'' if len(rows) == 1 else 's'}", "dim"))


def show_outcome(outcome: Outcome) -> None:
    if outcome["status"] == "rejected":
        said = sentence(str(outcome["message"]), outcome.get("field"))
        show(Text(clean(f"✗ {outcome['name']} was rejected: {said}"), "red"))
        return
    ids = "  ".join(f"{noun} {id}" for noun, id in outcome["ids"].items())
    show(Text("✓ ", "green") + Text(clean(f"{outcome['name']}  {ids}")) + Text(f"  #{outcome['sequence']}", "dim"))


def bars(as_json: bool) -> Progress:
    """Progress bars on standard error; none for programs."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=as_json or not sys.stderr.isatty(), transient=True)


@contextmanager
def counting(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """What is to be told a name, how much is done and how much there is: a bar a name."""
    with bars(as_json) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield advance


def as_text(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def one_line(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())


def clean(text: str) -> str:
    """The text without control characters, which could take over the terminal."""
    return "".join(char for char in text if char in "\n\t" or (ord(char) >= 32 and not 127 <= ord(char) < 160))
