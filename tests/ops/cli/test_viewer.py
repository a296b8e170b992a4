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
