from __future__ import annotations

import re

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from adapters.privacy.scram import new_password, verifier
from handlers.commands.access import VERIFIER


def test_passwords_are_random_and_verifiers_have_a_salt_of_their_own() -> None:
    password = new_password()
    assert len(password) == 32
    assert password != new_password()
    first, second = verifier(password), verifier(password)
    assert first != second
    for each in (first, second):
        assert re.fullmatch(VERIFIER, each)
        assert password not in each


async def test_postgresql_takes_the_verifier_for_the_password_and_keeps_it_as_it_is(postgres_url: str) -> None:
    password, role = new_password(), "scram_of_a_test"
    given = verifier(password)
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        make = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(given))
        await connection.execute(make)
        try:
            kept = await connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (role,))
            assert await kept.fetchone() == (given,)
            async with await psycopg.AsyncConnection.connect(
                make_conninfo(postgres_url, user=role, password=password)
            ) as other:
                assert await (await other.execute("SELECT session_user::text")).fetchone() == (role,)
        finally:
            await connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
