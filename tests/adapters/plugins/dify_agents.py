"""A package of Dify with strategies of agents: one that calls tools as the model asks, and ones that misbehave."""

from __future__ import annotations

import json
from typing import Any

from tests.dify_packages import manifest, parameter, words

CALLING = """
parameters = Parameters(**parameters)
model = parameters.model
messages = [
    SystemPromptMessage(content=parameters.instruction),
    *model.history_prompt_messages,
    UserPromptMessage(content=parameters.query),
]
tools = self._init_prompt_tools(parameters.tools)
known = {tool.identity.name: tool for tool in parameters.tools or []}
for round in range(1, parameters.maximum_iterations + 1):
    log = self.create_log_message(label=f"ROUND {round}", data={}, status=ToolInvokeMessage.LogMessage.LogStatus.START)
    yield log
    answer = self.session.model.llm.invoke(
        model_config=LLMModelConfig(**model.model_dump(mode="json")),
        prompt_messages=messages,
        tools=tools if round < parameters.maximum_iterations else [],
        stop=[],
        stream=STREAM,
    )
    said, calls, used = "", [], 0
    for piece in answer if STREAM else [answer.to_llm_result_chunk()]:
        said += piece.delta.message.content or ""
        calls += piece.delta.message.tool_calls
        if piece.delta.message.content:
            yield self.create_text_message(piece.delta.message.content)
    if not calls:
        return
    messages.append(AssistantPromptMessage(content=said, tool_calls=calls))
    for call in calls:
        tool = known[call.function.name]
        results = self.session.tool.invoke(
            provider_type=tool.provider_type,
            provider=tool.identity.provider,
            tool_name=tool.identity.name,
            parameters={**tool.runtime_parameters, **json.loads(call.function.arguments)},
        )
        texts = []
        for message in results:
            if message.type == ToolInvokeMessage.MessageType.JSON:
                texts.append(json.dumps(message.message.json_object))
            else:
                texts.append(message.message.text)
        messages.append(ToolPromptMessage(content="".join(texts), tool_call_id=call.id, name=call.function.name))
"""

HEAD = """
import json, os, time
from collections.abc import Generator
from typing import Any

from dify_plugin.entities.agent import AgentInvokeMessage
from dify_plugin.entities.model.llm import LLMModelConfig
from dify_plugin.entities.tool import ToolInvokeMessage
from dify_plugin.interfaces.agent import AgentModelConfig, AgentStrategy, ToolEntity
from dify_plugin.entities.model.message import (
    AssistantPromptMessage, SystemPromptMessage, ToolPromptMessage, UserPromptMessage,
)
from pydantic import BaseModel

STREAM = {stream}

class Parameters(BaseModel):
    model: AgentModelConfig
    tools: list[ToolEntity] | None = None
    instruction: str = ""
    query: str
    maximum_iterations: int = 3
    tone: str = ""

class {title}Strategy(AgentStrategy):
    def _invoke(self, parameters: dict[str, Any]) -> Generator[AgentInvokeMessage]:
{body}
        return
        yield
"""

TOGETHER = """
parameters = Parameters(**parameters)
def called(number):
    tool = parameters.tools[0]
    results = self.session.tool.invoke(
        provider_type=tool.provider_type, provider=tool.identity.provider, tool_name=tool.identity.name,
        parameters={"number": number},
    )
    return "".join(each.message.text for each in results)
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    yield self.create_text_message(" ".join(pool.map(called, range(4))))
"""

GIVES_FILES = """
yield self.create_text_message("Here is a chart.")
yield self.create_link_message("https://example.com/chart")
yield self.create_blob_message(b"\\x89PNG" + bytes(1000), meta={"mime_type": "image/png", "filename": "chart.png"})
yield self.create_json_message({"execution_metadata": {}})
"""

OBSTINATE = """
parameters = Parameters(**parameters)
while True:
    self.session.model.llm.invoke(
        model_config=LLMModelConfig(**parameters.model.model_dump(mode="json")),
        prompt_messages=[UserPromptMessage(content=parameters.query)], stream=False,
    )
"""

BODIES = {
    "calling": (CALLING, True),
    "whole": (CALLING, False),
    "together": (TOGETHER, False),
    "gives_files": (GIVES_FILES, False),
    "obstinate": (OBSTINATE, False),
    "fails": ("raise ValueError('The strategy has no idea.')", False),
    "crashes": ("os._exit(3)", False),
}

PARAMETERS = [
    {**parameter("model", "model-selector", required=True), "scope": "tool-call&llm"},
    parameter("tools", "array[tools]", required=True),
    parameter("instruction", "string", required=True),
    parameter("query", "string", required=True),
    parameter("maximum_iterations", "number", required=True, default=3, min=1, max=99),
    parameter("tone", "select", options=[{"value": each, "label": words(each)} for each in ("dry", "warm")]),
]

PROVIDER = """
from dify_plugin.interfaces.agent import AgentProvider

class TeamProvider(AgentProvider):
    pass
"""

MANIFEST = manifest(
    name="team",
    resource={"memory": 2**28, "permission": {"tool": {"enabled": True}, "model": {"enabled": True, "llm": True}}},
    plugins={"agent_strategies": ["provider/team.yaml"]},
)


def _strategy(name: str) -> dict[str, Any]:
    form = {"llm_description", "human_description", "form"}  # parameters of strategies have none of these
    return {
        "identity": {"name": name, "author": "tests", "label": words(name)},
        "description": words(f"The strategy {name}."),
        "parameters": [{key: value for key, value in each.items() if key not in form} for each in PARAMETERS],
        "extra": {"python": {"source": f"strategies/{name}.py"}},
    }


def _source(name: str) -> str:
    body, stream = BODIES[name]
    lines = "\n".join(f"        {line}" for line in body.strip("\n").split("\n"))
    title = "".join(part.title() for part in name.split("_"))
    return HEAD.replace("{stream}", str(stream)).replace("{title}", title).replace("{body}", lines)


def _files() -> dict[str, str]:
    identity = {"author": "tests", "icon": "icon.svg", "label": words("Team"), "description": words("Agents.")}
    provider = {
        "identity": {**identity, "name": "team"},
        "strategies": [f"strategies/{name}.yaml" for name in BODIES],
        "extra": {"python": {"source": "provider/team.py"}},
    }
    files = {"provider/team.yaml": json.dumps(provider), "provider/team.py": PROVIDER}
    for name in BODIES:
        files[f"strategies/{name}.yaml"] = json.dumps(_strategy(name))
        files[f"strategies/{name}.py"] = _source(name)
    return files


FILES = _files()
