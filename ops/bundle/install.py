"""Install Headrace from the bundle that this file is in, without a network: `python3 install.py FOLDER`.

Any Python 3.8 or newer can start it; it continues with the version that the bundle is for. It checks the digests of
all files, copies the code to the folder, and makes the environment `.venv` there from the bundle's packages. A folder
that has an earlier version gets this one, and keeps its data.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SUMS = "SHA256SUMS"
ABOUT = "bundle.json"
CODE = "code/"

COMPILED = 400_000_000
"""Bytes of the modules that Python compiles when packages are installed."""

FAILED, USAGE = 1, 2

SETTINGS_OF_OTHERS = ("PIP_", "UV_", "PYTHON", "INSTALL_INTO", "VIRTUAL_ENV")
"""Prefixes of variables that would change the installation."""


class Refused(Exception):
    """Headrace cannot be installed; the message has the reason."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write(f"Usage: python3 {Path(__file__).name} FOLDER\n")
        return USAGE
    try:
        about = json.loads((HERE / ABOUT).read_text("utf-8"))
        check_machine(about)
        python = interpreter(about["python"])
        if python != sys.executable:
            return subprocess.call([python, __file__, *arguments])
        folder = Path(arguments[0]).resolve()
        check_space(folder, about["unpacked"])
        check_files()
        copy_code(folder, about)
        install_packages(folder, about)
    except (Refused, OSError) as error:
        sys.stderr.write(f"Not installed: {error}\n")
        return FAILED
    say(f"Headrace {about['headrace']} is in {folder} ({size_of(folder) / 1e9:.1f} GB). To start it:")
    say(f"  cd {folder}")
    say("  .venv/bin/headrace up --detach    # or three questions about 17 documents: .venv/bin/python -m ops.demo")
    return 0


def check_machine(about: dict[str, Any]) -> None:
    """Raises: Refused when the bundle is for another machine, or glibc is older than its packages need."""
    _, _, glibc, machine = about["platform"].split("_", 3)
    library, version = platform.libc_ver()
    if sys.platform != "linux" or platform.machine() != machine or library != "glibc":
        here = f"{sys.platform} {platform.machine()} {library}".rstrip()
        raise Refused(f"this bundle is for Linux {machine} with glibc; this machine is {here}.")
    if int(version.split(".")[1]) < int(glibc):
        raise Refused(f"this bundle needs glibc 2.{glibc} or newer; this machine has {version}.")


def interpreter(version: str) -> str:
    """The program that is this version of Python. Raises: Refused when there is none."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    found = shutil.which(f"python{version}")
    if found:
        asked = [found, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == version:
            return found
    raise Refused(f"this bundle is for Python {version}: install it, or set PYTHON_VERSION when you make the bundle.")


def check_space(folder: Path, needed: int) -> None:
    """Raises: Refused."""
    there = next(it for it in (folder, *folder.parents) if it.exists())
    free = shutil.disk_usage(there).free
    needed += COMPILED
    if free < needed:
        raise Refused(f"{folder} needs {needed / 1e9:.1f} GB, and only {free / 1e9:.1f} GB are free.")


def check_files() -> None:
    """Check the digest of every file. Raises: Refused when one differs."""
    sums = listed(HERE / SUMS)
    for number, (name, expected) in enumerate(sorted(sums.items()), start=1):
        if digest(HERE / name) != expected:
            raise Refused(f"{name} differs from the digest in {SUMS}: copy the bundle again, and compare its SHA-256.")
        if sys.stdout.isatty():
            sys.stdout.write(f"\rChecking files: {number} of {len(sums)}")
            sys.stdout.flush()
    say(("\r" if sys.stdout.isatty() else "") + f"{len(sums)} files are as {SUMS} lists them.")


def copy_code(folder: Path, about: dict[str, Any]) -> None:
    """Copy the code; remove what an earlier version had and this one has not, and an environment for other packages."""
    code = {name[len(CODE) :] for name in listed(HERE / SUMS) if name.startswith(CODE)}
    earlier = {name[len(CODE) :] for name in listed(folder / SUMS) if name.startswith(CODE)}
    for name in earlier - code:
        (folder / name).unlink(missing_ok=True)
    for name in sorted(code):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / CODE / name, folder / name)  # without its time, by which Python tells what it compiled
    kept = json.loads((folder / ABOUT).read_text("utf-8")) if (folder / ABOUT).exists() else {}
    if any(kept.get(key) != about[key] for key in ("python", "torch")):
        shutil.rmtree(folder / ".venv", ignore_errors=True)
    for name in (SUMS, ABOUT):
        shutil.copy(HERE / name, folder / name)


def install_packages(folder: Path, about: dict[str, Any]) -> None:
    """Make the environment with the packages of the bundle, and no other. Raises: Refused."""
    cache = folder / ".cache"  # on the same file system, from which uv links files instead of copying them
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_OF_OTHERS)}
    environment.update(
        TORCH=about["torch"],
        PIP_CONFIG_FILE=os.devnull,
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=(HERE / "wheels").as_uri(),
        PIP_CACHE_DIR=str(cache),
        UV_NO_CONFIG="1",
        UV_PYTHON_DOWNLOADS="never",
    )
    try:
        if subprocess.call([sys.executable, str(folder / "ops" / "install.py"), about["extra"]], env=environment):
            raise Refused("the lines above have the reason.")
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def listed(sums: Path) -> dict[str, str]:
    """SHA-256 by path, of a file as `sha256sum` writes it; empty when it is not there."""
    if not sums.exists():
        return {}
    return {line[66:]: line[:64] for line in sums.read_text("utf-8").splitlines()}


def digest(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as content:
        for chunk in iter(lambda: content.read(1 << 20), b""):
            found.update(chunk)
    return found.hexdigest()


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
