"""Calls of tools by nodes: recorded as those of agents are, without a model that asks for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from domain.chat.app import AgentSettings, Configuration
from domain.tools.tool_call import ToolCall as Recorded
from domain.workflows.needs import last_part
from domain.workflows.node_type import Trouble
from domain.workflows.requests import ToolAnswer, ToolRequest
from domain.workflows.run import RecordedCall
from domain.workflows.values import as_objects, to_number
from handlers.ports.models import ToolCall
from handlers.ports.tools import Invocation, Result, Toolbox
from handlers.tools.offer import Offer
from handlers.tools.tool_calls import Numbers, Task, ToolCalls
from handlers.workflows.execution import Execution
from handlers.workflows.http import LOST
from handlers.workflows.run_files import made as made_file
from handlers.workflows.secrets import Secrets

TOOL_ERROR: Final = "ToolInvokeError"

SETTINGS = AgentSettings(
    strategy="tools",
    tools=[],
    approve="never",
    rounds=1,
    seconds=600.0,
    tokens=None,
    cost=None,
    unknown="tell",
    hold_s=0.0,
)
"""Calls of nodes wait for no person: a form before them asks one."""


@dataclass(frozen=True, slots=True)
class _Revealing:
    """A toolbox that is given the secrets of the run in place of their marks."""

    toolbox: Toolbox
    secrets: Secrets

    @property
    def server(self) -> str:
        return self.toolbox.server

    async def list(self) -> Any:
        return await self.toolbox.list()

    async def call(self, invocation: Invocation) -> Result:
        arguments = self.secrets.revealed(invocation.arguments)
        result = await self.toolbox.call(invocation._replace(arguments=arguments))
        parts = self.secrets.withheld(list(result.parts))
        return replace(result, text=self.secrets.withheld(result.text), parts=parts)


@dataclass(frozen=True, slots=True)
class CallTool:
    offer: Offer
    tools: ToolCalls

    async def __call__(self, execution: Execution) -> ToolAnswer | Trouble:
        """Raises: Unavailable."""
        request: ToolRequest = execution.request
        toolset = last_part(request.provider_name or request.provider_id)
        offered = await self.offer.one(execution.tenant, toolset, request.tool)
        if offered is None:
            return Trouble(f"The toolset {toolset} has no tool {request.tool}; register it first.", "ToolNodeError")
        if execution.around.secrets.marks:
            offered = replace(offered, toolbox=_Revealing(offered.toolbox, execution.around.secrets))
        given = {**request.configuration, **request.parameters}
        arguments = _fitting(offered.definition["parameters"], cast("dict[str, Any]", as_objects(given)))
        asked = ToolCall("", request.tool, json.dumps(arguments, ensure_ascii=False))
        id, tenant = execution.cause.call("tool", 1), execution.tenant
        known = await self.tools.repository.get(Recorded, tenant, id) if execution.cause.attempt > 1 else None
        execution.made.append(RecordedCall(noun=Recorded.TOPIC, id=id))
        made = await self.tools.make(_task(execution), 0, id, asked, {request.tool: offered}, known)
        call = made.call
        if call.status != "completed":
            return Trouble(call.reason or f"The call was {call.status}.", LOST if call.code == "lost" else TOOL_ERROR)
        files = tuple(
            made_file(part["digest"], part["size"], part.get("name") or None, part["media_type"])
            for part in call.parts
            if "digest" in part
        )
        values = tuple(part["value"] for part in call.parts if part["type"] == "json")
        return ToolAnswer(call.text, files, values)


def _task(execution: Execution) -> Task:
    around, cause = execution.around, execution.cause
    configuration = cast("Configuration", {"datasets": [], "number": 0, "features": {"agent": SETTINGS}})
    return Task(
        cause,
        around.started.conversation or "",
        configuration,
        SETTINGS,
        around.started.timestamp.isoformat(),
        around.started.user,
        Numbers(),
        "",
        0,
        cause.attempt > 1,
        _unseen,
    )


async def _unseen(frame: dict[str, Any]) -> None:
    """Frames of runs are those of their steps."""


def _fitting(schema: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with texts read as the types that the tool asks for, without those that it does not know."""
    known = schema.get("properties") or {}
    closed = schema.get("additionalProperties") is False
    return {
        name: _read(known.get(name, {}).get("type"), value)
        for name, value in given.items()
        if value is not None and (name in known or not closed)
    }


def _read(type: object, value: Any) -> Any:
    if not isinstance(value, str) or type in (None, "string"):
        return value
    try:
        match type:
            case "number" | "integer":
                return to_number(value)
            case "boolean" if value.lower() in ("true", "false"):
                return value.lower() == "true"
            case "object" | "array":
                return json.loads(value)
    except ValueError:
        return value
    return value
