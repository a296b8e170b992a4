"""Checks a provider: lists its models, and measures one of them by recorded calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from domain.chat.app import ModelSettings
from domain.log import Commit, Metadata, commit_id
from domain.models.default_model import DefaultModel
from domain.models.model import Model, begun, model_id
from domain.models.model_call import ModelCall
from domain.models.provider import Found, Provider
from handlers.cause import Cause
from handlers.files import Files
from handlers.models.attachments import stored
from handlers.models.choose import Choose
from handlers.models.model_calls import ModelCalls
from handlers.models.probes import PROBES, WINDOW, Ended, Probe, cut_at, picture
from handlers.models.prompt import Record, literal
from handlers.ports.models import ChatModel, ChatRequest, ListedModel, Listing, Listings, ModelError
from handlers.repository import Repository

MOST_LISTED = 200
"""Maximum number of listed models that are recorded in the catalogue."""

AT_ONCE = 8
"""Maximum number of models that are recorded at a time."""


@dataclass(frozen=True, slots=True)
class Check:
    repository: Repository
    calls: ModelCalls
    choose: Choose[ChatModel]
    """Without a catalogue, whose abilities would keep a model from being measured again."""
    listings: Listings
    files: Files
    limit_s: float = 900.0

    async def __call__(self, commit: Commit) -> None:
        """Make the check that was requested last. Raises: Unavailable."""
        tenant, id = commit.subject.tenant, commit.subject.id
        provider = await self.repository.get(Provider, tenant, id)
        requested = [event for event in commit.events if isinstance(event, Provider.CheckRequested)][-1]
        if provider is None or not provider.checking or provider.check != requested.check:
            return
        run = _Run(self, commit.metadata, provider, requested)
        try:
            async with asyncio.timeout(self.limit_s):
                await run()
        except ModelError as error:
            run.fail(error)
        except TimeoutError:
            run.fail(ModelError("timeout", f"The check took longer than {self.limit_s:g} s."))
        await run.end()


class _Run:
    """One run of a check, and what it has found."""

    def __init__(
        self, check: Check, metadata: Metadata, provider: Provider, requested: Provider.CheckRequested
    ) -> None:
        self._check = check
        self._metadata = metadata
        self._provider = provider
        self._credentials: dict[str, str | None] = {}
        self._wanted = requested.model
        self._found = Found(
            check=requested.check, code=None, reason=None, model=None, models=None, latency_ms=None, limits={}
        )

    async def __call__(self) -> None:
        """Raises: ModelError, Unavailable."""
        listings = await self._check.listings.get(self._metadata.tenant, self._provider.id)
        listing = next((each for each in listings.values() if isinstance(each, Listing)), None)
        self._credentials = {
            name: each.code if isinstance(each, ModelError) else None for name, each in listings.items() if name
        }
        if listing:
            await self._take(listing)
        model = self._wanted or await self._default(listing)
        if model:
            await self._measure(model)
        elif listing is None:
            raise next(each for each in listings.values() if isinstance(each, ModelError))
        self._found["limits"] = dict(await self._check.listings.limits(self._metadata.tenant, self._provider.id))

    def fail(self, error: ModelError) -> None:
        self._found |= {"code": error.code, "reason": error.reason[:1000]}

    async def end(self) -> None:
        """Record the end. Raises: Unavailable."""
        at = datetime.now(UTC)

        def decide(provider: Provider | None) -> Provider:
            assert provider is not None
            provider.end_check(at, self._credentials, **self._found)
            return provider

        await self._check.repository.change(Provider, self._provider.id, self._caused("end"), decide)

    async def _take(self, listing: Listing) -> None:
        """Record the models that the server lists."""
        self._found |= {"models": len(listing.models), "latency_ms": listing.duration_ms}
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(listed: ListedModel) -> None:
            async with turns:
                await self._record(
                    "list",
                    listed.name,
                    lambda model, at: model.take_listing(
                        at,
                        server=listing.server,
                        type=listed.type,
                        context_window=listed.context_window,
                        max_output=listed.max_output,
                    ),
                )

        await asyncio.gather(*map(one, listing.models[:MOST_LISTED]))

    async def _record(self, step: str, name: str, verb: Callable[[Model, datetime], None]) -> None:
        at, id = datetime.now(UTC), model_id(self._provider.id, name)

        def decide(known: Model | None) -> Model:
            model = begun(known, self._provider.id, name, at)
            verb(model, at)
            return model

        await self._check.repository.change(Model, id, self._caused(f"{step}:{id}"), decide)

    async def _default(self, listing: Listing | None) -> str | None:
        """The model to measure where the check names none: no other may cost money unasked."""
        default = await self._check.repository.get(DefaultModel, self._metadata.tenant, "chat")
        if default and not default.deleted and default.provider == self._provider.id:
            return default.model
        chats = [each.name for each in listing.models if each.type in (None, "chat")] if listing else []
        return chats[0] if len(chats) == 1 else None

    async def _measure(self, name: str) -> None:
        """Make the calls, and record what they show. Raises: ModelError when the model does not answer."""
        self._found["model"] = name
        settings = ModelSettings(
            provider=self._provider.id, name=name, max_tokens=0, context_window=WINDOW, parameters={}
        )
        cause = Cause(self._metadata, "provider", self._provider.id, 1)
        cause = await self._check.calls.next_attempt(cause, *map(self._step, PROBES))
        shown = await stored(self._check.files, self._metadata.tenant, None, picture())
        abilities: dict[str, bool] = {}
        window = None
        for probe in PROBES:
            ended = await self._call(cause, probe, settings, probe.request(name, shown))
            if probe is PROBES[0]:
                if isinstance(ended, ModelCall.Failed):
                    raise ModelError(ended.code, ended.reason)
                if isinstance(ended, ModelCall.Completed):
                    self._found["latency_ms"] = ended.first_token_ms
            able = probe.read(ended)
            if able is not None:
                abilities[probe.ability] = able
            if probe.ability == "long_prompt" and able is False:
                window = cut_at(ended)
        check = self._found["check"]
        await self._record(
            "measure",
            name,
            lambda model, at: model.take_check(at, check=check, abilities=abilities, context_window=window),
        )

    def _step(self, probe: Probe) -> str:
        return f"check:{self._found['check']}:{probe.ability}"

    async def _call(self, cause: Cause, probe: Probe, model: ModelSettings, request: ChatRequest) -> Ended:
        """Make the call, and return its end as it is recorded. Raises: ModelError when it could not be recorded."""
        step = self._step(probe)
        if step in cause.completed:
            return cause.completed[step][1]
        record = Record([literal(message, {}) for message in request.messages], {})
        course = self._check.choose(self._metadata.tenant, model, request)
        chat = self._check.calls.chat(cause, course, request, record, step=step)
        error: ModelError | None = None
        try:
            async for _ in chat.texts():
                pass
        except ModelError as failed:
            error = failed
        commits = await self._check.repository.commits(ModelCall, self._metadata.tenant, chat.id)
        ended = [event for commit in commits for event in commit.events if isinstance(event, Ended)]
        if not ended:
            raise error or ModelError("internal_error", "The call has no recorded end.")
        return ended[-1]

    def _caused(self, step: str) -> Metadata:
        return self._metadata.caused(commit_id(self._found["check"], step))
