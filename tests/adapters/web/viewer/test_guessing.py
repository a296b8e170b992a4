"""Thousands of wrong passwords: they are slowed, logged once a minute, and delay no other visitor."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from statistics import median
from time import perf_counter

import httpx2
import psutil
import pytest
from argon2 import PasswordHasher
from starlette.requests import HTTPConnection
from structlog.testing import capture_logs

from adapters.privacy import passwords
from adapters.web.viewer import access, guesses, sender
from ops.servers.embedded import EmbeddedNats
from tests.adapters.web.viewer import guesser
from tests.adapters.web.viewer.site import PASSWORD, Site, serving

EMAIL = "ada@example.com"
GUESSES = 5000
MEMORY = 64 * 2**20
"""Bytes that may be kept after all guesses."""

CHEAP = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Site]:
    async with serving(tmp_path_factory.mktemp("guessing"), lone_nats.url, module_database_url) as served:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(passwords, "HASHER", CHEAP)
            owner = await served.account(EMAIL)
        await served.command("tenant.create", {"tenant": served.tenant, "name": "Us", "owner": owner})
        await served.settled()
        yield served


@pytest.fixture(autouse=True)
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients name the address that they come from."""

    def named(request: HTTPConnection) -> str:
        return request.headers.get("x-from", "192.0.2.1")

    for module in (access, sender):
        monkeypatch.setattr(module, "address", named)


class Counted:
    """A hasher that counts the checks."""

    def __init__(self, hasher: PasswordHasher) -> None:
        self._hasher = hasher
        self.checks = 0

    def verify(self, known: str, password: str) -> bool:
        self.checks += 1
        return self._hasher.verify(known, password)

    def hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def check_needs_rehash(self, known: str) -> bool:
        return False


async def guessed(site: Site, count: int, at_once: int, which: str) -> Counter[int]:
    """Send wrong passwords from another process; gives the statuses."""
    host, _, port = site.url.removeprefix("http://").partition(":")
    command = (sys.executable, "-m", guesser.__name__, host, port, str(count), str(at_once), which)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return Counter({int(status): number for status, number in json.loads(out).items()})


async def reading(client: httpx2.AsyncClient, stop: asyncio.Event) -> float:
    """The time that a page takes, in seconds: the median until `stop` is set."""
    took = []
    while not stop.is_set():
        began = perf_counter()
        assert (await client.get("/account")).status_code == 200
        took.append(perf_counter() - began)
        await asyncio.sleep(0.02)
    return median(took)


async def test_thousands_from_one_address(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = Counted(CHEAP)
    monkeypatch.setattr(passwords, "HASHER", hasher)
    reader = await site.sign_in(EMAIL, **{"X-From": "192.0.2.1"})
    hasher.checks, stop = 0, asyncio.Event()
    pages = asyncio.create_task(reading(reader, stop))
    with capture_logs() as logged:
        guessing = asyncio.create_task(guessed(site, GUESSES, 20, "one"))
        await asyncio.sleep(1)
        began = perf_counter()
        await site.sign_in(EMAIL, **{"X-From": "192.0.2.1"})
        took = perf_counter() - began
        statuses = await guessing
    stop.set()
    assert statuses[429] > GUESSES - 50
    assert statuses[429] + statuses[403] == GUESSES
    assert hasher.checks <= guesses.FREE + 10  # those of the pauses, and the owner's
    assert [each["event"] for each in logged].count("login.failed") == 1
    assert took < 1
    assert await pages < 1


async def test_many_addresses_and_accounts_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real parameters: few passwords are checked, few wait, and pages go on."""
    hasher = Counted(passwords.HASHER)
    monkeypatch.setattr(passwords, "HASHER", hasher)
    other = "bo@example.com"
    await site.account(other, "Bo")
    reader = await site.sign_in(other, **{"X-From": "192.0.2.1"})
    hasher.checks, stop = 0, asyncio.Event()
    pages = asyncio.create_task(reading(reader, stop))
    began = perf_counter()
    statuses = await guessed(site, 1000, 50, "many")
    assert perf_counter() - began < 60
    stop.set()
    assert hasher.checks <= guesses.FREE_IN_ALL + passwords.AT_ONCE + passwords.WAITING
    assert statuses[429] + statuses[503] > 900
    assert await pages < 1
    # The owner, whose address is known, is not slowed.
    began = perf_counter()
    await site.sign_in(other, **{"X-From": "192.0.2.1"})
    assert perf_counter() - began < 3


WITHIN_S = 10.0
"""Time within which a right password from a known address signs in whatever others guess, in seconds: one on a quiet
machine."""


@pytest.mark.long
async def test_ten_thousand_wrong_passwords_sign_no_one_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half are for one account from one address, half for as many accounts from as many addresses."""
    email = "cy@example.com"
    await site.account(email, "Cy")
    await site.sign_in(email, **{"X-From": "203.0.113.9"})
    hasher = Counted(passwords.HASHER)
    monkeypatch.setattr(passwords, "HASHER", hasher)
    process, took, stop = psutil.Process(), list[float](), asyncio.Event()
    gc.collect()
    before = highest = process.memory_info().rss
    began = perf_counter()

    async def come_in() -> None:
        while not stop.is_set():
            since = perf_counter()
            await site.sign_in(email, **{"X-From": "203.0.113.9"})
            took.append(perf_counter() - since)
            await asyncio.sleep(1)

    async def watch() -> None:
        nonlocal highest
        while not stop.is_set():
            highest = max(highest, process.memory_info().rss)
            await asyncio.sleep(0.05)

    with capture_logs() as logged:
        watching = [asyncio.create_task(come_in()), asyncio.create_task(watch())]
        statuses = sum(
            await asyncio.gather(guessed(site, GUESSES, 20, "one"), guessed(site, GUESSES, 50, "many")), Counter[int]()
        )
        stop.set()
        await asyncio.gather(*watching)
    seconds = perf_counter() - began
    gc.collect()
    kept = process.memory_info().rss - before
    assert statuses.total() == 2 * GUESSES
    assert set(statuses) <= {403, 429, 503}
    own = len(took)
    pauses = seconds / guesses.LONGEST_IN_ALL_S
    most = guesses.FREE_IN_ALL + passwords.AT_ONCE + passwords.WAITING + 2 * (guesses.FREE + pauses)
    assert hasher.checks - own <= most
    assert max(took) < WITHIN_S
    assert highest - before < passwords.AT_ONCE * 64 * 2**20 + MEMORY
    assert kept < MEMORY
    assert len([each for each in logged if each["log_level"] != "info"]) <= 2 + seconds / guesses.LOGGED_S
    # From an address that is not known, a right password has to wait for the pause that all together have.
    browser = site.browser(**{"X-From": "203.0.113.77"})
    async with asyncio.timeout(guesses.LONGEST_IN_ALL_S + WITHIN_S):
        while (await browser.post("/login", data={"email": email, "password": PASSWORD})).status_code != 303:
            await asyncio.sleep(0.5)
