from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from ops import machine
from tests.disk import ballast, small_disk


@pytest.mark.parametrize("number", machine.ADVICE)
def test_each_fault_has_advice_that_ends_a_sentence(number: int) -> None:
    said = machine.advice(number)
    assert said[0].islower()
    assert said[-1] not in ".!"


def test_an_unknown_fault_has_none() -> None:
    assert machine.advice(errno.ECONNREFUSED) == machine.advice(None) == machine.cause("all is well") == ""


@pytest.mark.parametrize(
    ("log", "begins"),
    [
        ("[ERR] write 1.blk: no space left on device", "No space left on device: free some space"),
        ("FATAL: wrote only 4096 of 8192 bytes\nHINT:  Check free disk space.", "No space left on device: free some"),
        ("FATAL: could not write init file: Read-only file system", "Read-only file system: make its disk writable"),
        ("initdb: error: could not access directory: Permission denied", "Permission denied: start Headrace as"),
        ("accept: too many open files", "Too many open files: raise the limit"),
    ],
)
def test_the_cause_is_found_in_the_log_of_any_server(log: str, begins: str) -> None:
    assert machine.cause(f"started\n{log}\nended").startswith(begins)


def test_a_folder_that_takes_no_files_says_why(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    assert machine.unwritable(tmp_path) == ""
    assert machine.unwritable(tmp_path / "missing").startswith("No such file or directory")
    with small_disk(disk, 1):
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert machine.unwritable(disk).startswith("Read-only file system: make its disk writable")


def test_what_fills_a_disk_leaves_what_it_should(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 4):
        with ballast(disk, leaving=2**20):
            assert 2**20 <= os.statvfs(disk).f_bavail * 4096 < 2**20 + 2 * 2**16
        with ballast(disk), pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(bytes(2**16))
