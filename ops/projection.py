"""Masking and prices of the read tables from the settings; every process that makes tables configures them first."""

from __future__ import annotations

from ops import masking
from ops.settings import Settings
from projections.values import prices


def configure(settings: Settings) -> None:
    """Configure this process. Raises: OSError, ValueError for unusable prices or patterns; PresidioMissing."""
    masking.configure(settings)
    own = settings.prices.expanduser().read_text(encoding="utf-8") if settings.prices else ""
    prices.configure(prices.Prices(own))
