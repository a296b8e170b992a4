"""Real servers for the tests, on free loopback ports, in a home that goes when the session ends.

The servers sync every write before they acknowledge it, and tests write little and often: where the machine has memory
to spare and TMPDIR names no other place, all that tests write is kept there.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg
import pytest
from nats.aio.client import Client
from psycopg import sql
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from adapters.jetstream import nats_py
from adapters.jetstream.streams import set_up
from adapters.sandbox.child import Sandbox
from adapters.sandbox.choice import choose
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.servers.opensearch.server import EmbeddedOpenSearch, missing
from tests.chat_servers import serving_model, serving_url  # noqa: F401
from tests.lexical_model import lexical_model  # noqa: F401
from tests.small_model import narrow_model, small_model  # noqa: F401

LONGEST = (
    "adapters/jetstream/test_cluster.py",
    "journeys/test_around.py",
    "journeys/test_bad_input.py",
    "journeys/test_dsl.py",
    "ops/test_supervisor.py",
    "adapters/embedding/test_engine.py",
    "contracts/test_index.py",
    "journeys/test_index.py",
    "journeys/test_upgrade.py",
    "adapters/test_postgres.py",
    "journeys/test_verify.py",
    "journeys/test_browser.py",
    "ops/test_bench.py",
    "journeys/test_restore.py",
    "journeys/test_overload.py",
    "journeys/test_export.py",
    "adapters/test_attachments.py",
)
"""The files that take longest, in this order, or are first of those that one process runs together."""

CLUSTERS = (
    "adapters/jetstream/test_cluster.py",
    "chaos/",
    "contracts/",
    "adapters/archive/test_archive.py",
    "ops/test_deploy.py",
)
"""Where NATS runs three times: two such clusters at once are too much for two cores."""

OPENSEARCH = ("adapters/index/test_opensearch.py", "contracts/test_index.py")
"""Where OpenSearch runs: one server of it, and never more at a time than one test wants."""

EMBEDDING = (
    "adapters/embedding/",
    "adapters/index/test_lee.py",
    "adapters/models/test_rerank_api.py",
    "adapters/test_builtin_rerank.py",
    "contracts/test_embedder.py",
    "contracts/test_reranker.py",
)
"""Where a process of tests loads models itself: the library that does takes seconds and a gigabyte."""

STACK = (
    "adapters/models/test_llama_cpp.py",
    "adapters/models/test_openai_compatible.py",
    "contracts/test_chat_model.py",
    "journeys/test_agent.py",
    "journeys/test_around.py",
    "journeys/test_bad_input.py",
    "journeys/test_dsl.py",
    "journeys/test_embedding_provider.py",
    "journeys/test_example_workflows.py",
    "journeys/test_fairness.py",
    "journeys/test_formats.py",
    "journeys/test_handbook.py",
    "journeys/test_mcp.py",
    "journeys/test_memory.py",
    "journeys/test_message_files.py",
    "journeys/test_models.py",
    "journeys/test_node.py",
    "journeys/test_replay.py",
    "journeys/test_reranking.py",
    "journeys/test_retry.py",
    "journeys/test_revocation.py",
    "journeys/test_route_changes.py",
    "journeys/test_runs.py",
    "journeys/test_search.py",
    "journeys/test_secrets.py",
    "journeys/test_segmenting.py",
    "journeys/test_too_large.py",
    "journeys/test_viewer.py",
    "ops/servers/test_model.py",
)
"""The journeys that share the fixture `headrace`: workers take longer to start than most journeys take. The tests of
chat models go with them, since they share a server."""

GROUPS = {"opensearch": OPENSEARCH, "embedding": EMBEDDING, "stack": STACK, "clusters": CLUSTERS}
"""Files that are all the work of one process; a file is in the first group that names it."""

MEMORY = Path("/dev/shm")
SPARE = 4 * 2**30
"""Bytes that must be free there, and of all memory half as much again."""


def pytest_configure(config: pytest.Config) -> None:
    """Tests of all processes write into memory; the first process decides and clears up.

    Python keeps compiled code whatever the environment says: hundreds of processes start, and each would compile it.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if "TMPDIR" not in os.environ and not hasattr(config, "workerinput") and room_in_memory():
        folder = tempfile.mkdtemp(prefix=f"headrace-tests-{os.getpid()}-", dir=MEMORY)
        config.add_cleanup(partial(shutil.rmtree, folder, ignore_errors=True))
        os.environ["TMPDIR"] = tempfile.tempdir = folder


