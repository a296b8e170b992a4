"""Strategies of agents in plugins of Dify, as the port Strategies."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from adapters.plugins.dify import DifyError, DifyPlugins, Session, declared
from adapters.tools.plugin.call_backs import Answering, Asking, message_of
from adapters.tools.plugin.parameters import value_of
from adapters.tools.plugin.results import MOST_TEXT, Results
from domain.tools.dify import Parameter, Strategy, strategies
from handlers.ports.models import ModelError
from handlers.ports.plugins import EnabledPlugin, PluginFailed
from handlers.ports.strategies import Brief, OfferedTool, named
from handlers.ports.tools import CallBacks, Output, ToolError

FILES = ("blob", "blob_chunk")

LINKS = ("link", "image", "image_link", "file")
"""Types of messages, each the address of something that is elsewhere."""

FEATURES = ("tool-call", "multi-tool-call", "stream-tool-call")
"""Abilities of a model, by Dify's words: a model without calls of tools is sent none by its strategy's choice."""


@dataclass(frozen=True, slots=True)
class DifyStrategies:
    plugins: DifyPlugins
    answering: Answering

    async def run(self, brief: Brief, backs: CallBacks) -> AsyncGenerator[str | Output]:
        """As the port. What a strategy logs is left out: its calls are recorded."""
        results, length = Results(), 0
        try:
            cause = brief.cause
            plugin = await self.plugins.plugin(cause.metadata.tenant, brief.strategy["name"])
            data = _request(plugin, brief)
            with self.answering.to(Asking(plugin, backs, cause.metadata, results.file)) as answers:
                session = Session(brief.user, brief.conversation, cause.id, cause.app or "", answers)
                pieces = self.plugins.stream(plugin, data, session)
                async with aclosing(pieces):
                    async for piece in pieces:
                        if text := _text(piece):
                            length += len(text)
                            if length > MOST_TEXT:
                                raise ModelError("too_large", f"The strategy gave more than {MOST_TEXT:,} characters.")
                            yield text
                        elif piece.get("type") in FILES:
                            results.add(piece)
        except DifyError as error:
            raise _failed(brief, f"{error.type}: {error.message}") from None
        except PluginFailed as error:
            raise _failed(brief, error.reason) from None
        except ToolError as error:
            raise _failed(brief, error.reason) from None
        for file in results.result().files:
            yield file


def _failed(brief: Brief, reason: str) -> ModelError:
    return ModelError("plugin_failed", f"The strategy of the plugin {brief.strategy['name']} failed: {reason}"[:1000])


def _text(piece: Mapping[str, Any]) -> str:
    """The text of a message; of a link, its address."""
    found = piece.get("message")
    text = str(found.get("text") or "") if isinstance(found, dict) else ""
    if piece.get("type") in LINKS:
        return f"\n{text}\n" if text else ""
    return text if piece.get("type") == "text" else ""


def _request(plugin: EnabledPlugin, brief: Brief) -> dict[str, Any]:
    """Raises: PluginFailed `unusable`, ToolError."""
    asked = brief.strategy
    found = strategies(declared(plugin), asked["provider"], asked["strategy"])
    if len(found) != 1:
        raise PluginFailed("unusable", f"It has {len(found) or 'no'} strategies {asked['strategy']!r}.")
    [(provider, strategy)] = found
    return {
        "type": "agent_strategy",
        "action": "invoke_agent_strategy",
        "agent_strategy_provider": provider,
        "agent_strategy": strategy["name"],
        "agent_strategy_params": parameters(strategy, brief),
    }


def parameters(strategy: Strategy, brief: Brief) -> dict[str, Any]:
    """The parameters of a strategy: those that the app gives, else those of the turn, else defaults.

    Raises: ToolError `invalid_arguments`, where a required one is missing.
    """
    turn = {"instruction": brief.instructions, "query": brief.query, "maximum_iterations": brief.rounds}
    found: dict[str, Any] = {}
    for each in strategy["parameters"]:
        value = _value(each, brief, {**turn, **brief.strategy["parameters"]}.get(each["name"]))
        if value is None and each["required"]:
            name = each["name"]
            raise ToolError("invalid_arguments", f"The app gives the strategy no parameter {name}: add it to plugin.")
        if value is not None:
            found[each["name"]] = value
    return found


def _value(parameter: Parameter, brief: Brief, given: Any) -> Any:
    if parameter["type"] == "array[tools]":
        return [_tool(each) for each in brief.tools]
    if parameter["type"] == "model-selector":
        return _model(brief, given if isinstance(given, dict) else {})
    value = parameter["default"] if given is None else given
    return None if value is None or value == "" else value_of(parameter, value)


def _model(brief: Brief, given: Mapping[str, Any]) -> dict[str, Any]:
    """The model of the app, or another one of the tenant, with the messages before the question.

    No size of a context window is named, since strategies would count tokens by a vocabulary from the net then.
    """
    provider, name = named(brief.model)
    model, own = brief.model, not given
    name, provider = (name, provider) if own else (str(given.get("model", "")), str(given.get("provider", "")))
    label = {"en_US": name}
    entity = {
        "model": name,
        "label": label,
        "model_type": "llm",
        "features": list(FEATURES),
        "fetch_from": "customizable-model",
        "model_properties": {"mode": "chat"},
    }
    return {
        "provider": provider,
        "model": name,
        "model_type": "llm",
        "mode": "chat",
        "completion_params": {**model["parameters"], "max_tokens": model["max_tokens"]} if own else {},
        "entity": entity,
        "history_prompt_messages": [message_of(each) for each in brief.history],
    }


def _tool(offered: OfferedTool) -> dict[str, Any]:
    tool, words = offered.tool, {"en_US": offered.tool.name}
    described = {"en_US": tool.description}
    properties, required = tool.parameters.get("properties", {}), tool.parameters.get("required", ())
    return {
        "identity": {"author": "headrace", "name": tool.name, "label": words, "provider": offered.toolset},
        "description": {"human": described, "llm": tool.description},
        "provider_type": "builtin",
        "runtime_parameters": {},
        "parameters": [_parameter(name, each, name in required) for name, each in properties.items()],
    }


_KINDS = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "array": "array"}


def _parameter(name: str, schema: Any, required: bool) -> dict[str, Any]:
    """A property of a JSON Schema; what the model is sent of it is the schema, as it is."""
    whole = schema if isinstance(schema, dict) else {}
    text = str(whole.get("description") or "")
    words = {"en_US": text or name}
    about = {"label": {"en_US": name}, "human_description": words, "llm_description": text}
    kind = _KINDS.get(str(whole.get("type")), "object")
    return {"name": name, **about, "type": kind, "form": "llm", "required": required, "input_schema": whole}
