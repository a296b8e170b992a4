"""Texts of files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from domain.workflows.node_type import Trouble
from domain.workflows.requests import DocumentRequest
from domain.workflows.values import File
from handlers.media_types import media_type_of
from handlers.ports.documents import Extractor, Unreadable
from handlers.ports.files import Fetch, NotFetched
from handlers.workflows.execution import Execution
from handlers.workflows.run_files import read

LARGEST: Final = 15 * 2**20
"""Maximum bytes of a file."""

AS_IT_STANDS: Final = ("text/html", "text/markdown", "text/plain", "text/xml", "application/xml")
ERROR: Final = "TextExtractionError"


@dataclass(frozen=True, slots=True)
class ReadDocuments:
    extractor: Extractor
    fetch: Fetch

    async def __call__(self, execution: Execution) -> tuple[str, ...] | Trouble:
        """Raises: Unavailable."""
        request: DocumentRequest = execution.request
        try:
            return tuple([await self._text(execution, file) for file in request.files])
        except (NotFetched, Unreadable) as error:
            return Trouble(str(error), ERROR)

    async def _text(self, execution: Execution, file: File) -> str:
        """Raises: NotFetched, Unreadable; Unavailable."""
        name = file.filename or f"file{file.extension or ''}"
        data = (await read(execution, self.fetch, file, LARGEST)).data
        media_type = media_type_of(name) or file.mime_type or "text/plain"
        if media_type == "application/json":
            try:
                return json.dumps(json.loads(data), indent=2, ensure_ascii=False)
            except (ValueError, RecursionError) as error:
                raise Unreadable("broken_file", f"{name} is no JSON.") from error
        if media_type in AS_IT_STANDS or (media_type.startswith("text/") and media_type != "text/csv"):
            return data.decode("utf-8", "replace").replace("\x00", "")
        found = await self.extractor.extract(execution.tenant, data, media_type, name)
        return "\n\n".join(block.text for block in found.blocks)
