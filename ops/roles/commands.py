"""Dispatches commands."""

from __future__ import annotations

from adapters.jetstream.commands import subscribe_commands
from adapters.jetstream.outcomes import JetStreamOutcomes
from handlers.dispatch import Dispatch
from ops.house import House


async def begin(house: House) -> None:
    dispatch = Dispatch(house.repository, JetStreamOutcomes(house.nc), house.blobs, house.vault)
    subscribe_commands(house.broker, dispatch)
