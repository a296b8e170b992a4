"""Make the environment `.venv` that Headrace runs in; does nothing when it is already up to date.

Run by the system's own Python with nothing but its standard library.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import ssl
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".headrace"
PYPROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "ops" / "constraints.txt"

OLDEST = (3, 11)
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
CPU_BUILDS_WITHIN = 5.0
"""Seconds in which the index of torch's CPU builds has to answer."""


def main() -> int:
    if sys.version_info[:2] < OLDEST:
        return with_newer_python()
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted and venv_python().exists():
        return 0
    say(f"Installing Headrace into {VENV} (Python {platform.python_version()}); this takes some minutes.")
    STAMP.unlink(missing_ok=True)
    if not venv_python().exists() and not run(sys.executable, "-m", "venv", "--clear", str(VENV)):
        return failed("The environment could not be made. On Debian and Ubuntu it needs the package python3-venv.")
    install_torch()
    if not pip("--constraint", str(CONSTRAINTS), "--editable", f"{ROOT}[dev]"):
        return failed("The packages could not be installed: the lines above say why. Run it again when that is mended.")
    STAMP.write_text(wanted)
    return 0


def install_torch() -> None:
    """Take torch's CPU build where a GPU build is of no use; whatever fails here is left to the main installation."""
    version = pinned("torch")
    if installed("torch"):
        return
    if sys.platform != "linux" or platform.machine() != "x86_64":
        say("torch: taking the build for this platform, about 200 MB.")
    elif has_nvidia_gpu():
        say("torch: this machine has an NVIDIA GPU: taking the CUDA build, about 4 GB with its libraries.")
    elif not cpu_build_available(version):
        say(
            f"torch: this machine has no NVIDIA GPU, but no CPU build of {version} (about 200 MB) was found within "
            f"{CPU_BUILDS_WITHIN:.0f} seconds: taking the CUDA build, about 4 GB with its libraries."
        )
    else:
        say("torch: this machine has no NVIDIA GPU: taking the CPU build, about 200 MB instead of 4 GB.")
        if not pip("--no-deps", "--index-url", CPU_BUILDS, f"torch=={version}+cpu"):
            say("torch: the CPU build could not be had: taking the CUDA build, about 4 GB with its libraries.")


def has_nvidia_gpu() -> bool:
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def cpu_build_available(version: str) -> bool:
    """Whether the index of CPU builds lists this version for this Python, soon enough."""
    if os.environ.get("PIP_NO_INDEX"):
        return False
    wheel = f"torch-{version}%2Bcpu-cp{sys.version_info[0]}{sys.version_info[1]}-"
    listed: list[bool] = []

    def look() -> None:
        try:
            trust = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
            with urllib.request.urlopen(f"{CPU_BUILDS}/torch/", timeout=CPU_BUILDS_WITHIN, context=trust) as page:
                listed.append(wheel in page.read().decode(errors="replace"))
        except (OSError, ValueError):
            listed.append(False)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(CPU_BUILDS_WITHIN)
    return listed == [True]


def pinned(package: str) -> str:
    for line in CONSTRAINTS.read_text().splitlines():
        name, _, version = line.partition("==")
        if name == package:
            return version
    raise SystemExit(f"{CONSTRAINTS} does not say which version of {package} to take.")


def fingerprint() -> str:
    """What the environment is made from: when it is another, the environment is out of date."""
    made_from = PYPROJECT.read_bytes() + CONSTRAINTS.read_bytes() + str(ROOT).encode()
    return hashlib.sha256(made_from).hexdigest()


def venv_python() -> Path:
    return VENV / "bin" / "python"


def installed(package: str) -> bool:
    return any(VENV.glob(f"lib/python*/site-packages/{package}-*.dist-info"))


def pip(*arguments: str) -> bool:
    bar = () if sys.stdout.isatty() else ("--progress-bar", "off", "--quiet")
    return run(str(venv_python()), "-m", "pip", "install", "--disable-pip-version-check", *bar, *arguments)


def run(*command: str) -> bool:
    return subprocess.run(command, env={**os.environ, "PIP_USER": "0"}, check=False).returncode == 0


def with_newer_python() -> int:
    """Begin again with a newer Python of this machine."""
    for minor in (13, 12, 11, 14):
        newer = shutil.which(f"python3.{minor}")
        if newer and subprocess.run([newer, "-c", ""], capture_output=True, check=False).returncode == 0:
            return subprocess.run([newer, *sys.argv], check=False).returncode
    return failed(f"Headrace needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and this machine has none.")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def failed(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
