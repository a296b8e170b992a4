"""The operations of an API as a Toolbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from adapters.egress.client import MOST_BYTES, Egress, Refused
from adapters.tools.credential import Credential, OfUser, Sent, no_users, of_call
from adapters.tools.exchange import Answer, Exchange, Request, origin
from adapters.tools.openapi.answer import result
from adapters.tools.openapi.how import how
from adapters.tools.openapi.reading import ContainedDocuments
from adapters.tools.openapi.request import made
from adapters.tools.tokens import Tokens
from domain.tools.toolset import Toolset
from handlers.commands.tools import MOST_SCHEMA, OpenApiFields
from handlers.ports.log import Blobs
from handlers.ports.tools import Invocation, Listing, Result, ToolError

log = structlog.get_logger(__name__)

LIST_S = 60.0
"""Time to fetch a document, in seconds."""

NOT_PUBLIC = "The address may not be called: it is not public, and the operator has not allowed it."

Unseal = Callable[[str, str], str]


class OpenApiToolboxes:
    """Makes the toolboxes of kind `openapi`. `elsewhere`: the rules for where servers redirect to."""

    def __init__(
        self,
        egress: Egress,
        elsewhere: Egress,
        unseal: Unseal,
        blobs: Blobs,
        documents: ContainedDocuments,
        of_user: OfUser = no_users,
    ) -> None:
        self._exchange = Exchange(egress, elsewhere)
        self._tokens = Tokens(self._exchange)
        self._unseal = unseal
        self._blobs = blobs
        self._documents = documents
        self._of_user = of_user

    def __call__(self, tenant: str, toolset: Toolset) -> OpenApiToolbox:
        fields = OpenApiFields.model_validate(toolset.settings)
        secret = self._unseal(tenant, toolset.secret["sealed"]) if toolset.secret else ""
        credential = Credential(tenant, toolset.id, fields.auth, secret)
        sends = self._exchange, self._tokens, self._of_user
        return OpenApiToolbox(tenant, fields, toolset.timeout_s, credential, *sends, self._blobs, self._documents)


@dataclass(frozen=True, slots=True)
class OpenApiToolbox:
    tenant: str
    fields: OpenApiFields
    timeout_s: float
    credential: Credential
    exchange: Exchange
    tokens: Tokens
    of_user: OfUser
    blobs: Blobs
    documents: ContainedDocuments

    server = ""  # of each tool its own

    async def list(self) -> Listing:
        self.credential.check()
        try:
            listing = await self._read()
        except Refused as refused:
            raise ToolError("unreachable", str(refused)) from None
        tools, warnings = [], list(listing.warnings)
        for tool in listing.tools:
            called = how(tool)
            if self._trusted(called["server"]):
                tools.append(tool)
            else:
                place = f"{called['method']} {called['path']}"
                warnings.insert(0, f"{place} is not offered: the secret goes to {called['server']} only as `server`.")
        if not tools:
            raise ToolError("unsupported", f"It has no operation to offer. {warnings[0] if warnings else ''}".strip())
        return Listing(tools, warnings)

    async def _read(self) -> Listing:
        """Raises: ToolError, Refused, Unavailable."""
        place, data = self.fields.url or "", await self._document()
        for _ in range(2):
            found = await self.documents.read(
                self.tenant,
                data,
                place=place,
                server=self.fields.server or "",
                operations=self.fields.operations,
                filled=self.credential.names,
            )
            if isinstance(found, Listing):
                return found
            place, data = found, await self._fetched(found)
        raise ToolError("bad_request", "The manifest of a plug-in names another manifest.")

    async def _document(self) -> bytes:
        if self.fields.text is not None:
            return self.fields.text.encode()
        if self.fields.digest is not None:
            try:
                return await self.blobs.get(self.tenant, self.fields.digest)
            except (KeyError, ValueError):
                raise ToolError("not_found", "The document is not in the object store any more.") from None
        return await self._fetched(str(self.fields.url))

    async def _fetched(self, url: str) -> bytes:
        """The document at an address, which gets no secret. Raises: ToolError, Refused."""
        accepted = {"Accept": "application/json, application/yaml, */*;q=0.8"}
        try:
            async with asyncio.timeout(LIST_S):
                answer = await self.exchange(self.tenant, Request("GET", url, accepted, None), MOST_SCHEMA)
        except TimeoutError:
            raise ToolError("timeout", f"The document did not arrive within {LIST_S:g} s.") from None
        if answer.status != 200:
            raise ToolError("unreachable", f"The address of the document answered with status {answer.status}.")
        return answer.data

    def _trusted(self, server: str) -> bool:
        """True for a server that may get the secret: a document at an address can name another one at any time."""
        if not self.credential.needed or self.fields.url is None:
            return True
        return origin(server) == origin(self.fields.server or self.fields.url)

    async def call(self, invocation: Invocation) -> Result:
        tool = invocation.tool
        called = how(tool)
        self.credential.check()
        if not self._trusted(called["server"]):
            raise ToolError("unauthorized", "The secret of the toolset is not for this server: list the tools again.")
        request = made(called, invocation.arguments)
        request = request._replace(headers={**request.headers, called["key_header"]: invocation.id})
        try:
            async with asyncio.timeout(self.timeout_s):
                answer, sent = await self._answered(invocation, request)
            return result(answer, called["method"], sent.withheld)
        except TimeoutError:
            unknown = " It is unknown whether it did something." if tool["destructive"] else ""
            raise ToolError("timeout", f"No whole answer came within {self.timeout_s:g} s.{unknown}") from None
        except Refused as refused:
            log.warning("tool.refused", tenant=self.tenant, toolset=self.credential.toolset, reason=str(refused))
            raise ToolError("unreachable", NOT_PUBLIC) from None

    async def _answered(self, invocation: Invocation, request: Request) -> tuple[Answer, Sent]:
        """The answer, and what was sent along. A token that the server refuses is fetched once more.

        Raises: ToolError, Refused, TimeoutError.
        """
        who = await of_call(self.credential, invocation, self.of_user), invocation.user, invocation.id
        sent = await self.tokens.sent(*who)
        answer = await self.exchange(self.tenant, sent.apply(request), MOST_BYTES)
        if answer.status == 401 and sent.token:
            sent = await self.tokens.sent(*who, refused=sent.token)
            answer = await self.exchange(self.tenant, sent.apply(request), MOST_BYTES)
        return answer, sent
