from __future__ import annotations

import pytest
from nats.aio.client import Client

from adapters.jetstream.sessions import Sessions
from ops.servers.embedded import EmbeddedNats
from tests.ops.cli.test_cli import Cli


async def test_sessions_are_listed_and_ended(
    headrace: Cli, lone_nats: EmbeddedNats, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_NATS_URL", lone_nats.url)
    sessions = Sessions(nc)
    actors = ("anon", "a_someone", "anon")
    secrets = [
        await sessions.begin("x", "192.0.2.1", f"browser {number}", actor=actor) for number, actor in enumerate(actors)
    ]
    listed = (await headrace("session", "list", "--json")).lines
    assert [(each["browser"], each["address"], each["account"]) for each in listed] == [
        (f"browser {number}", "192.0.2.1", account) for number, account in enumerate(("", "someone", ""))
    ]
    assert set(listed[0]) == {"id", "account", "began_at", "used_at", "ends_at", "address", "browser"}
    assert listed[1]["id"][:12] in (await headrace("session", "list")).out
    assert (await headrace("session", "list", "--account", "someone", "--json")).lines == [listed[1]]
    wrong = await headrace("session", "end", listed[0]["id"], "nothing")
    assert (wrong.code, "There is no session nothing" in wrong.err) == (1, True)
    assert (await headrace("session", "end", listed[1]["id"][:12], "--json")).lines == [{"ended": [listed[1]["id"]]}]
    assert [await sessions.find(secret) is not None for secret in secrets] == [True, False, True]
    assert (await headrace("session", "end")).code == 2
    assert listed[2]["id"][:12] in (await headrace("session", "end", "--all")).out
    assert (await headrace("session", "list", "--json")).out == ""
    assert (await headrace("session", "end", "--all")).out == "Ended: none.\n"
