"""JSON as people and models write it: single quotes, Python's constants, commas too many, values left out."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

CONSTANTS: Final = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
NUMBER: Final = re.compile(r"-?\d{1,400}(?:\.\d{1,400})?(?:[eE][+-]?\d{1,3})?")
WORD: Final = re.compile(r"\w{1,100}")
DEPTH: Final = 60
CANDIDATES: Final = 200
"""Maximum number of brackets that are tried as the beginning of an object."""


def loads(text: str) -> Any:
    """The value of a text that is JSON, or nearly. Raises: ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("It is too deep.") from None
    except ValueError:
        return _Reader(text).whole()


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
    """The places of opening brackets, and of those that close them. Texts in quotes are not told apart."""
    open: list[int] = []
    ends = {}
    for at, mark in enumerate(text):
        if mark in "{[":
            open.append(at)
        elif mark in "}]" and open:
            ends[open.pop()] = at
    return ends


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def whole(self) -> Any:
        value = self._value(0)
        self._space()
        if self.at < len(self.text):
            self._fail()
        return value

    def _value(self, depth: int) -> Any:
        self._space()
        if depth > DEPTH:
            self._fail()
        match self.text[self.at : self.at + 1]:
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
        while not self._ends("}"):
            key = self._value(depth + 1)
            if not self._takes(":"):
                self._fail()
            found[str(key)] = "" if self._space() in (",", "}") else self._value(depth + 1)
            self._comma("}")
        return found

    def _list(self, depth: int) -> list[Any]:
        found = []
        self.at += 1
        while not self._ends("]"):
            found.append(self._value(depth + 1))
            self._comma("]")
        return found

    def _string(self) -> str:
        quote, start = self.text[self.at], self.at + 1
        self.at = start
        while self.at < len(self.text) and self.text[self.at] != quote:
            self.at += 2 if self.text[self.at] == "\\" else 1
        inner = self.text[start : self.at]
        if self.at >= len(self.text):
            self._fail()
        self.at += 1
        inner = inner.replace("\\'", "'") if quote == "'" else inner
        escaped = inner.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        escaped = escaped.replace('"', '\\"') if quote == "'" else escaped
        try:
            return str(json.loads(f'"{escaped}"'))
        except ValueError:
            return inner

    def _bare(self) -> Any:
        if number := NUMBER.match(self.text, self.at):
            self.at = number.end()
            return json.loads(number[0]) if number[0].lstrip("-")[:1] != "0" else float(number[0])
        word = WORD.match(self.text, self.at)
        if word is None or word[0] not in CONSTANTS:
            self._fail()
        self.at = word.end()
        return CONSTANTS[word[0]]

    def _comma(self, end: str) -> None:
        if not self._takes(",") and self._space() != end:
            self._fail()

    def _takes(self, mark: str) -> bool:
        if self._space() == mark:
            self.at += 1
            return True
        return False

    def _ends(self, mark: str) -> bool:
        if self._space() == "":
            self._fail()
        return self._takes(mark)

    def _space(self) -> str:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _fail(self) -> NoReturn:
        raise ValueError(f"It is no JSON from character {self.at} on.")
