from __future__ import annotations

from domain.access.bus_login import BusLogin
from handlers.access.admit import Admit
from tests.handlers.desk import Desk
from tests.memory import Memory


async def test_the_state_of_a_login_is_written_whatever_commit_is_delivered(memory: Memory, tenant: str) -> None:
    desk, written = Desk(memory, tenant), list[tuple[str, str, str]]()

    async def write(*login: str) -> None:
        written.append((login[0], login[1], login[2]))

    admit = Admit(desk.repository, write)
    opened = await desk.send("bus_login.open", name="crm")
    again = await desk.send("bus_login.open", name="crm")
    for commit in await desk.commits(BusLogin.TOPIC, "crm"):
        await admit(commit)
    assert written == [(tenant, "crm", again.command)] * 2
    assert opened.command != again.command
    await desk.done("bus_login.close", bus_login="crm")
    for commit in await desk.commits(BusLogin.TOPIC, "crm"):
        await admit(commit)
    assert written[2:] == [(tenant, "crm", "")] * 3


async def test_what_was_never_opened_cannot_be_closed(memory: Memory, tenant: str) -> None:
    outcome = await Desk(memory, tenant).send("bus_login.close", bus_login="crm")
    assert (outcome.status, outcome.code) == ("rejected", "not_found")


async def test_no_login_of_the_log_has_the_actor_of_the_servers_own(memory: Memory) -> None:
    """`tenant-acme` is `s_acme`."""
    desk = Desk(memory, "acme")
    assert await desk.fails("bus_login.open", name="acme") == ("invalid", "name")
    assert (await desk.send("bus_login.open", name="acme2")).status == "accepted"
