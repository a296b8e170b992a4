"""The contained process that checks answers by JSON Schemas, by the protocol of `adapters.sandbox.serve`.

The data of a request are a schema and an answer as JSON. The reply is the fault of the answer, empty for a valid one.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema  # noqa: F401  # before the first request

from adapters.sandbox.serve import serve
from handlers.models.structured import fault


def reply(head: dict[str, Any], data: bytes) -> bytes:
    schema, answer = json.loads(data)
    return (fault(schema, answer) or "").encode(errors="replace")


if __name__ == "__main__":
    serve(reply)
