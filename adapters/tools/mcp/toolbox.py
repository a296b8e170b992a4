"""Toolboxes of MCP servers: of an address that the tenant names, or of a program that the operator has configured."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import httpx2

from adapters.egress.client import Egress, GuardedClient, Refused
from adapters.models.withheld import Withheld
from adapters.tools.credential import Credential, OfUser, Sent, no_users, of_call
from adapters.tools.exchange import Exchange
from adapters.tools.mcp.processes import Processes
from adapters.tools.tokens import Renew, Tokens, never
from domain.tools.question import Answer, Question
from domain.tools.toolset import Toolset
from handlers.commands.tools import AuthFields
from handlers.ports.tools import Ask, Invocation, Listing, NeedsAnswers, Result, Toolbox, ToolError, no_user

if TYPE_CHECKING:
    from mcp import Client

    from adapters.tools.mcp.session import Era

CONNECT_S = 10.0
"""Time limit of a connection, in seconds."""

ERAS = 1000
"""Maximum number of servers of which is known how they are spoken to."""

T = TypeVar("T")

Do = Callable[["Client", Withheld], Awaitable[T]]
"""Does something with a session, whose result must not have the secrets."""

Unseal = Callable[[str, str], str]
"""Return a tenant's secret that was sealed. Raises: ValueError, Unavailable."""


class McpToolboxes:
    """Makes the toolboxes of kind `mcp`."""

    def __init__(
        self,
        egress: Egress,
        unseal: Unseal,
        processes: Processes,
        renew: Renew = never,
        of_user: OfUser = no_users,
    ) -> None:
        self._egress = egress
        self._unseal = unseal
        self._processes = processes
        self._of_user = of_user
        self._tokens = Tokens(Exchange(egress, egress), renew)
        self._eras: dict[tuple[str, str], Era] = {}

    def __call__(self, tenant: str, toolset: Toolset) -> Toolbox:
        """Raises: ToolError."""
        try:
            secret = self._unseal(tenant, toolset.secret["sealed"]) if toolset.secret else ""
        except ValueError:
            raise ToolError("unauthorized", "The secret of the toolset cannot be read: give it again.") from None
        settings = toolset.settings
        if settings["server"]:
            return _Program(self._processes, tenant, settings["server"], secret, toolset.timeout_s)
        credential = Credential(tenant, toolset.id, AuthFields.model_validate(settings["auth"]), secret)
        sends = self._egress, self._tokens, self._of_user, self._eras
        return _Address(*sends, credential, settings["url"], toolset.timeout_s)


