"""`make bounds`: what may move the cost of an event or the rate of others, and how much it does.

    python -m tests.bench.bounds [--groups in-flight,apps] [--events 100000] [--runs 3] [--results FILE] [--write]

A group is one question: the same consumer under loads that differ in one thing. All of a group are measured by turns,
in one run, and each is divided by the first one of its round. What is measured and how: docs/performance.md.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from tests.bench.__main__ import PAGE, make_bench
from tests.bench.figures import Figures, Spread, ratio_between, select, spread
from tests.bench.load import filled_topic, of_neighbour, prepare
from tests.bench.machine import describe
from tests.bench.measure import Bench, measure
from tests.bench.report import json_lines, markdown_table, rich_table, shown, shown_facts, write_between
from tests.bench.scenarios import Scenario
from tests.support.kafka import RealKafka
from tests.support.kafka_client import KafkaClient

BEGIN = "<!-- begin: written by make bounds ARGS=--write -->"
END = "<!-- end: written by make bounds ARGS=--write -->"
HEAD = ["", "events/s", "CPU, µs/event", "peak RSS, MiB", "to the first", "goal"]


class Bound(NamedTuple):
    """One member of a group."""

    scenario: Scenario
    goal: float | None = None
    """Of the ratio to the group's first member: at most of its cost, at least of its rate."""


class Group(NamedTuple):
    question: str
    measure: str
    """What is divided: `cpu_us_per_event` or `events_per_s`."""
    bounds: tuple[Bound, ...]

    @property
    def is_cost(self) -> bool:
        return self.measure == "cpu_us_per_event"


def _group(question: str, measure: str, first: Scenario, *others: tuple[Scenario, float]) -> Group:
    return Group(question, measure, (Bound(first), *(Bound(*other) for other in others)))


