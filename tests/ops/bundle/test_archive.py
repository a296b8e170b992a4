from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

from ops.bundle import archive
from ops.install import ROOT


def contents(folder: Path) -> dict[str, Path | bytes]:
    folder.mkdir()
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "tool").chmod(0o700)
    (folder / "text").write_bytes(b"words" * archive.CHUNK)
    return {"code/text": folder / "text", "bundle.json": b"{}\n", "code/bin/tool": folder / "tool"}


def test_the_same_files_give_the_same_archive(tmp_path: Path) -> None:
    first, second = contents(tmp_path / "first"), contents(tmp_path / "second")
    os.utime(tmp_path / "second" / "text", (0, 0))
    (tmp_path / "second" / "text").chmod(0o600)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    digests = [
        archive.write(tmp_path / "a" / "made.tar", first, lambda *_: None),
        archive.write(tmp_path / "b" / "made.tar", dict(reversed(second.items())), lambda *_: None),
    ]
    assert digests[0] == digests[1] == archive.digest(tmp_path / "a" / "made.tar")
    assert (tmp_path / "a" / "made.tar").read_bytes() == (tmp_path / "b" / "made.tar").read_bytes()


def test_every_file_has_its_digest_in_the_list(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    archive.write(tmp_path / "made.tar", contents(tmp_path / "files"), lambda *shown: seen.append(shown))
    with tarfile.open(tmp_path / "made.tar") as opened:
        assert opened.getnames() == [f"made/{it}" for it in ("SHA256SUMS", "bundle.json", "code/bin/tool", "code/text")]
        assert [oct(entry.mode) for entry in opened] == ["0o644", "0o644", "0o755", "0o644"]
        opened.extractall(tmp_path, filter="data")
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "made", capture_output=True, text=True
    )
    assert checked.stdout.splitlines() == ["bundle.json: OK", "code/bin/tool: OK", "code/text: OK"]
    assert seen[-1] == ("write     MB", 15, 15)


def test_the_code_is_what_git_tracks() -> None:
    code = archive.code()
    assert {"pyproject.toml", "ops/constraints.txt", "ops/install.py", "examples/questions.json"} <= code.keys()
    assert all(path == ROOT / name for name, path in code.items())
    assert not [name for name in code if name.startswith((".venv", ".headrace", "ops/deploy/secrets/"))]
