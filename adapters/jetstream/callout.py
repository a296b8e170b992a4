"""Answers a NATS server that asks who may connect: with an API key as its token, or with a bus login.

The server asks about every user that its configuration does not list. Without an answer, the client waits, and tries
again: so there is none where the register cannot be read, and none to an address that keeps on guessing. Who has
connected stays connected, also without this program; who loses its rights is disconnected by it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream import accounts
from adapters.jetstream.client import NotSent
from adapters.jetstream.doors import DoorReports
from adapters.jetstream.nkeys import Exchange, Issuer, claims, derived
from adapters.jetstream.registry import JetStreamRegistry
from domain.access.actor import key_of
from domain.access.register import Register
from handlers.access.connect import Grant, by_key, by_login
from handlers.ports.key_uses import KeyUses
from handlers.ports.log import Unavailable

log = structlog.get_logger(__name__)

SUBJECT = "$SYS.REQ.USER.AUTH"
KICK = "$SYS.REQ.SERVER.{}.KICK"
"""A request that names no reply has no effect."""

CONNECTIONS, MORE_CONNECTIONS = "$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.SERVER.{}.CONNZ"

WHO = "$SYS.REQ.USER.INFO"
"""Request by which a connection learns its account, and its actor in the name of its user."""

PAGE = 10_000
"""Connections of a server that one message lists."""

MINUTE_S = 60.0
"""Time after which all connections are looked through, although there was no notice of a change, in seconds."""

AGAIN_S = (0.05, 0.25, 0.3)
"""Pauses after a notice of a change, in seconds; after each they are looked through once more: a connection was allowed
just before the change, or the change was noticed before it was stored."""

MOST_WRONG = 20
"""Wrong keys and passwords of an address in a minute; further ones in it have no answer."""

MOST_ADDRESSES = 10_000
"""Addresses that are counted apart; all further ones are counted as one."""


class Keys(NamedTuple):
    """The keys of the callout, which follow from a key of the operator."""

    issuer: Issuer
    exchange: Exchange
    passwords: bytes

    @classmethod
    def of(cls, key: bytes) -> Self:
        return cls(Issuer(derived(key, "callout issuer")), Exchange(derived(key, "callout exchange")), key)

    @property
    def public(self) -> accounts.Callout:
        return accounts.Callout(self.issuer.public, self.exchange.public)


class Callout:
    def __init__(
        self, nc: Client, registry: JetStreamRegistry, keys: Keys, reports: DoorReports, uses: KeyUses
    ) -> None:
        """`nc` is the connection of the user for this, the others use one of a worker; `registry` was started."""
        self._nc = nc
        self._registry = registry
        self._keys = keys
        self._reports = reports
        self._uses = uses
        self._inbox = nc.new_inbox()
        self._guesses = Guesses()
        self._reporting: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Answer the servers, and disconnect who may not stay, until cancelled."""
        await self._nc.subscribe(SUBJECT, queue="callout", cb=self._answer)
        await self._nc.subscribe(self._inbox, cb=self._look)
        changed = self._registry.changed
        while True:
            await self._ask()
            for pause in AGAIN_S if changed.is_set() else ():
                changed.clear()
                await asyncio.sleep(pause)
                await self._ask()
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), MINUTE_S)

    # --- who connects ---------------------------------------------------------------------------------------------

    async def _answer(self, message: Msg) -> None:
        server = (message.headers or {}).get("Nats-Server-Xkey", "")
        try:
            asked = claims(self._keys.exchange.open(message.data, server).decode())["nats"]
            user, id = str(asked["user_nkey"]), str(asked["server_id"]["id"])
            address, shown = str(asked["client_info"].get("host", "")), dict(asked["connect_opts"])
        except (ValueError, KeyError, TypeError) as error:
            log.warning("not understood", reason=f"a request about a connection: {error!r}")
            return
        try:
            grant = self._judge(await self._registry.now(), shown)
            wrong = 0 if grant else self._guesses.count(address)
            if 0 < wrong <= MOST_WRONG:  # it may be new
                grant = self._judge(await self._registry.again(), shown)
        except Unavailable as error:
            log.warning("not answered", reason=str(error))
            return
        if grant is None:
            self._reports.refused("key" if shown.get("auth_token") else "password", address)
            if wrong > MOST_WRONG:
                return
        answer: dict[str, Any] = {"jwt": self._jwt(grant, user)} if grant else {"error": "not allowed"}
        signed = self._keys.issuer.signed(
            {
                "iat": int(time.time()),
                "aud": id,
                "sub": user,
                "nats": {**answer, "type": "authorization_response", "version": 2},
            }
        )
        await message.respond(self._keys.exchange.seal(signed.encode(), server))
        if grant and key_of(grant.actor):
            self._used(grant.tenant, grant.actor)
            report = asyncio.create_task(self._report(grant, address, shown))  # others must not wait for it
            self._reporting.add(report)
            report.add_done_callback(self._reporting.discard)

    def _judge(self, register: Register, shown: dict[str, Any]) -> Grant | None:
        """The connection that a client has by what it shows, None for none."""
        now = datetime.now(UTC)
        if token := str(shown.get("auth_token") or ""):
            return by_key(register, hashlib.sha256(token.encode()).digest(), now)
        user, password = str(shown.get("user") or ""), str(shown.get("pass") or "")
        tenant, _, name = user.removeprefix("tenant-").partition(".")
        grant = by_login(register, tenant, name, now) if user == accounts.login(tenant, name) else None
        if grant is None:
            return None
        expected = accounts.password(self._keys.passwords, user, grant.proof)
        return grant if hmac.compare_digest(expected.encode(), password.encode()) else None

    async def _report(self, grant: Grant, address: str, shown: dict[str, Any]) -> None:
        """Report the first use of a key from an address; without a report it is let in all the same."""
        program = " ".join(str(shown[each]) for each in ("name", "lang", "version") if shown.get(each))
        try:
            await self._reports.origin(grant.tenant, grant.actor, address, program)
        except (NotSent, Unavailable) as error:
            log.warning("not reported", tenant=grant.tenant, actor=grant.actor, reason=str(error))

    def _jwt(self, grant: Grant, user: str) -> str:
        """A user of the tenant's account. It has no end: clients would not connect again after it."""
        allowed = accounts.tenant(grant.tenant, ()).user(name_of(grant), grant.actor, grant.commands)
        return self._keys.issuer.signed(
            {
                "iat": int(time.time()),
                "aud": grant.tenant,
                "sub": user,
                "name": allowed.name,
                "nats": {
                    "pub": {"allow": [*(allowed.publish or ()), WHO]},
                    "sub": {"allow": [*(allowed.subscribe or ())]},
                    **dict.fromkeys(("subs", "data", "payload"), -1),
                    "allowed_connection_types": ["STANDARD", "WEBSOCKET"],
                    "type": "user",
                    "version": 2,
                },
            }
        )

    # --- who stays ------------------------------------------------------------------------------------------------

    async def _ask(self, subject: str = CONNECTIONS, offset: int = 0) -> None:
        """Ask the servers, or one of them, for their connections."""
        request = {"auth": True, "limit": PAGE, "offset": offset}
        await self._nc.publish(subject, orjson.dumps(request), reply=self._inbox)

    async def _look(self, message: Msg) -> None:
        """Disconnect those connections of a server that would not be allowed now as they are.

        The others use their keys.
        """
        try:
            answer = orjson.loads(message.data)
            server, page = str(answer["server"]["id"]), answer["data"]
            register = await self._registry.now()
        except (ValueError, KeyError, TypeError) as error:
            log.warning("not understood", reason=f"connections of a server: {error!r}")
            return
        except Unavailable as error:
            log.warning("not checked", reason=str(error))
            return
        for found in page.get("connections") or ():
            tenant, name = str(found.get("account", "")), str(found.get("authorized_user", ""))
            actor = name.partition(".")[0]
            if stays(register, tenant, name):
                self._used(tenant, actor)
            else:
                log.info("disconnected", tenant=tenant, actor=actor, connection=found["cid"])
                await self._nc.publish(KICK.format(server), orjson.dumps({"cid": found["cid"]}), f"{self._inbox}.done")
        end = page["offset"] + page["num_connections"]
        if page["num_connections"] and end < page["total"]:
            await self._ask(MORE_CONNECTIONS.format(server), end)

    def _used(self, tenant: str, actor: str) -> None:
        if key := key_of(actor):
            self._uses.used(tenant, key)


def name_of(grant: Grant) -> str:
    """The name of a connection: the actor, what it has shown, and what it may send, so that a change can be seen."""
    return f"{grant.actor}.{grant.proof}.{hashlib.sha256(' '.join(grant.commands).encode()).hexdigest()[:16]}"


def stays(register: Register, account: str, name: str) -> bool:
    """True for a connection that would be allowed now with the same rights, and for one of a listed user."""
    actor, _, rest = name.partition(".")
    proof, now = rest.partition(".")[0], datetime.now(UTC)
    kind, _, id = actor.partition("_")
    if kind == "k" and rest:
        grant = by_key(register, bytes.fromhex(proof), now)
    elif kind == "s" and rest:
        grant = by_login(register, account, id, now)
    else:
        return True
    return grant is not None and (grant.tenant, name_of(grant)) == (account, name)


class Guesses:
    """Counts wrong keys and passwords of each address, minute by minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._since = clock()

    def count(self, address: str) -> int:
        """Count one, and return how many the address has had in this minute."""
        if self._clock() - self._since >= MINUTE_S:
            self._counts.clear()
            self._since = self._clock()
        if address not in self._counts and len(self._counts) >= MOST_ADDRESSES:
            address = ""
        self._counts[address] += 1
        return self._counts[address]
