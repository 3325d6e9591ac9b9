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


class Verdict(NamedTuple):
    """About an app that has just failed."""

    is_alone: bool
    """Others are served."""
    is_failing: bool
    """It was not this one time."""


class Bulkhead:
    """The last answers. `note` each; `judge` is for those that fail, since it looks at all."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: deque[tuple[str, bool]] = deque(maxlen=LAST)

    def note(self, app: str, *, failing: bool) -> None:
        self._last.append((app, failing))

    def has_others(self, app: str) -> bool:
        """Say whether enough of the last answers are those of others."""
        return sum(whose != app for whose, _ in self._last) >= MIN_OTHERS

    def judge(self, app: str) -> Verdict:
        own = [failing for whose, failing in self._last if whose == app]
        others = len(self._last) - len(own)
        others_failing = sum(failing for _, failing in self._last) - sum(own)
        return Verdict(
            is_alone=others >= MIN_OTHERS and others_failing < others * FAILING_SHARE,
            is_failing=len(own) >= MIN_OWN and sum(own) >= len(own) * FAILING_SHARE,
        )
