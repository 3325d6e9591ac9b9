"""How often something may happen: so many times a second, with a burst (the generic cell rate algorithm).

One number of state: when the next one would be due if none came early. A burst is how far ahead of that one may be.
"""

EARLY_S = 1e-6
"""Earlier than this is too early; less is the rounding of floating point numbers."""
LEAST_WAIT_S = 0.001
"""Whoever sets a timer for `wait_s` waits for so long at least: shorter ones would only turn the event loop."""


class Rate:
    """At most `burst + per_s * T` times within any T seconds, if nothing is taken while `wait_s` is above zero."""

    __slots__ = ("_ahead_s", "_due_at", "_interval_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self._interval_s = 1 / per_s
        self._ahead_s = (burst - 1) * self._interval_s
        self._due_at = float("-inf")

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next one may be taken; 0 if it may be now (monotonic *now*)."""
        left = self._due_at - self._ahead_s - now
        return left if left > EARLY_S else 0.0

    def take(self, now: float) -> None:
        self._due_at = max(self._due_at, now) + self._interval_s
