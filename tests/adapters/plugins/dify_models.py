"""A package of Dify with models: those of a server that speaks the protocol of OpenAI, and one that is made up."""

from __future__ import annotations

import json

from tests.dify_packages import manifest, words

LLM = """
from collections.abc import Generator
import os, time
from dify_plugin import OAICompatLargeLanguageModel
from dify_plugin.entities.model import AIModelEntity, FetchFrom, ModelType, ModelPropertyKey
from dify_plugin.entities.model.llm import LLMResult, LLMResultChunk, LLMResultChunkDelta
from dify_plugin.entities.model.message import AssistantPromptMessage
from dify_plugin.errors.model import InvokeRateLimitError

Call = AssistantPromptMessage.ToolCall

def call(id, name, arguments):
    return Call(id=id, type="function", function=Call.ToolCallFunction(name=name, arguments=arguments))

class LabLargeLanguageModel(OAICompatLargeLanguageModel):
    def _invoke(
        self, model, credentials, prompt_messages, model_parameters, tools=None, stop=None, stream=True, user=None
    ):
        if not model.startswith("made-up"):
            whole = {**credentials, "function_calling_type": "tool_call", "stream_function_calling": "supported"}
            return super()._invoke(model, whole, prompt_messages, model_parameters, tools, stop, stream, user)
        return self._made_up(model, credentials, prompt_messages, model_parameters)

    def _made_up(self, model, credentials, messages, parameters):
        def piece(text="", finish=None, **fields):
            message = AssistantPromptMessage(content=text, **fields)
            delta = LLMResultChunkDelta(index=0, message=message, finish_reason=finish, usage=None)
            return LLMResultChunk(model=model, delta=delta)

        if model == "made-up-limit":
            raise InvokeRateLimitError(f"Too many requests by {credentials['api_key']}.")
        if model == "made-up-crash":
            yield piece("It ")
            time.sleep(0.2)
            os._exit(4)
        if model == "made-up-silent":
            time.sleep(60)
        if model == "made-up-empty":
            yield piece(finish="stop")
            return
        if model == "made-up-agent":
            if messages[-1].role.value == "tool":
                yield piece(f"It is {messages[-1].content[::-1]}.", "stop")
            else:
                yield piece(tool_calls=[call("c1", "echo", '{"text": "18:05"}')])
            return
        if model == "made-up-calls":
            yield piece(tool_calls=[call("c1", "tides", '{"at":')])
            yield piece(tool_calls=[call("", "", ' "Kiel"}')])
            yield piece(tool_calls=[call("c2", "tides", '{"at": "Hull"}')], opaque_body={"signature": "s1"})
            return
        if model == "made-up-repeats":
            for m in messages:
                yield piece(f"{m.role.value}: {m.get_text_content()} {getattr(m, 'opaque_body', None)} | ")
            yield piece(f"{sorted(parameters.items())}")
            yield piece(f" | {[c.type.value for m in messages if isinstance(m.content, list) for c in m.content]}")
            return
        yield piece("<think>The key is ")
        yield piece(f"{credentials['api_key']}.</think>At ")
        yield piece("18:05.", "stop")
"""

EMBEDDING = """
from decimal import Decimal
import requests
from dify_plugin import TextEmbeddingModel
from dify_plugin.entities.model import EmbeddingInputType
from dify_plugin.entities.model.text_embedding import EmbeddingUsage, TextEmbeddingResult

class LabTextEmbeddingModel(TextEmbeddingModel):
    def _invoke(self, model, credentials, texts, user=None, input_type=EmbeddingInputType.DOCUMENT):
        answer = requests.post(
            f"{credentials['endpoint_url']}/embeddings", json={"model": model, "input": texts}, timeout=10
        ).json()
        number = answer["usage"]["total_tokens"]
        usage = EmbeddingUsage(tokens=number, total_tokens=number, unit_price=Decimal(0), price_unit=Decimal(0),
                               total_price=Decimal(0), currency="USD", latency=0)
        return TextEmbeddingResult(model=model, embeddings=[each["embedding"] for each in answer["data"]], usage=usage)

    def get_num_tokens(self, model, credentials, texts):
        raise RuntimeError("No plugin is asked to count.")

    def validate_credentials(self, model, credentials):
        pass

    @property
    def _invoke_error_mapping(self):
        return {}
"""

RERANK = """
from dify_plugin import OAICompatRerankModel

class LabRerankModel(OAICompatRerankModel):
    pass
"""

PROVIDER = """
from dify_plugin import ModelProvider
from dify_plugin.errors.model import CredentialsValidateFailedError

class LabModelProvider(ModelProvider):
    def validate_provider_credentials(self, credentials):
        if not credentials["api_key"].startswith("key-"):
            raise CredentialsValidateFailedError(f"{credentials['api_key']} is no key.")
"""


def form(variable: str, type: str = "text-input", **fields: object) -> dict[str, object]:
    return {"variable": variable, "type": type, "label": words(variable), "required": True, **fields}


SMALL = {
    "model": "small",
    "label": words("Small"),
    "model_type": "llm",
    "features": ["tool-call", "stream-tool-call"],
    "model_properties": {"mode": "chat", "context_size": 8192},
    "parameter_rules": [{"name": "max_tokens", "use_template": "max_tokens", "max": 1024}],
    "pricing": {"input": "0.5", "output": "1.5", "unit": "0.000001", "currency": "USD"},
}

CONTENT = {
    "provider/lab.yaml": {
        "provider": "lab",
        "label": words("Lab"),
        "supported_model_types": ["llm", "text-embedding", "rerank"],
        "configurate_methods": ["predefined-model"],
        "provider_credential_schema": {
            "credential_form_schemas": [
                form("api_key", "secret-input"),
                form("endpoint_url"),
                form("mode", required=False, default="chat"),
            ],
        },
        "models": {"llm": {"predefined": ["models/llm/*.yaml"]}},
        "extra": {
            "python": {
                "provider_source": "provider/lab.py",
                "model_sources": ["models/llm/llm.py", "models/embedding/embedding.py", "models/rerank/rerank.py"],
            }
        },
    },
    "models/llm/small.yaml": SMALL,
    "models/llm/_position.yaml": ["small"],
}

FILES = {
    **{name: json.dumps(each) for name, each in CONTENT.items()},
    "provider/lab.py": PROVIDER,
    "models/llm/llm.py": LLM,
    "models/embedding/embedding.py": EMBEDDING,
    "models/rerank/rerank.py": RERANK,
}

MANIFEST = manifest("models", plugins={"models": ["provider/lab.yaml"]})
