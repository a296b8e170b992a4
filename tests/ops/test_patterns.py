"""Every pattern of the code takes linear time on every text, whichever way it is used.

A pattern that backtracks over a run freezes its process on a few kilobytes of a stranger's text: `re` holds the
interpreter's lock. Each pattern is run over texts that are made from its own structure: what comes before a repeat, the
repeat many times, and an ending that it does not expect.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice, product
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from types import FrameType, ModuleType
from typing import Any, NamedTuple

import pytest

import adapters
import domain
import handlers
import ops
import projections
from adapters.segmenting.segmenter import WIDTHS

CODE = (domain, handlers, projections, adapters, ops)

QUICK, SHORT, LONG = 6000, 20_000, 60_000
"""Lengths of the texts, in characters: of the first look, and of the two that are compared."""

QUICK_S = 0.004
"""CPU time of a first look, in seconds, from which a text is measured: far above linear, far below quadratic."""

MOST_GROWTH = 5.5
"""Growth of the time from the short to the long text, which is three times as long: linear is 3, quadratic is 9."""

MOST_PER_CHARACTER = 5e-6
"""CPU time in seconds: a bounded repeat at every character is linear, but may be as slow."""

LIMIT_S = 0.4
"""CPU time at which a run ends."""

TRIES = 2
"""Number of measurements of which the shortest counts: other processes disturb it."""

PUMPS = 90
"""Maximum number of pumps of a pattern that come from pairs of its characters."""

OFTEN = 30
"""Number of repetitions from which a repeat counts as long."""

ENDINGS = ("", "\0", "a", " ", "\n", ".")

MADE: dict[tuple[str, str], list[re.Pattern[Any]]] = {
    ("adapters.segmenting.segmenter", "_divided"): [re.compile(re.escape(text)) for text in ("\n", "---", "a b")],
    ("adapters.segmenting.segmenter", "_pieces"): [
        re.compile(rf"\S.{{0,{width - 1}}}(?!\S)|\S{{1,{width}}}", re.DOTALL) for width in WIDTHS
    ],
    ("adapters.tools.openapi.schema", "_understood"): [],
    ("handlers.commands.response_schema", "_check_pattern"): [],
    ("ops.bench.collection", "_sgml"): [],
    ("projections.values.masking", "patterns"): [],
}
"""Examples of the patterns that functions make, by module and function; none of those that an operator wrote or that
read an operator's files, nor of tenants' schemas, which run in contained processes within a time limit."""


class Found(NamedTuple):
    """A pattern; `use` is the one that the source makes of it, "" for any."""

    place: str
    pattern: re.Pattern[Any]
    use: str = ""


@cache
def modules() -> list[ModuleType]:
    names = [
        module.name
        for package in CODE
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.endswith("__main__")
    ]
    return [*CODE, *(importlib.import_module(name) for name in names)]


def held(value: object, seen: set[int]) -> Iterator[re.Pattern[Any]]:
    """The patterns in a value: itself, or within containers, classes and the defaults of functions."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, Mapping):
        for inner in (*value.keys(), *value.values()):
            yield from held(inner, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from held(inner, seen)
    elif isinstance(value, type) and value.__module__.partition(".")[0] in {package.__name__ for package in CODE}:
        for inner in vars(value).values():
            yield from held(inner, seen)


def written(module: ModuleType) -> Iterator[tuple[str, ast.expr, ast.Call]]:
    """The functions (by name) of a module that use `re.…`, and the patterns and calls there."""
    file = module.__file__
    assert file
    with open(file, encoding="utf-8") as source:
        tree = ast.parse(source.read())

    def within(node: ast.AST, function: str) -> Iterator[tuple[str, ast.expr, ast.Call]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and node.func.attr not in ("escape", "purge", "error")
        ):
            yield function, node.args[0], node
        for inner in ast.iter_child_nodes(node):
            yield from within(inner, function)

    yield from within(tree, "")


@cache
def collected() -> list[Found]:
    """All patterns, each once: those that modules hold, and those that the source writes."""
    found: dict[tuple[re.Pattern[Any], str], str] = {}
    for module in modules():
        for name, value in vars(module).items():
            for pattern in held(value, set()):
                found.setdefault((pattern, ""), f"{module.__name__}.{name}")
        for function, expression, call in written(module):
            for pattern in evaluated(module, function, expression, call):
                if (pattern, "") not in found:
                    found.setdefault((pattern, used(call)), f"{module.__name__}:{call.lineno}")
    return [Found(place, *key) for key, place in found.items()]


def used(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    return call.func.attr if call.func.attr in ("match", "fullmatch") else ""


def evaluated(module: ModuleType, function: str, expression: ast.expr, call: ast.Call) -> list[re.Pattern[Any]]:
    """The pattern of a call, from what its module knows; examples of one that its function makes."""
    flags = [keyword.value for keyword in call.keywords if keyword.arg == "flags"]
    assert isinstance(call.func, ast.Attribute)
    at = {"compile": 1, "match": 2, "search": 2, "fullmatch": 2, "findall": 2, "finditer": 2, "split": 3, "sub": 4}
    flags += call.args[at[call.func.attr] :]

    def value(node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), module.__name__, "eval"), dict(vars(module)))

    try:
        return [re.compile(value(expression), *map(value, flags[:1]))]
    except NameError:
        if not function:
            return []  # in a loop of the module, which holds what it makes
        assert (module.__name__, function) in MADE, (
            f"{module.__name__}.{function} makes a pattern of its own: give examples of it in MADE."
        )
        return MADE[module.__name__, function]


