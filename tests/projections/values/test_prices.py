from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from projections.values.prices import Call, Prices

MAY = datetime(2026, 5, 1, tzinfo=UTC)
USAGE: dict[str, Any] = {
    "prompt_tokens": 1_000_000,
    "completion_tokens": 100_000,
    "cached_tokens": None,
    "cache_write_tokens": None,
}
OPENAI = Call("openai", "api.openai.com:443", "gpt-4o-mini", MAY)
LAB = Call("lab", "models.example.com:443", "large-70b", MAY)


def test_a_list_price_is_found_by_the_address_of_the_server_whatever_it_is_called_here() -> None:
    assert Prices().cost(OPENAI, USAGE).amount == 0.15 + 0.06
    assert Prices().cost(OPENAI._replace(provider="ours"), USAGE).amount == 0.15 + 0.06


def test_where_the_server_is_not_known_the_name_of_the_provider_says_whose_prices_count() -> None:
    assert Prices().cost(OPENAI._replace(server=""), USAGE).amount == 0.15 + 0.06
    assert Prices().cost(OPENAI._replace(server="", provider="ours"), USAGE).amount is None


def test_the_same_model_at_another_server_has_no_price() -> None:
    assert Prices().cost(OPENAI._replace(server="127.0.0.1:8000"), USAGE).amount is None


@pytest.mark.parametrize("call", [LAB, OPENAI._replace(model="no-such-model")])
def test_what_is_unknown_has_no_price_and_is_never_free(call: Call) -> None:
    assert Prices().cost(call, USAGE).amount is None


def test_what_is_built_in_is_free() -> None:
    assert Prices().cost(Call("builtin", "", "extractive", MAY), USAGE).amount == 0.0


def test_tokens_from_a_cache_are_cheaper() -> None:
    assert Prices().cost(OPENAI, USAGE | {"cached_tokens": 500_000}).amount == 0.075 + 0.0375 + 0.06


def test_a_server_that_counts_nonsense_gives_no_price() -> None:
    assert Prices().cost(OPENAI, USAGE | {"cached_tokens": 2_000_000}).amount is None


OWN = """
[[price]]
provider = "lab"
model = "large-*"
input = 0.40
output = 1.60
cached = 0.10

[[price]]
provider = "lab"
model = "large-*"
input = 0.50
output = 1.60
from = 2026-06-01

[[price]]
provider = "lab"
input = 1
output = 2

[[price]]
provider = "proxy"
as = "openai"
"""


def test_own_prices_count_before_the_listed_ones_the_first_that_fits() -> None:
    own = Prices(OWN)
    assert own.cost(LAB, USAGE).amount == 0.4 + 0.16
    assert own.cost(LAB, USAGE | {"cached_tokens": 500_000}).amount == pytest.approx(0.2 + 0.05 + 0.16)
    assert own.cost(LAB._replace(model="small"), USAGE).amount == 1 + 0.2
    assert own.cost(OPENAI, USAGE).amount == 0.15 + 0.06


def test_a_price_counts_from_its_day_on() -> None:
    june = datetime(2026, 6, 1, tzinfo=UTC)
    assert Prices(OWN).cost(LAB._replace(at=june), USAGE).amount == 0.5 + 0.16


def test_behind_a_proxy_the_list_prices_of_another_provider_count() -> None:
    assert Prices(OWN).cost(OPENAI._replace(provider="proxy", server="127.0.0.1:4000"), USAGE).amount == 0.15 + 0.06


def test_the_version_says_which_prices_they_are() -> None:
    assert Prices().version.startswith("genai-prices ")
    assert len({Prices().version, Prices(OWN).version, Prices(OWN + "# paid in advance").version}) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("price = ", "not TOML"),
        ("[[prices]]", "no prices"),
        ("[[price]]\ninput = 1", "price 1 must name a provider"),
        ("[[price]]\nprovider = 'lab'", "must have the prices"),
        ("[[price]]\nprovider = 'lab'\ninput = -1\noutput = 1", "input must be"),
        ("[[price]]\nprovider = 'lab'\ninput = true\noutput = 1", "input must be"),
        ("[[price]]\nprovider = 'lab'\ninputs = 1", "has no inputs"),
        ("[[price]]\nprovider = 'lab'\nas = 'unknown'", "knows no provider 'unknown'"),
        ("[[price]]\nprovider = 'lab'\nas = 'openai'\ninput = 1", "either prices or"),
        ("[[price]]\nprovider = 'lab'\ninput = 1\noutput = 1\nfrom = 'May'", "must be a day"),
        ("[[price]]\nprovider = 7\ninput = 1\noutput = 1", "provider must be a text"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Prices(text)
