"""The contained process that reads documents of APIs, by the protocol of `adapters.sandbox.serve`.

The head of a request is what is wanted, its data the document. The reply is JSON: `tools` and `warnings`; or the
`elsewhere` of a manifest that names the document's address; or the `fault` of a document that cannot be read.
"""

from __future__ import annotations

import json
from typing import Any

from adapters.sandbox.serve import serve
from adapters.tools.openapi.document import DEEP, Unreadable, parsed
from adapters.tools.openapi.operations import Operations, Wanted


def reply(head: dict[str, Any], data: bytes) -> bytes:
    try:
        found = _read(head, data)
    except Unreadable as error:
        found = {"fault": str(error)}
    except RecursionError:
        found = {"fault": DEEP}
    except MemoryError:
        found = {"fault": "Reading it needs too much memory."}
    return json.dumps(found, ensure_ascii=False).encode(errors="replace")


def _read(head: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Raises: Unreadable."""
    root = parsed(data)
    api = root.get("api")
    if "schema_version" in root and isinstance(api, dict):  # the manifest of a plug-in of ChatGPT, as Dify takes it
        return {"elsewhere": str(api.get("url"))}
    filled = [(str(place), str(name)) for place, name in head["filled"]]
    operations = Operations(root, Wanted(head["place"], head["server"], head["operations"], filled))
    tools = operations.read()
    return {"tools": tools, "warnings": operations.warnings}


if __name__ == "__main__":
    serve(reply)
