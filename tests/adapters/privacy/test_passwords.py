from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from time import perf_counter

import pytest
from argon2 import PasswordHasher

from adapters.privacy import passwords
from adapters.privacy.passwords import Busy, Weak, check, fault, is_outdated

GOOD = "seven grey geese"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Parameters that take no time."""
    monkeypatch.setattr(passwords, "HASHER", CHEAP)
    passwords._unmatched.cache_clear()
    yield
    passwords._unmatched.cache_clear()


async def test_a_password_is_known_by_its_hash() -> None:
    known = await passwords.hash(GOOD)
    assert known.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert GOOD not in known
    assert await check(GOOD, known)
    assert not await check(f"{GOOD} ", known)
    assert not await check("", known)
    assert not is_outdated(known)


async def test_a_hash_of_other_parameters_is_known_and_outdated() -> None:
    known = CHEAP.hash(GOOD)
    assert await check(GOOD, known)
    assert is_outdated(known)


@pytest.mark.usefixtures("cheap")
async def test_where_there_is_no_account_no_password_is_right() -> None:
    assert not await check("the password of no account", "")
    assert not await check(GOOD, "no hash")


async def test_where_there_is_no_account_it_takes_as_long() -> None:
    known = await passwords.hash(GOOD)
    await check("a first one makes the hash", "")
    took = {}
    for name, hashed in (("account", known), ("none", "")):
        best = []
        for _ in range(3):
            began = perf_counter()
            await check("wrong", hashed)
            best.append(perf_counter() - began)
        took[name] = min(best)
    assert 0.5 < took["none"] / took["account"] < 2


@pytest.mark.parametrize(
    ("password", "rule"),
    [
        ("short", "at least 12"),
        ("x1" * 200, "at most 256"),
        ("passwordpassword", "most common"),
        ("Password2024!", "most common"),
        ("P@ssw0rd!!!!!!", "most common"),
        ("123456789012", "most common"),
        ("210987654321", "most common"),
        ("qwertyuiop12", "most common"),
        ("aaaaaaaaaaaaaa", "most common"),
        ("abcabcabcabc", "most common"),
        ("Correct Horse Battery Staple", "most common"),
        ("1q2w3e4r5t6y", "most common"),
        ("ada.lovelace1", "Without the name"),
    ],
)
async def test_a_weak_password_is_refused_with_the_rule(password: str, rule: str) -> None:
    with pytest.raises(Weak, match=rule):
        await passwords.hash(password, "ada.lovelace@example.com")


@pytest.mark.parametrize(
    "password", [GOOD, "xk9vmq2rtw8p", "83719dk48291", "Лебедь и щука", "ada.lovelace swims at 5 pm"]
)
def test_a_good_password_is_taken(password: str) -> None:
    assert fault(password, "ada.lovelace@example.com") == ""


async def test_at_most_two_are_hashed_at_once_and_few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused one takes no place, and one whose sender has left keeps its own."""
    going, ended = threading.Semaphore(0), threading.Event()

    class Slow:
        def verify(self, known: str, password: str) -> bool:
            going.release()
            return ended.wait(30)

    monkeypatch.setattr(passwords, "HASHER", Slow())
    waiting = [asyncio.create_task(check(GOOD, "a hash")) for _ in range(passwords.AT_ONCE + passwords.WAITING)]
    await asyncio.sleep(0.05)
    assert [going.acquire(timeout=5) for _ in range(passwords.AT_ONCE)] == [True] * passwords.AT_ONCE
    assert not going.acquire(timeout=0.05)
    with pytest.raises(Busy, match="try again"):
        await check(GOOD, "a hash")
    waiting[0].cancel()
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await check(GOOD, "a hash")
    ended.set()
    assert all(await asyncio.gather(*waiting[1:]))
    assert await check(GOOD, "a hash")
