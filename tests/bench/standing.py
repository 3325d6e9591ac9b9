"""`make standing`: what one process costs by being there, whoever it is compared with: start, idleness, memory, delay.

    python -m tests.bench.standing [--only start,idle] [--events 2000000] [--runs 5] [--write]

Each figure stands beside its goal; the end is 1 if one is missed. What is measured and how: docs/performance.md.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from tests.bench.__main__ import PAGE, make_bench
from tests.bench.contender import environment
from tests.bench.load import filled_topic, own_topics, prepare
from tests.bench.machine import cpu_s, describe
from tests.bench.measure import measure
from tests.bench.refused_app import rss_mib
from tests.bench.report import markdown_table, rich_table, shown_facts, write_between
from tests.bench.scenarios import Scenario
from tests.bench.sinks import Sink, our_sink
from tests.support.kafka import RealKafka
from tests.support.processes import ConsumerProcess, Setup, wait_until

BEGIN = "<!-- begin: written by make standing ARGS=--write -->"
END = "<!-- end: written by make standing ARGS=--write -->"
HEAD = ["", "found", "goal, at most"]
IDLE_S = 20.0
LARGE_BYTES = 64 << 10
SMALL_PADDING = 200
"""Makes an event half a kilobyte, and two million a gigabyte."""
LARGE_EVENTS = 16_000
CLIENT: dict[str, str | int] = {"compression.type": "zstd", "batch.size": 1 << 20}
"""The worst for memory: limits of fetching count compressed bytes."""


class Found(NamedTuple):
    what: str
    value: float
    unit: str
    goal: float | None = None
    note: str = ""

    @property
    def is_missed(self) -> bool:
        return self.goal is not None and self.value > self.goal

    def row(self) -> list[str]:
        goal = "" if self.goal is None else f"{self.goal:g} {self.unit}"
        return [self.what, f"{self.value:,.2f} {self.unit}{self.note and f' ({self.note})'}", goal]


class Place(NamedTuple):
    folder: Path
    kafka: RealKafka
    events: int
    runs: int


@contextmanager
def _running(
    place: Place, name: str, scenario: Scenario, count: int, *, padding: int = 0
) -> Iterator[tuple[ConsumerProcess, Sink]]:
    """Run the consumer on a topic with *count* events; it is not started yet."""
    setup = prepare(place.kafka, place.folder / name, name, scenario)
    with (
        our_sink(place.folder / f"{name}-sink", scenario.latency_ms) as sink,
        filled_topic(setup, scenario, count, padding=padding, **CLIENT),
        own_topics(setup, "own") as prefix,
    ):
        setup.endpoint = sink.endpoint
        process = ConsumerProcess(setup, "consumer", (), setup.environment | environment(scenario, name, None, prefix))
        try:
            yield process, sink
        finally:
            process.kill()


def _pid(process: ConsumerProcess) -> int:
    assert process.process is not None
    return process.process.pid


def start(place: Place) -> Iterator[Found]:
    """From the command to the first poll, and to the first request."""
    polls, requests = [], []
    for run in range(place.runs):
        with _running(place, f"start-{run}", Scenario("start", ""), 100) as (process, sink):
            began, began_at = time.monotonic(), time.time()
            process.start()
            while not sink.answers:
                time.sleep(0.002)
            requests.append(time.monotonic() - began - 0.02)  # the sink's own time
            said = process.logged("consumer.started")[0]["ts"]
            polls.append(datetime.fromisoformat(said).timestamp() - began_at)
    yield Found("start of the process to the first poll", statistics.median(polls), "s", 0.7)
    yield Found("start of the process to the first request", statistics.median(requests), "s", note="group joined")


def idle(place: Place) -> Iterator[Found]:
    """CPU while nothing comes."""
    with _running(place, "idle", Scenario("idle", ""), 100) as (process, sink):
        process.start()
        wait_until(lambda: sink.answers == 100, "all are delivered")
        time.sleep(5)
        before = cpu_s(_pid(process))
        time.sleep(IDLE_S)
        yield Found("idle", (cpu_s(_pid(process)) - before) / IDLE_S * 100, "% of a core", 1.0)
        yield Found("memory when idle", rss_mib(_pid(process)), "MiB")


def memory(place: Place) -> Iterator[Found]:
    """With much behind: small events, then large ones."""
    small, large = f"{place.events:,} small events behind", f"{LARGE_EVENTS:,} events of 64 KiB behind"
    for what, count, padding in ((small, place.events, SMALL_PADDING), (large, LARGE_EVENTS, LARGE_BYTES)):
        scenario = Scenario("memory", "", schemas=1)
        with _running(place, f"memory-{padding}", scenario, count, padding=padding) as (process, sink):
            process.start()
            seen = []
            while sink.answers < count:
                assert process.process is not None
                assert process.process.poll() is None, "it ended"
                time.sleep(0.5)
                seen.append(rss_mib(_pid(process)))
            halves = [statistics.median(part) for part in (seen[: len(seen) // 2], seen[len(seen) // 2 :])]
            yield Found(f"memory, {what}", max(seen), "MiB", 150, f"medians of the halves {halves[0]:.0f}, "
                        f"{halves[1]:.0f}")  # fmt: skip


def delay(place: Place) -> Iterator[Found]:
    """From the producer's call to the sink, which answers at once: producer and broker are in it."""
    for what, rate, steady_s, p50, p99 in (
        ("1,000 events/s", 1000, 10.0, 3.0, 15.0),
        ("2 events/s, idle in between", 2, 30.0, 3.0, 15.0),
    ):
        bench = make_bench(place.folder / f"delay-{rate}", 5, steady_s)
        scenario = Scenario(f"delay-{rate}", "", latency_ms=0, rate_per_s=rate)
        runs = []
        for run in range(1, 4):
            setup = Setup(place.kafka, bench.folder / "setup", f"delay-{rate}-{run}", "")
            with filled_topic(setup, scenario, 0):
                runs.append(measure(bench, replace(scenario), "consumer", run, setup, 0))
        for name, goal in (("p50", p50), ("p99", p99)):
            values = [getattr(one, f"age_{name}_ms") for one in runs]
            yield Found(f"{name} of an event's age, {what}", statistics.median(values), "ms", goal)


MEASURES: dict[str, Callable[[Place], Iterator[Found]]] = {
    "start": start, "idle": idle, "delay": delay, "memory": memory,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--events", type=int, default=2_000_000, help="behind, where memory is measured")
    parser.add_argument("--runs", type=int, default=5, help="starts")
    parser.add_argument("--write", action="store_true", help=f"write the table into docs/{PAGE.name}")
    given = parser.parse_args()
    names = (given.only or ",".join(MEASURES)).split(",")
    if unknown := set(names) - set(MEASURES):
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    found: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="standing-") as folder:
        kafka = RealKafka(Path(folder) / "kafka").start()
        try:
            for name in names:
                for one in MEASURES[name](Place(Path(folder), kafka, given.events, given.runs)):
                    found.append(one)
                    print("  " + ": ".join(one.row()[:2]), flush=True)
        finally:
            kafka.kill()
    rows = [one.row() for one in found]
    Console(width=120).print(rich_table("One process", HEAD, rows))
    if given.write:
        today = datetime.now(UTC).date().isoformat()
        text = f"Measured on {today}: {shown_facts(describe())}.\n\n{markdown_table('One process', HEAD, rows)}"
        PAGE.write_text(write_between(PAGE.read_text(), text, BEGIN, END))
    sys.exit(any(one.is_missed for one in found))


if __name__ == "__main__":
    main()
