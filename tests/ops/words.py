"""Words that code and documents avoid, counted by folder: `python -m tests.ops.words [ROOT]`."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("domain", "handlers", "projections", "adapters", "ops")
FOLDERS = (*CODE, "tests", "docs", "examples")
"""A file of the top level counts under its own name."""

WORDS = {
    "nobody": "name the subject: no worker, an operator, the caller",
    "anew": "again, new, re-",
    "beside": "next to, in addition to",
    "so many": "the number and its unit: at most, maximum",
    "told": "states, returns, metadata",
    "on record": "recorded",
    "by hand": "manually, edited",
    "whoever": "name the subject",
    "somebody": "name the subject",
    "forsaken": "orphaned",
    "unsettled": "needs sync",
    "is to be": "must, will",
    "are to be": "must, will",
    "so often": "the number and its unit",
}
"""Each with the plain words for it."""

WORST = ("nobody", "anew", "beside", "so many", "told", "on record", "by hand")

OPENING = "What …"
"""A docstring, or a meaning in the reference, that opens with a relative clause where a noun or an imperative would
do."""

_OPENINGS = re.compile(r"(What|Who|Whoever|How|Whether)\b(?! to\b)")

ALLOWED = (
    r"Every outside call is on record before it is sent",
    r"every model call (is )?on record( before it is sent)?",
    r"document\.unsettled",
    r"\bUnsettled\b",
    r"[`\"]nobody[`\"]",
    r":by hand:",
)
"""The slogan, names of stored events, a user of the system, and a stored step: these stay as they are."""

SUFFIXES = {
    ".conf", ".css", ".example", ".html", ".js", ".md", ".mjs", ".py", ".sh", ".svg", ".toml", ".xml", ".yaml",
}  # fmt: skip

SKIPPED = (
    "tests/golden",
    "tests/ops/words.py",
    "tests/ops/test_words.py",
    "examples/handbook",
    "examples/make_pdfs.py",
)
"""Stored events, this list, and the texts of the handbook that the examples ask about."""

_ALLOWED = re.compile("|".join(ALLOWED), re.IGNORECASE)
_GENERATED = re.compile(r"<!-- generated: \w+ -->.*?<!-- end -->", re.DOTALL)
_MEANING = re.compile(r"^\| `.*\| ([^|]+) \|$", re.MULTILINE)
"""The last cell of a row about something that has a name."""
_GAP = r"[\s_#*/-]+"
_PATTERNS = {word: re.compile(f"(?<![a-z]){word.replace(' ', _GAP)}(?![a-z])", re.IGNORECASE) for word in WORDS}


def files(root: Path) -> Iterator[Path]:
    """Texts of the project; generated parts of documents follow from the code and are left out by `count`."""
    tops = [path for path in root.iterdir() if path.is_file() and (path.suffix in SUFFIXES or path.name == "Makefile")]
    inner = [path for folder in FOLDERS for path in (root / folder).rglob("*") if path.suffix in SUFFIXES]
    for path in sorted([*tops, *inner]):
        place = path.relative_to(root).as_posix()
        if path.is_file() and not place.startswith(SKIPPED) and "node_modules" not in path.parts:
            yield path


def found(path: Path) -> Iterator[tuple[int, str]]:
    """Line and word of each use in a file, with the openings of docstrings in Python."""
    source = path.read_text()
    text = _ALLOWED.sub(_blank, _GENERATED.sub(_blank, source))
    for word, pattern in _PATTERNS.items():
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, word
    if path.suffix == ".py":
        yield from ((line, OPENING) for line, doc in docstrings(source) if _OPENINGS.match(doc))
    if path.suffix == ".md":
        yield from ((line, OPENING) for line, meaning in meanings(source) if _OPENINGS.match(meaning))


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Strings that stand alone as a statement: those of modules, classes and functions, and those below a constant."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(value := getattr(statement.value, "value", None), str):
                yield statement.lineno, value.strip()


def meanings(source: str) -> Iterator[tuple[int, str]]:
    """Descriptions in a page: those of commands, events, fields, tables, columns, settings and metrics."""
    for match in _MEANING.finditer(source):
        yield source.count("\n", 0, match.start()) + 1, match[1]
    for part in _GENERATED.finditer(source):
        start = source.count("\n", 0, part.start()) + 1
        yield from ((start + number, line) for number, line in enumerate(part[0].splitlines()))


def count(root: Path = ROOT) -> dict[str, Counter[str]]:
    """Uses by folder and word."""
    counts = {folder: Counter[str]() for folder in FOLDERS}
    for path in files(root):
        folder = path.relative_to(root).parts[0]
        counts.setdefault(folder, Counter()).update(word for _, word in found(path))
    return counts


def table(counts: dict[str, Counter[str]]) -> str:
    """A line a folder, a column a word, and the sums of the worst seven."""
    columns = [*WORDS, OPENING]
    lines = ["".join([f"{'':<12}", *(f"{word:>11}" for word in columns)])]
    for place in (place for place in counts if counts[place]):
        lines.append("".join([f"{place:<12}", *(f"{counts[place][word]:>11}" for word in columns)]))
    code, everywhere = (sum(counts[place][word] for place in places for word in WORST) for places in (CODE, counts))
    return "\n".join([*lines, "", f"The worst seven ({', '.join(WORST)}): {code} in code, {everywhere} in all.", ""])


if __name__ == "__main__":
    sys.stdout.write(table(count(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)))
