"""Recorded calls of models of audio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from domain.models.model_call import ModelCall, TokenUsage
from handlers.models.model_calls import ModelCalls, milliseconds, shielded
from handlers.ports.log import TooLarge
from handlers.ports.models import ChatUsage, ModelError
from handlers.repository import Repository
from handlers.work.cause import Cause


@dataclass(slots=True)
class Recorded:
    """A call that was sent: its id, and what came back, to be recorded when the context ends."""

    id: str
    began: float
    response: str = ""
    usage: ChatUsage = field(default_factory=lambda: ChatUsage(0, 0))
    estimated: bool = True
    first_ms: float | None = None


@asynccontextmanager
async def recorded(
    calls: ModelCalls,
    cause: Cause,
    step: str,
    *,
    kind: str,
    provider: str,
    model: str,
    server: str,
    request: Any,
    most_tokens: int,
) -> AsyncIterator[Recorded]:
    """Record a call of at most these tokens before it is sent, within the context, and its end after it.

    Raises: ModelError, when the record says so too; Unavailable.
    """
    reservation = await calls.reserve(cause, provider, server, model, most_tokens, 0)
    try:
        id = await calls.request(
            cause,
            step,
            kind=kind,
            provider=provider,
            model=model,
            request=request,
            server=server,
            reservation=reservation,
        )
    except TooLarge as error:
        raise ModelError("too_large", f"The model was not called: its request cannot be recorded. {error}") from error
    call = Recorded(id, time.perf_counter())
    try:
        yield call
    except ModelError as error:
        await calls.fail(
            cause,
            id,
            code=error.code,
            reason=error.reason,
            response="",
            duration_ms=milliseconds(call.began),
            reservation=reservation,
        )
        raise
    except KeyError:
        elapsed, reason = milliseconds(call.began), "The person was erased before the answer was stored."
        await calls.fail(
            cause, id, code="erased", reason=reason, response="", duration_ms=elapsed, reservation=reservation
        )
        raise
    except asyncio.CancelledError:
        elapsed = milliseconds(call.began)
        await shielded(calls.cancel(cause, id, response="", duration_ms=elapsed, reservation=reservation))
        raise
    usage = _usage(call.usage, call.estimated)
    await shielded(
        calls.complete(
            cause,
            id,
            response=call.response,
            finish_reason=None,
            usage=usage,
            first_token_ms=call.first_ms,
            duration_ms=milliseconds(call.began),
            reservation=reservation,
        )
    )
    await calls.spend(cause, usage["prompt_tokens"] + usage["completion_tokens"])


def _usage(counted: ChatUsage, estimated: bool) -> TokenUsage:
    return TokenUsage(
        prompt_tokens=counted.prompt_tokens,
        completion_tokens=counted.completion_tokens,
        estimated=estimated,
        cached_tokens=counted.cached_tokens,
        cache_write_tokens=counted.cache_write_tokens,
        reasoning_tokens=counted.reasoning_tokens,
        raw=counted.raw,
    )


async def next_try(repository: Repository, calls: ModelCalls, cause: Cause, *steps: str) -> Cause:
    """The cause with the number of this try, after those whose worker ended: what they completed is not repeated."""
    cause = replace(cause, attempt=1)
    while await repository.get(ModelCall, cause.metadata.tenant, cause.call(steps[0])):
        cause = replace(cause, attempt=cause.attempt + 1)
    return await calls.take_over(cause, *steps)
