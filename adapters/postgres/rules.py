"""The rules that made a table: for each table, a digest of the code that folds the log into it.

The digest is over the syntax trees of the table's module, of what that imports from `domain` and `projections`, and of
the engine and the writer. Comments, docstrings, texts of errors, comments of columns and the places of modules do not
count, so that neither prose nor a move has tables rebuilt.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.util import resolve_name
from pathlib import Path

import domain
import projections
from projections.engine import fold

_COMMENTED = frozenset({"ReadModel", "Column", "key", "required", "optional"})
"""Calls that take the comment of a table or a column."""

_GONE = object()
"""A piece of syntax that does not count."""


@dataclass(frozen=True, slots=True)
class Module:
    digest: str
    imports: frozenset[str]
    tables: tuple[str, ...]
    """Those that it defines."""


def digest(table: str) -> str:
    """The digest of the rules of a table. Raises: KeyError."""
    return digests()[table]


@cache
def digests() -> Mapping[str, str]:
    """The digests of all tables that a module below `projections` defines."""
    folders = [Path(package.__path__[0]) for package in (domain, projections)]
    sources = dict(source for folder in folders for source in _sources(folder))
    engine = *sorted(Path(fold.__file__).parent.glob("*.py")), Path(__file__).with_name("writer.py")
    return digests_of(sources, [file.read_text("utf-8") for file in engine])


def digests_of(sources: Mapping[str, str], engine: Iterable[str]) -> dict[str, str]:
    """The digests for these sources, by the names of their modules, and for those that all tables have in common."""
    modules = {name: _module(name, text, sources) for name, text in sources.items()}
    common = {_module("", text, sources).digest for text in engine}
    return {
        table: sha256("".join(sorted(common | _reached(modules, name))).encode()).hexdigest()[:32]
        for name, module in modules.items()
        for table in module.tables
    }


def _sources(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(folder.rglob("*.py")):
        parts = (folder.name, *file.relative_to(folder).with_suffix("").parts)
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file.read_text("utf-8")


def _reached(modules: Mapping[str, Module], name: str) -> set[str]:
    """The digests of a module and of all that it imports."""
    seen, left = set[str](), [name]
    while left:
        if (name := left.pop()) not in seen:
            seen.add(name)
            left.extend(modules[name].imports)
    return {modules[name].digest for name in seen}


def _module(name: str, text: str, known: Iterable[str]) -> Module:
    tree = ast.parse(text)
    package = name.rpartition(".")[0]
    inside, outside = set[str](), set[str]()
    for node in ast.walk(tree):
        for module, imported in _imports(node, package):
            if found := {module, f"{module}.{imported}"} & set(known):
                inside |= found
                outside.add(imported)
            else:
                outside.add(f"{module} {imported}")
    shape = repr((sorted(outside), _shape(tree)))
    return Module(sha256(shape.encode()).hexdigest(), frozenset(inside), tuple(_tables(tree)))


def _imports(node: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """Modules, and what is taken from them."""
    match node:
        case ast.Import(names):
            yield from ((alias.name, alias.asname or "") for alias in names)
        case ast.ImportFrom(module, names, level):
            source = resolve_name("." * level + (module or ""), package) if level else module or ""
            yield from ((source, alias.name) for alias in names)


def _tables(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.Assign(value=ast.Call(func=ast.Name("ReadModel"), args=[ast.Constant(str(name)), *_])):
                yield name


def _shape(node: object) -> object:
    """The node as lists and texts, the same for every version of Python: fields that are empty are left out."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(ast.Constant(str())):
            return _GONE
        case ast.Raise():
            return "Raise"
        case ast.Constant(value):
            return repr(value)
        case ast.Call(func=ast.Name(name) as func, args=args, keywords=keywords) if name in _COMMENTED:
            named = [word for word in keywords if word.arg != "comment"]
            return [name, _shape(func), _shape([each for each in args if not _prose(each)]), _shape(named)]
        case ast.AST():
            fields = ((name, value) for name, value in ast.iter_fields(node) if name not in ("ctx", "type_comment"))
            shapes = sorted((name, _shape(value)) for name, value in fields if value not in (None, []))
            return [type(node).__name__, *shapes]
        case list():
            return [shape for each in node if (shape := _shape(each)) is not _GONE]
    return repr(node)


def _prose(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier()
