"""The example in examples/node: a program without Python goes from a command on the bus to a cited answer."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from asyncio.subprocess import PIPE
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import pytest

from ops.servers.embedded import EmbeddedNats
from ops.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "node"


class Headrace(Protocol):
    settings: Settings
    tenant: str


async def run(*command: str, cwd: Path, environment: Mapping[str, str] = {}) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env={**os.environ, **environment}, stdout=PIPE, stderr=PIPE
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), err.decode()


@pytest.fixture(scope="module")
async def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its packages installed."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("The Node.js example needs node and npm on the PATH.")
    _, version, _ = await run("node", "--version", cwd=EXAMPLE)
    if int(version.removeprefix("v").partition(".")[0]) < 20:
        pytest.skip(f"The Node.js example needs Node.js 20 or newer; this is {version.strip()}.")
    folder = tmp_path_factory.mktemp("npm") / "node"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    status, out, err = await run("npm", "install", "--no-audit", "--no-fund", cwd=folder)
    assert status == 0, out + err
    assert not (folder / "package-lock.json").exists()
    return folder / "index.mjs"


async def steps(program: Path, url: str, tenant: str) -> tuple[int | None, list[dict[str, Any]]]:
    """Run the program; the exit status, and what it says of each step."""
    status, out, err = await run(
        "node", str(program), "--json", "--tenant", tenant, cwd=program.parent, environment={"NATS_URL": url}
    )
    assert not err
    return status, [json.loads(line) for line in out.splitlines()]


def only(said: list[dict[str, Any]], step: str) -> dict[str, Any]:
    (found,) = (each for each in said if each["step"] == step)
    return found


async def test_a_node_program_gets_a_cited_answer(headrace: Headrace, program: Path) -> None:
    login = EmbeddedNats(headrace.settings.home).last_url_of(f"tenant-{headrace.tenant}")
    status, said = await steps(program, login, headrace.tenant)
    assert status == 0, said

    outcomes = [each["outcome"] for each in said if each["step"] == "outcome"]
    names = ["dataset.create", "document.upload", "app.create", "app.configure", "message.send"]
    assert [outcome["name"] for outcome in outcomes] == names
    for outcome in outcomes:
        assert outcome["status"] == "accepted"
        assert outcome["sequence"] > 0
        assert UUID(outcome["command"]).version == 7
    for outcome in outcomes[:3]:
        assert outcome["ids"][outcome["name"].partition(".")[0]] == outcome["command"]

    repeated = only(said, "repeated")
    assert repeated["same"] is True
    assert repeated["outcome"] == outcomes[0]

    rejection = only(said, "rejection")
    assert (rejection["status"], rejection["code"], rejection["field"]) == ("rejected", "invalid", "retrieval.top_k")
    assert "greater than or equal to 1" in rejection["message"]

    document = [each["type"] for each in said if each["step"] == "document"]
    assert document[-1] == "document.completed.v1"

    answer = only(said, "answer")
    assert answer["conversation"] == outcomes[-1]["command"]
    assert "nine days" in answer["answer"]
    citation = answer["citations"][0]
    assert citation["position"] == 1
    assert citation["document"] == outcomes[1]["command"]
    assert citation["document_name"] == "reading-room.txt"
    assert "nine days" in citation["sentence"]

    tokens = [each for each in said if each["step"] == "token"]
    assert [token["index"] for token in tokens] == list(range(len(tokens)))
    assert "".join(token["text"] for token in tokens) == answer["answer"]
    assert said.index(tokens[0]) < said.index(answer)


async def test_a_node_program_says_what_is_wrong_when_no_server_listens(
    program: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    status, said = await steps(program, f"nats://127.0.0.1:{unused_tcp_port_factory()}", "default")
    assert status == 1
    assert only(said, "error")["message"] == "connection refused"