@dataclass(frozen=True, slots=True)
class _Address:
    """A server at an address. Each call has a connection of its own, so that none can end another."""

    egress: Egress
    tokens: Tokens
    of_user: OfUser
    eras: dict[tuple[str, str], Era]
    credential: Credential
    url: str
    timeout_s: float

    @property
    def server(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

    async def list(self) -> Listing:
        return await self._do(_list, None)

    async def call(self, invocation: Invocation) -> Result:
        async def call(client: Client, withheld: Withheld) -> Result | NeedsAnswers:
            return await _call(client, invocation, withheld)

        return _given(await self._do(call, invocation))

    async def _do(self, do: Do[T], invocation: Invocation | None) -> T:
        """Raises: ToolError."""
        user, key = (invocation.user, invocation.id) if invocation else ("", "")
        listing = invocation is None
        try:
            async with asyncio.timeout(self.timeout_s) as limit:
                await _loaded()
                ask = _patient(limit, self.timeout_s, invocation.ask if invocation else no_user)
                credential = await of_call(self.credential, invocation, self.of_user) if invocation else self.credential
                sent = await self.tokens.sent(credential, user, key)
                try:
                    return await self._once(do, sent, key, ask, listing=listing)
                except ToolError as error:
                    if error.code != "unauthorized" or not sent.token:
                        raise
                # Nothing was done: do it with another token.
                sent = await self.tokens.sent(credential, user, key, refused=sent.token)
                return await self._once(do, sent, key, ask, listing=listing)
        except Refused as refused:
            from adapters.tools.mcp import session

            raise session.fault(refused, listing=listing) from None
        except TimeoutError:
            raise ToolError("timeout", f"The server gave no answer within {self.timeout_s:g} s.") from None

    async def _once(self, do: Do[T], sent: Sent, key: str, ask: Ask, *, listing: bool) -> T:
        from adapters.tools.mcp import questions, session

        tenant = self.credential.tenant
        place = tenant, self.url

        def make() -> GuardedClient:
            made = self.egress.client(tenant, connect_s=CONNECT_S, most=session.MOST_BYTES)
            made.headers.update({**sent.headers, **({"Idempotency-Key": key} if key else {})})
            return made

        try:
            asks = questions.callback(ask, sent.withheld)
            http = session.Http(make, sent.address(self.url), self.eras.get(place), asks)
        except httpx2.InvalidURL:
            raise ToolError("unreachable", "The address is invalid.") from None
        try:
            async with http.connected() as client:
                found = await do(client, sent.withheld)
        except Exception as error:
            if not session.is_fault_of_tool(error):
                self.eras.pop(place, None)
            fault = session.fault(error, http.status, listing=listing, flooded=http.is_flooded)
            raise ToolError(fault.code, sent.withheld.text(fault.reason)) from None
        self._remember(place, http.era)
        return found

    def _remember(self, place: tuple[str, str], era: Era | None) -> None:
        if era is not None:
            if place not in self.eras and len(self.eras) >= ERAS:
                del self.eras[next(iter(self.eras))]
            self.eras[place] = era


@dataclass(frozen=True, slots=True)
class _Program:
    """A program of the operator, of which each tenant has a process."""

    processes: Processes
    tenant: str
    name: str
    secret: str
    timeout_s: float
    server: str = field(default="", init=False)

    async def list(self) -> Listing:
        async with self._client(no_user) as client:
            return await _list(client, Withheld([self.secret]))

    async def call(self, invocation: Invocation) -> Result:
        async with self._client(invocation.ask) as client:
            found = await _call(client, invocation, Withheld([self.secret]))
        return _given(found)

    @asynccontextmanager
    async def _client(self, ask: Ask) -> AsyncIterator[Client]:
        """Raises: ToolError."""
        try:
            async with asyncio.timeout(self.timeout_s) as limit:
                await _loaded()
                from adapters.tools.mcp import session

                try:
                    async with self.processes.client(
                        self.tenant, self.name, self.secret, _patient(limit, self.timeout_s, ask)
                    ) as client:
                        yield client
                except Exception as error:
                    fault = session.fault(error)
                    raise ToolError(fault.code, Withheld([self.secret]).text(fault.reason)) from None
        except TimeoutError:
            raise ToolError("timeout", f"The program gave no answer within {self.timeout_s:g} s.") from None


async def _list(client: Client, withheld: Withheld) -> Listing:
    from adapters.tools.mcp import results, session

    return results.listing(await session.tools(client), withheld)


async def _call(client: Client, invocation: Invocation, withheld: Withheld) -> Result | NeedsAnswers:
    from mcp_types import InputRequiredResult

    from adapters.tools.mcp import questions, results, session

    name, arguments = invocation.tool["name"], invocation.arguments
    found = await session.call(client, name, arguments, invocation.id, invocation.answered)
    if isinstance(found, InputRequiredResult):
        return questions.needs(found, withheld)
    return results.result(found, withheld)


def _given(found: Result | NeedsAnswers) -> Result:
    """Raises: NeedsAnswers, here since a session that it ends would wrap it."""
    if isinstance(found, NeedsAnswers):
        raise found
    return found


def _patient(limit: asyncio.Timeout, seconds: float, ask: Ask) -> Ask:
    """Asks the user outside of a time limit, which begins again with the answer."""

    async def asked(question: Question) -> Answer:
        limit.reschedule(None)
        try:
            return await ask(question)
        finally:
            with suppress(RuntimeError):  # the call was broken off
                limit.reschedule(asyncio.get_running_loop().time() + seconds)

    return asked


async def _loaded() -> None:
    """Import the package in a thread: other calls go on meanwhile."""
    for module in ("session", "results"):
        name = f"adapters.tools.mcp.{module}"
        if name not in sys.modules:
            await asyncio.to_thread(import_module, name)
