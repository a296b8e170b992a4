"""Further masking from the settings; every process that shows texts configures it first."""

from __future__ import annotations

from collections.abc import Callable

from ops.settings import Settings
from projections.values import masking


def configure(settings: Settings) -> None:
    """Configure masking for this process. Raises: OSError, ValueError for unusable patterns; PresidioMissing."""
    file = settings.mask_patterns
    lines = file.expanduser().read_text(encoding="utf-8").splitlines() if file else []
    try:
        patterns = masking.patterns(lines)
    except ValueError as error:
        raise ValueError(f"{settings.mask_patterns}, {error}.") from None
    further: Callable[[str], str] | None = None
    if settings.mask_presidio:
        from adapters.privacy.presidio import Presidio

        language, _, model = settings.mask_presidio.partition(":")
        further = Presidio(language, model)
    masking.configure(masking.Masking(patterns, further))