def characters(tree: Iterable[Any]) -> dict[str, None]:
    """Characters that a pattern treats differently."""
    found: dict[str, None] = {}
    for op, value in tree:
        for inner in inner_trees(op, value):
            found |= characters(inner)
        if op in (sre.LITERAL, sre.NOT_LITERAL):
            found[chr(value)] = None
        elif op is sre.IN:
            found |= dict.fromkeys(members(value))
        elif op is sre.ANY:
            found["a"] = None
    return found


def inner_trees(op: Any, value: Any) -> list[Any]:
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        return [value[2]]
    if op is sre.BRANCH:
        return list(value[1])
    if op is sre.SUBPATTERN:
        return [value[3]]
    if op is sre.ATOMIC_GROUP:
        return [value]
    if op in (sre.ASSERT, sre.ASSERT_NOT):
        return [value[1]]
    return []


def members(items: Iterable[Any]) -> list[str]:
    """Some characters of a set; of a negated one, some that it lacks, and others."""
    found: list[str] = []
    for op, value in items:
        if op is sre.LITERAL:
            found.append(chr(value))
        elif op is sre.RANGE:
            found += [chr(value[0]), chr(value[1])]
        elif op is sre.CATEGORY:
            found += {
                sre.CATEGORY_SPACE: [" ", "\n"],
                sre.CATEGORY_DIGIT: ["1"],
                sre.CATEGORY_WORD: ["a", "_"],
            }.get(value, ["a", "-", "\n"])
    return found


def example(tree: Iterable[Any], variant: int) -> str:
    """A text that matches a tree, nearly: assertions and references are not heeded."""
    return "".join(part(op, value, variant) for op, value in tree)


def part(op: Any, value: Any, variant: int) -> str:
    match op:
        case sre.LITERAL:
            return chr(value)
        case sre.NOT_LITERAL | sre.ANY:
            return "ab"[variant % 2]
        case sre.IN:
            fitting = [sign for sign in (*members(value), *'a1 -.\n"é') if among(sign, value)]
            return fitting[variant % len(fitting)] if fitting else "a"
        case sre.BRANCH:
            return example(value[1][variant % len(value[1])], variant)
        case sre.SUBPATTERN:
            return example(value[3], variant)
        case sre.ATOMIC_GROUP:
            return example(value, variant)
        case sre.MAX_REPEAT | sre.MIN_REPEAT | sre.POSSESSIVE_REPEAT:
            least, most, inner = value
            return example(inner, variant) * int(max(least, min(variant % 2, most)))
    return ""


def among(sign: str, items: Iterable[Any]) -> bool:
    code = ord(sign)
    negated, inside = False, False
    for op, value in items:
        if op is sre.NEGATE:
            negated = True
        elif op is sre.LITERAL:
            inside |= code == value
        elif op is sre.RANGE:
            inside |= value[0] <= code <= value[1]
        elif op is sre.CATEGORY:
            classes = {"SPACE": r"\s", "DIGIT": r"\d", "WORD": r"\w"}
            name = str(value).removeprefix("CATEGORY_")
            hit = re.match(classes[name.removeprefix("NOT_")], sign) is not None
            inside |= hit != name.startswith("NOT_")
    return inside != negated


