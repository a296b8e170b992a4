"""The provider of the models that come with Headrace, or that its workers run."""

from __future__ import annotations

BUILTIN = "builtin"
"""The provider that needs neither a server nor a registration."""