COST, RATE = "cpu_us_per_event", "events_per_s"
GROUPS = {
    "in-flight": _group(
        "records at once, as many connections", COST,
        Scenario("256", "", connections=256, in_flight=256),
        (Scenario("2,000", "", connections=2000, in_flight=2000), 1.15),
        (Scenario("16", "", connections=16, in_flight=16), 1.5),
    ),
    "partitions": _group(
        "partitions", COST,
        Scenario("6", ""),
        (Scenario("1", "", partitions=1), 1.15),
        (Scenario("100", "", partitions=100), 1.15),
        (Scenario("500", "", partitions=500), 1.15),
    ),
    "apps": _group(
        "apps, of which four share an id", COST,
        Scenario("4", "", app_ids=1),
        (Scenario("1,000", "", app_ids=250), 1.15),
    ),
    "schemas": _group(
        "writer schemas", COST,
        Scenario("1", "", schemas=1),
        (Scenario("100", "", schemas=100), 1.15),
    ),
    "order": _group(
        "order, with 100,000 keys", RATE,
        Scenario("none", "", keys=100_000),
        (Scenario("key", "", keys=100_000, order="key"), 0.9),
    ),
    "neighbour": _group(
        "the rate of eleven apps, by how the twelfth is answered", RATE,
        Scenario("as all are", "", neighbour="ok"),
        (Scenario("401", "", neighbour="401"), 0.95),
        (Scenario("503", "", neighbour="503"), 0.95),
        (Scenario("after 2 s", "", neighbour="slow"), 0.95),
        (Scenario("never", "", neighbour="never"), 0.95),
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--events", type=int, default=100_000, help="on each topic")
    parser.add_argument("--runs", type=int, default=3, help="rounds; in each, every member of a group once")
    parser.add_argument("--results", type=Path, help="write every run there, as JSON lines")
    parser.add_argument("--write", action="store_true", help=f"write the tables into docs/{PAGE.name}")
    given = parser.parse_args()
    names = (given.groups or ",".join(GROUPS)).split(",")
    if unknown := set(names) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    console = Console(width=120)
    found: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="bounds-") as name:
        kafka = RealKafka(Path(name) / "kafka").start()
        try:
            bench = make_bench(Path(name), cap_s=60, steady_s=0)
            for chosen in names:
                found[chosen] = list(_play(bench, kafka, chosen, given.events, given.runs))
                title, rows = _table(chosen, found[chosen])
                console.print(rich_table(title, HEAD, rows), "")
        finally:
            kafka.kill()
    machine = describe()
    if given.results:
        given.results.write_text(json_lines([each for one in found.values() for each in one], machine))
    if given.write:
        PAGE.write_text(write_between(PAGE.read_text(), _markdown(found, machine, given.runs), BEGIN, END))
    missed = [line for name, figures in found.items() for line in misses(name, figures)]
    print(*missed, sep="\n", end="\n" if missed else "")
    sys.exit(bool(missed))


def _play(bench: Bench, kafka: KafkaClient, name: str, events: int, runs: int) -> Iterator[Figures]:
    """Fill all topics, then measure A B C, A B C, so that what else the machine does hits all alike."""
    with ExitStack() as stack:
        made = []
        for number, bound in enumerate(GROUPS[name].bounds):
            scenario = bound.scenario
            count = scenario.events(events)
            setup = prepare(kafka, bench.folder / "setup", f"{name}-{number}", scenario)
            stack.enter_context(filled_topic(setup, scenario, count))
            counted = count - of_neighbour(count) if scenario.neighbour else count
            made.append((replace(scenario, name=f"{name}-{number}"), setup, counted))
        for run in range(1, runs + 1):
            for scenario, setup, count in made:
                figures = measure(bench, scenario, "consumer", run, setup, count)
                yield figures
                print(f"  {name}, {run}: {figures.events_per_s:9,.0f} events/s, {figures.cpu_us_per_event:5.1f} µs"
                      f"{'' if figures.is_complete else ' (not complete)'}", flush=True)  # fmt: skip


def _quotient(name: str, number: int, of: Sequence[Figures]) -> Spread | None:
    return ratio_between(of, GROUPS[name].measure, (f"{name}-{number}", "consumer"), (f"{name}-0", "consumer"))


def _table(name: str, of: Sequence[Figures]) -> tuple[str, list[list[str]]]:
    group = GROUPS[name]
    rows = []
    for number, bound in enumerate(group.bounds):
        runs = select(of, f"{name}-{number}", "consumer")
        goal = "" if bound.goal is None else f"{'≤' if group.is_cost else '≥'} {bound.goal:.2f}"
        rows.append([
            bound.scenario.name, shown(spread(runs, RATE), 0), shown(spread(runs, COST), 1),
            shown(spread(runs, "peak_rss_mib"), 0), shown(_quotient(name, number, of), 2) if number else "", goal,
        ])  # fmt: skip
    return f"{name}: {group.question}; {'cost' if group.is_cost else 'rate'} is compared", rows


def misses(name: str, of: Sequence[Figures]) -> list[str]:
    """Return the bounds that were not kept, as lines to read."""
    group = GROUPS[name]
    found = []
    for number, bound in enumerate(group.bounds):
        quotient = _quotient(name, number, of)
        if bound.goal is None or quotient is None:
            continue
        if quotient.median > bound.goal if group.is_cost else quotient.median < bound.goal:
            word = "cost" if group.is_cost else "rate"
            found.append(f"{name} {bound.scenario.name}: {quotient.median:.2f} of the first one's {word}, "
                         f"goal {bound.goal:.2f}")  # fmt: skip
    return found


def _markdown(found: dict[str, list[Figures]], machine: dict[str, str], runs: int) -> str:
    today = datetime.now(UTC).date().isoformat()
    parts = [f"Measured on {today}: {shown_facts(machine)}. Medians of {runs} (low to high)."]
    for name, figures in found.items():
        title, rows = _table(name, figures)
        parts.append(markdown_table(title, HEAD, rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
