"""Create or update the environment `.venv` that Headrace runs in; the argument `dev` adds what the tests need.

The system's own Python runs this with its standard library. uv installs the packages, several times faster than pip,
which does it when uv is not available. uv follows pip's settings: indexes, certificates, constraints. Either refuses a
package whose version and digest are not in `ops/constraints.txt`. Only the CPU build of torch is not checked: it comes
from an index of its own.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / os.environ.get("INSTALL_INTO", ".venv")
STAMP = VENV / ".headrace"
PYPROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "ops" / "constraints.txt"

OLDEST = (3, 11)
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
CPU_BUILDS_WITHIN = 5.0
"""Maximum wait for the index of torch's CPU builds, in seconds."""

AS_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
    "cache-dir": "UV_CACHE_DIR",
    "no-cache-dir": "UV_NO_CACHE",
}
"""Environment variables of uv by setting of pip."""

OF_NO_MATTER = {
    "break-system-packages",
    "config-file",
    "disable-pip-version-check",
    "exists-action",
    "no-color",
    "no-compile",
    "no-input",
    "no-warn-script-location",
    "progress-bar",
    "quiet",
    "require-virtualenv",
    "root-user-action",
    "user",
    "verbose",
}
"""Settings of pip that affect neither which packages are installed nor their source."""


def main(extra: str = "") -> int:
    if sys.version_info[:2] < OLDEST:
        return with_newer_python()
    current = (fingerprint(extra), fingerprint("dev"))
    if STAMP.exists() and STAMP.read_text("utf-8") in current and venv_python().exists():
        return 0
    say(f"Installing Headrace into {VENV} (Python {platform.python_version()}); the first time takes a minute or more.")
    STAMP.unlink(missing_ok=True)
    if not venv_python().exists() and not run(sys.executable, "-m", "venv", "--clear", str(VENV)):
        return failed("The environment could not be created. Debian and Ubuntu need the package python3-venv.")
    get_uv()
    install_torch()
    if not install_packages(extra) or not install("--no-deps", "--no-build-isolation", "--editable", str(ROOT)):
        return failed("The packages could not be installed: see the lines above. Fix the cause and run it again.")
    STAMP.write_text(fingerprint(extra), "utf-8")
    return 0


def get_uv() -> None:
    """Install the pinned uv into the environment; without it, pip installs the packages."""
    if not installed("uv", pinned("uv")) and not pip_listed(requirement("uv")):
        say("uv is not available: pip installs the packages, which takes some minutes longer.")


def install_torch() -> None:
    """Install torch's CPU build on a machine without an NVIDIA GPU; if that fails, the default follows later."""
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
        if not install("--no-deps", f"torch=={version}+cpu", index=CPU_BUILDS):
            say("torch: the CPU build could not be installed: taking the CUDA build, about 4 GB with its libraries.")


def has_nvidia_gpu() -> bool:
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def cpu_build_available(version: str) -> bool:
    """Return whether the index of CPU builds lists this version for this Python, within the maximum wait."""
    if no_index():
        return False
    wheel = f"torch-{version}%2Bcpu-cp{sys.version_info[0]}{sys.version_info[1]}-"
    listed: list[bool] = []

    def look() -> None:
        try:
            trust = ssl.create_default_context(cafile=pip_settings().get("cert") or None)
            with urllib.request.urlopen(f"{CPU_BUILDS}/torch/", timeout=CPU_BUILDS_WITHIN, context=trust) as page:
                listed.append(wheel in page.read().decode(errors="replace"))
        except (OSError, ValueError):
            listed.append(False)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(CPU_BUILDS_WITHIN)
    return listed == [True]


def install_packages(extra: str = "") -> bool:
    """Install the dependencies of Headrace, and what builds it. Every digest is checked, but for torch's CPU build."""
    further = ("--extra", extra) if extra else ()
    wanted = ("--requirement", str(PYPROJECT), *further, f"setuptools=={pinned('setuptools')}")
    with listed(*for_uv()) as constraints:
        if uv("--require-hashes", "--constraint", constraints, *wanted):
            return True
    return pip_listed(*for_pip())


def for_uv() -> list[str]:
    """Constraints for uv. It keeps a CPU build of torch that is installed, for which it wants some digest."""
    own = f"torch=={pinned('torch')}+cpu --hash=sha256:{'0' * 64}"
    return [own if has_cpu_build() and it.startswith("torch==") else it for it in requirements()]


def for_pip() -> list[str]:
    """All packages of the file, since pip accepts no digest in a constraint; those of CUDA only if torch needs them."""
    unneeded = re.compile(r"(torch|triton|cuda|nvidia)\b") if has_cpu_build() else None
    return [it for it in requirements() if not (unneeded and unneeded.match(it))]


def has_cpu_build() -> bool:
    return installed("torch", f"{pinned('torch')}+cpu")


