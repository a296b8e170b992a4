"""Packages in the form of Dify's, for tests: written here, run by the real SDK."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapters.plugins.interpreters import interpreter
from handlers.commands.plugin_package import LOCK, WHEELS, Package, pack, read
from ops.plugin_files import packed

SDK = "dify_plugin==0.10.2\n"

PYTHON = "3.12"

MAIN = """
from dify_plugin import DifyPluginEnv, Plugin

Plugin(DifyPluginEnv(MAX_REQUEST_TIMEOUT=120)).run()
"""


def words(text: str) -> dict[str, str]:
    return {"en_US": text}


def manifest(name: str = "lab", version: str = "0.1.0", **fields: Any) -> dict[str, Any]:
    """The manifest of a package without contents, with these fields."""
    return {
        "version": version,
        "type": "plugin",
        "author": "tests",
        "name": name,
        "label": words("Lab"),
        "description": words("Tools of a lab."),
        "icon": "icon.svg",
        "created_at": "2026-03-01T12:00:00Z",
        "resource": {"memory": 2**28, "permission": {}},
        "plugins": {},
        "meta": {
            "version": "0.0.1",
            "arch": ["amd64", "arm64"],
            "runner": {"language": "python", "version": PYTHON, "entrypoint": "main"},
        },
        **fields,
    }


def tool_files(
    provider: str, tools: Mapping[str, dict[str, Any]], form: Mapping[str, Any], code: str
) -> dict[str, str]:
    """A provider of tools: each tool has its parameters, and its class is in the module `tools/NAME.py`."""
    identity = {"author": "tests", "icon": "icon.svg", "label": words(provider), "description": words("")}
    files = {
        f"provider/{provider}.yaml": {
            "identity": {**identity, "name": provider},
            "credentials_for_provider": form,
            "tools": [f"tools/{name}.yaml" for name in tools],
            "extra": {"python": {"source": f"provider/{provider}.py"}},
        }
    }
    for name, tool in tools.items():
        files[f"tools/{name}.yaml"] = {
            "identity": {"name": name, "author": "tests", "label": words(name)},
            "description": {"human": words(name), "llm": f"The tool {name}."},
            "parameters": tool["parameters"],
            "extra": {"python": {"source": f"tools/{name}.py"}},
        }
    sources = {f"tools/{name}.py": _tool(name, tool["code"]) for name, tool in tools.items()}
    written = {path: json.dumps(content, indent=1) for path, content in files.items()}
    return {**written, **sources, f"provider/{provider}.py": code}


def parameter(name: str, type: str = "string", form: str = "llm", **fields: Any) -> dict[str, Any]:
    whole = {"name": name, "type": type, "form": form, "label": words(name), "human_description": words(name)}
    return {**whole, "llm_description": f"The {name}.", "required": False, **fields}


def _tool(name: str, body: str) -> str:
    lines = "\n".join(f"        {line}" for line in body.strip("\n").split("\n"))
    title = "".join(part.title() for part in name.split("_"))
    return f"""
import json, os, sys, time
from collections.abc import Generator
from dify_plugin import Tool
from dify_plugin.entities.tool import ToolInvokeMessage

class {title}Tool(Tool):
    def _invoke(self, tool_parameters) -> Generator[ToolInvokeMessage, None, None]:
        given = tool_parameters
{lines}
        return
        yield
"""


PROVIDER = """
from dify_plugin import ToolProvider

class LabProvider(ToolProvider):
    def _validate_credentials(self, credentials):
        pass
"""


def unpacked(manifest: Mapping[str, Any], files: Mapping[str, str], wheels: bool = True) -> bytes:
    """The package, with the SDK's wheels."""
    content: dict[str, bytes] = {
        "manifest.yaml": json.dumps(manifest).encode(),
        "main.py": MAIN.encode(),
        "_assets/icon.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        **{name: text.encode() for name, text in files.items()},
    }
    if wheels:
        content |= dict(_wheels())
    else:
        content["requirements.txt"] = SDK.encode()
    return pack((name, False, data) for name, data in content.items())


def package(manifest: Mapping[str, Any], files: Mapping[str, str]) -> Package:
    return read(unpacked(manifest, files))


def has_python() -> bool:
    return asyncio.run(interpreter(PYTHON)) is not None


def _wheels() -> Iterator[tuple[str, bytes]]:
    """The lock file and the wheels of the SDK, kept for the next run of the tests."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace-tests" / f"{SDK.strip()}.zip"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            source = Path(name) / "lab.difypkg"
            source.write_bytes(unpacked(manifest(), {}, wheels=False))
            made = kept.with_suffix(f".{os.getpid()}")
            made.write_bytes(packed(source).data)
            made.rename(kept)
    for name, _, data in read(kept.read_bytes()).files():
        if name == LOCK or name.startswith(WHEELS):
            yield name, data
