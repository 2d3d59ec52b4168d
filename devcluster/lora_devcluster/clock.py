"""The time of day as the API writes it."""

from datetime import UTC, datetime, timedelta


def now() -> datetime:
    return datetime.now(UTC)


def timestamp(moment: datetime | None = None) -> str:
    """RFC 3339 with whole seconds, as in `creationTimestamp`; of this moment when none is given."""
    return (moment or now()).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> datetime:
    return datetime.fromisoformat(text)


def later(seconds: float) -> str:
    return timestamp(now() + timedelta(seconds=seconds))
