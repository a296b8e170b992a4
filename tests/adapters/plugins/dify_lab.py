"""A package of Dify with a tool of each kind."""

from __future__ import annotations

from typing import Any

from tests.dify_packages import PROVIDER, manifest, parameter, tool_files, words

EVERY_TYPE = [
    parameter("text", required=True),
    parameter("number", "number", min=0, max=10),
    parameter("flag", "boolean"),
    parameter("colour", "select", options=[{"value": each, "label": words(each)} for each in ("red", "blue")]),
    parameter("token", "secret-input"),
    parameter("shape", "object", input_schema={"type": "object", "properties": {"side": {"type": "number"}}}),
    parameter("several", "array"),
    parameter("unit", "select", "form", options=[{"value": "m", "label": words("m")}], default="m"),
    parameter("limit", "number", "form", default=5),
    parameter("strict", "boolean", "form", default=True),
    parameter("dynamic", "dynamic-select", "form"),
]

TOOLS: dict[str, dict[str, Any]] = {
    "echo": {
        "parameters": [parameter("text", required=True)],
        "code": "yield self.create_text_message(given['text'][::-1])",
    },
    "every_type": {
        "parameters": EVERY_TYPE,
        "code": "yield self.create_json_message({name: [type(v).__name__, v] for name, v in given.items()})",
    },
    "files": {
        "parameters": [],
        "code": """
yield self.create_blob_message(b"\\x89PNG" + bytes(100_000), meta={"mime_type": "image/png", "filename": "gate.png"})
yield self.create_blob_message(b"plain", meta={"mime_type": "text/plain"})
yield self.create_link_message("https://example.com/report")
yield self.create_image_message("https://example.com/gate.jpg")
""",
    },
    "reads_file": {
        "parameters": [parameter("file", "file", required=True), parameter("files", "files")],
        "code": """
one = given["file"]
yield self.create_text_message(f"{one.filename} {one.mime_type} {one.type.value} {len(one.blob)}")
""",
    },
    "streams": {
        "parameters": [],
        "code": """
for number in range(200):
    yield self.create_text_message(f"{number} ")
    if number % 50 == 0:
        time.sleep(0.01)
yield self.create_variable_message("count", 200)
for part in ("one ", "two"):
    yield self.create_stream_variable_message("words", part)
yield self.create_log_message(label="step", data={"done": True})
""",
    },
    "retrieves": {
        "parameters": [],
        "code": """
message = ToolInvokeMessage.RetrieverResourceMessage
found = [message.RetrieverResource(position=1, document_name="Tides", content="High at 18:05.", score=0.9)]
yield self.create_retriever_resource_message(retriever_resources=found, context="High at 18:05.")
""",
    },
    "fails": {"parameters": [], "code": "raise ValueError('The gate is stuck.')"},
    "is_refused": {
        "parameters": [],
        "code": """
from dify_plugin.errors.model import InvokeRateLimitError
raise InvokeRateLimitError("Too many.")
""",
    },
    "hangs": {"parameters": [], "code": "time.sleep(600)"},
    "blocks": {
        "parameters": [],
        "code": "while True: pass",
    },
    "crashes": {"parameters": [], "code": "os._exit(3)"},
    "floods": {
        "parameters": [],
        "code": """
while True:
    yield self.create_text_message("x" * 100_000)
""",
    },
    "prints": {
        "parameters": [],
        "code": """
print("a line that is no message", flush=True)
print("another", file=sys.stderr)
yield self.create_text_message("done")
""",
    },
    "looks": {
        "parameters": [],
        "code": """
yield self.create_json_message({"environment": dict(os.environ), "home": os.path.exists("/home"), "cwd": os.getcwd()})
""",
    },
    "asks_net": {
        "parameters": [parameter("address", required=True)],
        "code": """
import httpx, requests
said = []
for get in (requests.get, httpx.get):
    try:
        answer = get(given["address"], timeout=5)
        said.append(f"{answer.status_code} {answer.text}")
    except Exception as error:
        said.append(type(error).__name__)
import socket
try:
    socket.create_connection(("192.0.2.1", 80), 1)
    said.append("connected")
except OSError as error:
    said.append("no way out")
yield self.create_text_message(" | ".join(said))
""",
    },
    "keeps": {
        "parameters": [parameter("value")],
        "code": """
if given.get("value"):
    self.session.storage.set("mark", given["value"].encode())
if not self.session.storage.exist("mark"):
    yield self.create_text_message("nothing")
    return
yield self.create_text_message(self.session.storage.get("mark").decode())
if given.get("value") == "gone":
    self.session.storage.delete("mark")
""",
    },
    "asks_model": {
        "parameters": [parameter("question", required=True)],
        "code": """
from dify_plugin.entities.model.llm import LLMModelConfig
from dify_plugin.entities.model.message import SystemPromptMessage, UserPromptMessage
config = LLMModelConfig(provider="lab", model="small", mode="chat", completion_params={"temperature": 0.2})
messages = [SystemPromptMessage(content="Be brief."), UserPromptMessage(content=given["question"])]
said = [piece.delta.message.content for piece in self.session.model.llm.invoke(config, messages, stream=True)]
yield self.create_text_message("".join(said))
whole = self.session.model.llm.invoke(config, messages, stream=False)
yield self.create_text_message(f" / {whole.message.content} {whole.usage.total_tokens}")
""",
    },
    "asks_tool": {
        "parameters": [parameter("text")],
        "code": """
for message in self.session.tool.invoke_builtin_tool("lab", "calculate", {"expression": "6 * 7"}):
    yield message
""",
    },
    "summarizes": {
        "parameters": [],
        "code": "yield self.create_text_message(self.session.model.summary.invoke('High tide. ' * 200, 'Briefly.'))",
    },
    "asks_app": {
        "parameters": [],
        "code": "yield self.create_text_message(str(self.session.app.fetch_app('x')))",
    },
    "uploads": {
        "parameters": [],
        "code": """
file = self.session.file.upload("tides.csv", b"18:05,high", "text/csv")
yield self.create_text_message(f"{file.name} {file.size} {file.mime_type}")
""",
    },
}

GUARDED = """
from dify_plugin import ToolProvider
from dify_plugin.errors.tool import ToolProviderCredentialValidationError

class GuardedProvider(ToolProvider):
    def _validate_credentials(self, credentials):
        if credentials.get("api_key") != "key-of-the-lab":
            raise ToolProviderCredentialValidationError(f"The key {credentials.get('api_key')} is not known.")
"""

FORM = {
    "api_key": {"type": "secret-input", "required": True, "label": words("Key")},
    "region": {
        "type": "select",
        "required": False,
        "default": "eu",
        "label": words("Region"),
        "options": [{"value": each, "label": words(each)} for each in ("eu", "us")],
    },
}

WITH_KEY: dict[str, dict[str, Any]] = {
    "guarded": {
        "parameters": [],
        "code": "yield self.create_text_message(json.dumps(self.runtime.credentials, sort_keys=True))",
    },
}

PERMISSION = {
    "tool": {"enabled": True},
    "model": {"enabled": True, "llm": True},
    "storage": {"enabled": True, "size": 1024},
    "app": {"enabled": True},
}

MANIFEST = manifest(
    resource={"memory": 2**28, "permission": PERMISSION},
    plugins={"tools": ["provider/lab.yaml", "provider/guarded.yaml"]},
)

FILES = {**tool_files("lab", TOOLS, {}, PROVIDER), **tool_files("guarded", WITH_KEY, FORM, GUARDED)}
