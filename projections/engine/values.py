"""Values that rules take in addition to events: the masking and the prices of an installation."""

from __future__ import annotations

from dataclasses import dataclass, field

from projections.values.masking import Masking
from projections.values.previews import Words
from projections.values.prices import Prices


@dataclass(frozen=True, slots=True)
class Values:
    """Masking and prices. The defaults are the built-in rules and the list prices."""

    masking: Masking = field(default_factory=Masking)
    prices: Prices = field(default_factory=Prices)
    words: Words = field(init=False)
    """The masked words of texts, memoised."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", Words(self.masking))


BUILT_IN = Values()
