"""Tools and results of MCP servers, as those of a toolbox."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    Tool,
)

from adapters.models.withheld import Withheld
from domain.tools.tool import Definition
from handlers.ports.tools import Listing, Output, Result, ToolError

LONGEST_NAME, LONGEST_DESCRIPTION = 255, 10_000
"""Maximum lengths of the name and of the description of a tool, in characters."""

MOST_SCHEMA = 64 * 2**10
"""Maximum size of the schema of a tool, in bytes."""

MOST_JSON = 2**20
"""Maximum size of a structured result, in bytes."""

MOST_FILES = 20
"""Maximum number of files of a result."""

MOST_TEXT = 2**20
"""Maximum length of all texts of a result, in characters."""


def listing(tools: Sequence[Tool], withheld: Withheld) -> Listing:
    """The tools that a server lists. Hints of a server may be wrong: without one, a tool is destructive."""
    found: dict[str, Definition] = {}
    warnings: list[str] = []
    for tool in tools:
        name = tool.name
        if why := _unusable(tool, found):
            warnings.append(f"The tool {name[:60]!r} is left out: {why}")
            continue
        hints = tool.annotations
        reads = bool(hints and hints.read_only_hint)
        definition = Definition(
            name=name,
            label=(tool.title or (hints and hints.title) or "")[:LONGEST_NAME],
            description=(tool.description or "")[:LONGEST_DESCRIPTION],
            parameters={"type": "object", **tool.input_schema},
            destructive=not reads and not (hints and hints.destructive_hint is False),
            idempotent=reads or bool(hints and hints.idempotent_hint),
        )
        found[name] = withheld.json(definition)
    return Listing(list(found.values()), warnings)


def _unusable(tool: Tool, found: dict[str, Definition]) -> str:
    if not tool.name or len(tool.name) > LONGEST_NAME:
        return f"its name must have 1 to {LONGEST_NAME} characters."
    if tool.name in found:
        return "another one has its name."
    if tool.input_schema.get("type", "object") != "object":
        return "its arguments are no object."
    try:
        size = len(orjson.dumps(tool.input_schema))
    except (TypeError, ValueError):
        return "its schema is nested too deep, or has numbers that are too large."
    return f"its schema has more than {MOST_SCHEMA:,} bytes." if size > MOST_SCHEMA else ""


def result(given: CallToolResult, withheld: Withheld) -> Result:
    """Raises: ToolError, also for a result that the server marks as an error."""
    texts: list[str] = []
    parts: list[dict[str, Any]] = []
    files: list[Output] = []
    for content in given.content:
        match content:
            case TextContent():
                texts.append(content.text)
            case ImageContent() | AudioContent():
                kind = "image" if isinstance(content, ImageContent) else "audio"
                files.append(_file("", content.mime_type, content.data, f"{kind}-{len(files) + 1}"))
            case ResourceLink():
                texts.append(f"{content.title or content.name}: {content.uri}")
                if urlsplit(content.uri).scheme in ("http", "https"):
                    parts.append({"type": "link", "url": content.uri, "title": content.title or content.name})
            case EmbeddedResource(resource=BlobResourceContents() as blob):
                files.append(_file(blob.uri, blob.mime_type, blob.blob, f"file-{len(files) + 1}"))
            case EmbeddedResource():
                texts.append(f"{content.resource.uri}\n{content.resource.text}")  # type: ignore[union-attr]
    if given.structured_content is not None:
        written = _written(given.structured_content)
        parts.append({"type": "json", "value": given.structured_content})
        texts = texts or [written]
    text = "\n\n".join(filter(None, texts))
    if given.is_error:
        reason = withheld.text(text)[:2000] or "it does not say why."
        raise ToolError("server_error", f"The tool failed: {reason}")
    if len(text) > MOST_TEXT or len(files) > MOST_FILES:
        raise ToolError("too_large", f"The result has more than {MOST_TEXT:,} characters, or {MOST_FILES} files.")
    kept = [file._replace(name=withheld.text(file.name), data=withheld.bytes(file.data)) for file in files]
    return Result(withheld.text(text), parts=withheld.json(parts), files=kept)


def _written(value: Any) -> str:
    """The text of a structured result. Raises: ToolError."""
    try:
        data = orjson.dumps(value)
    except (TypeError, ValueError):
        raise ToolError("server_error", "The structured result cannot be written as JSON.") from None
    if len(data) > MOST_JSON:
        raise ToolError("too_large", f"The structured result has more than {MOST_JSON:,} bytes.")
    return data.decode()


def _file(uri: str, media_type: str | None, data: str, name: str) -> Output:
    """Raises: ToolError."""
    media_type = (media_type or "application/octet-stream").partition(";")[0].strip().lower()[:127]
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ToolError("server_error", "A file of the result is not base64.") from None
    given = urlsplit(uri).path.rpartition("/")[2][:200]
    return Output(given or name + (mimetypes.guess_extension(media_type) or ""), media_type, decoded)
