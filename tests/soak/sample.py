"""One look at a member: what the kernel says of its process, and what it says of itself."""

import math
import os
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import ConsumerProcess

TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_SERIES = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \d+)?")
_BOUND = re.compile(r'le="([^"]+)"')
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    """What was seen at one moment. A value that could not be had is left out."""

    at_ms: int
    values: dict[str, float]


@dataclass
class Scrape:
    """The metrics of one moment: the sum over a metric's series, and the buckets of its histograms."""

    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    buckets: dict[str, dict[float, float]] = field(default_factory=lambda: defaultdict(dict))
    series: int = 0
    label_values: set[tuple[str, str, str]] = field(default_factory=set)
    """Metric, label, value: what bounds the series. A label that takes ever new values is a leak."""

    @classmethod
    def read(cls, text: str) -> "Scrape":
        scrape = cls()
        for line in text.splitlines():
            found = None if line.startswith("#") else _SERIES.fullmatch(line)
            if found is None:
                continue
            name, value = found["name"], float(found["value"])
            scrape.series += 1
            bound = _BOUND.search(found["labels"] or "")
            if bound is not None:
                scrape.buckets[name.removesuffix("_bucket")][float(bound[1])] = value
            else:
                scrape.sums[name] += value
                scrape.label_values.update((name, *label) for label in _LABEL.findall(found["labels"] or ""))
        return scrape


def quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """Return the *share*-quantile of what a histogram observed between two scrapes; NaN if that is nothing.

    Within a bucket it is taken for evenly spread; beyond the last bound for the last bound.
    """
    bounds = sorted(after)
    counts = [after[bound] - before.get(bound, 0.0) for bound in bounds]
    if not counts or counts[-1] <= 0:
        return math.nan
    wanted = share * counts[-1]
    below, low = 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= wanted and count > below:
            return low if math.isinf(bound) else low + (bound - low) * (wanted - below) / (count - below)
        below, low = count, bound
    return low


QUANTILES = {
    "request": "kochava_delivery_duration_seconds",
    "settled": "kochava_consume_to_settled_seconds",
    "age": "kochava_event_age_seconds",
}
GAUGES = {
    "connections": "kochava_connections_open",
    "tasks": "kochava_event_loop_tasks",
    "in_flight": "kochava_in_flight_events",
    "lag": "kochava_consumer_lag_records",
    "circuit": "kochava_circuit_state",
    "lanes": "kochava_lane_closed",
    "assigned": "kochava_assigned_partitions",
}
RATES = {"delivered_per_s": "kochava_events_delivered_total", "requests_per_s": "kochava_delivery_attempts_total"}


def of_process(pid: int) -> dict[str, float]:
    """Return what the kernel knows: memory, file descriptors, threads, CPU seconds."""
    folder = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return {
        "rss_mib": int(status["VmRSS"].split()[0]) / 1024,
        "threads": float(status["Threads"]),
        "fds": float(len([*(folder / "fd").iterdir()])),
        "cpu_s": (int(fields[11]) + int(fields[12])) / TICKS_PER_S,
    }


class Looker:
    """Looks at one member again and again; rates and quantiles are those since the look before."""

    def __init__(self, member: ConsumerProcess) -> None:
        assert member.process is not None
        self._member = member
        self._pid = member.process.pid
        self._before: tuple[float, Scrape] | None = None
        self._cpu: tuple[float, float] | None = None

    def look(self) -> Sample:
        """Return a sample; of a member that has ended, or does not answer, only what there is."""
        at_ms, now = time.time_ns() // 1_000_000, time.monotonic()
        values: dict[str, float] = {}
        try:
            values = of_process(self._pid)
        except (OSError, KeyError):  # it has ended: a zombie has no VmRSS
            return Sample(at_ms, values)
        if self._cpu is not None:
            values["cpu_percent"] = 100 * (values["cpu_s"] - self._cpu[1]) / (now - self._cpu[0])
        self._cpu = now, values["cpu_s"]
        status, text = self._member.probe("/metrics")
        if status != 200:
            return Sample(at_ms, values)
        scrape = Scrape.read(text)
        values |= {key: scrape.sums[name] for key, name in GAUGES.items()}
        values["series"] = scrape.series
        values["label_values"] = len(scrape.label_values)
        values["other_fds"] = values["fds"] - values["connections"]
        if self._before is not None:
            passed, before = now - self._before[0], self._before[1]
            values |= {key: (scrape.sums[name] - before.sums[name]) / passed for key, name in RATES.items()}
            for key, name in QUANTILES.items():
                for percent in (50, 99):
                    seconds = quantile(before.buckets[name], scrape.buckets[name], percent / 100)
                    if not math.isnan(seconds):
                        values[f"{key}_p{percent}_ms"] = seconds * 1000
            if values["delivered_per_s"] > 0 and "cpu_percent" in values:
                values["cpu_us_per_event"] = values["cpu_percent"] * 10_000 / values["delivered_per_s"]
        self._before = now, scrape
        return Sample(at_ms, values)
