"""Address and headers of a collector, from two settings in the format of OpenTelemetry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

PATH = "/v1/traces"

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def traces_url(endpoint: str) -> str:
    """The URL for traces: OpenTelemetry's endpoint has no path."""
    address, mark, query = endpoint.partition("?")
    return (address if address.endswith(PATH) else address.rstrip("/") + PATH) + mark + query


def target(endpoint: str) -> str:
    """The name of a collector: its address without credentials and query."""
    parts = urlsplit(traces_url(endpoint))
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def header_fields(text: str) -> dict[str, str]:
    """The headers of a text such as `authorization=Basic%20abc,x-scope=1`. Raises: ValueError."""
    pairs: Sequence[tuple[str, str, str]] = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    fields = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
    good = (mark and _NAME.fullmatch(name.strip()) for name, mark, _ in pairs)
    if not all(good) or not all(value.isascii() and value.isprintable() for value in fields.values()):
        raise ValueError("must be like name=value,name=value, with %XX for special characters")
    return fields
