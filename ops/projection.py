"""What the read tables are made with, as the settings say: a process that makes tables says so before it begins."""

from __future__ import annotations

from ops import masking
from ops.settings import Settings
from projections.values import prices


def configure(settings: Settings) -> None:
    """Raises: OSError and ValueError when a file of prices or patterns cannot be read, or is none; PresidioMissing."""
    masking.configure(settings)
    own = settings.prices.expanduser().read_text(encoding="utf-8") if settings.prices else ""
    prices.configure(prices.Prices(own))
