"""Files of runs: the bytes of those that steps work with, and values for those that they made."""

from __future__ import annotations

from domain.workflows.values import File
from handlers.ports.files import Fetch, Fetched, NotFetched
from handlers.workflows.execution import Execution


async def read(execution: Execution, fetch: Fetch, file: File, most: int) -> Fetched:
    """The bytes of a file that is stored here, or at an address. Raises: NotFetched; Unavailable."""
    if file.related_id:
        try:
            files = execution.around.files
            data = await files.get(execution.tenant, execution.person, "file", file.related_id)
        except (KeyError, ValueError):
            raise NotFetched("not_found", f"The file {file.filename} is not there any more.") from None
        return Fetched(data, file.mime_type or "", "")
    if not (url := file.remote_url or file.url):
        raise NotFetched("not_found", f"The file {file.filename} has no address.")
    fetched = await fetch(execution.tenant, url, most)
    return fetched._replace(media_type=file.mime_type or fetched.media_type)


def made(digest: str, size: int, name: str | None, media_type: str | None) -> File:
    """A file that a tool or a server has made, and that is stored."""
    kind = (media_type or "").partition("/")[0]
    return File(
        kind if kind in ("image", "audio", "video") else "document",
        "tool_file",
        filename=name,
        extension="." + name.rpartition(".")[2] if name and "." in name else None,
        mime_type=media_type,
        size=size,
        related_id=digest,
    )
