"""Connections to the outside: the settings reach the guard, and no other client does without it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import OperationalError

from ops import egress
from ops.egress import Alone, own_servers
from ops.settings import InvalidSetting, Settings

ROOT = Path(__file__).resolve().parents[2]
CODE = ("domain", "handlers", "projections", "adapters", "ops")

CLIENTS = {
    *("aiohttp", "authlib", "boto3", "botocore", "ftplib", "grpc", "http", "httpcore", "httpcore2", "httpx", "httpx2"),
    *("imaplib", "mcp", "obstore", "openai", "opensearchpy", "paramiko", "poplib", "pycurl", "requests", "smtplib"),
    *("telnetlib", "urllib3", "websocket", "websockets", "xmlrpc"),
}
"""Packages that can connect to an address. Those of NATS and PostgreSQL are not among them: operators name these."""

GUARDED = {
    "adapters/egress/client.py": {"httpcore2", "httpx2"},
    "adapters/egress/fetch.py": {"httpx2"},
    "adapters/egress/http.py": {"httpx2"},
    "adapters/models/audio_api.py": {"httpx2"},
    "adapters/models/chat_server.py": {"httpx2"},
    "adapters/models/embedding_api.py": {"httpx2"},
    "adapters/models/faults.py": {"httpx2"},
    "adapters/models/ollama.py": {"httpx2"},
    "adapters/models/rerank_api.py": {"httpx2"},
    "adapters/models/server.py": {"httpx2"},
    "adapters/tools/exchange.py": {"httpx2"},
    "adapters/tools/mcp/login.py": {"mcp"},
    "adapters/tools/mcp/processes.py": {"mcp"},
    "adapters/tools/mcp/questions.py": {"mcp"},
    "adapters/tools/mcp/session.py": {"httpx2", "mcp"},
    "adapters/tools/mcp/toolbox.py": {"httpx2", "mcp"},
}
"""Files that call what a tenant chooses, and the packages that they import."""

OPERATORS = {
    "adapters/objects/bucket.py": {"obstore"},
    "adapters/index/opensearch/client.py": {"opensearchpy"},
    "adapters/index/opensearch/segments.py": {"opensearchpy"},
    "adapters/telemetry/otlp/collector.py": {"httpx2"},
    "ops/bench/traces.py": {"urllib.request"},
    "ops/servers/model.py": {"httpx2"},
    "ops/servers/opensearch/server.py": {"httpx2"},
}
"""Files that call only what the operator names: the object store, OpenSearch, the collector, and servers of ours."""

SERVE = {"adapters/mcp_server.py": {"mcp"}, "ops/cli/mcp.py": {"mcp"}}
"""Files that serve, and call nothing."""

SOCKETS = {"create_connection", "open_connection", "open_unix_connection", "sock_connect", "urlopen"}
MAKES = SOCKETS | {
    *("AsyncClient", "AsyncConnectionPool", "AsyncHTTPTransport", "AsyncOpenAI", "Client", "ConnectionPool"),
    *("DefaultAioHttpClient", "DefaultAsyncHttpx2Client", "DefaultAsyncHttpxClient", "HTTPTransport", "OpenAI"),
}
"""Functions and classes that make connections: any, and those of the packages above."""

MADE = {
    "adapters/egress/client.py": {"AsyncConnectionPool", "open_connection"},
    "adapters/tools/mcp/session.py": {"Client"},
    "adapters/telemetry/otlp/collector.py": {"AsyncClient"},
    "ops/bench/traces.py": {"urlopen"},
    "ops/servers/embedded.py": {"open_connection"},
    "ops/servers/model.py": {"AsyncClient"},
    "ops/servers/opensearch/server.py": {"AsyncClient"},
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in CODE:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text("utf-8"))


def imported(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(level=0, module=str(module)):
                names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
            case _:
                continue
        found |= {name.partition(".")[0] for name in names} & CLIENTS
        found |= {"urllib.request"} & {*names, *(name.rpartition(".")[0] for name in names)}
    return found


def called(tree: ast.Module) -> dict[str, list[ast.Call]]:
    found: dict[str, list[ast.Call]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found.setdefault(name, []).append(node)
    return found


def test_nothing_imports_another_client_of_servers() -> None:
    found = {file: names for file, tree in sources() if (names := imported(tree))}
    assert found == GUARDED | OPERATORS | SERVE


def test_nothing_makes_a_connection_but_the_guard_and_what_operators_name() -> None:
    makes = {file: called(tree).keys() & (MAKES if imported(tree) else SOCKETS) for file, tree in sources()}
    found = {file: names for file, names in makes.items() if names}
    assert found == MADE


def test_our_own_servers_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.internal:9000")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "viewer.url").write_text("http://127.0.0.1:8401")
    settings = Settings(
        home=tmp_path,
        nats_url="nats://user:secret@n1.internal:4333, tls://n2.internal",
        postgres_url="postgresql://user@p1.internal:5433,p2.internal:5434/headrace",
        opensearch_url="https://search.internal,http://other.internal:9201",
        otlp_endpoint="http://collector.internal:4318",
        view_address="0.0.0.0:8400",
    )
    assert set(own_servers(settings)) == {
        *(("n1.internal", port) for port in (4333, 4222, 6222, 8222)),
        *(("n2.internal", port) for port in (4222, 6222, 8222)),
        ("p1.internal", 5433),
        ("p2.internal", 5434),
        ("search.internal", 443),
        ("other.internal", 9201),
        ("collector.internal", 4318),
        ("0.0.0.0", 8400),
        ("127.0.0.1", 8401),
        ("store.internal", 9000),
    }


@pytest.mark.parametrize(
    ("nats_url", "known", "tenant", "alone"),
    [
        ("nats://127.0.0.1:4222", ["default"], "default", True),
        ("nats://localhost:4222", [], "default", True),
        ("nats://127.0.0.1:4222", ["acme", "default"], "default", False),
        ("nats://127.0.0.1:4222", ["acme"], "acme", False),
        ("nats://127.0.0.1:4222", [], "acme", False),
        ("nats://nats.internal:4222", ["default"], "default", False),
        ("nats://127.0.0.1:4222,nats://10.0.0.7:4222", ["default"], "default", False),
    ],
)
async def test_only_the_one_tenant_of_a_machine_is_alone(
    nats_url: str, known: list[str], tenant: str, alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tenants(url: str) -> list[str]:
        return known

    monkeypatch.setattr(egress, "tenants", tenants)
    assert await Alone(Settings(home=tmp_path, nats_url=nats_url))(tenant) is alone


async def test_while_the_tenants_are_unknown_none_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(url: str) -> list[str]:
        raise OperationalError

    monkeypatch.setattr(egress, "tenants", away)
    assert await Alone(Settings(home=tmp_path, nats_url="nats://127.0.0.1:4222"))("default") is False


@pytest.mark.parametrize("entries", ["127.0.0.1", "169.254.0.0/16", "http://10.0.0.1"])
def test_the_setting_refuses_what_is_never_allowed(entries: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"egress.allow is not usable"):
        Settings.load(home=tmp_path, egress_allow=entries)
