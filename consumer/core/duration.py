"""Durations as people write them in topic names and settings: 30s, 5m, 1h, 2d."""

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"(\d+)(ms|s|m|h|d)")


def parse_duration_s(text: str) -> float | None:
    """Return the seconds that *text* means, or None if it isn't a duration."""
    match = _PATTERN.fullmatch(text)
    return int(match[1]) * _UNITS[match[2]] if match else None
