"""Answers messages, and makes recorded model calls again."""

from __future__ import annotations

from adapters.chat_models import TenantModels
from adapters.jetstream.live import NatsLive
from adapters.jetstream.reactions import subscribe_reaction
from adapters.jetstream.stops import NatsStops
from adapters.openai_compatible import Patience
from domain.provider import Provider
from handlers.answer import Answer
from handlers.replay import ReplayCall
from handlers.retrieve import Retrieve
from ops.house import House

ANSWERS_AT_ONCE = 64
REPLAYS_AT_ONCE = 8
"""By one worker; more workers, more at once."""


async def begin(house: House) -> None:
    silence = house.settings.model_timeout_s

    async def registered(tenant: str, name: str) -> tuple[str, str] | None:
        provider = await house.repository.get(Provider, tenant, name)
        if provider is None or provider.deleted:
            return None
        return provider.base_url, house.vault.open(tenant, provider.sealed_key)

    models = TenantModels(registered, Patience(first_token=silence, between_tokens=silence))
    house.open.push_async_callback(models.close)
    stops = NatsStops(house.nc)
    await stops.start()
    retrieve = Retrieve(house.repository, house.calls, await house.embedding_models(), await house.index())
    answer = Answer(house.repository, house.calls, retrieve, models, NatsLive(house.nc), stops)
    subscribe_reaction(
        house.broker, "answer", answer, workers=ANSWERS_AT_ONCE, repository=house.repository, keys=house.keys
    )
    replay = ReplayCall(house.repository, house.calls, models)
    subscribe_reaction(
        house.broker, "replay", replay, workers=REPLAYS_AT_ONCE, repository=house.repository, keys=house.keys
    )