def repeats(tree: Iterable[Any], before: str, variant: int) -> Iterator[tuple[str, str]]:
    """Each long repeat of a pattern: a text before it, and one of its body."""
    for op, value in tree:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT) and value[1] >= OFTEN:
            yield before, example(value[2], variant) or "a"
        for inner in inner_trees(op, value):
            yield from repeats(inner, before, variant)
        before += part(op, value, variant)


def texts(pattern: re.Pattern[Any]) -> dict[tuple[str, str, str], None]:
    """The beginning of a text, the part that is repeated after it, and the end."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    tree = sre_parser.parse(
        source, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags
    )
    made: dict[tuple[str, str], None] = {}
    for variant in range(4):
        for before, body in repeats(tree, "", variant):
            made |= dict.fromkeys([(before, body), ("", before + body), (before + body, before), (before, body + " ")])
        made["", example(tree, variant)] = None
    signs = list(islice(dict.fromkeys((*characters(tree), "a", " ", "\n", ".", "1", "\0")), 24))
    pairs = (one + other for one, other in product(signs, signs) if one != other)
    found = dict.fromkeys((*pumped, ending) for pumped, ending in product(made, ENDINGS) if pumped[1])
    return found | dict.fromkeys(("", body, ending) for body, ending in product((*signs, *islice(pairs, PUMPS)), "\0a"))


class TooSlow(Exception):
    pass


def cpu_time(run: Callable[[], object]) -> float:
    """CPU time of a run in seconds, `LIMIT_S` when it takes longer: `re` heeds signals."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    former = signal.signal(signal.SIGPROF, end)
    began = time.thread_time()
    try:
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        run()
    except TooSlow:
        return LIMIT_S
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)
    return time.thread_time() - began


def slow(run: Callable[[str], object], before: str, body: str, ending: str) -> str | None:
    """The growth of the time of a run with the length of its text, where it is more than linear."""

    def text(length: int) -> str:
        return before + body * (length // len(body)) + ending

    if any(cpu_time(lambda: run(text(QUICK))) < QUICK_S for _ in range(2)):
        return None
    short = long = LIMIT_S
    for _ in range(TRIES):
        short = min(short, cpu_time(lambda: run(text(SHORT))))
        long = min(long, cpu_time(lambda: run(text(LONG))))
        if long < min(short * MOST_GROWTH, LONG * MOST_PER_CHARACTER):
            return None
    return f"{SHORT:,} characters take {short:.4f} s, {LONG:,} take {long:.4f} s"


def faults(pattern: re.Pattern[Any], use: str = "") -> Iterator[str]:
    def search(text: str) -> None:
        for _ in pattern.finditer(encoded(text)):
            pass

    def encoded(text: str) -> Any:
        return text if isinstance(pattern.pattern, str) else text.encode("latin-1", "replace")

    ways: dict[str, Callable[[str], object]] = {
        "finditer": search,
        "match": lambda text: pattern.match(encoded(text)),
        "fullmatch": lambda text: pattern.fullmatch(encoded(text)),
    }
    for (before, body, ending), way in product(texts(pattern), [use] if use else ("finditer", "fullmatch")):
        if growth := slow(ways[way], before, body, ending):
            yield f"{way} of {before!r} + {body!r} * n + {ending!r}: {growth}"


def test_every_pattern_takes_linear_time() -> None:
    found = {pattern.place: next(faults(pattern.pattern, pattern.use), None) for pattern in collected()}
    assert len(found) > 100
    assert {place: fault for place, fault in found.items() if fault} == {}


@pytest.mark.parametrize(
    "pattern",
    [r"\s+$", r"a+b", r"(a+)+b", r"(?:a|a)*b", r"[.!?]+\s", r"x[^y]*y", r"\w+@\w", r"(\w+\s?)*$", r"a*a*b"],
)
def test_the_pump_finds_what_backtracks(pattern: str) -> None:
    assert next(faults(re.compile(pattern)), None)


@pytest.mark.parametrize("pattern", [r"(?<!\s)\s++$", r"(?<!a)a++b", r"[.!?]{1,8}+\s", r"\w++", r"[^y]*", r"a{1,20}b"])
def test_the_pump_spares_what_does_not(pattern: str) -> None:
    assert next(faults(re.compile(pattern)), None) is None


def test_no_example_is_left_over() -> None:
    made = {(module.__name__, function) for module in modules() for function, *_ in written(module)}
    assert MADE.keys() <= made
