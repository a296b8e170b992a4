"""The adapter that runs code: the things that it is given, and its reasons where nothing can run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from adapters.code.contained import Allowance, ContainedCode
from adapters.sandbox.child import NO_RIGHTS, Child, Limits, Rights, Sandbox
from adapters.sandbox.choice import Choice, choose
from handlers.ports.code import LANGUAGES, CodeError
from ops.code_choice import open_code
from ops.settings import InvalidSetting, Settings

IMPORTS = "import greeting\ndef main(name): return {'said': greeting.say(name), 'from': greeting.__file__}"


async def test_python_has_the_packages_of_the_operator(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    (packages / "greeting").mkdir(parents=True)
    file = packages / "greeting" / "__init__.py"
    file.write_text("def say(name): return f'Hello, {name}.'")
    settings = Settings.load(home=tmp_path, code_packages=packages, code_at_once=1)
    async with open_code(settings, await choose()) as code:
        ran = await code.run("mill", "python3", IMPORTS, {"name": "Ada"})
        assert ran.value == {"said": "Hello, Ada.", "from": str(file)}
        writes = "import greeting\ndef main(): open(greeting.__file__, 'a')"
        with pytest.raises(CodeError, match=r"PermissionError|Read-only file system"):
            await code.run("mill", "python3", writes, {})
    async with open_code(settings.model_copy(update={"code_packages": None}), await choose()) as code:
        with pytest.raises(CodeError, match=r"No module named 'greeting'\. Code has the standard library"):
            await code.run("mill", "python3", IMPORTS, {"name": "Ada"})


def test_packages_that_are_not_there_are_refused(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path, code_packages=tmp_path / "none")
    with pytest.raises(InvalidSetting, match=r"HEADRACE_CODE_PACKAGES: .*none is no folder"):
        open_code(settings, Choice(Broken(None), (), ""))


class Broken:
    """A Sandbox that starts nothing, until it has one that does."""

    kind = "broken"

    def __init__(self, sandbox: Sandbox | None) -> None:
        self.sandbox = sandbox

    async def start(
        self, program: Sequence[str], limits: Limits, readable: Iterable[Path] = (), rights: Rights = NO_RIGHTS
    ) -> Child:
        if self.sandbox is None:
            raise OSError("no namespaces are left")
        return await self.sandbox.start(program, limits, readable, rights)


async def test_a_worker_that_cannot_run_code_says_why_until_it_can() -> None:
    broken = Broken(None)
    async with ContainedCode(Choice(broken, (), ""), Allowance()) as code:
        with pytest.raises(CodeError, match=r"No python3 can be run here: .* no namespaces are left") as raised:
            await code.run("mill", "python3", "def main(): return {}", {})
        assert (raised.value.kind, raised.value.adapter) == ("sandbox_unavailable", "")
        report = await code.report()
        assert all("no namespaces are left" in report[language]["because"] for language in LANGUAGES)
        broken.sandbox = (await choose()).sandbox
        assert (await code.run("mill", "python3", "def main(): return {}", {})).adapter.endswith(", broken")
        assert {language for language, each in (await code.report()).items() if "adapter" in each} == set(LANGUAGES)


async def test_code_does_not_run_where_contained_processes_are_open() -> None:
    choice = (await choose())._replace(open=("read the files of the worker",))
    async with ContainedCode(choice, Allowance()) as code:
        for language in LANGUAGES:
            with pytest.raises(CodeError, match="contained processes can read the files of the worker"):
                await code.adapter(language)
        assert code.pids("python3") == []


async def test_code_does_not_run_where_it_could_start_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial is of the process that was forked for a call, which the one of the sandbox does not know."""
    forks = "import os\ndef main():\n    return {'works': False}"
    monkeypatch.setattr("adapters.code.contained._TRIALS", {"python3": (forks, {"works": True})})
    async with ContainedCode(await choose(), Allowance()) as code:
        with pytest.raises(CodeError, match="No python3 can be run here: code can start processes"):
            await code.adapter("python3")
