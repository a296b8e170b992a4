"""Chooses the models that a call is tried with: those of a route, or the one that an app names.

Each try is a recorded call. Where one fails, the reaction of the route to its code says what is tried next.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from domain.chat.app import ModelSettings
from domain.models.model_call import TokenUsage, Try
from domain.models.provider import by_weight
from domain.models.route import REACTIONS, Group, Member, ModelRoute
from handlers.models.prompt import likely
from handlers.models.rates import Rate, Rates, Taken
from handlers.models.rests import Key, Rests
from handlers.ports.counters import Counters
from handlers.ports.models import Access, ChatRequest, Client, ModelError, Models, Rest
from handlers.ports.outages import Outages
from handlers.repository import Repository

C = TypeVar("C", bound=Client)

T = TypeVar("T")

TRIES, MOST_TRIES = 3, 12
"""Maximum number of tries with one credential of a model, and in all."""

PAUSE_S, LONGEST_PAUSE_S = 0.3, 20.0
"""Pause before the same model is tried again, in seconds, which doubles; and the longest that a server may ask for."""

RECENT_S, RECENT = 300.0, 50
"""Age, in seconds, and number of the calls that the median time to the first token is of."""

KEPT = 10_000
"""Maximum number of models whose calls are counted, and of facts in memory."""

HELD_S = 5.0
"""Time for which routes, credentials and facts of models stay in memory unless a change is heard of, in seconds."""


class Known(NamedTuple):
    """Facts about a model; None for what is not known.

    `context_window`: tokens. `price`: US dollars for a million tokens of the prompt and as many of the answer.
    `abilities`: as measured. `rate`: of each credential. `prices`: the two parts of the price.
    """

    context_window: int | None = None
    price: float | None = None
    abilities: Mapping[str, bool | None] = {}
    rate: Rate = Rate()
    prices: tuple[float, float] | None = None

    def cost(self, usage: TokenUsage) -> float | None:
        """US dollars of a call, as if no token was cached; None where prices are not known."""
        if self.prices is None:
            return None
        return (usage["prompt_tokens"] * self.prices[0] + usage["completion_tokens"] * self.prices[1]) / 1e6


class Catalogue(Protocol):
    async def known(self, tenant: str, provider: str, model: str) -> Known: ...


class Needs(NamedTuple):
    """The needs of a call: the tokens of prompt and answer, and abilities such as `tools`."""

    tokens: int = 0
    abilities: Sequence[str] = ()

    @classmethod
    def of(cls, request: ChatRequest) -> Needs:
        asked = {
            "tools": bool(request.tools),
            "schema": request.schema is not None,
            "image": any(each.kind == "image" for message in request.messages for each in message.attachments),
        }
        prompt = sum(likely(message.content) for message in request.messages)
        return cls(prompt + request.max_tokens, [ability for ability, needed in asked.items() if needed])


class Way(NamedTuple, Generic[C]):
    """A model by one credential of its provider."""

    provider: str
    model: str
    weight: float
    known: Known
    access: Access[C]

    @property
    def client(self) -> C:
        return self.access.client

    @property
    def key(self) -> Key:
        return self.provider, self.model, self.access.credential


@dataclass(slots=True)
class Pace:
    """The calls of one way in this process: those in progress, and the last times to the first token, with their
    ages."""

    busy: int = 0
    firsts: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT))

    def first_ms(self, now: float) -> float:
        """The median of the last minutes; 0 where there was none, so that the way is tried."""
        return median(recent) if (recent := [ms for at, ms in self.firsts if at > now - RECENT_S]) else 0.0


class Course(Protocol[C]):
    """The ways that one call is tried with."""

    async def next(self) -> tuple[Way[C], Try | None]:
        """Begin a try. Raises: ModelError when there is none left."""
        ...

    async def answered(self, way: Way[C], first_ms: float | None, tokens: int) -> None:
        """Note a try that was answered; `first_ms` is its time to the first token, `tokens` those that it has used."""
        ...

    async def failed(self, way: Way[C], call: str, error: ModelError, *, arrived: bool) -> None:
        """Note a failed try; `arrived`: its answer had begun. Raises: the error when nothing else may be tried."""
        ...

    def left(self, way: Way[C]) -> None:
        """End a try, in whatever way."""
        ...


class _Held(NamedTuple):
    """A value that is loaded once for all calls; `until` is a monotonic time."""

    until: float
    value: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class Choose(Generic[C]):
    """Chooses by routes, credentials and facts that it keeps in memory, until `forget` or for `held_s`.

    A credential has at most this number of `tries`, and is waited for no longer than `longest_pause_s`.
    """

    repository: Repository
    models: Models[C]
    outages: Outages
    catalogue: Catalogue | None = None
    counters: Counters | None = None
    now: Callable[[], float] = time.time
    draw: Callable[[], float] = random.random
    held_s: float = HELD_S
    tries: int = TRIES
    longest_pause_s: float = LONGEST_PAUSE_S
    paces: dict[tuple[str, ...], Pace] = field(default_factory=dict)
    held: dict[tuple[str, ...], _Held] = field(default_factory=dict)

    @property
    def rests(self) -> Rests:
        return Rests(self.outages, self.now)

    @property
    def rates(self) -> Rates | None:
        return Rates(self.counters, self.now) if self.counters else None

    def __call__(self, tenant: str, model: ModelSettings, request: ChatRequest) -> Course[C]:
        """The ways that this request is tried with."""
        return _Course(self, tenant, model, Needs.of(request))

    def of(self, tenant: str, provider: str, model: str, tokens: int) -> Course[C]:
        """The ways to a model of another kind than chat, for a call of about this number of tokens."""
        only = ModelSettings(provider=provider, name=model, max_tokens=0, context_window=0, parameters={})
        return _Course(self, tenant, only, Needs(tokens))

    def forget(self, tenant: str) -> None:
        """A route, a provider or a model of the tenant has changed."""
        for key in [key for key in self.held if key[1] == tenant]:
            del self.held[key]

    async def route(self, tenant: str, name: str) -> ModelRoute | None:
        return await self._hold(lambda: self.repository.get(ModelRoute, tenant, name), "route", tenant, name)

    async def access(self, tenant: str, provider: str, model: str) -> Sequence[Access[C]]:
        """Raises: ModelError `not_found`."""
        return await self._hold(lambda: self.models.get(tenant, provider, model), "access", tenant, provider, model)

    async def known(self, tenant: str, provider: str, model: str) -> Known:
        catalogue = self.catalogue
        if catalogue is None:
            return Known()
        return await self._hold(lambda: catalogue.known(tenant, provider, model), "known", tenant, provider, model)

    async def _hold(self, load: Callable[[], Coroutine[Any, Any, T]], *key: str) -> T:
        """The value from memory, or loaded; an error is not kept."""
        held, now = self.held.get(key), time.monotonic()
        if held is None or held.until + self.held_s <= now:
            if len(self.held) >= KEPT:
                del self.held[next(iter(self.held))]
            held = self.held[key] = _Held(now + self.held_s, asyncio.ensure_future(load()))
        elif held.until <= now and held.value.done():  # calls go on with it while it is loaded again
            self.held[key] = again = _Held(now + self.held_s, held.value)
            loading = asyncio.ensure_future(load())
            loading.add_done_callback(lambda task: self._renew(key, again, task))
        try:
            value: T = held.value.result() if held.value.done() else await asyncio.shield(held.value)
        except Exception:
            if self.held.get(key) is held:
                del self.held[key]
            raise
        return value

    def _renew(self, key: tuple[str, ...], held: _Held, loaded: asyncio.Future[Any]) -> None:
        """Put the loaded value in place of the held one, unless that was forgotten meanwhile."""
        if self.held.get(key) is held:
            if loaded.cancelled() or loaded.exception():
                del self.held[key]
            else:
                self.held[key] = held._replace(value=loaded)

    def pace(self, tenant: str, way: Way[C]) -> Pace:
        key = (tenant, *way.key)
        if (found := self.paces.get(key)) is None:
            if len(self.paces) >= KEPT:
                del self.paces[next(iter(self.paces))]
            found = self.paces[key] = Pace()
        return found


@dataclass(slots=True)
class _Course(Generic[C]):
    choose: Choose[C]
    tenant: str
    model: ModelSettings
    needs: Needs
    route: ModelRoute | None = None
    groups: Sequence[Group] = ()
    after: tuple[str, str] | None = None
    """The failed call before, and its code."""
    number: int = 0
    tries: Counter[Key] = field(default_factory=Counter)
    out: dict[Key, ModelError] = field(default_factory=dict)
    """The ways that are not tried any more, and why."""
    full: dict[Key, Rest] = field(default_factory=dict)
    """The ways whose rate is reached."""
    refused: dict[tuple[str, str], ModelError] = field(default_factory=dict)
    """The providers and models that a quota refuses; an empty name stands for each."""
    taken: Taken | None = None
    last: ModelError | None = None

    async def next(self) -> tuple[Way[C], Try | None]:
        if not self.groups:
            await self._begin()
        while (way := await self._way()) is None or not await self._is_free(way):
            pass
        if self.tries[way.key]:
            await asyncio.sleep(PAUSE_S * 2 ** (self.tries[way.key] - 1) * (0.5 + self.choose.draw()))
        self.number += 1
        self.tries[way.key] += 1
        self.choose.pace(self.tenant, way).busy += 1
        name = self.model.get("route", "")
        if self.number == 1 and not name:
            return way, None
        after = {"call": self.after[0], "code": self.after[1]} if self.after else None
        return way, {"name": name, "try": self.number, "after": after}

    async def answered(self, way: Way[C], first_ms: float | None, tokens: int) -> None:
        if self.choose.rates and self.taken:
            await self.choose.rates.settle(self.taken, tokens)
        if first_ms is not None:
            self.choose.pace(self.tenant, way).firsts.append((self.choose.now(), first_ms))
        await self.choose.rests.end(self.tenant, way.key)

    async def failed(self, way: Way[C], call: str, error: ModelError, *, arrived: bool) -> None:
        self.after, self.last = (call, error.code), error
        await self.choose.rests.begin(self.tenant, way.key, error)
        reaction = self.route.reaction(error.code) if self.route else REACTIONS.get(error.code, "stop")
        of_others = error.code == "quota_exceeded" and not error.refuses_model
        stops = of_others or (reaction == "stop" and not error.passing)
        if stops or self.number >= MOST_TRIES or (arrived and not self._restarts):
            raise error
        if error.pause_s == 0:  # the next request is another one
            self.tries[way.key] -= 1
        if reaction == "larger":
            window = way.known.context_window or self.model["context_window"]
            self.needs = self.needs._replace(tokens=max(self.needs.tokens, window + 1))
        if error.refuses_model:
            provider = "" if error.scope == "model" else way.provider
            model = "" if error.scope == "provider" else way.model
            self.refused[provider, model] = error
        if not error.passing or arrived or self.tries[way.key] >= self.choose.tries:
            self.out[way.key] = error

    def left(self, way: Way[C]) -> None:
        self.choose.pace(self.tenant, way).busy -= 1

    @property
    def _restarts(self) -> bool:
        return self.route is not None and self.route.restart

    async def _begin(self) -> None:
        """Raises: ModelError `not_found` when there is no such route."""
        if name := self.model.get("route"):
            self.route = await self.choose.route(self.tenant, name)
            if self.route is None or self.route.deleted:
                raise ModelError("not_found", f"There is no route {name!r}; send route.configure first.")
            self.groups = self.route.groups
        else:
            only = Member(provider=self.model["provider"], model=self.model["name"], weight=1, context_window=None)
            self.groups = [Group(strategy="weighted", members=[only])]

    async def _way(self) -> Way[C] | None:
        """The way of the first group that has one; None after a wait for one. Raises: ModelError."""
        resting: list[tuple[Way[C], Rest]] = []
        last: Way[C] | None = None
        for group in self.groups:
            ways = [way for way in await self._ways(group) if way.key not in self.out]
            rests = {way.key: self._rest(way) for way in ways}
            if awake := [way for way in ways if rests[way.key] is None]:
                return self._chosen(group["strategy"], awake)
            resting += [(way, rest) for way in ways if (rest := rests[way.key])]
            if last is None and (willing := [way for way, rest in resting if not rest.binding]):
                last = self._chosen(group["strategy"], willing)
        if last is None:
            await self._wait(resting)
        return last

    async def _is_free(self, way: Way[C]) -> bool:
        """Count the call for the rate of the way; return False where that is reached, and let it rest."""
        self.taken = None
        if self.choose.rates is None:
            return True
        found = await self.choose.rates.take(self.tenant, way.key, way.known.rate, self.needs.tokens)
        if isinstance(found, Rest):
            self.full[way.key] = found
            return False
        self.taken = found
        return True

    def _rest(self, way: Way[C]) -> Rest | None:
        """The longest rest of the way that has not ended."""
        found = (way.access.rest(), self.choose.rests.of(self.tenant, way.key), self.full.get(way.key))
        now = self.choose.now()
        return max((rest for rest in found if rest and rest.until > now), key=lambda rest: rest.until, default=None)

    async def _ways(self, group: Group) -> Sequence[Way[C]]:
        return [way for member in group["members"] for way in await self._of_member(member)]

    async def _of_member(self, member: Member) -> Sequence[Way[C]]:
        provider, model = member["provider"], member["model"]
        try:
            access = await self.choose.access(self.tenant, provider, model)
            known = await self.choose.known(self.tenant, provider, model)
        except ModelError as error:
            self.out[provider, model, ""] = error
            return []
        refused = next(
            (self.refused[of] for of in ((provider, ""), ("", model), (provider, model)) if of in self.refused), None
        )
        window = member["context_window"] or known.context_window
        known = known._replace(context_window=window)
        lacking = next((name for name in self.needs.abilities if known.abilities.get(name) is False), None)
        share = member["weight"] / sum(each.weight for each in access)
        ways = [Way(provider, model, each.weight * share, known, each) for each in access]
        for way in ways:
            if refused:
                self.out[way.key] = refused
            elif lacking:
                self.out[way.key] = ModelError("unsupported", f"It was measured to lack {lacking}.")
            elif self.route and window is not None and window < self.needs.tokens:
                self.out[way.key] = ModelError(
                    "context_length_exceeded", f"It reads {window:,} tokens, and {self.needs.tokens:,} are needed."
                )
        return ways

    def _chosen(self, strategy: str, ways: Sequence[Way[C]]) -> Way[C]:
        """Of the ways that were tried least, one by the strategy."""
        least = min(self.tries[way.key] for way in ways)
        ways = [way for way in ways if self.tries[way.key] == least]
        paces = {way.key: self.choose.pace(self.tenant, way) for way in ways}
        now = self.choose.now()
        rank: dict[str, Callable[[Way[C]], float]] = {
            "least_busy": lambda way: paces[way.key].busy / way.weight,
            "fastest": lambda way: paces[way.key].first_ms(now),
            "cheapest": lambda way: float("inf") if way.known.price is None else way.known.price,
            "weighted": lambda way: 0.0,
        }
        best = min(map(rank[strategy], ways))
        ways = [way for way in ways if rank[strategy](way) == best]
        return by_weight(ways, [way.weight for way in ways], self.choose.draw())

    async def _wait(self, resting: Sequence[tuple[Way[C], Rest]]) -> None:
        """Wait until the first way has rested. Raises: ModelError when that takes too long, or there is none."""
        wait_s = self.route.wait_s if self.route else 0
        for way, rest in sorted(resting, key=lambda each: each[1].until):
            longest = wait_s if rest.error.code == "provider_unavailable" else max(wait_s, self.choose.longest_pause_s)
            if (pause := rest.until - self.choose.now()) <= longest:
                await asyncio.sleep(max(pause, 0))
                return
            self.out[way.key] = rest.error
        if self.route is None:
            raise self.last or next(iter(self.out.values()))
        again = {way.key: f", again after {_time(rest.until)}" for way, rest in resting}
        said = [f"{_name(*key)}: {error.code}{again.get(key, '')}" for key, error in self.out.items()]
        raise ModelError("no_model", f"Route {self.route.id!r} has no model that can answer: {'; '.join(said)}."[:1000])


def _name(provider: str, model: str, credential: str) -> str:
    return f"{provider}/{model}" + (f" (key {credential})" if credential else "")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
