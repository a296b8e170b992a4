from __future__ import annotations

from pathlib import Path

import pytest
from nats.aio.client import Client

from adapters.jetstream.sessions import Sessions
from ops.servers.embedded import EmbeddedNats
from tests.ops.cli.test_cli import Cli

ADDRESS = "http://127.0.0.1:1"


@pytest.fixture
def headrace(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    nc: Client,
    lone_nats: EmbeddedNats,
) -> Cli:
    """The command line on a home whose viewer is at `ADDRESS`."""
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.setenv("HEADRACE_NATS_URL", lone_nats.url)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "viewer.url").write_text(ADDRESS)
    return Cli(capsys)


async def test_a_link_works_once(headrace: Cli, nc: Client) -> None:
    [made] = (await headrace("viewer", "link", "--json")).lines
    assert made["expires_in_s"] == 600
    shown = (await headrace("viewer", "link")).out.strip()
    other = (await headrace("viewer", "link", "--address", "https://host/")).out.strip()
    for link, address in ((made["link"], ADDRESS), (shown, ADDRESS), (other, "https://host")):
        code = link.removeprefix(f"{address}/login?code=")
        assert [await Sessions(nc).redeem(code) for _ in range(2)] == [True, False]


async def test_without_a_viewer_the_address_is_asked_for(headrace: Cli, tmp_path: Path) -> None:
    (tmp_path / "run" / "viewer.url").unlink()
    result = await headrace("viewer", "link")
    assert (result.code, "name the address of one with --address" in result.err) == (1, True)


async def test_sessions_are_listed_and_ended(headrace: Cli, nc: Client) -> None:
    sessions = Sessions(nc)
    actors = ("anon", "a_someone", "anon")
    secrets = [
        await sessions.begin("x", "192.0.2.1", f"browser {number}", actor=actor) for number, actor in enumerate(actors)
    ]
    listed = (await headrace("viewer", "sessions", "--json")).lines
    assert [(each["browser"], each["address"], each["account"]) for each in listed] == [
        (f"browser {number}", "192.0.2.1", account) for number, account in enumerate(("", "someone", ""))
    ]
    assert set(listed[0]) == {"id", "account", "began_at", "used_at", "ends_at", "address", "browser"}
    assert listed[1]["id"][:12] in (await headrace("viewer", "sessions")).out
    wrong = await headrace("viewer", "end", listed[0]["id"], "nothing")
    assert (wrong.code, "There is no session nothing" in wrong.err) == (1, True)
    assert (await headrace("viewer", "end", listed[1]["id"][:12], "--json")).lines == [{"ended": [listed[1]["id"]]}]
    assert [await sessions.find(secret) is not None for secret in secrets] == [True, False, True]
    assert (await headrace("viewer", "end")).code == 2
    assert listed[2]["id"][:12] in (await headrace("viewer", "end", "--all")).out
    assert (await headrace("viewer", "sessions", "--json")).out == ""
    assert (await headrace("viewer", "end", "--all")).out == "Ended: none.\n"
