"""How many requests may be on the wire: what the endpoint takes, found out while sending.

It doubles with each window (about one round trip) until something is wrong, and then grows by the root of itself. It is
cut when answers say that we are too many: throttling, or a latency that rises with what we send. A latency that stays
when we send less isn't our doing, and is the new normal.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal["start", "room", "throttled", "latency", "slower"]
"""Why the limit last moved, or what a look at it came to."""

SAMPLES = 64
"""Latencies that are kept of a window: its median needs no more."""


@dataclass(frozen=True, slots=True)
class ConcurrencyPolicy:
    """Requests on the wire between *floor* and *ceiling*. Other fields: what counts as trouble, and what it costs."""

    floor: int
    ceiling: int
    latency_ratio: float = 2.0
    """Above this multiple of the normal latency, and above `latency_slack_s` more, we are too many."""
    latency_slack_s: float = 0.05
    """What our own event loop may add when it is busy, which sending less would not mend."""
    throttled_share: float = 0.1
    cut: float = 0.7
    window_s: float = 0.05
    """The shortest window; else it lasts as long as the median answer takes."""
    min_answers: int = 5
    forgets_s: float = 120.0
    """How fast the normal latency follows one that rises a little."""


class Concurrency:
    """The limit. It is given each answer, and whether more could have been sent."""

    __slots__ = (
        "_answers", "_before_cut_s", "_cuts_in_vain", "_ends_at", "_is_settling", "_normal_s", "_policy", "_samples",
        "_started_at", "_throttled", "is_doubling", "is_wanted", "limit", "reason",
    )  # fmt: skip

    def __init__(self, policy: ConcurrencyPolicy) -> None:
        self._policy = policy
        self.limit = policy.floor
        self.reason: Reason = "start"
        self.is_doubling = True
        self.is_wanted = False
        """Something waited although nothing but the limit was in its way. Set by whoever sends."""
        self._normal_s: float | None = None
        self._before_cut_s = 0.0
        self._cuts_in_vain = 0
        self._is_settling = False
        self._begin(0.0, 0.0)

    def _begin(self, now: float, length_s: float) -> None:
        self._started_at = now
        self._ends_at = now + max(length_s, self._policy.window_s)
        self._samples: list[float] = []
        self._answers = 0
        self._throttled = 0
        self.is_wanted = False

    def restart(self, now: float) -> None:
        """Begin at the floor again: the endpoint was away."""
        self.limit = self._policy.floor
        self.reason = "start"
        self.is_doubling = True
        self._cuts_in_vain = 0
        self._is_settling = False
        self._begin(now, 0.0)

    def answered(self, latency_s: float, now: float, *, throttled: bool) -> bool:
        """Note an answer, or the lack of one.

        Args:
            latency_s: seconds from the request to it.
            now: monotonic seconds.
            throttled: it failed in a way that more requests would make worse.

        Returns:
            Whether the limit moved by it.
        """
        self._answers += 1
        if throttled:
            self._throttled += 1
        elif len(self._samples) < SAMPLES:
            self._samples.append(latency_s)
        return now >= self._ends_at and self._answers >= self._policy.min_answers and self._look(now)

    def _look(self, now: float) -> bool:
        """End the window."""
        before = self.limit
        policy = self._policy
        median_s = sorted(self._samples)[len(self._samples) // 2] if self._samples else None
        if self._is_settling:
            self._is_settling = False  # these were sent before the cut
        elif self._throttled > self._answers * policy.throttled_share:
            self._cut("throttled")
        elif median_s is not None:
            self._judge(median_s, now - self._started_at)
        self._begin(now, median_s or 0.0)
        return self.limit != before

    def _judge(self, median_s: float, window_s: float) -> None:
        policy = self._policy
        normal_s = median_s if self._normal_s is None else self._normal_s
        if median_s > normal_s * policy.latency_ratio + policy.latency_slack_s:
            if self._cuts_in_vain and median_s > self._before_cut_s * policy.cut**0.5:
                self._cuts_in_vain += 1
            else:
                self._cuts_in_vain = 1
            if self._cuts_in_vain <= 2 and self.limit > policy.floor:
                self._before_cut_s = median_s
                self._cut("latency")
                return
            normal_s = median_s
            self.reason = "slower"
        self._cuts_in_vain = 0
        share = min(1.0, window_s / policy.forgets_s) if median_s > normal_s else 1.0
        self._normal_s = normal_s + (median_s - normal_s) * share
        if self.is_wanted and self.limit < policy.ceiling:
            grown = self.limit * 2 if self.is_doubling else self.limit + isqrt(self.limit)
            self.limit = min(grown, policy.ceiling)
            self.reason = "room"

    def _cut(self, reason: Reason) -> None:
        self.limit = max(self._policy.floor, int(self.limit * self._policy.cut))
        self.reason = reason
        self.is_doubling = False
        self._is_settling = True
