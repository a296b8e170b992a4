"""The role `commands`: dispatches commands, and retries dead letters."""

from __future__ import annotations

from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.workers.commands import subscribe_commands
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from adapters.model_files import model_name
from handlers.commands.preparation import Ports
from handlers.dispatch import Dispatch
from handlers.work.dead_letters import RetryDeadLetters
from ops.wiring import Wiring


async def begin(wiring: Wiring) -> None:
    models = [model_name(model) for model in wiring.settings.all_embedding_models]
    reranker = model_name(wiring.settings.rerank_model) if wiring.settings.rerank_model else ""
    ports = Ports(wiring.repository, wiring.blobs, wiring.vault, wiring.keys, models, reranker)
    dispatch = Dispatch(ports, JetStreamOutcomes(wiring.nc))
    subscribe_commands(wiring.broker, dispatch, wiring.repository)
    wiring.work("retry_dead_letters", RetryDeadLetters(JetStreamDeadLetters(wiring.nc)))
