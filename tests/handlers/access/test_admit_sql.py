from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adapters.privacy.scram import verifier
from adapters.privacy.vault import AesVault
from domain.access.sql_login import SqlLogin, role_of
from domain.aggregate import new_id
from domain.log import EVENTS, Metadata, Position, Quarantined, Subject
from handlers.access.admit_sql import AdmitSql
from handlers.ports.log import Frozen
from handlers.ports.sql_roles import NotAllowed
from tests.handlers.desk import VERIFIER, Desk
from tests.memory import Memory, MemorySqlRoles


class Bench:
    """A desk with SQL logins, and the roles of a database."""

    def __init__(self, memory: Memory, tenant: str) -> None:
        self.desk = Desk(memory, tenant)
        self.roles = MemorySqlRoles()
        self.admit = AdmitSql(self.desk.repository, self.desk.vault, self.roles)
        self.made: list[str] = []

    async def create(self, name: str = "bi", verifier: str = VERIFIER) -> str:
        self.made.append(await self.desk.done("sql_login.create", name=name, verifier=verifier))
        return self.made[-1]

    async def revoke(self, id: str) -> None:
        await self.desk.done("sql_login.revoke", sql_login=id)

    def role(self, id: str) -> str:
        return role_of(self.desk.tenant, id)

    async def react(self, id: str, *commits: int) -> None:
        """Deliver these of the login's commits, by number."""
        found = await self.desk.commits(SqlLogin.TOPIC, id)
        for number in commits:
            await self.admit(found[number])

    async def logins(self) -> list[tuple[str, str]]:
        return [(self.desk.tenant, id) for id in self.made]


@pytest.fixture
def bench(memory: Memory, tenant: str) -> Bench:
    return Bench(memory, tenant)


async def test_a_login_has_a_role_until_it_is_revoked(bench: Bench) -> None:
    id = await bench.create()
    await bench.react(id, 0)
    assert bench.roles.roles == {bench.role(id): (bench.desk.tenant, VERIFIER)}
    await bench.revoke(id)
    await bench.react(id, 1)
    assert bench.roles.roles == {}


async def test_a_creation_that_is_delivered_after_the_revocation_makes_no_role(bench: Bench) -> None:
    id = await bench.create()
    await bench.revoke(id)
    await bench.react(id, 1, 0)
    assert bench.roles.roles == {}


async def test_a_login_that_is_revoked_while_its_role_is_made_has_none_afterwards(bench: Bench) -> None:
    id, make = await bench.create(), bench.roles.make

    async def slowly(tenant: str, role: str, verifier: str) -> None:
        await bench.revoke(id)
        await bench.react(id, 1)
        await make(tenant, role, verifier)

    bench.roles.make = slowly  # type: ignore[method-assign]
    await bench.react(id, 0)
    assert bench.roles.roles == {}


async def test_a_database_that_lost_its_roles_has_those_of_the_log_again_and_no_others(bench: Bench) -> None:
    kept, gone, tampered, moved = [await bench.create() for _ in range(4)]
    await bench.revoke(gone)
    bench.roles.roles = {
        bench.role(tampered): (bench.desk.tenant, verifier("another-password")),
        bench.role(moved): ("another-tenant", VERIFIER),
        "t_unknown": ("x", VERIFIER),
    }
    await bench.admit.all(bench.logins)
    expected = {bench.role(id): (bench.desk.tenant, VERIFIER) for id in (kept, tampered, moved)}
    assert bench.roles.roles == expected

    bench.roles.changed.clear()
    await bench.admit.all(bench.logins)
    assert bench.roles.changed == []
    bench.roles.roles[bench.role(gone)] = (bench.desk.tenant, "")
    await bench.admit.all(bench.logins)
    assert (bench.roles.roles, bench.roles.changed) == (expected, [bench.role(gone)])


async def test_a_login_that_cannot_be_read_stops_no_other_and_keeps_its_role(bench: Bench) -> None:
    """Its verifier is sealed with another key, or a message of it is in quarantine."""
    sealed, frozen, good = [await bench.create() for _ in range(3)]
    repository, get = bench.desk.repository, bench.desk.repository.get

    async def partly(kind: type[SqlLogin], tenant: str, id: str) -> SqlLogin | None:
        if id == frozen:
            subject, metadata = Subject(tenant, SqlLogin.TOPIC, id), Metadata(new_id(), tenant, id)
            raise Frozen(subject, Quarantined(subject, metadata, Position(EVENTS, 3), datetime.now(UTC), "Forged."))
        login = await get(kind, tenant, id)
        if login and id == sealed:
            login.sealed_verifier = AesVault(b"another-house-key").seal(tenant, VERIFIER)
        return login

    repository.get = partly  # type: ignore[assignment, method-assign]
    for id in (sealed, frozen):
        bench.roles.roles[bench.role(id)] = (bench.desk.tenant, VERIFIER)
    await bench.admit.all(bench.logins)
    assert set(bench.roles.roles) == {bench.role(id) for id in (sealed, frozen, good)}


async def test_where_roles_cannot_be_made_the_work_says_so_and_nothing_halts(bench: Bench) -> None:
    id = await bench.create()
    bench.roles.refusing = True
    with pytest.raises(NotAllowed, match="may not make roles"):
        await bench.react(id, 0)
    bench.roles.roles["t_unknown"] = ("x", VERIFIER)
    await bench.admit.all(bench.logins)
    bench.roles.refusing = False
    await bench.admit.all(bench.logins)
    assert list(bench.roles.roles) == [bench.role(id)]
