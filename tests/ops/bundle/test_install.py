from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ops.bundle import archive, install

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
ABOUT = {
    "headrace": "1.0",
    "python": HERE,
    "platform": f"manylinux_2_17_{platform.machine()}",
    "extra": "dev",
    "torch": "cpu",
    "unpacked": 1000,
}

INSTALL = """
import json, os, pathlib, sys
made = pathlib.Path(__file__).parent.parent / ".venv"
made.mkdir(exist_ok=True)
(made / "environment").write_text(json.dumps({**os.environ, "extra": sys.argv[1]}))
pathlib.Path(os.environ["PIP_CACHE_DIR"]).mkdir()
sys.exit(int(pathlib.Path(__file__).with_name("status").read_text()))
"""
"""`ops/install.py` of the archives here, which writes its environment down."""

CODE = {"ops/install.py": INSTALL, "ops/status": "0", "docs/page.md": "page"}


def unpacked(folder: Path, code: Mapping[str, str] = CODE, **about: Any) -> Path:
    """Make and unpack an archive. Return its script."""
    contents: dict[str, Path | bytes] = {f"code/{name}": text.encode() for name, text in code.items()}
    contents |= {"install.py": Path(install.__file__), "bundle.json": json.dumps({**ABOUT, **about}).encode()}
    contents |= {"wheels/parcel-1.0-py3-none-any.whl": b"wheel"}
    folder.mkdir()
    archive.write(folder / "made.tar", contents, lambda *_: None)
    shutil.unpack_archive(folder / "made.tar", folder, filter="data")
    return folder / "made" / "install.py"


def run(script: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, env={**os.environ, **variables}
    )
    return done.returncode, done.stdout, done.stderr


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_code_is_copied_and_installed_from_the_wheels_alone(tmp_path: Path) -> None:
    script = unpacked(tmp_path / "a folder")
    into = tmp_path / "in to"
    others = {"PIP_INDEX_URL": "http://127.0.0.1:1", "UV_INDEX": "http://127.0.0.1:1", "INSTALL_INTO": "elsewhere"}
    code, out, err = run(script, str(into), **others)
    assert (code, err) == (0, "")
    assert "6 files are as SHA256SUMS lists them." in out
    assert f"Headrace 1.0 is in {into}" in out
    assert files(into) == {*CODE, ".venv/environment", "SHA256SUMS", "bundle.json"}
    environment = json.loads((into / ".venv" / "environment").read_text())
    assert (
        environment.items()
        >= {
            "PIP_NO_INDEX": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": (script.parent / "wheels").as_uri(),
            "TORCH": "cpu",
            "extra": "dev",
        }.items()
    )
    assert environment.keys().isdisjoint(others)


def test_another_version_replaces_the_code_and_keeps_data_and_packages(tmp_path: Path) -> None:
    into = tmp_path / "into"
    assert run(unpacked(tmp_path / "one"), str(into))[0] == 0
    for kept in (".headrace/secret.key", ".venv/plugin", "notes.txt"):
        (into / kept).parent.mkdir(exist_ok=True)
        (into / kept).write_text("mine")
    code = {**CODE, "docs/other.md": "other"}
    del code["docs/page.md"]
    assert run(unpacked(tmp_path / "two", code, headrace="2.0"), str(into))[0] == 0
    assert files(into) == {
        *code,
        *(".headrace/secret.key", ".venv/plugin", ".venv/environment", "notes.txt", "SHA256SUMS", "bundle.json"),
    }
    assert run(unpacked(tmp_path / "three", code, torch="cuda"), str(into))[0] == 0
    assert not (into / ".venv" / "plugin").exists()
    assert (into / ".headrace" / "secret.key").exists()


@pytest.mark.parametrize("name", ["code/ops/install.py", "wheels/parcel-1.0-py3-none-any.whl", "bundle.json"])
def test_a_file_that_was_altered_is_named_and_nothing_is_installed(tmp_path: Path, name: str) -> None:
    script = unpacked(tmp_path / "archive")
    with (script.parent / name).open("a") as file:
        file.write(" ")
    code, _, err = run(script, str(tmp_path / "into"))
    assert (code, (tmp_path / "into").exists()) == (1, False)
    assert f"Not installed: {name} differs from the digest in SHA256SUMS" in err


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"platform": "manylinux_2_17_sparc"}, "this bundle is for Linux sparc with glibc; this machine is linux"),
        ({"platform": f"manylinux_2_99_{platform.machine()}"}, "this bundle needs glibc 2.99 or newer"),
        ({"python": "3.99"}, "this bundle is for Python 3.99: install it"),
        ({"unpacked": 10**18}, "needs 1000000000.4 GB, and only"),
    ],
)
def test_a_machine_that_it_is_not_for_is_refused(tmp_path: Path, about: dict[str, Any], said: str) -> None:
    code, _, err = run(unpacked(tmp_path / "archive", **about), str(tmp_path / "into"))
    assert (code, (tmp_path / "into").exists()) == (1, False)
    assert said in err


def test_another_python_of_the_machine_continues(tmp_path: Path) -> None:
    """The one on the path claims to be that version, and runs the script with the one that is here."""
    claims = tmp_path / "bin" / "python3.99"
    claims.parent.mkdir()
    claims.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 3.99 && exit\necho continued with "$2"\n')
    claims.chmod(0o755)
    script = unpacked(tmp_path / "archive", python="3.99")
    code, out, _ = run(script, "into", PATH=f"{claims.parent}:{os.environ['PATH']}")
    assert (code, out) == (0, "continued with into\n")


def test_an_installation_that_fails_is_an_error(tmp_path: Path) -> None:
    code, out, err = run(unpacked(tmp_path / "archive", {**CODE, "ops/status": "3"}), str(tmp_path / "into"))
    assert (code, err) == (1, "Not installed: the lines above have the reason.\n")
    assert "is in" not in out


@pytest.mark.parametrize("arguments", [(), ("one", "two"), ("--help",)])
def test_one_folder_is_expected(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(unpacked(tmp_path / "archive"), *arguments) == (2, "", "Usage: python3 install.py FOLDER\n")
