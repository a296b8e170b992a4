"""Files that never change under their name, which includes a hash of their content."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path, PurePosixPath

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters import pinned

TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

NAMES = (
    "viewer.css",
    "pages.css",
    "viewer.js",
    "charts.js",
    "icon.svg",
    "vendor/htmx.min.js",
    "vendor/uplot.min.js",
    "vendor/uplot.min.css",
)


@dataclass(frozen=True, slots=True)
class File:
    url: str
    type: str
    body: bytes
    zipped: bytes


@cache
def all_files() -> dict[str, File]:
    """Assets by name. Raises: Altered when a script of others is not as it was published."""
    found = {}
    for name in NAMES:
        path = PurePosixPath(name)
        file = Path(str(files("adapters.web.viewer") / "static" / name))
        if path.parts[0] == "vendor":
            pinned.check(path.name, file, "reinstall Headrace")
        body = file.read_bytes()
        url = f"/static/{path.stem}.{sha256(body).hexdigest()[:10]}{path.suffix}"
        found[name] = File(url, TYPES[path.suffix], body, gzip.compress(body, 9, mtime=0))
    return found


@cache
def _by_url() -> dict[str, File]:
    return {file.url: file for file in all_files().values()}


def url(name: str) -> str:
    return all_files()[name].url


async def _serve(request: Request) -> Response:
    file = _by_url().get(request.url.path)
    if file is None:
        raise HTTPException(404)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.zipped, media_type=file.type, headers=headers | {"Content-Encoding": "gzip"})
    return Response(file.body, media_type=file.type, headers=headers)


routes = [Route("/static/{name}", _serve)]
