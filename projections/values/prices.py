"""Costs of model calls: by the list prices that come with `genai-prices`, or by the prices of an installation.

The file of an installation is TOML:

    [[price]]
    provider = "lab"          # id of the provider in Headrace; * stands for any characters
    model = "large-*"         # name of the model, in the same way
    input = 0.40              # US dollars a million tokens
    output = 1.60
    cached = 0.10             # of prompt tokens that were read from a cache; as the input, if not said
    cache_write = 0.50        # of prompt tokens that were written into a cache; as the input, if not said
    from = 2026-01-01         # of calls since that day, in UTC; the newest that is not later than a call counts

    [[price]]
    provider = "proxy"        # behind it are the models of a provider that genai-prices knows
    as = "openai"

The first name that fits counts. What no price is known for has none; it is never free.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any, NamedTuple

from domain.builtin import BUILTIN

if TYPE_CHECKING:  # it takes as long to import as all else together, and few programs price anything
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, Provider

PER = 1_000_000
"""Tokens that a price is for."""

_FIELDS = {"provider", "model", "input", "output", "cached", "cache_write", "from", "as"}
_PRICES = ("input", "output", "cached", "cache_write")


class Call(NamedTuple):
    """Whose model was called, at which server (`host:port`; empty when that is not known), and when."""

    provider: str
    server: str
    model: str
    at: datetime


ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Price:
    """Prices of an installation for the models that fit, in dollars a million tokens, or whose list prices it pays."""

    provider: str
    model: str = "*"
    input: float = 0.0
    output: float = 0.0
    cached: float | None = None
    cache_write: float | None = None
    since: datetime = ALWAYS
    listed: str | None = None

    def fits(self, call: Call) -> bool:
        return (
            fnmatchcase(call.provider, self.provider) and fnmatchcase(call.model, self.model) and self.since <= call.at
        )

    def cost(self, usage: Mapping[str, Any]) -> float:
        cached, written = usage["cached_tokens"] or 0, usage["cache_write_tokens"] or 0
        parts = (
            (usage["prompt_tokens"] - cached - written, self.input),
            (cached, self.input if self.cached is None else self.cached),
            (written, self.input if self.cache_write is None else self.cache_write),
            (usage["completion_tokens"], self.output),
        )
        return sum(tokens * price for tokens, price in parts) / PER


class Cost(NamedTuple):
    """US dollars, None when no price is known, and the source of the price: `entry`, `installation`, `list`,
    `builtin`."""

    amount: float | None
    source: str | None


class Prices:
    """The list prices, after the `own` ones of an installation, which the text of a file says.

    Raises: ValueError that names what is wrong with the text.
    """

    def __init__(self, own: str = "") -> None:
        self._own = read(own)
        self.version = f"genai-prices {version_of('genai-prices')}"
        if self._own:
            self.version += f" + {sha256(own.encode()).hexdigest()[:8]}"

    def cost(self, call: Call, usage: Mapping[str, Any], entry: Mapping[str, Any] | None = None) -> Cost:
        """The cost of the tokens of `usage`, with the prices of the tenant's `entry` of the model, if it has any."""
        if entry:
            return Cost(Price("*", **entry).cost(usage), "entry")
        if call.provider == BUILTIN:
            return Cost(0.0, "builtin")
        own, known = self._of(call)
        if own and not own.listed:
            return Cost(own.cost(usage), "installation")
        amount = _list_price(*known, call.at, usage) if known else None
        return Cost(amount, None if amount is None else "list")

    def known(self, call: Call) -> dict[str, Any] | None:
        """The `context_window` and the `prices` of a model, each None when unknown; None for an unknown model."""
        own, known = self._of(call)
        prices: dict[str, Any] | None = None
        if own and not own.listed:
            prices = {name: getattr(own, name) for name in _PRICES}
        elif known:
            prices = _base_prices(known[1], call.at)
        window = known[1].context_window if known else None
        return {"context_window": window, "prices": prices} if prices or window else None

    def _of(self, call: Call) -> tuple[Price | None, tuple[Provider, ModelInfo] | None]:
        """The price of the installation, and the provider and the model of the list."""
        own = next((price for price in self._own if price.fits(call)), None)
        listed = own.listed if own else None
        return own, _listed(listed, "", call.model) if listed else _listed(call.provider, call.server, call.model)


