"""Plugins of Dify, run unchanged by the real SDK in the strongest sandbox of this machine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import psutil
import pytest

from adapters.plugins import hosts
from adapters.sandbox.choice import choose
from adapters.tools.plugin.toolbox import PluginToolbox, PluginToolboxes
from domain.log import Metadata
from domain.tools.toolset import Secret, Toolset, ToolsetSettings
from handlers.cause import Cause
from handlers.ports.models import ModelError
from handlers.ports.tools import Invocation, Result, ToolError
from tests.adapters.plugins.conftest import Site
from tests.adapters.plugins.dify_lab import FILES, MANIFEST
from tests.adapters.plugins.lab import Backs, Lab, served
from tests.dify_packages import has_python

pytestmark = pytest.mark.skipif(not has_python(), reason="there is no Python 3.12 on this machine")


NOW = datetime(2026, 3, 1, tzinfo=UTC)


class ToolLab(Lab):
    def toolbox(
        self, provider: str = "lab", secret: str = "", timeout_s: float = 30, tenant: str = "acme", **parameters: Any
    ) -> PluginToolbox:
        settings = ToolsetSettings(
            kind="plugin",
            description="",
            settings={"name": "lab", "provider": provider, "parameters": parameters},
            secret=Secret(sealed=secret, hint="") if secret else None,
            timeout_s=timeout_s,
        )
        toolset = Toolset.begin(Toolset.Registered, "lab", NOW, **settings)
        return PluginToolboxes(self.dify, lambda tenant, sealed: sealed, self.answering)(tenant, toolset)

    async def call(
        self, tool: str, box: PluginToolbox | None = None, backs: Backs | None = None, **arguments: Any
    ) -> Result:
        box = box or self.toolbox()
        definition = {each["name"]: each for each in (await box.list()).tools}[tool]
        cause = Cause(Metadata("1", box.tenant, "1", actor="ada"), "message", "m-1", 1)
        configuration: Any = {"model": {"context_window": 8192}}
        return await box.call(Invocation("c-1", cause, definition, arguments, configuration, "", "ada", backs=backs))

    async def failure(self, tool: str, box: PluginToolbox | None = None, **arguments: Any) -> ToolError:
        with pytest.raises(ToolError) as failed:
            await self.call(tool, box, **arguments)
        return failed.value


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToolLab]:
    site = Site(tmp_path_factory.mktemp("home"), (await choose()).sandbox)
    lab = ToolLab(site)
    await lab.add(MANIFEST, FILES)
    yield lab
    await site.hosts.close()
    await site.environments.close()


async def test_a_tool_gives_a_text(lab: ToolLab) -> None:
    assert (await lab.call("echo", text="gate")).text == "etag"


async def test_calls_are_made_many_at_a_time_by_one_process(lab: ToolLab) -> None:
    results = await asyncio.gather(*(lab.call("echo", text=f"text {number}") for number in range(20)))
    assert [result.text for result in results] == [f"text {number}"[::-1] for number in range(20)]
    assert len(lab.site.hosts.pids) == 1


async def test_each_type_of_parameter_has_its_schema_and_its_value(lab: ToolLab) -> None:
    box = lab.toolbox(every_type={"limit": "7", "strict": "false"})
    listing = await box.list()
    tool = {each["name"]: each for each in listing.tools}["every_type"]
    properties = tool["parameters"]["properties"]
    assert properties["number"] == {"type": "number", "minimum": 0, "maximum": 10, "description": "The number."}
    assert properties["colour"] == {"type": "string", "enum": ["red", "blue"], "description": "The colour."}
    assert properties["shape"]["properties"] == {"side": {"type": "number"}}
    assert tool["parameters"]["required"] == ["text"]
    assert not {"unit", "limit", "strict", "dynamic"} & properties.keys()
    assert any("dynamic-select" in warning for warning in listing.warnings)
    given = {"text": "x", "number": 2.5, "flag": True, "colour": "red", "shape": {"side": 2}, "several": ["a"]}
    result = await lab.call("every_type", box, **given, token="t")
    [part] = result.parts
    found = {name: value for name, (_, value) in part["value"].items()}
    assert found == {**given, "token": "t", "unit": "m", "limit": 7, "strict": False}
    assert json.loads(result.text) == part["value"]


async def test_files_come_whole_and_links_are_parts(lab: ToolLab) -> None:
    result = await lab.call("files")
    assert [(file.name, file.media_type, len(file.data)) for file in result.files] == [
        ("gate.png", "image/png", 100_004),
        ("file.txt", "text/plain", 5),
    ]
    assert [part["url"] for part in result.parts] == ["https://example.com/report", "https://example.com/gate.jpg"]


async def test_a_tool_reads_a_file_by_the_proxy(lab: ToolLab) -> None:
    async with served(lambda head, body: b"18:05,high") as address:
        lab.site.allow(address.removeprefix("http://"))
        result = await lab.call("reads_file", file=f"{address}/tides.csv")
    assert result.text == "tides.csv text/csv document 10"
    assert (await lab.failure("reads_file", file="/etc/passwd")).code == "invalid_arguments"


async def test_streamed_pieces_are_joined_and_variables_are_a_part(lab: ToolLab) -> None:
    result = await lab.call("streams")
    assert result.text.split() == [str(number) for number in range(200)]
    assert result.parts == [{"type": "json", "value": {"count": 200, "words": "one two"}}]


async def test_retrieved_passages_are_their_context(lab: ToolLab) -> None:
    result = await lab.call("retrieves")
    assert result.text == "High at 18:05."
    assert result.parts[0]["value"][0]["document_name"] == "Tides"


async def test_an_exception_is_the_reason(lab: ToolLab) -> None:
    failed = await lab.failure("fails")
    assert (failed.code, failed.reason) == ("server_error", "ValueError: The gate is stuck.")
    assert (await lab.failure("is_refused")).code == "rate_limited"


async def test_credentials_are_validated_and_starred(lab: ToolLab) -> None:
    wrong = lab.toolbox("guarded", json.dumps({"api_key": "a-wrong-key"}))
    with pytest.raises(ToolError) as failed:
        await wrong.list()
    assert failed.value.code == "unauthorized"
    assert "not known" in failed.value.reason
    assert "a-wrong-key" not in failed.value.reason
    right = lab.toolbox("guarded", json.dumps({"api_key": "key-of-the-lab"}))
    result = await lab.call("guarded", right)
    assert json.loads(result.text) == {"api_key": "***", "region": "eu"}


async def test_a_plugin_that_is_not_enabled_has_no_tools(lab: ToolLab) -> None:
    box = PluginToolbox("acme", lab.dify, {"name": "other", "provider": "", "parameters": {}}, {}, 5)
    with pytest.raises(ToolError) as failed:
        await box.list()
    assert failed.value.code == "unsupported"
    assert "plugin.enable" in failed.value.reason


async def test_its_environment_has_nothing_of_the_worker(lab: ToolLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SECRET_KEY", "the secret of the worker")
    await lab.call("echo", lab.toolbox(tenant="mill"), text="x")
    result = await lab.call("looks", lab.toolbox(tenant="mill"))
    assert "secret of the worker" not in result.text
    assert '"home":false' in result.text
    assert len(lab.site.hosts.pids) == 2  # a process serves one tenant
    await lab.site.hosts.keep("mill", ())


async def test_requests_and_httpx_go_by_the_guarded_proxy(lab: ToolLab) -> None:
    async with served(lambda head, body: b"high") as address:
        refused = (await lab.call("asks_net", address=address)).text
    async with served(lambda head, body: b"high") as address:
        lab.site.allow(address.removeprefix("http://"))
        passed = (await lab.call("asks_net", address=address)).text
    assert [each.split()[0] for each in refused.split(" | ")] == ["403", "403", "no"]
    assert passed == "200 high | 200 high | no way out"


async def test_lines_that_are_no_messages_do_no_harm(lab: ToolLab) -> None:
    assert (await lab.call("prints")).text == "done"


async def test_a_tool_calls_a_model_and_a_tool(lab: ToolLab) -> None:
    backs = Backs("At 18:05.")
    assert (await lab.call("asks_model", backs=backs, question="When is high tide?")).text == "At 18:05. / At 18:05. 15"
    asked = backs.models[0]
    assert [(each.role, each.content) for each in asked.messages] == [
        ("system", "Be brief."),
        ("user", "When is high tide?"),
    ]
    assert asked[0:2] == ("lab", "small")
    assert (asked.parameters, asked.max_tokens) == ({"temperature": 0.2}, None)
    assert (await lab.call("asks_tool", backs=backs)).text == "calculate of lab: 42"
    assert backs.tools == [("lab", "calculate", {"expression": "6 * 7"})]


async def test_a_summary_is_a_call_of_the_apps_model(lab: ToolLab) -> None:
    backs = Backs("Tides.")
    assert (await lab.call("summarizes", backs=backs)).text == "Tides."
    [asked] = backs.models
    assert (asked.provider, asked.model) == ("", "")
    assert asked.messages[0].content.endswith("Briefly.")


async def test_a_failed_call_back_is_the_reason(lab: ToolLab) -> None:
    backs = Backs(ModelError("unauthorized", "The key is not known."))
    failed = await lab.failure("asks_model", backs=backs, question="When?")
    assert "unauthorized: The key is not known." in failed.reason


async def test_other_calls_back_are_refused_by_name(lab: ToolLab) -> None:
    assert "calls back of type fetch_app." in (await lab.failure("asks_app", backs=Backs())).reason


async def test_a_tool_keeps_values_within_what_its_package_asks_for(lab: ToolLab) -> None:
    backs = Backs()
    assert (await lab.call("keeps", backs=backs)).text == "nothing"
    assert (await lab.call("keeps", backs=backs, value="high at 18:05")).text == "high at 18:05"
    assert (await lab.call("keeps", backs=backs)).text == "high at 18:05"
    assert (await lab.call("keeps", lab.toolbox(tenant="mill"), backs)).text == "nothing"
    await lab.call("keeps", backs=backs, value="gone")
    assert (await lab.call("keeps", backs=backs)).text == "nothing"
    failed = await lab.failure("keeps", backs=backs, value="x" * 1025)
    assert "1,024 are allowed" in failed.reason
    await lab.site.hosts.keep("mill", ())


async def test_a_file_that_a_tool_uploads_is_one_of_its_result(lab: ToolLab) -> None:
    result = await lab.call("uploads", backs=Backs())
    assert result.text == "tides.csv 10 text/csv"
    assert [tuple(file) for file in result.files] == [("tides.csv", "text/csv", b"18:05,high")]


async def test_a_tool_that_hangs_is_given_up_and_others_go_on(lab: ToolLab) -> None:
    hanging = asyncio.create_task(lab.failure("hangs", lab.toolbox(timeout_s=1)))
    assert (await lab.call("echo", text="ab")).text == "ba"
    failed = await hanging
    assert (failed.code, failed.reason) == ("timeout", "The tool took longer than 1 s.")
    assert (await lab.call("echo", text="ab")).text == "ba"


async def test_a_tool_that_floods_is_stopped(lab: ToolLab) -> None:
    await lab.call("echo", text="x")
    [pid] = lab.site.hosts.pids.values()
    failed = await lab.failure("floods")
    assert failed.code == "too_large"
    async with asyncio.timeout(20):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.05)
    assert (await lab.call("echo", lab.toolbox(timeout_s=60), text="ab")).text == "ba"


async def test_a_process_that_crashes_fails_its_calls_and_is_started_again(lab: ToolLab) -> None:
    failed = await lab.failure("crashes")
    assert (failed.code, failed.reason.startswith("It ended with status 3.")) == ("server_error", True)
    assert (await lab.call("echo", lab.toolbox(timeout_s=60), text="ab")).text == "ba"


async def test_a_process_that_blocks_is_ended(lab: ToolLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "QUIET_S", 0.5)
    await lab.call("echo", text="x")
    [pid] = lab.site.hosts.pids.values()
    began = time.monotonic()
    assert (await lab.failure("blocks", lab.toolbox(timeout_s=2))).code == "timeout"
    await asyncio.sleep(1)
    assert time.monotonic() - began < 10
    assert not psutil.pid_exists(pid)
    assert (await lab.call("echo", lab.toolbox(timeout_s=60), text="ab")).text == "ba"
