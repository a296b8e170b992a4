"""Reports of a door for the audit: sign-ins, refusals, and the first use of an actor from an address.

A report is published before what it is about goes on, and is not waited for: doors must work where no worker runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

import structlog
from nats.aio.client import Client as Connection

from adapters.jetstream.client import Client, NotSent
from domain.access.actor import key_of
from domain.access.door import BROWSER
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from handlers.ports.log import Unavailable

log = structlog.get_logger(__name__)

Credential = Literal["password", "token", "link", "key"]

EVERY_S = 60.0
"""Interval of reports of refusals, in seconds."""

MOST = 100
"""Maximum number of addresses that are reported at once, those with the most refusals; the others are summed up."""

ADDRESSES = 10_000
"""Maximum number of addresses whose refusals are counted, and of actors at addresses whose first use is known."""


class Use(NamedTuple):
    """An actor at an address; `tenant` is that of the report."""

    tenant: str
    actor: str
    address: str
    browser: str

    @classmethod
    def of(cls, tenant: str, actor: str, address: str, browser: str) -> Use:
        """Keys belong to their tenant, accounts and operators to the house."""
        return cls(tenant if key_of(actor) else HOUSE, actor, address, _plain(browser))


Known = Callable[[Use], Awaitable["str | None"]]
"""Finds the report of a use that was reported before, perhaps by another process; None when there is none."""


class DoorReports:
    """`door` is the name of the door. `run` sends the reports of refusals."""

    def __init__(self, nc: Connection, door: str, known: Known) -> None:
        self._nc = nc
        self._door = door
        self._known = known
        self._origins: dict[Use, str] = {}
        self._refused: Counter[tuple[Credential, str]] = Counter()
        self._turn = asyncio.Lock()

    async def signed_in(self, credential: Credential, address: str, browser: str, account: str | None = None) -> None:
        """Report a sign-in. One that cannot be sent is logged: the door opens all the same."""
        fields = {"account": account, "credential": credential, "address": address, "browser": _plain(browser)}
        await self._report("door.report_sign_in", fields)

    def refused(self, credential: Credential, address: str) -> None:
        """Count a refusal, for the next report."""
        each = (credential, address)
        if each not in self._refused and len(self._refused) >= ADDRESSES:
            each = (credential, "")
        self._refused[each] += 1

    async def origin(self, tenant: str, actor: str, address: str, browser: str) -> str:
        """The origin of commands that an actor sends to a tenant; it is reported at its first use.

        Raises: NotSent, Unavailable.
        """
        use = Use.of(tenant, actor, address, browser)
        if known := self._origins.get(use):
            return known
        async with self._turn:
            found = self._origins.get(use) or await self._known(use) or await self._first(use)
            if use not in self._origins and len(self._origins) >= ADDRESSES:
                del self._origins[next(iter(self._origins))]
            self._origins[use] = found
        return found

    async def _first(self, use: Use) -> str:
        id = new_id()
        fields = {"actor": use.actor, "address": use.address, "browser": use.browser}
        await Client(self._nc, use.tenant, door=self._door).post("door.report_use", fields, id)
        return id

    async def run(self) -> None:
        """Report refusals each minute, and once more at the end."""
        try:
            while True:
                await asyncio.sleep(EVERY_S)
                await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Report the refusals that were counted."""
        counted, self._refused = self._refused, Counter()
        reports: Counter[tuple[Credential, str]] = Counter()
        for number, ((credential, address), count) in enumerate(counted.most_common()):
            reports[credential, address if number < MOST else ""] += count
        for (credential, address), count in reports.items():
            fields = {"credential": credential, "address": address, "count": count}
            await self._report("door.report_refusals", fields)

    async def _report(self, name: str, fields: dict[str, Any]) -> None:
        try:
            await Client(self._nc, HOUSE, door=self._door).post(name, fields)
        except (NotSent, Unavailable) as error:
            log.warning("not reported", report=name, reason=str(error), **fields)


def _plain(browser: str) -> str:
    """The name of a browser as it can be stored."""
    return browser.replace("\0", "").encode(errors="replace").decode()[:BROWSER]
