"""Formats of values on pages. Text from users and models is marked up so that it can neither hide nor act."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Any

import orjson
from markupsafe import Markup, escape

from domain.excerpt import excerpt

NOTHING = "–"

_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e01ef]|\r(?!\n)"
)
"""Control characters, direction marks and invisible characters, except joiners, which some scripts need."""


def visible(text: object) -> Markup:
    """The text with active and hidden characters shown; line ends and tabs stay."""
    return Markup(_HIDDEN.sub(lambda at: _mark(at[0]), str(escape("" if text is None else text))))


def isolated(text: object) -> Markup:
    """A visible text with isolated direction."""
    return Markup(f"<bdi>{visible(text)}</bdi>")


def plain(text: object) -> str:
    """A text for attributes, without markup: a hidden character is written as `⟨U+202E⟩`."""
    return _HIDDEN.sub(lambda at: f"⟨U+{ord(at[0]):04X}⟩", "" if text is None else str(text))


def _mark(char: str) -> str:
    name = unicodedata.name(char, "control character").lower()
    return f'<span class="ctl" title="{name}">U+{ord(char):04X}</span>'


def preview(text: object, length: int = 160) -> Markup:
    """The beginning of a text, in one line."""
    return isolated(excerpt("" if text is None else str(text), length))


def duration(milliseconds: float | None) -> str:
    if milliseconds is None:
        return NOTHING
    if milliseconds < 1:
        return f"{milliseconds:.2f} ms" if milliseconds else "0 ms"
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} m" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def number(value: float | None) -> str:
    """A number with thousands separators."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def short(value: float | None) -> str:
    """A count in a few characters: 950, 1.2k, 3.4M."""
    if value is None:
        return NOTHING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.1f}{unit}" if scaled < 99.95 else f"{scaled:.0f}{unit}"
    return number(value)


def dollars(value: float | None) -> str:
    """A known amount; small ones with three significant digits, never rounded to zero."""
    if value is None:
        return NOTHING
    if value == 0:
        return "$0"
    if abs(value) >= 100:
        return f"${value:,.2f}"
    if abs(value) >= 0.01:
        return f"${value:.4f}".rstrip("0") if abs(value) < 1 else f"${value:.2f}"
    digits = f"{value:.3g}"
    return f"${value:.12f}".rstrip("0") if "e" in digits else f"${digits}"


def cost(value: float | None, unpriced: int = 0) -> Markup:
    """A cost: calls without a price are mentioned, and never count as zero."""
    if value is None:
        said = "No price is known for the model: a file of prices can name one."
        return Markup('<span class="unpriced" title="{}">unpriced</span>').format(said) if unpriced else Markup(NOTHING)
    if unpriced:
        return Markup('{} <small class="unpriced">+ {} unpriced</small>').format(dollars(value), number(unpriced))
    return Markup(escape(dollars(value)))


def moment(at: datetime | None, style: str = "short") -> Markup:
    """A time in UTC, which the page's script converts to local time.

    Styles are `short`, `clock`, `full`, and those of charts: `second`, `minute` or `day`.
    """
    if at is None:
        return Markup(NOTHING)
    at = at.astimezone(UTC)
    written = {
        "short": f"{at:%b} {at.day} {at:%H:%M:%S}",
        "clock": f"{at:%H:%M:%S}.{at.microsecond // 1000:03}",
        "second": f"{at:%H:%M:%S}",
        "minute": f"{at:%H:%M}",
        "day": f"{at:%b} {at.day}",
        "full": f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03} UTC",
    }[style]
    iso = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" data-style="{}" title="{}">{}</time>').format(iso, style, iso, written)


def ago(at: datetime | None, now: datetime | None = None) -> Markup:
    """Age of a time, with the full time as title."""
    if at is None:
        return Markup(NOTHING)
    seconds = max(0.0, ((now or datetime.now(UTC)) - at).total_seconds())
    units = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    size, unit = next((pair for pair in units if seconds >= pair[0]), units[-1])
    iso = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    said = f"{seconds // size:.0f} {unit} ago"
    return Markup('<time datetime="{}" data-style="ago" title="{}">{}</time>').format(iso, iso, said)


def brief(id: object) -> str:
    """The end of an id, where consecutive ids differ."""
    text = "" if id is None else str(id)
    return text if len(text) <= 12 else f"…{text[-8:]}"


def percent(part: float, whole: float) -> str:
    share = 100 * part / whole if whole else 0.0
    return "0 %" if not share else "< 0.1 %" if share < 0.1 else f"{share:.1f} %"


def pretty(value: Any) -> str:
    """Indented JSON."""
    return orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode(
        "utf-8", "replace"
    )


def plural(count: int, one: str, many: str = "") -> str:
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def code(text: Markup) -> Markup:
    """A sentence with the text in backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", text))


FILTERS = {
    function.__name__: function
    for function in (
        visible,
        isolated,
        plain,
        preview,
        duration,
        number,
        short,
        dollars,
        cost,
        moment,
        ago,
        brief,
        pretty,
        code,
    )
}
"""Filters of templates."""
