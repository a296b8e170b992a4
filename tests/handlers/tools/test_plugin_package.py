"""Packages of plugins: what is read of one, and what is refused with which reason."""

from __future__ import annotations

import io
import json
import stat
import warnings
import zipfile
from typing import Any

import pytest

from domain.aggregate import Rejection
from handlers.commands import plugin_package as packages
from handlers.commands.plugin_package import lock_fault, pack, parse, read
from tests.packages import FILTER, package

HASH = f"--hash=sha256:{'0' * 64}"


def refusal(data: bytes) -> str:
    with pytest.raises(Rejection) as refused:
        read(data)
    assert refused.value.code == "invalid_package"
    return refused.value.message


def archive(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    held = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as writer:
        warnings.simplefilter("ignore")  # of two files with one name
        writer.writestr("plugin.json", json.dumps(FILTER))
        writer.writestr("main.py", "")
        for name, data in entries:
            writer.writestr(name, data)
    return held.getvalue()


def test_a_package_has_its_manifest_with_every_default() -> None:
    found = read(package("print()", requirements_lock=f"idna==3.10 {HASH}\n"))
    assert found.manifest["name"] == "mask"
    assert found.manifest["on_failure"] == "closed"
    assert found.manifest["match"] == {"kinds": [], "providers": [], "models": [], "apps": []}
    assert found.lock.startswith("idna==")
    assert {name: data for name, _, data in found.files()}["main.py"] == b"print()"


def test_a_monitor_fails_open() -> None:
    assert parse(json.dumps({**FILTER, "kind": "monitor"}).encode())["on_failure"] == "open"


def test_equal_files_make_equal_packages() -> None:
    files = [("b", True, b"2"), ("a", False, b"1")]
    assert pack(iter(files)) == pack(iter(files[::-1]))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "Mask"}, "name: "),
        ({"version": "1"}, "version: "),
        ({"main": "../main.py"}, "leads out of the package"),
        ({"main": "/bin/sh"}, "leads out of the package"),
        ({"hooks": {}}, "needs one of"),
        ({"hooks": {"before": "x"}}, "hooks.before"),
        ({"hooks": {"before_invoke": "a.b"}}, "hooks.before_invoke"),
        ({"kind": "monitor", "hooks": {"before_tool": "x"}}, "a monitor has no hook before_tool"),
        ({"dependencies": {"x @ http://a": ""}}, "name of a package"),
        ({"dependencies": {"x": "@ http://a"}}, "Must be a version"),
        ({"network": ["http://a"]}, "Must be a host"),
        ({"network": ["$"]}, "Must be a host"),
        ({"settings": {"type": "array"}}, "type object"),
        ({"settings": {"type": "object", "properties": {"a": {"$ref": "http://a"}}}}, "$defs"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"unknown": 1}, "unknown"),
        ({"api": 2}, "api"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(fields: dict[str, Any], problem: str) -> None:
    assert problem in refusal(package(manifest={**FILTER, **fields}))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../out.py", "leads out"),
        ("/etc/x", "leads out"),
        ("a//b", "leads out"),
        ("a\\..\\b", "character"),
        ("C:x", "character"),
        ("a\nb", "character"),
        ("x" * 300, "1 to 255 characters"),
        ("MAIN.py", "two files"),
        ("main.py/x", "a file and a folder"),
    ],
)
def test_a_path_that_is_none_of_a_package_is_refused(name: str, reason: str) -> None:
    assert reason in refusal(archive((name, b"")))


def test_links_are_refused() -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "link" in refusal(archive((link, b"/etc/passwd")))


def test_a_bomb_is_refused_by_its_declared_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MOST_UNPACKED", 10_000)
    assert "at most 10,000" in refusal(archive(("zeros", bytes(100_000))))


def test_a_bomb_that_lies_about_its_size_yields_no_more_than_it_says() -> None:
    data = bytearray(archive(("zeros", bytes(100_000))))
    size = (100_000).to_bytes(4, "little")
    for _ in range(2):  # in the header and in the directory
        at = data.index(size)
        data[at : at + 4] = (10).to_bytes(4, "little")
    found = read(bytes(data))
    with pytest.raises(Rejection, match="zeros cannot be read"):
        list(found.files())


def test_too_many_files_and_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MOST_FILES", 3)
    assert "at most 3" in refusal(archive(("a", b""), ("b", b"")))
    monkeypatch.setattr(packages, "MOST_BYTES", 10)
    assert "at most 10" in refusal(archive())


def test_what_is_no_package_is_refused() -> None:
    assert "no zip file" in refusal(b"x" * 100)
    assert "no file plugin.json" in refusal(pack(iter([("main.py", False, b"")])))
    assert "no file main.py" in refusal(pack(iter([("plugin.json", False, json.dumps(FILTER).encode())])))
    assert "not JSON" in refusal(pack(iter([("plugin.json", False, b"{"), ("main.py", False, b"")])))
    assert "no zip file" in refusal(archive()[:-40])


@pytest.mark.parametrize(
    "line",
    [
        f"idna==3.10 {HASH}",
        f"uvicorn[standard]==0.30 ; python_version < '3.13' {HASH} {HASH}",
        f"idna==3.10 \\\n    {HASH} \\\n    {HASH}  # via x",
        "# a comment",
    ],
)
def test_a_lock_has_packages_with_hashes(line: str) -> None:
    assert lock_fault(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "idna==3.10",
        "idna>=3",
        f"idna @ https://a/b.whl {HASH}",
        "-e .",
        "--index-url https://a",
        "-r other.txt",
        f"./idna.whl {HASH}",
        f"idna==3.10 ; x @ y {HASH}",
        f"git+https://a {HASH}",
    ],
)
def test_a_lock_has_nothing_else(line: str) -> None:
    assert "must be a package" in str(lock_fault(line))
