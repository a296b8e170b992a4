"""Output of the command line: text for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

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

from adapters.jetstream.client import Outcome, rejection

out = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)


def emit(value: Any) -> None:
    """Print a value as one line of JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=as_text) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    show(Text(clean(text)))


def complain(text: str) -> None:
    """Print an error on standard error."""
    Console(stderr=True, highlight=False).print(Text(clean(f"✗ {text}"), "red"), soft_wrap=True)


def give_secret(text: str, outcome: Outcome, as_json: bool, **named: str | None) -> None:
    """Print a secret that is shown once, alone on standard output: a program can take it from a pipe.

    As JSON, the outcome has it in the fields `named`.
    """
    if as_json:
        emit(outcome | named)
        return
    Console(stderr=True, highlight=False).print(_accepted(outcome), soft_wrap=True)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show(what: Text | Table) -> None:
    out.print(what, soft_wrap=isinstance(what, Text))


def show_rows(names: list[str], rows: list[tuple[Any, ...]]) -> None:
    table = Table(*names)
    for row in rows:
        table.add_row(*(Text("" if value is None else clean(as_text(value))) for value in row))
    show(table)
    show(Text(f"{len(rows)} row{'' if len(rows) == 1 else 's'}", "dim"))


def show_listing(found: list[dict[str, Any]], columns: list[str], as_json: bool) -> None:
    """Print objects: with these columns, or each whole as JSON."""
    if as_json:
        for each in found:
            emit(each)
    else:
        show_rows(columns, [tuple(each[column] for column in columns) for each in found])


def show_fields(found: dict[str, Any], as_json: bool) -> None:
    """Print what is known of one thing, a line for each field."""
    if as_json:
        emit(found)
        return
    for name, value in found.items():
        if value is not None:
            say(f"{name:<16} {as_text(value)}")


def show_outcome(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        emit(outcome)
        return
    if outcome["status"] == "rejected":
        show(Text(clean(f"✗ {outcome['name']} was rejected: {rejection(outcome)}"), "red"))
        return
    show(_accepted(outcome))


def _accepted(outcome: Outcome) -> Text:
    ids = "  ".join(f"{noun} {id}" for noun, id in outcome["ids"].items())
    return Text("✓ ", "green") + Text(clean(f"{outcome['name']}  {ids}")) + Text(f"  #{outcome['sequence']}", "dim")


def bars(as_json: bool) -> Progress:
    """Progress bars on standard error; disabled for JSON and outside a terminal."""
    return progress(Console(stderr=True), disable=as_json or not sys.stderr.isatty(), transient=True)


def progress(console: Console, *, disable: bool = False, transient: bool = False) -> Progress:
    """Progress bars, each with the numbers done and in all and its time."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, disable=disable, transient=transient)


@contextmanager
def counting(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function of (name, done, total) that draws one progress bar per name."""
    with bars(as_json) as drawn:
        tasks: dict[str, TaskID] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = drawn.add_task(what, total=total)
            drawn.update(tasks[what], completed=done, total=total)

        yield advance


def as_text(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def one_line(error: Exception) -> str:
    """Message of an error, on one line."""
    return " ".join(str(error).split())


def clean(text: str) -> str:
    """The text without control characters, which could manipulate the terminal."""
    return "".join(char for char in text if char in "\n\t" or (ord(char) >= 32 and not 127 <= ord(char) < 160))
