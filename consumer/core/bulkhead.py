"""Whose fault it is: one app's, or the endpoint's. Told by the last answers of all apps together.

An app that fails while the others are served has a lane of its own to stop it; its failures must neither open the
endpoint's breaker nor slow the others down.
"""

from collections import deque
from typing import NamedTuple

LAST = 500
"""Answers that are looked at."""
MIN_OTHERS = 10
"""So many answers of other apps must be there for one to be compared with them."""
MIN_OWN = 20
FAILING_SHARE = 0.5
RECENT_S = 2.0
"""The last answer of another app says that others are served if it is no older, and good."""


class Verdict(NamedTuple):
    """About an app that has just failed."""

    is_alone: bool
    """Others are served, now."""
    is_failing: bool
    """It was not this one time."""


class Bulkhead:
    """The last answers that say whether an app is served. `judge` is for those that fail, since it looks at all."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: deque[tuple[str, bool, float]] = deque(maxlen=LAST)
        """App, whether it was failing, when (monotonic seconds)."""

    def note(self, app: str, now: float, *, failing: bool) -> None:
        self._last.append((app, failing, now))

    def forget(self, app: str) -> None:
        """Judge *app* anew: it has recovered."""
        self._last = deque((one for one in self._last if one[0] != app), maxlen=LAST)

    def has_others(self, app: str) -> bool:
        """Say whether enough of the last answers are those of others."""
        return sum(noted != app for noted, _, _ in self._last) >= MIN_OTHERS

    def judge(self, app: str, now: float) -> Verdict:
        own = [failing for noted, failing, _ in self._last if noted == app]
        others = [(failing, at) for noted, failing, at in self._last if noted != app]
        latest = others[-MIN_OTHERS:]
        return Verdict(
            # in an outage of all, the first answer of another one tells; old good ones would hide it
            is_alone=len(latest) == MIN_OTHERS
            and not latest[-1][0]
            and now - latest[-1][1] <= RECENT_S
            and sum(failing for failing, _ in latest) < MIN_OTHERS * FAILING_SHARE,
            is_failing=len(own) >= MIN_OWN and sum(own) >= len(own) * FAILING_SHARE,
        )
