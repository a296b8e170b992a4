"""Faults in the layout of a page that a browser can measure."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Page

EMPTY = 0.25
"""Maximum size of an empty rectangle between the contents of a page, as a share of the window."""

GAP = 0.45
"""Maximum gap between the contents of two columns, as a share of the table's width."""

CONTRAST = 4.5
"""Minimum contrast of text, by WCAG 2."""

_MEASURE = Path(__file__).with_suffix(".js").read_text("utf-8")


async def faults(page: Page) -> list[str]:
    """Text that is cut or faint, tables that run out of their cards, and large empty parts, in words."""
    found: list[str] = await page.evaluate(_MEASURE, [EMPTY, GAP, CONTRAST])
    return found
