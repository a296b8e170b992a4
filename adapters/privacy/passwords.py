"""Passwords of people: hashed and checked with Argon2id, in threads, few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import BoundedSemaphore
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

T = TypeVar("T")

HASHER = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)
"""Argon2id over 64 MiB, three times, as RFC 9106 recommends where memory is scarce: 0.2 s of one processor.

In one lane, not four: a guess costs as much, and a sign-in leaves the other processors to the pages.
"""

AT_ONCE = 2
"""Maximum number of passwords that are hashed at a time, each in a thread of its own, with 64 MiB."""

WAITING = 32
"""Maximum number of passwords that wait for their turn: about 3 s. More are refused."""

SHORTEST, LONGEST = 12, 256
"""Limits of a password, in characters."""


class Busy(Exception):
    """Too many passwords wait to be checked."""


class Weak(ValueError):
    """The password breaks the rule that the message names."""


_threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")
_places = BoundedSemaphore(AT_ONCE + WAITING)


async def hash(password: str, email: str = "") -> str:
    """The Argon2id hash of a new password. Raises: Weak, Busy."""
    if wrong := fault(password, email):
        raise Weak(wrong)
    return await rehash(password)


async def rehash(password: str) -> str:
    """The hash of a password that is in use, which newer rules would perhaps refuse. Raises: Busy."""
    return await _threaded(lambda: HASHER.hash(password))


async def check(password: str, known: str) -> bool:
    """Return whether it is the password with this hash. Without a hash it takes as long, and is not. Raises: Busy."""
    return await _threaded(lambda: _verified(known or _unmatched(), password[: LONGEST + 1])) and bool(known)


def is_outdated(known: str) -> bool:
    """True for a hash that was made with other parameters than a new one."""
    return HASHER.check_needs_rehash(known)


def fault(password: str, email: str = "") -> str:
    """The rule that a new password breaks, as a sentence; empty for none."""
    if len(password) < SHORTEST:
        return f"A password has at least {SHORTEST} characters."
    if len(password) > LONGEST:
        return f"A password has at most {LONGEST} characters."
    if is_common(password):
        return "This password is one of the most common, or a small change of one: choose another."
    name = email.partition("@")[0]
    if len(name) > 3 and name.casefold() in password.casefold() and len(password) - len(name) < SHORTEST:
        return f"Without the name of the e-mail address, a password has at least {SHORTEST} characters."
    return ""


_LEET = str.maketrans("01345789@$!|", "oieastbgasii")
_AROUND = "0123456789!@#$%^&*()-_=+.,?~ "

_ROWS = ("0123456789", "abcdefghijklmnopqrstuvwxyz", "qwertyuiop", "qwertzuiop", "azertyuiop", "asdfghjkl", "zxcvbnm")


def is_common(password: str) -> bool:
    """True for a common password, also repeated, with other signs for letters, or with digits and signs around it."""
    plain = password.casefold()
    bare = plain.strip(_AROUND)
    texts = [_letters(text) for text in (plain, bare, plain.translate(_LEET), bare.translate(_LEET))]
    return len(_unit(texts[0])) < 4 or any(_unit(text) in _common() or _is_run(text) for text in texts if text)


def _letters(text: str) -> str:
    return "".join(sign for sign in text if sign.isalnum())


def _unit(text: str) -> str:
    """The shortest text of which this one is a repetition."""
    return text[: (text + text).index(text, 1)] if text else ""


def _is_run(text: str) -> bool:
    """True for keys in a row, and signs in their order, in either direction."""
    runs = [row * (1 + LONGEST // len(row)) for row in _ROWS]
    return len(text) > 5 and any(text in run or text[::-1] in run for run in runs)


@cache
def _common() -> frozenset[str]:
    file = Path(__file__).with_name("common_passwords.txt")
    return frozenset(line for line in file.read_text("utf-8").split() if line)


@cache
def _unmatched() -> str:
    """A hash that is checked where there is no account, so that this takes as long as where there is one."""
    return HASHER.hash("the password of no account")


def _verified(known: str, password: str) -> bool:
    try:
        return HASHER.verify(known, password)
    except (VerificationError, InvalidHashError):
        return False


async def _threaded(work: Callable[[], T]) -> T:
    """The result of work on a password, in its turn. Raises: Busy."""
    if not _places.acquire(blocking=False):
        raise Busy("Too many sign-ins wait: try again in a few seconds.")
    begun = _threads.submit(work)
    begun.add_done_callback(lambda _: _places.release())  # who waits for it may leave before
    return await asyncio.wrap_future(begun)
