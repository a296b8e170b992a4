"""Files of questions: those of the messages on a page, and their bytes.

Only images of types that hold no program are shown; any other file is saved under its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.render import tenant
from handlers.media_types import IMAGES
from handlers.ports.log import Unavailable

_FILES = """
SELECT f.id, f.type, f.name, f.url, f.pages, u.mime_type, u.size, u.hash, m.trace_id
FROM headrace.message_files f
JOIN headrace.messages m ON (m.tenant_id, m.id) = (f.tenant_id, f.message_id)
LEFT JOIN headrace.upload_files u ON (u.tenant_id, u.id) = (f.tenant_id, f.id)
WHERE f.tenant_id = %(tenant)s AND {which} ORDER BY f.message_id, f.position
"""
_UNKNOWN = {"at": "", "shown": False, "size": None, "pages": None, "url": None}
OF_MESSAGE = _FILES.format(which="f.message_id = %(message)s")
OF_DIGESTS = _FILES.format(which="u.hash = ANY(%(digests)s)")
ONE = """
SELECT u.* FROM headrace.upload_files u
JOIN headrace.messages m ON (m.tenant_id, m.id) = (u.tenant_id, u.used_by)
WHERE u.tenant_id = %(tenant)s AND u.id = %(file)s AND m.trace_id = %(trace)s
"""


_MADE = """
SELECT person_id, parts FROM headrace.tool_calls
WHERE tenant_id = %(tenant)s AND id = %(call)s AND correlation_id = %(trace)s
"""


def made(trace: str, call: str, number: int, part: dict[str, Any]) -> Row:
    """The file that a tool made, part `number` of its result, as `of_message` returns files."""
    at = f"/traces/{trace}/tools/{call}/{number}"
    type = part["media_type"]
    return {
        **_UNKNOWN,
        "name": part["name"] or type,
        "mime_type": type,
        "size": part["size"],
        "at": at,
        "shown": type in IMAGES,
    }


async def of_message(backend: Backend, of: str, message: str) -> list[Row]:
    """The files of a question, with `at`, the path of the bytes, and `shown`, true for an image."""
    return [_placed(row) for row in await backend.rows(OF_MESSAGE, {"tenant": of, "message": message})]


async def of_prompt(backend: Backend, of: str, pieces: Sequence[dict[str, Any]]) -> list[Row]:
    """The same for files that were sent with a message of a prompt; one that is gone has no path."""
    digests = [piece["file"] for piece in pieces]
    rows = await backend.rows(OF_DIGESTS, {"tenant": of, "digests": digests}) if digests else []
    known = {row["hash"]: _placed(row) for row in rows}
    return [
        known.get(
            piece["file"], {**_UNKNOWN, "name": piece.get("name", piece["kind"]), "mime_type": piece["media_type"]}
        )
        for piece in pieces
    ]


def _placed(row: Row) -> Row:
    stored = row["hash"] is not None
    at = f"/traces/{row['trace_id']}/files/{row['id']}" if stored else ""
    return {**row, "at": at, "shown": stored and row["mime_type"] in IMAGES}


async def show(request: Request) -> Response:
    """The bytes of a file of the trace's question."""
    backend: Backend = request.app.state.backend
    named = {"tenant": tenant(request), "trace": request.path_params["id"], "file": request.path_params["file"]}
    row = await backend.row(ONE, named)
    if row is None:
        raise HTTPException(404, "There is no such file")
    return await _sent(request, row["person_id"], row["hash"], row["name"], row["mime_type"])


async def show_made(request: Request) -> Response:
    """The bytes of a file that a tool made."""
    backend: Backend = request.app.state.backend
    named = {"tenant": tenant(request), "trace": request.path_params["id"], "call": request.path_params["tool"]}
    row = await backend.row(_MADE, named)
    number = request.path_params["number"]
    part = row["parts"][number] if row and number < len(row["parts"]) else {}
    if row is None or "digest" not in part:
        raise HTTPException(404, "There is no such file")
    return await _sent(request, row["person_id"], part["digest"], part["name"] or "file", part["media_type"])


async def _sent(request: Request, person: str | None, digest: str, name: str, media_type: str) -> Response:
    backend: Backend = request.app.state.backend
    if backend.files is None:
        raise HTTPException(404, "There is no such file")
    try:
        data = await backend.files.get(tenant(request), person, "file", digest)
    except (KeyError, ValueError):
        raise HTTPException(404, "The file is gone: the person who sent it was erased") from None
    except Unavailable as error:
        raise HTTPException(503, f"The file cannot be read now: {error}") from error
    image = media_type in IMAGES
    headers = {
        "Content-Disposition": f"{'inline' if image else 'attachment'}; filename*=UTF-8''{quote(name, safe='')}",
        "Cache-Control": "private, no-store",
    }
    return Response(data, media_type=media_type if image else "application/octet-stream", headers=headers)


routes = [
    Route("/traces/{id}/files/{file}", show),
    Route("/traces/{id}/tools/{tool}/{number:int}", show_made),
]
