"""`make bench`: the consumer, naive consumers, mq-bridge and the bare floor, side by side on a real Apache Kafka.

    python -m tests.bench [--scenarios http-20ms,steady] [--all] [--contenders consumer,floor] [--events 60000]
                          [--runs 3] [--latency-ms 20] [--connections 512] [--results FILE] [--write]

What is measured and how: docs/performance.md.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import trustme
from rich.console import Console

from tests.bench.contender import FailedError, missing
from tests.bench.figures import Figures
from tests.bench.load import filled_topic
from tests.bench.machine import describe
from tests.bench.measure import MUST_FINISH, Bench, measure
from tests.bench.report import json_lines, markdown, rich_tables, write_between
from tests.bench.scenarios import ALL, BY_NAME, CONTENDERS, Scenario
from tests.bench.sinks import has_nginx
from tests.support.certificates import pem
from tests.support.kafka import ROOT, RealKafka
from tests.support.kafka_client import KafkaClient
from tests.support.processes import Setup

PAGE = ROOT / "docs" / "performance.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", help=f"of {', '.join(BY_NAME)}")
    parser.add_argument("--all", action="store_true", help="all scenarios and contenders")
    parser.add_argument("--contenders", help=f"of {', '.join(CONTENDERS)}; by default all but the last")
    parser.add_argument("--events", type=int, default=60_000, help="on the topic, where the rate is measured")
    parser.add_argument("--runs", type=int, default=3, help="rounds; in each, every contender once")
    parser.add_argument("--cap-s", type=float, default=5, help="the longest measurement, for slow contenders")
    parser.add_argument("--steady-s", type=float, default=6, help="length of the scenarios with a steady rate")
    parser.add_argument("--latency-ms", type=float, help="of the sink, in all scenarios")
    parser.add_argument("--connections", type=int, help="in all scenarios")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="use this one, of which only topics of ours are touched")
    parser.add_argument("--results", type=Path, help="write every run there, as JSON lines")
    parser.add_argument("--write", action="store_true", help=f"write the tables and plots into docs/{PAGE.name}")
    given = parser.parse_args()
    changes = {key: value for key in ("latency_ms", "connections") if (value := getattr(given, key)) is not None}
    scenarios = [replace(one, **changes) for one in _chosen(parser, given.scenarios, every=given.all)]
    contenders = _present(parser, given.contenders or ",".join(CONTENDERS if given.all else CONTENDERS[:-1]))
    console = Console(width=140)
    found: list[Figures] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        broker = None if given.kafka else RealKafka(Path(name) / "kafka").start()
        try:
            kafka = broker or KafkaClient(given.kafka)
            bench = make_bench(Path(name), given.cap_s, given.steady_s)
            for scenario in scenarios:
                for figures in _play(bench, kafka, scenario, contenders, scenario.events(given.events), given.runs):
                    found.append(figures)
                    console.print(_line(figures), highlight=False)
                console.print(*rich_tables([one for one in found if one.scenario == scenario.name]), sep="\n")
        finally:
            if broker is not None:
                broker.kill()
    machine = describe()
    if given.results:
        given.results.write_text(json_lines(found, machine))
    if given.write:
        _write(found, machine)
    sys.exit(any(_is_wrong(one) for one in found))


def _chosen(parser: argparse.ArgumentParser, names: str | None, *, every: bool) -> list[Scenario]:
    if names is None:
        return [one for one in ALL if every or one.is_default]
    unknown = set(names.split(",")) - set(BY_NAME)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return [BY_NAME[name] for name in names.split(",")]


def _present(parser: argparse.ArgumentParser, names: str) -> list[str]:
    """Return the contenders that can run, and say why the others can't."""
    asked = names.split(",")
    if unknown := set(asked) - set(CONTENDERS):
        parser.error(f"no such contender: {', '.join(sorted(unknown))}")
    present = []
    for contender in asked:
        if lacks := missing(contender):
            print(f"{contender} is left out: {', '.join(lacks)} not installed; make bench installs it in .venv-bench")
        else:
            present.append(contender)
    return present


def make_bench(folder: Path, cap_s: float, steady_s: float) -> Bench:
    """Prepare what all runs share."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    chain, ca_file = folder / "chain.pem", folder / "ca.pem"
    chain.write_bytes(pem(authority.issue_cert("localhost")))
    authority.cert_pem.write_to_path(ca_file)
    return Bench(folder, cap_s, steady_s, chain, ca_file)


def _play(
    bench: Bench, kafka: KafkaClient, scenario: Scenario, contenders: Sequence[str], count: int, runs: int
) -> Iterator[Figures]:
    """Measure A B C D, A B C D, so that what else the machine does hits all alike."""
    setup = Setup(kafka, bench.folder / "setup", f"bench-{scenario.partitions}", "")
    if scenario.latency_ms == 0 and not has_nginx():
        print("nginx is not installed: our own sink is used")
    with filled_topic(setup, scenario, 0 if scenario.rate_per_s else count):
        for run in range(1, runs + 1):
            for contender in contenders:
                try:
                    if scenario.rate_per_s:
                        steady = Setup(kafka, bench.folder / "setup", f"{scenario.name}-{contender}-{run}", "")
                        with filled_topic(steady, scenario, 0):
                            yield measure(bench, scenario, contender, run, steady, 0)
                    else:
                        yield measure(bench, scenario, contender, run, setup, count)
                except FailedError as error:
                    print(f"{scenario.name}, {contender}: {error}", file=sys.stderr)


def _line(of: Figures) -> str:
    age = "" if of.age_p99_ms is None else f"  p50 {of.age_p50_ms:.1f}  p99 {of.age_p99_ms:.1f} ms"
    return (f"  {of.scenario}  {of.run}  {of.contender:10}  {of.events_per_s:9,.0f} events/s"
            f"  {of.cpu_us_per_event:6.1f} µs/event  {of.peak_rss_mib:4.0f} MiB{age}"
            f"{'' if of.is_complete else '  (not complete)'}")  # fmt: skip


def _is_wrong(of: Figures) -> bool:
    """Say whether a contender that must finish missed an event or sent one twice."""
    return of.contender in MUST_FINISH and not (of.is_complete and of.committed == of.events)


def _write(found: Sequence[Figures], machine: dict[str, str]) -> None:
    from tests.bench.plots import draw  # matplotlib takes a second to import

    plots = draw(found, PAGE.parent / "images")
    text = markdown(found, machine, datetime.now(UTC).date().isoformat(), [f"images/{plot.name}" for plot in plots])
    PAGE.write_text(write_between(PAGE.read_text(), text))


if __name__ == "__main__":
    main()
