"""The numbers of one run, and what is made of several: medians, spread, ratios. No clock, no process."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of one contender. Rates and costs are of the window between 15 % and 85 % of the events.

    `None` is what this scenario does not measure.
    """

    scenario: str
    contender: str
    run: int
    events: int
    """Events on the topic."""
    measured_events: int
    measured_s: float
    events_per_s: float
    cpu_us_per_event: float
    """User and system time of the contender's whole process tree."""
    cores: float
    peak_rss_mib: float
    new_connections: int
    """Accepted by the sink, from the start of the process to its end."""
    sink_cores: float
    """Near 1: the sink is what was measured."""
    answers: int
    committed: int
    is_complete: bool
    """Whether every event was answered, once; a slow contender is stopped before."""
    age_p50_ms: float | None = None
    age_p99_ms: float | None = None
    age_p999_ms: float | None = None
    age_max_ms: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Spread(NamedTuple):
    """Several runs of one thing."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of *values* that at least *share* of them don't exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def select(of: Iterable[Figures], scenario: str, contender: str) -> list[Figures]:
    return sorted(
        (one for one in of if (one.scenario, one.contender) == (scenario, contender)), key=lambda one: one.run
    )


def spread(of: Iterable[Figures], measure: str) -> Spread | None:
    """Return the spread of a field, None if it was not measured."""
    values = [value for one in of if (value := getattr(one, measure)) is not None]
    return Spread.of(values) if values else None


def ratio(of: Sequence[Figures], scenario: str, measure: str, one: str, other: str) -> Spread | None:
    """Return how many times that of *other* the measure of *one* is, in one scenario."""
    return ratio_between(of, measure, (scenario, one), (scenario, other))


def ratio_between(of: Sequence[Figures], measure: str, one: tuple[str, str], other: tuple[str, str]) -> Spread | None:
    """Return how many times that of *other* the measure of *one* is; both are (scenario, contender).

    The runs of one round stand side by side in time, so they are divided pairwise: what else the machine did in that
    round touched both.
    """
    pairs = {each.run: each for each in select(of, *other)}
    quotients = [
        getattr(each, measure) / below
        for each in select(of, *one)
        if each.run in pairs and (below := getattr(pairs[each.run], measure))
    ]
    return Spread.of(quotients) if quotients else None