def requirements() -> list[str]:
    """The entries of the file: name, version, perhaps a marker, and the digests, on lines of their own."""
    return re.split(r"\n(?=\S)", CONSTRAINTS.read_text("utf-8").strip())


def requirement(package: str) -> str:
    for found in requirements():
        if found.startswith(f"{package}=="):
            return found
    raise SystemExit(f"{CONSTRAINTS} has no version of {package}.")


def pinned(package: str) -> str:
    return requirement(package).split()[0].partition("==")[2]


def fingerprint(extra: str = "dev") -> str:
    """Digest of the inputs of the environment, and its extra; an environment with another one is out of date."""
    made_from = PYPROJECT.read_bytes() + CONSTRAINTS.read_bytes() + str(ROOT).encode()
    return f"{hashlib.sha256(made_from).hexdigest()} {extra}".rstrip()


def venv_python() -> Path:
    return VENV / "bin" / "python"


def installed(package: str, version: str = "*") -> bool:
    return any(VENV.glob(f"lib/python*/site-packages/{package}-{version}.dist-info"))


def install(*arguments: str, index: str = "") -> bool:
    """Install packages by uv, else by pip; `index` replaces the configured one."""
    return uv(*arguments, index=index) or pip(*arguments, index=index)


def uv(*arguments: str, index: str = "") -> bool:
    """Install packages by uv. Return False when it is missing, fails, or does not support a setting of pip."""
    settings = pip_settings()
    unknown = sorted(settings.keys() - AS_UV.keys() - OF_NO_MATTER - {"constraint", "no-index"})
    if unknown:
        say(f"pip installs the packages, not uv: pip's configuration sets {', '.join(unknown)}.")
    if unknown or not (VENV / "bin" / "uv").exists():
        return False
    options = ["--compile-bytecode", *(f"--constraint={path}" for path in settings.get("constraint", "").split())]
    options += ["--no-index"] * no_index()
    options += ["--default-index", index] if index else []
    options += [] if sys.stdout.isatty() else ["--quiet"]
    command = (str(VENV / "bin" / "uv"), "pip", "install", "--python", str(venv_python()), *options, *arguments)
    own = {name: value for name, value in os.environ.items() if name.startswith("UV_")}
    if not run(*command, environment=as_uv(settings) | own):
        say("uv could not install the packages: trying pip.")
        return False
    return True


def as_uv(settings: dict[str, str]) -> dict[str, str]:
    """Environment variables that give uv these settings of pip."""
    environment = {AS_UV[name]: value for name, value in settings.items() if name in AS_UV}
    if "find-links" in settings:  # pip goes on without those that are not there
        places = [place for place in settings["find-links"].split() if "://" in place or Path(place).exists()]
        environment["UV_FIND_LINKS"] = ",".join(places)
    if "extra-index-url" in settings:
        environment["UV_INDEX"] = " ".join(settings["extra-index-url"].split())
        environment["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip takes the best of all indexes
    if "timeout" in settings:
        environment["UV_HTTP_TIMEOUT"] = str(max(1, int(float(settings["timeout"]))))
    if "cache-dir" in settings:
        environment["UV_CACHE_DIR"] = str(Path(settings["cache-dir"]) / "uv")
    return environment


def no_index() -> bool:
    return pip_settings().get("no-index", "").lower() in ("1", "true", "yes", "on", "y", "t")


@functools.cache
def pip_settings() -> dict[str, str]:
    """Settings of pip for installations by option, from its files and variables."""
    command = (str(venv_python()), "-m", "pip", "config", "list")
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # later ones prevail
        for line in lines:
            name, _, value = line.partition("=")
            if name.startswith(f"{section}."):
                found[name.removeprefix(f"{section}.").removeprefix("default-")] = str(ast.literal_eval(value))
    return found


def pip(*arguments: str, index: str = "") -> bool:
    options = ["--disable-pip-version-check", *(["--index-url", index] if index else [])]
    options += [] if sys.stdout.isatty() else ["--progress-bar", "off", "--quiet"]
    command = (str(venv_python()), "-m", "pip", "install", *options, *arguments)
    return run(*command, environment={"PIP_USER": "0"})


def pip_listed(*entries: str) -> bool:
    """Install these entries of the file, and nothing else, by pip."""
    with listed(*entries) as requirements:
        return pip("--no-deps", "--require-hashes", "--requirement", requirements)


@contextmanager
def listed(*entries: str) -> Iterator[str]:
    """A file with these entries."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(entries) + "\n")
        file.flush()
        yield file.name


def run(*command: str, environment: dict[str, str] | None = None) -> bool:
    return subprocess.run(command, env={**os.environ, **(environment or {})}, check=False).returncode == 0


def with_newer_python() -> int:
    """Run this file again with a newer Python of this machine."""
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
    sys.exit(main(*sys.argv[1:]))
