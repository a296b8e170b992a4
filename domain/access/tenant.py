"""Reserved tenants."""

from __future__ import annotations

HOUSE = "_house"
"""The tenant of what spans tenants; no other tenant's name begins with `_`."""