def clear_memory() -> None:
    """Remove what test runs have left there that were killed."""
    for folder in MEMORY.glob("headrace-tests-*"):
        if not psutil.pid_exists(int(folder.name.split("-")[2])):
            shutil.rmtree(folder, ignore_errors=True)


def room_in_memory() -> bool:
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK | os.X_OK):
        return False
    clear_memory()
    return shutil.disk_usage(MEMORY).free >= SPARE and psutil.virtual_memory().available >= SPARE * 3 // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that processes which share the files (`pytest -n 3 --dist loadfile`) end together."""
    here = Path(__file__).parent
    sharing = {item.path.relative_to(here).as_posix() for item in items if shares_workers(item)}
    if left_out := sharing - set(STACK):
        raise pytest.UsageError(f"STACK does not name {', '.join(sorted(left_out))}: it would start workers again.")
    places = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


def shares_workers(item: pytest.Item) -> bool:
    return item.path.parent.name == "journeys" and "headrace" in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """A report of a failure reads sources with `ast`, which in Python 3.11 fails if what is collected meanwhile runs
    code, as tasks do that were not awaited: then all tests would end with it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


class Files(LoadFileScheduling):  # type: ignore[misc]
    """A file is the work of one process, and so is a group of files that share what is slow to start."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        file = scope.removeprefix("tests/")
        for name, files in GROUPS.items():
            if file.startswith(files):
                return name
        return scope


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Files | None:
    return Files(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """The home of the session's servers."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-tests-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
async def sandbox() -> Sandbox:
    """The strongest sandbox of this machine."""
    return (await choose()).sandbox


@pytest.fixture
async def nats_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a NATS server for one test, whose workers may have a secret key of their own."""
    folder = tmp_path_factory.mktemp("bus")
    async with EmbeddedNats(folder) as nats:
        yield nats.url
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def mask() -> Iterator[None]:
    """Permissions of new files: `headrace up` narrows those of its process."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
async def lone_nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedNats]:
    """A NATS server for the tests of one module, for those who read all of a stream or take everything off it."""
    folder = tmp_path_factory.mktemp("lone")
    async with EmbeddedNats(folder) as server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
async def nc(lone_nats: EmbeddedNats) -> AsyncIterator[Client]:
    """A connection to the module's own server, with the streams made."""
    client = await nats_py.connect(lone_nats.url)
    await set_up(client.jetstream())
    yield client
    await client.close()


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test has."""
    return f"t{uuid4().hex}"


@pytest.fixture(scope="session")
async def postgres(home: Path) -> AsyncIterator[EmbeddedPostgres]:
    async with EmbeddedPostgres(home) as server:
        yield server


@pytest.fixture(scope="session")
async def postgres_url(postgres: EmbeddedPostgres) -> str:
    return postgres.url


@pytest.fixture(scope="session")
def java_and_maven() -> None:
    """Where they are missing, tests with OpenSearch are skipped, unless they must not be."""
    if reason := missing():
        if os.environ.get("OPENSEARCH_TESTS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
async def opensearch(
    tmp_path_factory: pytest.TempPathFactory, java_and_maven: None
) -> AsyncIterator[EmbeddedOpenSearch]:
    """The session's OpenSearch server. Java compiles in one step: optimizing takes longer than it saves the tests."""
    folder = tmp_path_factory.mktemp("opensearch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
        server = EmbeddedOpenSearch(folder)
        await server.start()
    yield server
    await server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def opensearch_url(request: pytest.FixtureRequest) -> str:
    """The cluster that HEADRACE_OPENSEARCH_URL names, else a server of the session's own."""
    if given := os.environ.get("HEADRACE_OPENSEARCH_URL"):
        return given
    server: EmbeddedOpenSearch = request.getfixturevalue("opensearch")
    return server.url


@asynccontextmanager
async def fresh_database(server: EmbeddedPostgres) -> AsyncIterator[str]:
    """The address of a new, empty database, dropped afterwards even with open connections."""
    name = f"test_{uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(server.url, autocommit=True) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield server.url_of(name)
        await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A fresh, empty database for one test."""
    async with fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
async def module_database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A fresh, empty database for the tests of one module."""
    async with fresh_database(postgres) as url:
        yield url
