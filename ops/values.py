"""The settings of tables. A file of its own: only roles that read or make tables load them."""

from __future__ import annotations

from collections.abc import Callable

from handlers.models.grants import Price
from ops.settings import Settings
from projections.engine.values import Values
from projections.values.masking import Masking, patterns
from projections.values.prices import Call, Prices


def values(settings: Settings) -> Values:
    """The masking, the prices and what is kept of runs, which every process that makes tables folds with.

    Raises: as `masking`; OSError and ValueError when the file of prices cannot be read or is invalid.
    """
    return Values(masking(settings), prices(settings), settings.run_keep)


def price(settings: Settings) -> Price:
    """The cost of calls by the prices that the settings name. Raises: OSError, ValueError."""
    known = prices(settings)
    return lambda provider, server, model, at, usage, entry: (
        known.cost(Call(provider, server, model, at), usage, entry).amount
    )


def prices(settings: Settings) -> Prices:
    """The built-in prices, and those of the settings.

    Raises: OSError and ValueError when the file of prices cannot be read or is invalid.
    """
    return Prices(settings.prices.expanduser().read_text(encoding="utf-8") if settings.prices else "")


def masking(settings: Settings) -> Masking:
    """The built-in masking, and what the settings add.

    Raises: OSError and ValueError when the file of patterns cannot be read or is invalid; PresidioMissing.
    """
    file = settings.mask_patterns
    lines = file.expanduser().read_text(encoding="utf-8").splitlines() if file else []
    try:
        found = patterns(lines)
    except ValueError as error:
        raise ValueError(f"{settings.mask_patterns}, {error}.") from None
    further: Callable[[str], str] | None = None
    if settings.mask_presidio:
        from adapters.privacy.presidio import Presidio

        language, _, model = settings.mask_presidio.partition(":")
        further = Presidio(language, model)
    return Masking(found, further)
