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

from ops.client import Commit, Frame, Outcome
from ops.settings import Settings

if TYPE_CHECKING:
    from handlers.audit import Check
    from ops.doctor import Finding

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


def show_addresses(settings: Settings) -> None:
    record = settings.running()
    for name in ("nats_url", "postgres_url"):
        show(Text(f"  {name.removesuffix('_url'):<9} {record.get(name, '')}", "dim"))
    show(Text(f"  logs      {settings.home / 'log'}", "dim"))
    show(Text(f"  viewer    {settings.viewer}"))


def show(what: Text | Table) -> None:
    out.print(what, soft_wrap=isinstance(what, Text))


def show_rows(names: list[str], rows: list[tuple[Any, ...]]) -> None:
    table = Table(*names)
    for row in rows:
        table.add_row(*(Text("" if value is None else clean(as_text(value))) for value in row))
    show(table)
    show(Text(f"{len(rows)} row{'' if len(rows) == 1 else 's'}", "dim"))


def show_retrieval(made: dict[str, Any], texts: dict[str, tuple[str, str]]) -> None:
    """What was found, best first; `texts` are the document's name and the text of each segment."""
    table = Table("rank", "score", "semantic", "full text", "fused", "reranked", "document", "page", "text")
    for hit in made["hits"]:
        name, text = texts.get(hit["segment"], ("", ""))
        score = hit["score"] if hit["rerank_score"] is None else hit["rerank_score"]
        ranks = [hit[name] for name in ("semantic_rank", "full_text_rank", "fusion_rank", "rerank_rank")]
        cells = [hit["rank"] or hit["dropped"], f"{score:.4f}", *ranks, name, hit["page"], " ".join(text.split())[:80]]
        style = None if hit["rank"] else "dim"
        table.add_row(*(Text("" if cell is None else clean(str(cell))) for cell in cells), style=style)
    show(table)
    for fault in made["faults"]:
        show(Text(clean(f"Without the {fault['step']}: {fault['code']}"), "yellow"))
    if made["code"]:
        show(Text(clean(f"✗ {made['code']} {made['reason']}"), "red"))
    only = "" if made["documents"] is None else f" in {made['documents']} documents"
    show(Text(f"{len(made['hits'])} found{only} in {made['duration_ms']:.0f} ms; retrieval {made['id']}", "dim"))


def show_outcome(outcome: Outcome) -> None:
    if outcome["status"] == "rejected":
        message, field = str(outcome["message"]), outcome.get("field")
        place = f" ({field})" if field and not message.startswith(field) else ""
        show(Text(clean(f"✗ {outcome['name']} was rejected{place}: {message}"), "red"))
        return
    ids = "  ".join(f"{noun} {id}" for noun, id in outcome["ids"].items())
    show(Text("✓ ", "green") + Text(clean(f"{outcome['name']}  {ids}")) + Text(f"  #{outcome['sequence']}", "dim"))


def show_document(document: dict[str, Any]) -> None:
    """A line of an upload."""
    mark = Text("✗ ", "red") if document["status"] in ("rejected", "error") else Text("✓ ", "green")
    show(mark + Text(clean(f"{document['name']}  {document['document'] or ''}  {document['status']}")))
    if document["reason"]:
        show(Text(clean(f"  {document['reason']}"), "red"))


def show_preview(answer: dict[str, Any]) -> None:
    """The segments as a text would be cut into them, children below their parents."""
    for segment in answer["segments"]:
        indent = "" if segment["parent"] is None else "  "
        page = f"page {segment['page']}" if segment["page"] else None
        place = " · ".join(filter(None, (f"{segment['tokens']} tokens", page, segment["heading"])))
        show(Text(clean(f"{indent}{segment['position']}  {place}"), "dim"))
        for text in filter(None, (segment["content"], segment["answer"])):
            show(Text(clean("\n".join(f"{indent}   {line}" for line in text.splitlines()))))
    total, read = answer["total_segments"], answer["previewed_characters"]
    whole = "" if read == answer["characters"] else f" of the first {read:,} of {answer['characters']:,} characters"
    show(Text(f"{total} segment{'' if total == 1 else 's'}{whole}, {answer['tokens']:,} tokens", "dim"))


def show_finding(finding: Finding) -> None:
    mark = Text("✓ ", "green") if finding.good else Text("✗ ", "red")
    show(mark + Text(f"{finding.what:<24}", "bold") + Text(clean(finding.found)))
    if finding.advice:
        show(Text(f"  → {finding.advice}", "yellow"))


def show_checks(checks: list[Check]) -> None:
    """What was verified, then every fault in words, with what repairs it."""
    table = Table("", "", "Checked", "Faults")
    for check in checks:
        mark = Text("✗", "red") if check.faults else Text("✓", "green")
        table.add_row(mark, check.promise, f"{check.checked:,}", f"{check.faults:,}")
    show(table)
    for check in checks:
        for sentence in check.first:
            show(Text("✗ ", "red") + Text(f"{check.name}  ", "bold") + Text(clean(sentence)))
        if check.faults > len(check.first):
            show(Text(f"  and {check.faults - len(check.first):,} more", "dim"))
        if check.faults:
            show(Text(f"  → {check.repair}", "yellow"))


def show_commit(commit: Commit) -> None:
    for event in commit.events:
        line = Text(f"{commit.sequence:>8}  {commit.at}  ", "dim") + Text(event["type"], "bold")
        show(line + Text(clean(f"  {commit.noun} {commit.id}")))


class AnswerPrinter:
    """Prints an answer as it grows."""

    def __init__(self) -> None:
        self.printed = ""
        self.attempt = 1

    def show(self, frame: Frame) -> None:
        match frame["type"]:
            case "restarted" | "token" if frame["attempt"] > self.attempt:
                self._write("\n[again]\n" if self.printed else "")
                self.attempt, self.printed = frame["attempt"], ""
                self.show(frame)
            case "token":
                self.printed += frame["text"]
                self._write(frame["text"])
            case "answered" | "stopped":
                rest = frame["answer"].removeprefix(self.printed)
                self._write(f"\n{rest}\n" if self.printed and rest == frame["answer"] else f"{rest}\n")
                for citation in frame.get("citations", []):
                    show_citation(citation)
            case "failed":
                self._write("\n" if self.printed else "")
                show(Text(clean(f"✗ no answer ({frame['code']}): {frame['reason']}"), "red"))
        if frame["type"] == "stopped":
            show(Text("stopped", "yellow"))

    def _write(self, text: str) -> None:
        out.print(Text(clean(text)), end="", soft_wrap=True)


def show_citation(citation: dict[str, Any]) -> None:
    place = [f"page {citation['page']}"] if citation["page"] else []
    place += [citation["heading"]] if citation["heading"] else []
    source = ", ".join([citation["document_name"], *place])
    show(Text(clean(f"  [{citation['position']}] {source}: “{citation['sentence']}”"), "dim"))


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
