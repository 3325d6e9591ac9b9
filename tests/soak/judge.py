"""Does anything grow? Pure: compares the quiet windows after the warm-up with one another.

During a fault everything moves, as it should. So only quiet windows count: those in which nothing was done to the
system and it had come back. Each window is one point, its median. Two questions are asked of the points, and either
finds growth: the robust slope (Theil-Sen: the median of the slopes between all pairs) over the whole span, which sees
what grows steadily; and the last third against the first, which sees a step. A measure may grow by its tolerance.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple

from tests.soak.sample import Sample

MIN_WINDOWS = 9
"""Of fewer no third means anything: then nothing is called flat."""


class Measure(NamedTuple):
    """What is looked at. `tolerance` is how much it may differ from end to end; None: shown and not judged."""

    key: str
    name: str
    unit: str
    tolerance: float | None


MEASURES = (
    Measure("rss_mib", "resident memory", "MiB", 4.0),
    Measure("other_fds", "file descriptors beside connections", "", 1.0),
    Measure("threads", "threads", "", 0.5),
    Measure("tasks", "event loop tasks", "", 1.0),
    Measure("series", "metric series", "", 50.0),  # of topic, event and app: each begins with its first, and is bounded
    Measure("label_values", "metric label values", "", 8.0),  # a reason that is met late
    Measure("in_flight", "records in flight", "", 16.0),
    Measure("lag", "lag", "records", 500.0),
    # follow bursts, and a busy machine makes bursts: judged by their bound, and by what is left of them at rest
    Measure("connections", "connections", "", None),
    Measure("delivered_per_s", "delivered", "/s", None),
    Measure("cpu_us_per_event", "CPU per event", "µs", None),
    Measure("request_p50_ms", "request, p50", "ms", None),
    Measure("request_p99_ms", "request, p99", "ms", None),
    Measure("settled_p50_ms", "read to settled, p50", "ms", None),
    Measure("settled_p99_ms", "read to settled, p99", "ms", None),
    Measure("age_p50_ms", "event age when settled, p50", "ms", None),
)


class Span(NamedTuple):
    """From `at_ms` to `until_ms`."""

    at_ms: int
    until_ms: int


class Point(NamedTuple):
    """The median of one quiet window."""

    at_ms: float
    value: float


class Finding(NamedTuple):
    """What became of one measure. `growth` is the larger of slope times span and last third minus first."""

    measure: Measure
    first: float
    last: float
    growth: float
    verdict: str
    points: tuple[Point, ...] = ()


def judge_all(
    samples: Sequence[Sample], windows: Sequence[Span], measures: Iterable[Measure] = MEASURES
) -> list[Finding]:
    """Judge each measure over the quiet *windows*."""
    return [judge(measure, medians(samples, windows, measure.key)) for measure in measures]


def medians(samples: Sequence[Sample], windows: Sequence[Span], key: str) -> list[Point]:
    """Return a point for each window in which *key* was seen."""
    points = []
    for window in windows:
        values = [
            sample.values[key]
            for sample in samples
            if window.at_ms <= sample.at_ms < window.until_ms and key in sample.values
        ]
        if values:
            points.append(Point((window.at_ms + window.until_ms) / 2, median(values)))
    return points


def judge(measure: Measure, points: Sequence[Point]) -> Finding:
    """Say whether *points*, in order of time, grow by more than the measure's tolerance."""
    points = tuple(points)
    if len(points) < MIN_WINDOWS:
        verdict = "shown" if measure.tolerance is None else "TOO SHORT"
        return Finding(measure, math.nan, math.nan, math.nan, verdict, points)
    third = len(points) // 3
    first = median(point.value for point in points[:third])
    last = median(point.value for point in points[-third:])
    growth = max(slope(points) * (points[-1].at_ms - points[0].at_ms), last - first)
    if measure.tolerance is None:
        return Finding(measure, first, last, growth, "shown", points)
    return Finding(measure, first, last, growth, "GROWS" if growth > measure.tolerance else "flat", points)


def slope(points: Sequence[Point]) -> float:
    """Return the Theil-Sen slope per millisecond: up to 29 % of the points may be wild without moving it."""
    return median(
        (later.value - sooner.value) / (later.at_ms - sooner.at_ms) for sooner, later in combinations(points, 2)
    )
