"""Markdown: blocks of CommonMark and tables, without the markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from adapters.documents.formats import html, tables
from adapters.documents.formats.encodings import decode
from adapters.documents.formats.links import linked
from adapters.documents.formats.parsed import (
    BREAK,
    Outline,
    Parsed,
    Piece,
    clean,
    lowered,
    one_line,
    raised,
    unbroken,
)

_FRONT_MATTER = re.compile(
    r"\A\s*+(?:---[^\S\n]*+\n(.*?\n)(?:---|\.\.\.)|\+\+\+[^\S\n]*+\n(.*?\n)\+\+\+)[^\S\n]*+(?:\n|$)", re.DOTALL
)
_TITLE = re.compile(r"^title[^\S\n]*+[:=](.*)\n?", re.MULTILINE)
_FIELD = re.compile(r"\A(?:\s*+#.*\n)*+\s*+\w[\w -]*+[:=]")
_NOTE = re.compile(r"^( {0,3})\[\^([^\]\n]{1,100})\]:", re.MULTILINE)
"""A footnote, which CommonMark would take for the address of a link."""

_ATTRIBUTES = re.compile(r"(?<!\s)\s*+\{[#.:][^{}\n]{0,200}\}\s*+$")
"""The name and the classes of a heading."""

_FORMULA = re.compile(
    r"\\\((?!\s)(?:[^\\]|\\(?![()])){1,500}+\\\)|\\\[(?=\s)(?:[^\\]|\\(?![\[\]])){1,2000}+(?<=\s)\\\]"
    r"|\$\$[^$]{1,2000}+\$\$|\$(?![\s\d])[^$\n]{1,300}+(?<!\s)\$(?!\d)"
)
"""TeX, whose signs are no markup."""

_LINE = re.compile(r"\n(?=[ ]{0,3}(?:[+|]|:[ ]|:::|!!!))|(?<=[|+])\n")
"""The end of a line next to one of a table, a definition or a box of other dialects."""

_STAR = "\1"
_TIMES = re.compile(f"(?<=[0-9]){_STAR}+(?=[0-9])")
"""Stars between digits, which are a sign of arithmetic rather than of emphasis."""

_TAG = re.compile(r"<(/?)([a-zA-Z][\w-]*+)(/?>)?")
_ELEMENTS = frozenset(
    re.findall(
        r"\S+",
        """
        a abbr b bdi bdo big br cite code data del details dfn div em font i img input ins kbd label mark p picture q rb
        rp rt ruby s samp small source span strike strong sub summary sup table td th time tr tt u ul var wbr
        """,
    )
)
"""Elements whose tags are markup; others are words in angle brackets, such as the name of a value."""


def read(data: bytes) -> Parsed:
    text, warnings = decode(data)
    text = clean(text)
    title = None
    outline = Outline()
    pieces: list[Piece] = []
    if (front := _FRONT_MATTER.match(text)) and _FIELD.match(fields := front[1] or front[2]):
        title = found[1].strip().strip("\"'") or None if (found := _TITLE.search(fields)) else None
        text = text[front.end() :]
        if others := _TITLE.sub("", fields, count=1).strip():
            pieces.append(Piece(others))
    text = _NOTE.sub(r"\1\[^\2\]:", text)
    parser = MarkdownIt("commonmark", {"maxNesting": 200}).enable("table")
    parser.inline.ruler.before("escape", "formula", _formula)
    for block, level in _blocks(parser.parse(text), text.split("\n"), warnings):
        if level:
            block = _ATTRIBUTES.sub("", block)
            outline.enter(level, one_line(block))
            title = title or one_line(block)
        pieces.append(Piece(one_line(block) if level else block, None, outline.path))
    return Parsed(pieces, None, title, warnings)


def _formula(state: StateInline, silent: bool) -> bool:
    """A rule of the parser: a formula is text as it stands."""
    if state.src[state.pos] not in "\\$" or not (found := _FORMULA.match(state.src, state.pos)):
        return False
    if not silent:
        state.pending += found[0]
    state.pos = found.end()
    return True


def _blocks(tokens: Sequence[Token], lines: Sequence[str], warnings: list[str]) -> Iterator[tuple[str, int]]:
    """The texts of the blocks of these lines, each with its level as a heading, 0 for none."""
    level, mark = 0, ""
    rows: list[list[str]] | None = None
    for token in tokens:
        match token.type:
            case "heading_open":
                level = int(token.tag[1])
            case "list_item_open":
                mark = f"{token.info}{token.markup} " if token.info else "- "
            case "table_open":
                rows = []
            case "tr_open" if rows is not None:
                rows.append([])
            case "table_close" if rows is not None:
                headers = 0 if tables.is_form(rows) else 1  # a table has a header by its syntax
                yield from ((piece.text, 0) for piece in tables.pieces(rows, several=False, headers=headers))
                rows = None
            case "inline" if rows is not None:
                rows[-1].append(one_line(_inline(token)))
            case "inline":
                if text := _inline(token).strip():
                    yield mark + text, level
                    mark = ""
                level = 0
            case "fence" | "code_block":
                if text := token.content.strip("\n"):
                    yield text, 0
            case "hr":
                yield lines[token.map[0]].strip(" >") if token.map else "---", 0
            case "html_block":
                yield from ((piece.text, 0) for piece in html.pieces(token.content, warnings))


def _inline(token: Token) -> str:
    parts: list[str] = []
    links: list[tuple[int, str]] = []
    begun: list[int] = []
    readings: list[str] = []
    for child in token.children or ():
        match child.type:
            case "text" | "code_inline" | "image":
                parts.append(child.content)
            case "softbreak":
                parts.append("\n")
            case "hardbreak":
                parts.append(BREAK)
            case "link_open":
                links.append((len(parts), str(child.attrs.get("href", ""))))
            case "link_close" if links:
                start, address = links.pop()
                parts[start:] = [linked("".join(parts[start:]), address)]
            case "em_open" | "em_close" | "strong_open" | "strong_close" if child.markup[0] == "*":
                parts.append(_STAR * len(child.markup))
            case "html_inline":
                _tag(child.content, parts, begun, readings)
    text = _TIMES.sub(lambda found: "*" * len(found[0]), "".join(parts)).replace(_STAR, "")
    return unbroken(_LINE.sub(BREAK, text)).replace(BREAK, "\n")


def _tag(tag: str, parts: list[str], begun: list[int], readings: list[str]) -> None:
    """Apply a tag of HTML within a line to the parts before it; `readings` are those of a ruby."""
    found = _TAG.match(tag)
    name = found[2].lower() if found else ""
    if found and name not in _ELEMENTS:
        parts.append(tag)
    elif name == "br":
        parts.append(BREAK)
    elif found and name == "ruby" and found[1] and readings:
        parts.append(f"({''.join(readings)})")
        readings.clear()
    elif found and name in ("sup", "sub", "rt", "rp"):
        if not found[1]:
            begun.append(len(parts))
        elif begun:
            start = min(begun.pop(), len(parts))
            text = "".join(parts[start:])
            before = parts[start - 1][-5:] if start else ""
            parts[start:] = {"sup": [raised(before, text)], "sub": [lowered(before, text)]}.get(name, [])
            if name == "rt":
                readings.append(text.strip())
