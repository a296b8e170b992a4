"""Packages that a role loads: each takes megabytes in every process that has it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ops.roles import EVERY
from ops.settings import Settings
from ops.supervisor import environment

OTHERS = {"aiohttp", "openai", "opensearchpy", "requests", "scipy", "sklearn", "torch", "transformers"}
"""Packages of other settings: no role loads them as it starts, apart from `embed`, which loads its model."""

TABLES = {"snowballstemmer", "sqlalchemy"}
SEARCH = {"numpy", "psycopg_pool", "snowballstemmer", "tokenizers"}
WEB = {"psycopg_pool", "starlette", "uvicorn"}
PACKAGES = OTHERS | TABLES | SEARCH | WEB

LOADED = {
    "embed": {"numpy"},
    "project": TABLES,
    "commands": set[str](),
    "ingest": SEARCH,
    "answer": SEARCH,
    "view": TABLES | WEB,
    "export": TABLES,
    "archive": set[str](),
}
"""Packages of these that a role needs."""


def loaded(program: str) -> set[str]:
    """Top-level packages that a process has after this program."""
    program += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment(Settings()))
    return set(done.stdout.decode().split())


@pytest.mark.parametrize("role", EVERY)
def test_a_role_loads_what_it_needs(role: str) -> None:
    """As `headrace worker --role` does, with what a role imports when it begins."""
    later = "import adapters.embedding.models, ops.index_choice" if role in ("ingest", "answer") else "pass"
    found = loaded(f"from ops.cli.frame import register; register(['worker']); import ops.roles.{role}; {later}")
    assert found & PACKAGES == LOADED[role]


def test_a_command_loads_its_own_file_alone() -> None:
    found = loaded("from ops.cli.frame import register; register(['send'])")
    assert not found & PACKAGES
