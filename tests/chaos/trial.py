"""A trial: a storm passes over a whole Headrace, and then all that came of it is looked at."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import aftermath
from tests.chaos.account import Account, journal
from tests.chaos.plan import Round, plan
from tests.chaos.probe import Probes
from tests.chaos.report import Report
from tests.chaos.site import Site
from tests.chaos.storm import Storm, publishers
from tests.chaos.tokens import Tokens

Say = Callable[[str], None]
Passed = Callable[[Round], None]


def no_progress(round: Round) -> None: ...


async def trial(home: Path, seed: int, rounds: int, say: Say, passed: Passed = no_progress) -> Report:
    """Let a storm of `rounds` rounds pass over a Headrace in this folder, and report what came of it."""
    began = time.monotonic()
    say("starting three NATS nodes, PostgreSQL and the workers")
    async with (
        Site.running(home) as site,
        Tokens.watched(site.stack.client) as tokens,
        Probes.of(site.stack) as probes,
    ):
        raging = Storm(site, probes)
        file = home / "journal.jsonl"
        say("the storm begins")
        async with publishers(site, seed, file):
            await raging.rage(plan(seed, rounds), passed)
        say("the storm is over; waiting for what the rounds left behind")
        await raging.settle()
        say("waiting until all is quiet")
        findings = probes.recovery.findings + await aftermath.quiet(site, say)
        say("reading the log")
        account = Account(journal(file))
        await aftermath.read(site, account)
        findings += account.close() + tokens.findings
        say("sending commands again")
        findings += await aftermath.replay(site, dict(account.sent), seed)
        say("headrace verify")
        findings += await aftermath.verify(site, say)
        return Report(
            seed=seed,
            rounds=rounds,
            blows=raging.blows,
            died=site.died,
            published=len(account.sent),
            acknowledged=sum(sent.acknowledged for sent in account.sent.values()),
            accepted=account.count("accepted"),
            rejected=account.count("rejected"),
            again=sum(sent.again for sent in account.sent.values()),
            messages=account.messages,
            tokens=tokens.count,
            findings=findings,
            recovery=probes.recovery,
            seconds=time.monotonic() - began,
        )
