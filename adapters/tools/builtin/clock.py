"""The tool `time`: the time in a zone, and the difference to another time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain.tools.tool import Definition
from handlers.ports.tools import Invocation, Result, ToolError

TIME = Definition(
    name="time",
    label="Time",
    description="Return the date, weekday and time now, or at another time, in a time zone. With `until`, also the "
    "time from then to that. Use it for every question about dates: you do not know today's date.",
    parameters={
        "type": "object",
        "properties": {
            "zone": {"type": "string", "description": "Time zone, like Europe/Paris; default: UTC"},
            "at": {"type": "string", "description": "`now`, the default, or a time as 2027-01-31T12:00:00"},
            "until": {"type": "string", "description": "Another time, likewise"},
            "add_days": {"type": "number", "description": "Days to add; may be negative"},
        },
        "additionalProperties": False,
    },
    destructive=False,
    idempotent=True,
)


async def tell(invocation: Invocation) -> Result:
    """The clock is that of the question: made again, the call gives the same. Raises: ToolError."""
    given = invocation.arguments
    try:
        zone = ZoneInfo(given.get("zone") or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ToolError("invalid_arguments", f"There is no time zone {given['zone']!r}.") from None
    now = datetime.fromisoformat(invocation.at).astimezone(zone)
    at = _read(given.get("at"), zone, now)
    try:
        at = (at.astimezone(UTC) + timedelta(days=given.get("add_days", 0))).astimezone(zone)
        text = at.strftime("%A, %d %B %Y, %H:%M:%S %Z (UTC%z)")
    except (OverflowError, ValueError):
        raise ToolError("invalid_arguments", "The time is out of range.") from None
    if given.get("until"):
        seconds = (_read(given["until"], zone, now) - at).total_seconds()
        sign, rest = ("-" if seconds < 0 else ""), abs(seconds)
        hours, rest = divmod(rest % 86400, 3600)
        text += f"\nUntil then: {sign}{int(abs(seconds) // 86400)} days, {int(hours)} hours, {int(rest // 60)} minutes."
    return Result(f"{text}\nISO 8601: {at.isoformat(timespec='seconds')}")


def _read(text: str | None, zone: ZoneInfo, now: datetime) -> datetime:
    """Raises: ToolError."""
    if not text or text.strip().lower() == "now":
        return now
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ToolError("invalid_arguments", f"{text!r} is no time like 2027-01-31T12:00:00.") from None
    return at if at.tzinfo else at.replace(tzinfo=zone)
