"""Values that rules take in addition to events: what an installation masks, pays, and keeps in tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from projections.values.masking import Masking
from projections.values.previews import Words
from projections.values.prices import Prices

RunKeep = Literal["full", "outcome"]
"""Parts of runs that tables have: inputs and outputs of nodes, too, or only what became of them."""


@dataclass(frozen=True, slots=True)
class Values:
    """Masking, prices, and what is kept of runs. The defaults are the built-in rules and the list prices."""

    masking: Masking = field(default_factory=Masking)
    prices: Prices = field(default_factory=Prices)
    run_keep: RunKeep = "full"
    words: Words = field(init=False)
    """The masked words of texts, memoised."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", Words(self.masking))


BUILT_IN = Values()
