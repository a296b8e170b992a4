"""Contained processes that answer requests: one tenant each, and what becomes of those that go astray."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

import tests
from adapters.sandbox import pool
from adapters.sandbox.child import Limits, Sandbox, python
from adapters.sandbox.pool import Children, Died, TooSlow
from handlers.ports.log import Unavailable

LIMITS = Limits(cpu_s=20)
CODE = [Path(tests.__path__[0])]

Make = Callable[..., Children]


@pytest.fixture
def make(sandbox: Sandbox) -> Make:
    def made(*arguments: str, most: int = 2, warm: bool = False, uses: int = pool.USES) -> Children:
        program = python("tests.adapters.sandbox.echo", *arguments)
        return Children(sandbox, program, LIMITS, most=most, readable=CODE, warm=warm, uses=uses)

    return made


@pytest.fixture
async def children(make: Make) -> AsyncIterator[Children]:
    async with make() as children:
        yield children


async def ask(children: Children, tenant: str, do: str = "", data: bytes = b"", seconds: float = 20.0) -> bytes:
    return await children.ask(tenant, {"do": do, "to": 4}, data, seconds=seconds)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_process_answers_one_tenant_only(children: Children) -> None:
    seen: dict[int, str] = {}
    for tenant in ("acme", "zenith", "umbrella", "acme", "zenith", "acme"):
        await ask(children, tenant)
        assert seen.setdefault(children.pids[-1], tenant) == tenant
    assert len(children.pids) == len(seen) == 3


async def test_a_tenant_has_its_process_again(children: Children) -> None:
    await ask(children, "acme")
    pids = children.pids
    for _ in range(3):
        await ask(children, "acme")
    assert children.pids == pids


async def test_a_spare_process_waits_for_the_next_tenant(make: Make) -> None:
    async with make(warm=True) as children:
        spare = children._spare
        assert spare
        pid = (await spare).child.pid
        await ask(children, "acme")
        assert children.pids == [pid]


async def test_a_process_is_prepared_for_a_tenant_that_has_none(make: Make) -> None:
    async with make() as children:
        children.prepare("acme")
        spare = children._spare
        assert spare
        pid = (await spare).child.pid
        await ask(children, "acme")
        assert children.pids == [pid]


async def test_no_more_than_allowed_at_a_time(children: Children) -> None:
    began = time.monotonic()
    await asyncio.gather(*(ask(children, f"tenant-{number % 3}", "nap") for number in range(6)))
    assert time.monotonic() - began > 2.5 * 0.2, "with one more at a time, it would take two naps"


async def test_no_more_than_allowed_wait(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "KEPT", 2)
    await asyncio.gather(*(ask(children, f"tenant-{number}") for number in range(4)))
    assert len(children.pids) == 2


async def test_large_requests_and_replies_come_through(children: Children) -> None:
    data = bytes(range(256)) * 2**15
    assert (await ask(children, "acme", data=data))[: len(data)] == data


async def test_what_a_program_prints_is_no_reply(children: Children) -> None:
    assert (await ask(children, "acme", "print", b"reply"))[:5] == b"reply"


async def test_a_slow_request_is_given_up(children: Children) -> None:
    began = time.monotonic()
    with pytest.raises(TooSlow):
        await ask(children, "acme", "sleep", seconds=0.5)
    assert time.monotonic() - began < 10
    assert children.pids == []
    await ask(children, "acme")


@pytest.mark.parametrize(("do", "status"), [("abort", -signal.SIGABRT), ("die", 3)])
async def test_a_request_that_ends_its_process_says_how(children: Children, do: str, status: int) -> None:
    with pytest.raises(Died) as caught:
        await ask(children, "acme", do)
    assert (caught.value.status, caught.value.out_of_memory) == (status, False)


async def test_a_process_without_memory_is_distinguished(children: Children) -> None:
    await ask(children, "acme")  # the second request ends a process, and a new one tries it again
    with pytest.raises(Died) as caught:
        await ask(children, "acme", "exhaust")
    assert caught.value.out_of_memory


async def test_a_reply_is_bounded(children: Children) -> None:
    with pytest.raises(Died):
        await ask(children, "acme", "claim")


async def test_a_process_that_ended_while_it_was_idle_is_replaced(children: Children) -> None:
    await ask(children, "acme")
    (pid,) = children.pids
    psutil.Process(pid).kill()
    await until(lambda: not alive(pid))
    await ask(children, "acme")
    assert children.pids != [pid]


async def test_an_idle_process_ends(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_S", 0.3)
    async with make() as children:
        await ask(children, "acme")
        (pid,) = children.pids
        await until(lambda: children.pids == [] and children._spare is None)
        await until(lambda: not alive(pid))


async def test_a_process_is_replaced_after_its_uses(make: Make) -> None:
    async with make(uses=2) as children:
        await ask(children, "acme")
        assert len(children.pids) == 1
        await ask(children, "acme")
        assert children.pids == []


async def test_a_program_that_does_not_load_is_an_outage_and_no_fault_of_the_request(make: Make) -> None:
    async with make("broken") as children:
        with pytest.raises(Unavailable, match="It does not load"):
            await ask(children, "acme")


async def test_nothing_is_left_after_the_end(make: Make) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    async with make(warm=True) as children:
        await asyncio.gather(ask(children, "acme"), ask(children, "zenith"))
        task = asyncio.create_task(ask(children, "umbrella", "sleep"))
        await asyncio.sleep(0.3)
        task.cancel()
    await asyncio.wait([task])
    assert not {child.pid for child in psutil.Process().children(recursive=True)} - before


async def test_a_tenant_does_not_wait_behind_the_requests_of_another(make: Make) -> None:
    async with make(most=1) as children:
        slow = [asyncio.create_task(ask(children, "busy", "sleep", seconds=0.7)) for _ in range(5)]
        await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await ask(children, "victim")
        assert sum(task.done() for task in slow) <= 2
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
