"""The tool `fetch`: the text of a page, by the guarded transport."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from domain.tools.tool import Definition
from handlers.ports.documents import Extractor, Unreadable
from handlers.ports.files import Fetch, NotFetched
from handlers.ports.tools import Invocation, Result, ToolError

MOST_BYTES = 2 * 2**20
"""Maximum size of a page."""

LONGEST = 20_000
"""Maximum length of a text, in characters."""

FETCH = Definition(
    name="fetch",
    label="Web page",
    description="Return the text of a web page or a document at an address.",
    parameters={
        "type": "object",
        "properties": {"url": {"type": "string", "description": "Address, beginning with https:// or http://"}},
        "required": ["url"],
        "additionalProperties": False,
    },
    destructive=False,
    idempotent=True,
)


@dataclass(frozen=True, slots=True)
class FetchPage:
    fetch: Fetch
    extractor: Extractor

    async def __call__(self, invocation: Invocation) -> Result:
        """Raises: ToolError, Unavailable."""
        url = invocation.arguments["url"]
        try:
            fetched = await self.fetch(invocation.tenant, url, MOST_BYTES)
            name = fetched.address.partition("?")[0]
            text = await self.extractor.extract(invocation.tenant, fetched.data, fetched.media_type, name)
        except NotFetched as error:
            raise ToolError(error.code, error.reason) from None
        except Unreadable as error:
            raise ToolError("unsupported", str(error)) from None
        found = "\n\n".join(block.text for block in text.blocks)
        cut = f"\n[{len(found) - LONGEST:,} characters are left out.]" if len(found) > LONGEST else ""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        title = text.title or name
        above = f"{title}\n{fetched.address}, fetched at {at}\n\n"
        link = {"type": "link", "url": fetched.address, "title": title}
        return Result(above + found[:LONGEST] + cut, parts=[link])
