"""Test collections: documents, queries and judgements in the formats of TREC and BEIR."""

from __future__ import annotations

import gzip
import html
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Qrels = dict[str, dict[str, int]]
"""Grades by query and document: above 0 is relevant, missing is not."""


class Malformed(Exception):
    """A file has an unknown format; the message names file, line and fault."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Texts of documents and queries by id, and the relevant documents of each query."""

    documents: dict[str, str]
    queries: dict[str, str]
    qrels: Qrels

    @classmethod
    def read(cls, documents: Path, queries: Path, qrels: Path, *, one_is_best: bool = False) -> Collection:
        """Read a collection from three files; skip queries without a relevant document.

        With `one_is_best`, as in Cranfield, the grades count from the best, and are turned around: of 1 to 4, 1 is 4.
        Raises: Malformed, OSError.
        """
        texts, asked, grades = _texts(documents, _DOCUMENT), _texts(queries, _QUERY), _qrels(qrels)
        if one_is_best:
            grades = _turned(grades)
        judged = {id: query for id, query in asked.items() if any(grade > 0 for grade in grades.get(id, {}).values())}
        if not judged:
            raise Malformed(f"{qrels} has no relevant document for any query of {queries}: their ids do not agree.")
        if not any(document in texts for id in judged for document, grade in grades[id].items() if grade > 0):
            raise Malformed(f"{qrels} names no document of {documents}: their ids do not agree.")
        return cls(texts, judged, {id: grades[id] for id in judged})

    @classmethod
    def read_beir(cls, folder: Path, split: str = "test", *, one_is_best: bool = False) -> Collection:
        """Read BEIR's layout: corpus.jsonl, queries.jsonl, qrels/test.tsv. Raises: as `read`."""
        qrels = folder / "qrels" / f"{split}.tsv"
        return cls.read(folder / "corpus.jsonl", folder / "queries.jsonl", qrels, one_is_best=one_is_best)


class _Kind(NamedTuple):
    """Names of a record's parts: keys in JSON, tags in SGML, and tags that may follow."""

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    record: str
    id_tag: str
    text_tags: tuple[str, ...]
    other_tags: tuple[str, ...]


_DOCUMENT = _Kind(
    "document",
    ("_id", "id", "docid", "doc_id", "docno"),
    ("title", "text", "contents", "body", "abstract"),
    "doc",
    "docno",
    ("title", "headline", "head", "text", "body"),
    ("author", "bib", "date"),
)
_QUERY = _Kind(
    "query",
    ("_id", "id", "qid", "query_id"),
    ("text", "query", "title", "question"),
    "top",
    "num",
    ("title",),
    ("desc", "narr"),
)

_Records = Iterator[tuple[int, str, str]]
"""Line, id and text of each record."""


def _texts(file: Path, kind: _Kind) -> dict[str, str]:
    content = _content(file)
    start = content.lstrip()[:1]
    read: Callable[[Path, str, _Kind], _Records] = {"{": _json_lines, "<": _sgml}.get(start, _tab_separated)
    found: dict[str, str] = {}
    for line, id, text in read(file, content, kind):
        if not id:
            raise Malformed(f"{file}, line {line}: the {kind.name} has no id.")
        if id in found:
            raise Malformed(f"{file}, line {line}: there is a {kind.name} {id} already.")
        found[id] = text
    if not found:
        raise Malformed(
            f"{file} holds no {kind.name}: JSON lines, lines of id, tab and text, and TREC's SGML are read."
        )
    return found


def _content(file: Path) -> str:
    """Text of a file, unpacked. Raises: OSError; Malformed when it is not text."""
    data = file.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise Malformed(f"{file} cannot be unpacked: {error}.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Malformed(f"{file}, line {line}: it is not UTF-8.") from None


def _json_lines(file: Path, content: str, kind: _Kind) -> _Records:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise Malformed(f"{file}, line {number}: it is not JSON: {error.msg}, column {error.colno}.") from None
        if not isinstance(record, dict):
            raise Malformed(f"{file}, line {number}: it is not a JSON object.")
        id = next((record[name] for name in kind.ids if record.get(name) is not None), "")
        texts = [record[name] for name in kind.texts if record.get(name)]
        if not all(isinstance(text, str) for text in texts) or not any(name in record for name in kind.texts):
            raise Malformed(f"{file}, line {number}: the {kind.name} has no text in {', '.join(kind.texts)}.")
        yield number, str(id), "\n\n".join(texts if kind is _DOCUMENT else texts[:1])


def _tab_separated(file: Path, content: str, kind: _Kind) -> _Records:
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            id, tab, text = line.rstrip("\r").partition("\t")
            if not tab:
                raise Malformed(f"{file}, line {number}: there is no tab between id and text.")
            yield number, id.strip(), text.replace("\t", "\n\n").strip()


def _sgml(file: Path, content: str, kind: _Kind) -> _Records:
    """Records between tags; a part ends with its own tag or, in topics, where the next part begins."""
    tags = "|".join((kind.id_tag, *kind.text_tags, *kind.other_tags))
    part = re.compile(rf"<({tags})>(.*?)(?=</\1>|<(?:{tags})>|\Z)", re.DOTALL | re.IGNORECASE)
    line, seen = 1, 0
    for record in re.finditer(rf"<{kind.record}>(.*?)(</{kind.record}>|\Z)", content, re.DOTALL | re.IGNORECASE):
        line, seen = line + content.count("\n", seen, record.start()), record.start()
        if not record[2]:
            raise Malformed(f"{file}, line {line}: <{kind.record}> has no end.")
        parts = [(tag.lower(), _plain(text)) for tag, text in part.findall(record[1])]
        if not any(tag in kind.text_tags for tag, _ in parts):
            raise Malformed(f"{file}, line {line}: the {kind.name} has no <{kind.text_tags[-1]}>.")
        id = next((text for tag, text in parts if tag == kind.id_tag), "")
        yield line, id, "\n\n".join(text for tag, text in parts if tag in kind.text_tags and text)


def _plain(text: str) -> str:
    """Content between tags, without inner tags and the labels of topics."""
    return re.sub(r"^(?:Number|Topic):\s*", "", html.unescape(re.sub(r"</?[A-Za-z][^>]{0,200}>", " ", text)).strip())


def _qrels(file: Path) -> Qrels:
    """Lines of query, iteration, document and grade, or BEIR's of query, document and grade below a header."""
    found: Qrels = {}
    for number, line in enumerate(_content(file).split("\n"), 1):
        fields = line.split()
        if not fields or (number == 1 and len(fields) == 3 and not _is_grade(fields[-1])):
            continue
        if len(fields) not in (3, 4) or not _is_grade(fields[-1]):
            expected = "query, iteration, document and grade (or query, document and grade)"
            raise Malformed(f"{file}, line {number}: it is not {expected}.")
        query, document, grade = fields[0], fields[-2], int(fields[-1])
        if document in found.setdefault(query, {}):
            raise Malformed(f"{file}, line {number}: document {document} is judged for query {query} already.")
        found[query][document] = grade
    if not found:
        raise Malformed(f"{file} holds no judgement.")
    return found


def _turned(qrels: Qrels) -> Qrels:
    """The qrels with the least grade above 0 as the highest; other grades stay."""
    highest = max((grade for grades in qrels.values() for grade in grades.values()), default=0)
    return {
        query: {document: highest + 1 - grade if grade > 0 else grade for document, grade in grades.items()}
        for query, grades in qrels.items()
    }


def _is_grade(field: str) -> bool:
    return re.fullmatch(r"-?\d+", field) is not None
