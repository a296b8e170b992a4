from __future__ import annotations

import platform
import re
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

import pytest

from ops import install

PYTHON = f"cp{sys.version_info[0]}{sys.version_info[1]}"


def test_every_requirement_is_pinned_and_no_address_is_recorded() -> None:
    lines = install.CONSTRAINTS.read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    pins = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines}
    project = tomllib.loads(install.PYPROJECT.read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    assert [name for name in wanted if re.split(r"[\[<>=!~;]", name)[0].lower() not in pins] == []


class Index(BaseHTTPRequestHandler):
    """An index of packages that lists one wheel, or says nothing."""

    wheel: ClassVar[str] = f"torch-9.9.9%2Bcpu-{PYTHON}-"
    silent: ClassVar[Event | None] = None

    def do_GET(self) -> None:
        if self.silent:
            self.silent.wait(10)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f'<a href="/whl/cpu/{self.wheel}linux_x86_64.whl">torch</a>'.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), Index)
    thread = Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(install, "CPU_BUILDS", f"http://127.0.0.1:{server.server_port}/whl/cpu")
    for name in ("PIP_NO_INDEX", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("index")
def test_a_cpu_build_that_is_listed_is_found() -> None:
    assert install.cpu_build_available("9.9.9")
    assert not install.cpu_build_available("9.9.8")


@pytest.mark.usefixtures("index")
def test_an_index_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "CPU_BUILDS_WITHIN", 0.2)
    done = Event()
    monkeypatch.setattr(Index, "silent", done)
    assert not install.cpu_build_available("9.9.9")
    done.set()


def test_pip_without_an_index_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert not install.cpu_build_available("9.9.9")


@pytest.mark.parametrize(
    ("gpu", "listed", "said", "installs"),
    [
        (True, True, r"has an NVIDIA GPU: taking the CUDA build, about 4 GB", 0),
        (False, True, r"no NVIDIA GPU: taking the CPU build, about 200 MB instead of 4 GB", 1),
        (False, False, r"no CPU build of [\d.]+ \(about 200 MB\) was found .*taking the CUDA build, about 4 GB", 0),
    ],
)
def test_which_torch_and_why_is_said_before_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    gpu: bool,
    listed: bool,
    said: str,
    installs: int,
) -> None:
    calls: list[tuple[str, ...]] = []

    def pip(*arguments: str) -> bool:
        calls.append(arguments)
        assert re.search(said, capsys.readouterr().out)
        return True

    monkeypatch.setattr(install, "VENV", tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(install, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setattr(install, "cpu_build_available", lambda version: listed)
    monkeypatch.setattr(install, "pip", pip)
    install.install_torch()
    assert len(calls) == installs
    assert installs or re.search(said, capsys.readouterr().out)
    assert [call[-1] for call in calls] == [f"torch=={install.pinned('torch')}+cpu"] * installs


def test_an_environment_that_is_up_to_date_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stamp").write_text(install.fingerprint())
    monkeypatch.setattr(install, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(install, "venv_python", lambda: Path(sys.executable))
    monkeypatch.setattr(install, "run", lambda *command: pytest.fail("nothing is to be run"))
    assert install.main() == 0
