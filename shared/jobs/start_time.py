"""The field ``not_before`` of requests: when a job may start at the earliest."""

from datetime import UTC, datetime
from typing import Any

MAX_DELAY_SECONDS = 30 * 24 * 3600

StartTime = float | str
"""Seconds from now, or a time in RFC 3339."""

DESCRIPTION = "seconds from now, or a time such as `2026-01-31T18:00:00Z`, within 30 days"


def check_start_time(value: Any) -> Any:
    """The value, if it is a valid time or None. Raises ValueError."""
    if value is None:
        return None
    seconds = _seconds_from_now(value) if isinstance(value, str) else value
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise ValueError("must be seconds from now, or a time with its offset, such as 2026-01-31T18:00:00Z")
    # A time in the past is valid: the request may be a retry with an Idempotency-Key.
    if seconds > MAX_DELAY_SECONDS or (seconds < 0 and not isinstance(value, str)) or seconds != seconds:
        raise ValueError(f"must be within {MAX_DELAY_SECONDS} seconds (30 days) from now")
    return value


def delay_ms(value: StartTime | None) -> int:
    """How long a job waits that may start at this time, in milliseconds; 0 for a time that has passed."""
    seconds = _seconds_from_now(value) if isinstance(value, str) else value
    return int(1000 * max(0.0, seconds or 0.0))


def describe_start_time(schema: dict[str, Any]) -> None:
    """Describe the field in a JSON schema."""
    seconds = {"type": "number", "minimum": 0, "maximum": MAX_DELAY_SECONDS}
    schema["anyOf"] = [seconds, {"type": "string", "format": "date-time"}, {"type": "null"}]


def _seconds_from_now(text: str) -> float | None:
    """Seconds until an RFC 3339 time, negative if it has passed; None if the text is not a time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else (time - datetime.now(UTC)).total_seconds()
