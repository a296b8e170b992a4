"""Dispatches commands."""

from __future__ import annotations

from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.workers.commands import subscribe_commands
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from adapters.jetstream.workers.reactions import subscribe_reaction
from adapters.model_files import model_name
from handlers.dispatch import Dispatch
from handlers.work.revive import Revive
from ops.wiring import House


async def begin(house: House) -> None:
    models = [model_name(model) for model in house.settings.all_embedding_models]
    dispatch = Dispatch(
        house.repository,
        JetStreamOutcomes(house.nc),
        house.blobs,
        house.vault,
        models,
        house.keys,
        model_name(house.settings.rerank_model) if house.settings.rerank_model else "",
    )
    subscribe_commands(house.broker, dispatch, house.repository)
    revive = Revive(JetStreamDeadLetters(house.nc))
    subscribe_reaction(house.broker, "revive", revive, workers=1, repository=house.repository, keys=house.keys)
