"""A storm: load, blows by plan, and probes with each blow."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from adapters.jetstream import accounts
from tests.chaos.plan import Blow, Round
from tests.chaos.probe import Probes, Struck
from tests.chaos.site import Site, login

PUBLISHERS = 4

PATIENCE_S = 4.0
"""A round ends after so long even if not everything is back; what is awaited goes on being awaited."""


class Storm:
    def __init__(self, site: Site, probes: Probes) -> None:
        self.blows = Counter[tuple[str, str]]()
        self._site = site
        self._probes = probes
        self._awaited: set[asyncio.Task[None]] = set()

    async def rage(self, rounds: Iterable[Round], passed: Callable[[Round], None]) -> None:
        for round in rounds:
            await self._round(round)
            passed(round)

    async def settle(self) -> None:
        """Wait for what the rounds have left behind."""
        await asyncio.gather(*self._awaited)

    async def _round(self, round: Round) -> None:
        self._note(round)
        fallen = asyncio.Event()
        blows = asyncio.gather(*(self._blow(blow, fallen) for blow in round.blows))
        await fallen.wait()
        struck = Struck(round.number)
        probes = [asyncio.create_task(probe(struck)) for probe in (self._probes.ask, self._probes.upload)]
        self._awaited |= set(probes)
        await blows
        await asyncio.wait(probes, timeout=max(0.0, PATIENCE_S - struck.ago))
        for done in [probe for probe in self._awaited if probe.done()]:
            self._awaited.remove(done)
            done.result()

    def _note(self, round: Round) -> None:
        """For the search for the cause of a finding."""
        line = {"at": datetime.now(UTC).isoformat(), "round": round.number, "blows": [asdict(b) for b in round.blows]}
        with (self._site.settings.home / "rounds.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    async def _blow(self, blow: Blow, fallen: asyncio.Event) -> None:
        await asyncio.sleep(blow.after)
        await self._site.strike(blow)
        self.blows[blow.target, blow.kind] += 1
        fallen.set()
        await asyncio.sleep(blow.lasts)
        await self._site.mend(blow)


@asynccontextmanager
async def publishers(site: Site, seed: int, journal: Path) -> AsyncIterator[None]:
    """The load, as long as the context is; what was sent is acknowledged, or given up, when it ends."""
    options = {
        "--urls": site.cluster.urls_of(login(accounts.login(site.settings.tenant))),
        "--tenant": site.settings.tenant,
        "--seed": str(seed),
        "--publishers": str(PUBLISHERS),
        "--journal": str(journal),
    }
    arguments = [part for option in options.items() for part in option]
    with journal.with_suffix(".log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.publisher", *arguments, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        ended = await process.wait()
    if ended:
        raise RuntimeError(f"The publishers ended with {ended}: {journal.with_suffix('.log').read_text()[-2000:]}")
