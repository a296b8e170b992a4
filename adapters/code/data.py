"""JSON of strangers, read as data with limits."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

DEEPEST, DIGITS, VALUES = 64, 1000, 1_000_000
"""Maximum levels of lists and objects, digits of a number, and values in all."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (DIGITS + 1))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read(data: bytes) -> Any:
    """The value of JSON that can be stored. Raises: ValueError, with the reason as a sentence."""
    bare = _STRING.sub(b'"', data)
    if sum(bare.count(each) for each in b",[{") > VALUES:
        raise ValueError(f"It has more than {VALUES:,} values.")
    depth = 0
    for bracket in _BRACKETS.finditer(bare):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > DEEPEST:
            raise ValueError(f"It is nested deeper than {DEEPEST} levels.")
    if _LONG_NUMBER.search(bare):
        raise ValueError(f"A number has more than {DIGITS:,} digits.")
    try:
        value = json.loads(data.decode(), parse_constant=_refuse, parse_float=_finite)
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise ValueError("It has half a surrogate pair, which is no text.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos:,}.") from None
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"It has {name}, which is not JSON.")


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"The number {number[:20]} is too large.")
    return value
