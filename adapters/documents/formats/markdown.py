"""Markdown: blocks of CommonMark and tables, without the markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from adapters.documents.formats import html
from adapters.documents.formats.encodings import decode
from adapters.documents.formats.parsed import Outline, Parsed, Piece, clean, one_line

_FRONT_MATTER = re.compile(r"\A\s*+---[^\S\n]*+\n(.*?\n)(?:---|\.\.\.)[^\S\n]*+(?:\n|$)", re.DOTALL)
_TITLE = re.compile(r"^title:(.+)", re.MULTILINE)
_FIELD = re.compile(r"\A\w[\w -]*+:")


def read(data: bytes) -> Parsed:
    text = clean(decode(data))
    title = None
    front = _FRONT_MATTER.match(text)
    if front and _FIELD.match(front[1]):
        title = found[1].strip().strip("\"'") or None if (found := _TITLE.search(front[1])) else None
        text = text[front.end() :]
    parser = MarkdownIt("commonmark", {"maxNesting": 200}).enable("table")
    outline = Outline()
    pieces: list[Piece] = []
    for block, level in _blocks(parser.parse(text)):
        if level:
            outline.enter(level, one_line(block))
            title = title or one_line(block)
        pieces.append(Piece(one_line(block) if level else block, None, outline.path))
    return Parsed(pieces, None, title)


def _blocks(tokens: Sequence[Token]) -> Iterator[tuple[str, int]]:
    """The texts of the blocks, each with its level as a heading, 0 for none."""
    level, mark = 0, ""
    cells: list[str] | None = None
    for token in tokens:
        match token.type:
            case "heading_open":
                level = int(token.tag[1])
            case "list_item_open":
                mark = f"{token.info}{token.markup} " if token.info else "- "
            case "tr_open":
                cells = []
            case "tr_close":
                if cells and any(cells):
                    yield " | ".join(cells), 0
                cells = None
            case "inline" if cells is not None:
                cells.append(one_line(_inline(token)))
            case "inline":
                if text := _inline(token).strip():
                    yield mark + text, level
                    mark = ""
                level = 0
            case "fence" | "code_block":
                if text := token.content.strip("\n"):
                    yield text, 0
            case "html_block":
                yield from ((piece.text, 0) for piece in html.pieces(token.content))


def _inline(token: Token) -> str:
    parts = []
    for child in token.children or ():
        match child.type:
            case "text" | "code_inline" | "image":
                parts.append(child.content)
            case "softbreak":
                parts.append(" ")
            case "hardbreak":
                parts.append("\n")
            case "html_inline" if child.content.lower().startswith("<br"):
                parts.append("\n")
    return "".join(parts)