def read(text: str) -> list[Price]:
    """The prices that a TOML text says, in the order in which they count. Raises: ValueError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"prices are not TOML: {error}") from None
    if unknown := document.keys() - {"price"}:
        raise ValueError(f"prices have no {', '.join(sorted(unknown))}: each begins with [[price]]")
    prices = [_price(number, entry) for number, entry in enumerate(document.get("price", []), 1)]
    order = {(price.provider, price.model): -number for number, price in enumerate(prices[::-1])}
    return sorted(prices, key=lambda price: (order[price.provider, price.model], -price.since.timestamp()))


def _price(number: int, entry: Mapping[str, Any]) -> Price:
    where = f"price {number}"
    if unknown := entry.keys() - _FIELDS:
        raise ValueError(f"{where} has no {', '.join(sorted(unknown))}; there are: {', '.join(sorted(_FIELDS))}")
    for name in ("provider", "model", "as"):
        if not isinstance(entry.get(name, ""), str):
            raise ValueError(f"{where}: {name} must be a text")
    if not entry.get("provider"):
        raise ValueError(f"{where} must name a provider")
    for name in _PRICES:
        value = entry.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < PER:
            raise ValueError(f"{where}: {name} must be US dollars a million tokens")
    listed = entry.get("as")
    if listed:
        if any(name in entry for name in _PRICES):
            raise ValueError(f"{where} must have either prices or `as`")
        if not _known(listed):
            raise ValueError(f"{where}: genai-prices knows no provider {listed!r}")
    elif not {"input", "output"} <= entry.keys():
        raise ValueError(f"{where} must have the prices input and output, or `as`")
    since = entry.get("from", date.min)
    if isinstance(since, datetime) or not isinstance(since, date):
        raise ValueError(f"{where}: from must be a day, such as 2026-01-01")
    return Price(
        provider=entry["provider"],
        model=entry.get("model", "*"),
        since=datetime(since.year, since.month, since.day, tzinfo=UTC),
        listed=listed,
        **{name: float(entry[name]) for name in _PRICES if name in entry},
    )


def _list() -> DataSnapshot:
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()


def _known(provider: str) -> bool:
    try:
        _list().find_provider(None, provider, None)
    except LookupError:
        return False
    return True


@lru_cache(maxsize=4096)
def _listed(provider: str, server: str, model: str) -> tuple[Provider, ModelInfo] | None:
    """Return the provider and the model, by its server's address, or by the provider's name where that is not known.

    Never by the model's name alone: the same weights at another server have another price, or none.
    """
    host, _, port = server.rpartition(":")
    by_address = (f"https://{host}/" if port == "443" else f"https://{server}/") if server else None
    try:
        return _list().find_provider_model(model, None, None if by_address else provider, by_address)
    except LookupError:
        return None


def _base_prices(model: ModelInfo, at: datetime) -> dict[str, Any] | None:
    """The prices of the first tokens of a request, in dollars a million."""
    found = model.get_prices(at).__dict__
    names = {"input": "input_mtok", "output": "output_mtok", "cached": "cache_read_mtok"}
    names["cache_write"] = "cache_write_mtok"
    prices = {name: found.get(listed) for name, listed in names.items()}
    base = {name: getattr(price, "base", price) for name, price in prices.items()}
    if base["input"] is None and base["output"] is None:
        return None
    return {name: None if price is None else float(price) for name, price in base.items()}


def _list_price(provider: Provider, model: ModelInfo, at: datetime, usage: Mapping[str, Any]) -> float | None:
    from genai_prices import Usage

    tokens = Usage(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        cache_read_tokens=usage["cached_tokens"],
        cache_write_tokens=usage["cache_write_tokens"],
    )
    try:
        return float(model.calc_price(tokens, provider, genai_request_timestamp=at).total_price)
    except (LookupError, ValueError):  # a server that counts more cached tokens than tokens, say
        return None
