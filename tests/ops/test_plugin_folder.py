"""The folder of the operator's plugins: what is new or has changed is installed, by commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domain.access.tenant import HOUSE
from domain.tools.plugin import Plugin
from handlers.commands.plugin_package import Package
from ops.plugin_folder import scan
from tests.handlers.desk import Desk
from tests.memory import Memory
from tests.packages import FILTER, digest, package

PROGRAM = "from headrace_plugin import *\nserve(globals())\n"


class House:
    """A house that installs what a scan of the folder finds."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self.desk = desk
        self.folder = folder
        self.known: dict[str, str] = {}

    async def install(self, package: Package) -> str:
        await self.desk.blobs.put(HOUSE, package.data)
        name = package.manifest["name"]
        outcome = await self.desk.send("plugin.install", plugin=name, package=digest(package.data))
        return outcome.message or ""

    async def scan(self) -> dict[str, str]:
        return {name: said async for name, said in scan(self.folder, self.known, self.install)}

    async def version(self, name: str) -> str:
        found = await self.desk.repository.get(Plugin, HOUSE, name)
        assert found
        return found.package_version


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(Desk(Memory(), "acme"), tmp_path)


def write(folder: Path, name: str, version: str = "1.0.0") -> None:
    folder.mkdir(exist_ok=True)
    (folder / "plugin.json").write_text(json.dumps({**FILTER, "name": name, "version": version}))
    (folder / "main.py").write_text(PROGRAM)


async def test_packages_are_installed_once_and_again_when_they_change(house: House) -> None:
    write(house.folder / "hide", "hide")
    (house.folder / "mask.zip").write_bytes(package(PROGRAM))
    (house.folder / "notes.txt").write_text("No plugin.")
    (house.folder / "empty").mkdir()
    assert await house.scan() == {"hide": "hide 1.0.0 installed", "mask.zip": "mask 1.0.0 installed"}
    assert await house.scan() == {}
    write(house.folder / "hide", "hide", "1.1.0")
    (house.folder / "hide" / "__pycache__").mkdir()
    assert await house.scan() == {"hide": "hide 1.1.0 installed"}
    assert (await house.version("hide"), await house.version("mask")) == ("1.1.0", "1.0.0")


async def test_a_package_that_cannot_be_installed_is_tried_again(house: House) -> None:
    (house.folder / "bad.zip").write_bytes(b"no zip")
    write(house.folder / "hide", "hide")
    first = await house.scan()
    assert first["bad.zip"].startswith("not installed: ")
    assert first["hide"] == "hide 1.0.0 installed"
    assert list(await house.scan()) == ["bad.zip"]
    (house.folder / "bad.zip").write_bytes(package(PROGRAM))
    assert await house.scan() == {"bad.zip": "mask 1.0.0 installed"}


async def test_a_folder_that_is_not_there_is_reported(house: House) -> None:
    house.folder = house.folder / "missing"
    [said] = (await house.scan()).values()
    assert said.startswith("cannot be read: ")
