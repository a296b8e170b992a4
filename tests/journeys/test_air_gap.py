"""A machine without a network: what `make bundle` writes installs there, and answers the questions of the demo."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.demo import EXAMPLES, QUESTIONS
from ops.install import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

ROUTES = "import pathlib; print(len(pathlib.Path('/proc/net/route').read_text().splitlines()[1:]))"


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder on the disk, since other files of tests may be in memory; it takes 12 GB."""
    (ROOT / "dist").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="air gap ", dir=ROOT / "dist") as folder:
        yield Path(folder)


class Away:
    """A machine without a network: no route, an empty home, and no programs but those of the system and Python."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        variables = {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PATH": f"{sys.base_prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        self.command = ["bwrap", "--dev-bind", "/", "/", "--proc", "/proc", "--unshare-net", "--unshare-pid"]
        self.command += ["--die-with-parent", "--clearenv", *(["--cap-add", "ALL"] if os.geteuid() == 0 else [])]
        for name, value in variables.items():
            self.command += ["--setenv", name, value]

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Run a command to its success. Return its output."""
        done = subprocess.run(
            [*self.command, "--", *command], capture_output=True, text=True, cwd=cwd or self.home, check=False
        )
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture
def away(disk: Path) -> Away:
    if not shutil.which("bwrap"):
        pytest.fail("this test needs bubblewrap (on Debian and Ubuntu: apt install bubblewrap)")
    machine = Away(disk / "home")
    assert machine.run("python3", "-c", ROUTES) == "0\n"
    return machine


def test_a_bundle_installs_and_runs_without_a_network(disk: Path, away: Away) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "ops.bundle", "--json", "--into", str(disk)], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    report = json.loads(made.stdout)
    archive = Path(report["bundle"])
    with archive.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == report["sha256"]
    away.run("tar", "-xf", str(archive), cwd=disk)
    archive.unlink()

    into = disk / "installed"
    out = away.run("python3", str(disk / archive.stem / "install.py"), str(into))
    assert f"is in {into}" in out
    shutil.rmtree(disk / archive.stem)
    assert sum(file.lstat().st_size for file in into.rglob("*")) < report["unpacked"] * 1.3

    out = away.run(".venv/bin/python", "-m", "ops.demo", cwd=into)
    questions = json.loads((EXAMPLES / "questions.json").read_text())[:QUESTIONS]
    for question in questions:
        _, _, answered = out.partition(f"? {question['question']}\n")
        assert all(fact in answered for fact in question["answer"])
        assert f"[1] {question['document']}" in answered
    assert list(away.home.iterdir()) == []
