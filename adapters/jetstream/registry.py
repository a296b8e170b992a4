"""The register of accounts, tenants, API keys and bus logins, as it follows the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream.direct import DirectReader, decoded, sequence
from adapters.jetstream.keys import ERASED, Held, JetStreamKeys
from domain.access.register import SUBJECTS, Register
from domain.log import EVENTS, Commit, Position

HELD_S = 5.0
"""Time after which the log is read again, in seconds: the notice of a change may have been lost."""

STORED_S, SOON_S = 1.0, 0.05
"""For a while after a notice, the log is read again soon, in seconds: the notice may pass before the commit is stored.
"""


class _WithoutWords:
    """Checks who wrote a message, and leaves the words of people sealed: the register has none."""

    def __init__(self, keys: JetStreamKeys) -> None:
        self._keys = keys

    def get(self, tenant: str, person: str) -> Held:
        return ERASED

    def check(self, position: Position, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        self._keys.check(position, subject, headers, body)


class JetStreamRegistry:
    """Reads the commits since the last ones when there is notice of a change, and every `HELD_S` seconds at least.

    Commits also pass on plain NATS: that is the notice. What they say is read from the log, which proves who wrote it.
    """

    def __init__(self, nc: Client, keys: JetStreamKeys, *, timeout_s: float = 5.0) -> None:
        self._nc = nc
        self._keys = keys
        self._reader = DirectReader(nc, timeout_s=timeout_s)
        self._register = Register()
        self._after = dict.fromkeys(SUBJECTS, 0)
        self._noticed, self._read = 1, 0
        """Number of notices, and of those that were there when the log was last read to its end."""
        self._until = self._noticed_at = 0.0
        self._turn = asyncio.Lock()
        self.changed = asyncio.Event()
        """Set at each notice, for who waits for changes; they clear it."""

    async def start(self) -> None:
        """Listen for changes. Raises: Unavailable."""
        for subject in SUBJECTS:
            await self._nc.subscribe(subject, cb=self._notice)
        await self.now()

    async def now(self) -> Register:
        """As the port."""
        if self._is_stale():
            async with self._turn:
                if self._is_stale():
                    await self._catch_up()
        return self._register

    def _is_stale(self) -> bool:
        return self._read != self._noticed or time.monotonic() > self._until

    async def again(self) -> Register:
        """As the port."""
        self._until = 0.0
        return await self.now()

    async def _catch_up(self) -> None:
        noticed = self._noticed
        for subject in SUBJECTS:
            messages = await self._reader.messages(EVENTS, subject, after=self._after[subject])
            after = sequence(messages[-1]) if messages else self._after[subject]
            messages += await self._reader.load_from_leader(EVENTS, subject, after=after)
            if messages:
                await self._take(messages)
                self._after[subject] = sequence(messages[-1])
        now = time.monotonic()
        self._read, self._until = noticed, now + (HELD_S if now > self._noticed_at + STORED_S else SOON_S)

    async def _take(self, messages: list[Msg]) -> None:
        await self._keys.load([])
        ciphers = _WithoutWords(self._keys)
        for message in messages:
            found = decoded(EVENTS, message, ciphers, {})
            if isinstance(found, Commit):
                self._register.take(found)

    async def _notice(self, message: Msg) -> None:
        self._noticed += 1
        self._noticed_at = time.monotonic()
        self.changed.set()
