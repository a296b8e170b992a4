"""The lock files of packages of Dify, and their Python."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from adapters.plugins import interpreters
from handlers.commands.plugin_package import LOCK, Package, pack, read
from ops import dify_requirements
from ops.plugin_files import packed
from ops.resolve import Unpackable
from tests.dify_packages import MAIN, manifest
from tests.packages import WHEEL, WHEEL_HASH

NAME = "tide-1.0-py3-none-any.whl"


def made(files: Mapping[str, str | bytes]) -> bytes:
    """A package with these files."""
    content = {"manifest.yaml": str(manifest()), "main.py": MAIN, **files}
    return pack((name, False, each.encode() if isinstance(each, str) else each) for name, each in content.items())


def fault(package: Package, place: Path) -> str:
    with pytest.raises(Unpackable) as refused:
        dify_requirements.lock(package, place, build=False)
    return str(refused.value)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("tide @ https://host/tide.whl", "named by an address"),
        ("git+https://host/tide", "no package with versions"),
        ("--index-url https://host", "no package with versions"),
        ("-r other.txt", "no package with versions"),
        ("./tide", "no package with versions"),
    ],
)
def test_requirements_are_names_of_packages(tmp_path: Path, line: str, part: str) -> None:
    assert part in fault(read(made({"requirements.txt": f"# its needs\n{line}\n"})), tmp_path / LOCK)
    assert part in fault(read(made({"pyproject.toml": f"[project]\ndependencies = ['{line}']\n"})), tmp_path / LOCK)


def test_a_package_names_what_it_needs(tmp_path: Path) -> None:
    assert "none of uv.lock, pyproject.toml and requirements.txt" in fault(read(made({})), tmp_path / LOCK)
    assert "cannot be read" in fault(read(made({"pyproject.toml": "[project"})), tmp_path / LOCK)


def test_a_package_that_brings_its_wheels_is_locked_by_them(tmp_path: Path) -> None:
    source = tmp_path / "lab.difypkg"
    requirements = "--no-index --find-links=./wheels/\ntide\n"
    source.write_bytes(made({"requirements.txt": requirements, f"wheels/{NAME}": WHEEL}))
    assert packed(source).lock == f"tide==1.0 --hash=sha256:{WHEEL_HASH}\n"


async def test_an_interpreter_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    assert await interpreters.interpreter("3.77") is None
    other = program(tmp_path / "other", "3.76")
    found = program(tmp_path / "found", "3.77")
    assert await interpreters.interpreter("3.77", f"{tmp_path}/missing{os.pathsep}{other}{os.pathsep}{found}") == found
    older = program(tmp_path / "pyenv/versions/3.77.9/bin/python3.77", "3.77")
    newer = program(tmp_path / "pyenv/versions/3.77.10/bin/python3.77", "3.77")
    assert await interpreters.interpreter("3.77") == newer
    newer.unlink()
    assert await interpreters.interpreter("3.77") == older
    assert await interpreters.interpreter(interpreters.RUNNING)


def program(path: Path, version: str) -> Path:
    """A program that says that it is Python of this version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
