"""Headrace as an ordinary user, who may neither change users nor open folders: everything runs as that user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import docs

pytestmark = pytest.mark.long

USER = 65534
"""A user without any rights."""

REACHED = """
set -e
python=$1 closed=$2 spare=$3; shift 3
if [ -n "$closed" ]; then  # others may not pass through the folder of Python: mount it again, for this process alone
    mount --bind "$python" "$spare"
    mount -t tmpfs -o mode=0755 tmpfs "$closed"
    mkdir -p "$python"
    mount --bind "$spare" "$python"
fi
exec setpriv --reuid={user} --regid={user} --clear-groups "$@"
"""


def closed(path: Path) -> Path | None:
    """The first folder on the way to `path` that other users may not pass through."""
    return next((folder for folder in reversed([path, *path.parents]) if not folder.stat().st_mode & 0o001), None)


class Ordinary:
    """Runs the command line as that user, with a home of the user's own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.spare = folder / "python"
        self.spare.mkdir()
        self.python = Path(sys.base_prefix).resolve()

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        script = REACHED.format(user=USER)
        places = [str(self.python), str(closed(self.python) or ""), str(self.spare)]
        command = [sys.executable, "-m", "ops.cli", *arguments, "--home", str(self.home)]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home.parent),
            "PYTHONPATH": str(docs.ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HEADRACE_VIEW_ADDRESS": "127.0.0.1:0",
        }
        return subprocess.run(
            ["unshare", "--mount", "bash", "-c", script, "bash", *places, *command],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )


@pytest.fixture
def ordinary() -> Iterator[Ordinary]:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("NOT TESTED: only root can become another user, with unshare and setpriv")
    if blocked := closed(docs.ROOT) or closed(Path(sys.prefix)):
        pytest.skip(f"NOT TESTED: another user may not pass through {blocked}")
    folder = Path(tempfile.mkdtemp(prefix="headrace-ordinary-", dir="/tmp"))
    os.chown(folder, USER, USER)
    run = Ordinary(folder)
    try:
        yield run
    finally:
        run("down")
        shutil.rmtree(folder)


def test_everything_runs_as_that_user_and_no_folder_is_opened(ordinary: Ordinary) -> None:
    started = ordinary("up", "--detach")
    assert started.returncode == 0, started.stderr
    assert "pass through" not in started.stdout
    assert ordinary("send", "app.create", "name=Porter").returncode == 0
    doctor = ordinary("doctor")
    assert doctor.returncode == 0, doctor.stdout
    owners = {file.stat().st_uid for file in (ordinary.home, *ordinary.home.rglob("*"))}
    assert owners == {USER}
    assert ordinary.home.stat().st_mode & 0o777 == 0o700
    assert ordinary.home.parent.stat().st_mode & 0o777 == 0o700
    assert ordinary("down").returncode == 0
    environment = os.environ | {"HEADRACE_HOME": str(ordinary.home), "PYTHONPATH": str(docs.ROOT)}
    as_root = subprocess.run(
        [sys.executable, "-m", "ops.cli", "up", "--detach"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert as_root.returncode == 1
    assert "belongs to the user" in as_root.stderr
    assert {file.stat().st_uid for file in ordinary.home.rglob("*")} == {USER}
