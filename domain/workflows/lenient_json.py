"""JSON as people and models write it: single quotes, Python's constants, commas too many, values left out."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

CONSTANTS: Final = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
NUMBER: Final = re.compile(r"[+-]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:[eE][+-]?\d{1,3})?")
WORD: Final = re.compile(r"[^\s:,{}\[\]'\"]{1,200}")
NUMBER_END: Final = re.compile(r"[\s,}\]]|$")
BARE_END: Final = re.compile(r"[,}\]\n]")
SPACE: Final = re.compile(r"\s{1,1000}|//[^\n]{0,1000}|/\*[^*]{0,1000}\*/")
DEPTH: Final = 60
CANDIDATES: Final = 200
"""Maximum number of brackets that are tried as the beginning of an object."""


def loads(text: str) -> Any:
    """The value of a text that is JSON, or nearly. Raises: ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("It is too deep.") from None
    except ValueError:
        return _Reader(text).value()


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON.")


def first_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text, between brackets that match; of a list, its first."""
    ends = _matches(text)
    for start in sorted(ends)[:CANDIDATES]:
        try:
            found, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list):
            found = found[0] if found else None
        if isinstance(found, dict) and end == ends[start] + 1:
            return found
    return None


def _matches(text: str) -> dict[int, int]:
    """The places of opening brackets, and of those that close them. Texts in quotes count as others do."""
    open: list[int] = []
    ends = {}
    for at, mark in enumerate(text):
        if mark in "{[":
            open.append(at)
        elif mark in "}]" and open:
            ends[open.pop()] = at
    return ends


class _Reader:
    """Reads on over faults: what cannot be understood is a text, what is left open ends with the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
        if self.at < 0:
            raise ValueError("It holds no JSON.")

    def value(self, depth: int = 0) -> Any:
        if depth > DEPTH:
            raise ValueError("It is too deep.")
        match self._next():
            case "{":
                return self._object(depth)
            case "[":
                return self._list(depth)
            case '"' | "'":
                return self._string()
            case _:
                return self._bare()

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.at += 1
        while self._next() not in ("}", ""):
            if self._next() in (",", ":", "]"):
                self.at += 1
                continue
            key = self._string() if self._next() in ("'", '"') else WORD.match(self.text, self.at)
            if key is None:
                self.at += 1
                continue
            if not isinstance(key, str):
                self.at, key = key.end(), key[0]
            found[key] = ""
            if self._next() == ":":
                self.at += 1
                found[key] = "" if self._next() in (",", "}") else self.value(depth + 1)
            self._skip(",}")
        self.at += 1
        return found

    def _list(self, depth: int) -> list[Any]:
        found = []
        self.at += 1
        while self._next() not in ("]", ""):
            if self._next() in (",", "}", ":"):
                self.at += 1
            else:
                found.append(self.value(depth + 1))
        self.at += 1
        return found

    def _string(self) -> str:
        quote, start = self.text[self.at], self.at + 1
        self.at = start
        while self.at < len(self.text) and self.text[self.at] != quote:
            self.at += 2 if self.text[self.at] == "\\" else 1
        inner = self.text[start : self.at]
        if self.at >= len(self.text):
            inner = inner.rstrip("}] \n\r\t")
        self.at += 1
        inner = inner.replace("\\'", "'").replace('"', '\\"') if quote == "'" else inner
        try:
            return str(json.loads(f'"{inner}"', strict=False))
        except ValueError:
            return inner

    def _bare(self) -> Any:
        if (number := NUMBER.match(self.text, self.at)) and NUMBER_END.match(self.text, number.end()):
            self.at = number.end()
            return float(number[0]) if set(number[0]) & set(".eE") else int(number[0])
        end = BARE_END.search(self.text, self.at)
        word = self.text[self.at : end.start() if end else None].strip()
        self.at = end.start() if end else len(self.text)
        return CONSTANTS.get(word, word)

    def _skip(self, marks: str) -> None:
        """Go on to one of the marks."""
        while self._next() not in (*marks, ""):
            self.at += 1

    def _next(self) -> str:
        """The next mark that is no space and in no comment."""
        while found := SPACE.match(self.text, self.at):
            self.at = found.end()
        return self.text[self.at : self.at + 1]
