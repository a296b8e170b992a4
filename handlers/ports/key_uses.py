"""Port of the last uses of API keys."""

from __future__ import annotations

from typing import Protocol


class KeyUses(Protocol):
    """When API keys were last used. It is no event: a use that is lost changes nothing."""

    def used(self, tenant: str, key: str) -> None:
        """Note a use, by the id of the key. It costs no request: uses are written once a minute."""
        ...
