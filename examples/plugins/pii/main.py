"""Masks personal data in what is sent to a model, and puts it back into the answer where a tenant wants that.

Equal values have equal marks within a call, as `‹email-1›`, so that the model can tell them apart. What was masked is
kept in memory until the call has ended, and nowhere else.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from headrace_plugin import replace, serve

MOST_CALLS = 10_000
"""Calls whose marks are kept at a time: one that is never heard of again is forgotten."""

MARK = re.compile(r"‹(?:email|phone|card|iban|ip)-\d{1,6}›")


def is_card(text: str) -> bool:
    """Return whether the check digit is right."""
    digits = [int(one) for one in text if one.isdecimal()]
    doubled = [sum(divmod(2 * one, 10)) for one in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1


def is_phone(text: str) -> bool:
    count = sum(map(str.isdecimal, text))
    return 7 <= count <= 15 and (text.startswith(("+", "00", "0", "(")) or count >= 10)


def is_ip(text: str) -> bool:
    return all(int(part) < 256 for part in text.split("."))


KINDS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"), lambda text: True),
    "iban": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{1,4}){3,8}\b"), is_iban),
    "card": (re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])"), is_card),
    "ip": (re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d|\.\d)"), is_ip),
    "phone": (re.compile(r"(?<![\w.-])(?:\+|00)?\(?\d{1,4}\)?(?:[ /-]?\d{1,5}){2,6}(?![\w-])"), is_phone),
}
"""Patterns in the order in which they are looked for, and what a match must be."""

kinds = list(KINDS)
restores = False
calls: OrderedDict[str, dict[str, str]] = OrderedDict()


def load(settings: dict[str, Any]) -> None:
    global kinds, restores
    kinds = [kind for kind in KINDS if kind in settings.get("kinds", KINDS)]
    restores = settings.get("restore", False)


def before(call: dict[str, Any]) -> Any:
    marks: dict[str, str] = {}
    messages = [{**each, "content": masked(each["content"], marks)} for each in call["messages"]]
    passages = [masked(each, marks) for each in call.get("passages", ())]
    if not marks:
        return None
    if restores:
        calls[call["id"]] = {mark: original for original, mark in marks.items()}
        if len(calls) > MOST_CALLS:
            calls.popitem(last=False)
    return replace(messages=messages, passages=passages)


def after(call: dict[str, Any]) -> Any:
    originals = calls.pop(call["id"], None) if call["last"] else calls.get(call["id"])
    if originals:
        return replace(response=MARK.sub(lambda mark: originals.get(mark[0], mark[0]), call["response"]))
    return None if restores else replace(response=masked(call["response"], {}))


def forget(call: dict[str, Any]) -> None:
    calls.pop(call["id"], None)


def check(call: dict[str, Any]) -> Any:
    """Mask the texts of a message, where an app moderates by this plugin."""
    marks: dict[str, str] = {}
    texts = {name: masked(text, marks) for name, text in call["texts"].items()}
    return replace(texts=texts) if marks else None


def masked(text: str, marks: dict[str, str]) -> str:
    """The text with marks; `marks` has the mark of each original."""
    for kind in kinds:
        text = KINDS[kind][0].sub(partial(mark, kind, marks), text)
    return text


def mark(kind: str, marks: dict[str, str], found: re.Match[str]) -> str:
    original = found[0]
    if not KINDS[kind][1](original):
        return original
    if original not in marks:
        marks[original] = f"‹{kind}-{1 + sum(each.startswith(f'‹{kind}-') for each in marks.values())}›"
    return marks[original]


if __name__ == "__main__":
    serve(globals())
