"""One run of one contender: start it, look at it through the sink's count and the kernel's, end it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import NamedTuple

from confluent_kafka import Producer

from consumer.sandbox.events import encode, sample_event
from tests.bench.contender import Contender, running
from tests.bench.figures import Figures, percentile
from tests.bench.load import NEIGHBOUR
from tests.bench.machine import cpu_s, peak_mib
from tests.bench.scenarios import Scenario
from tests.bench.sinks import Sink, has_nginx, nginx_sink, our_sink
from tests.support.processes import SCHEMA, Setup

FROM_SHARE, TO_SHARE = 0.15, 0.85
WARM_S = 2.0
"""Of a steady stream that are not looked at: connections are opened, code is seen for the first time."""
LEAST_EVENTS = 200
WARM_EVENTS = 2000
"""Whoever has not answered so many in a third of the cap is measured from its first answer on."""
START_S = 60.0
MUST_FINISH = frozenset({"consumer", "floor"})
FINISH_S = 600.0
REST_S = 10.0
"""For what is still to come after the window: then it counts as not complete."""


class Bench(NamedTuple):
    """What is the same for all runs."""

    folder: Path
    cap_s: float
    """The longest window of whoever needs not finish; it begins a third of this after the first answer at most."""
    steady_s: float
    tls_chain: Path
    ca_file: Path


class Moment(NamedTuple):
    """What was seen at one time."""

    at: float
    answers: int
    cpu_s: float
    sink_cpu_s: float

    @classmethod
    def now(cls, contender: Contender, sink: Sink) -> "Moment":
        return cls(time.monotonic(), sink.answers, cpu_s(contender.pid), cpu_s(sink.pid))


def measure(bench: Bench, scenario: Scenario, contender: str, run: int, setup: Setup, events: int) -> Figures:
    """Let *contender* consume *events* that are on the topic, or a steady stream, as a new group.

    Raises:
        FailedError: it ended by itself.
        AssertionError: it did not begin.
    """
    name = f"{scenario.name}-{contender}-{run}"
    setup.folder = bench.folder / name
    with _sink(bench, scenario, setup.folder) as sink:
        setup.endpoint = sink.endpoint
        ca_file = bench.ca_file if scenario.is_tls else None
        with running(contender, scenario, setup, name, ca_file, name) as process:
            if scenario.rate_per_s:
                first, last, events = _steady(bench, scenario, setup, process, sink)
            else:
                first, last = _backlog(FINISH_S if contender in MUST_FINISH else bench.cap_s, process, sink, events)
            rest_s = REST_S if scenario.rate_per_s or last.answers >= events * TO_SHARE else 0
            is_complete = _wait(lambda: sink.answers >= events, process, rest_s)
            rss_mib = peak_mib(process.pid)
            process.stop()
        answers, connections, ages = sink.answers, sink.connections, sink.ages_ms()
    committed = sum(at for (topic, _), at in setup.kafka.committed(name).items() if topic == setup.topic)
    count, seconds, spent = last.answers - first.answers, last.at - first.at, last.cpu_s - first.cpu_s
    return Figures(
        scenario=scenario.name, contender=contender, run=run, events=events,
        measured_events=count, measured_s=seconds, events_per_s=count / seconds,
        cpu_us_per_event=spent / count * 1e6, cores=spent / seconds, peak_rss_mib=rss_mib, new_connections=connections,
        sink_cores=(last.sink_cpu_s - first.sink_cpu_s) / seconds, answers=answers, committed=committed,
        is_complete=is_complete and answers == events,
        age_p50_ms=percentile(ages, 0.5) if ages else None, age_p99_ms=percentile(ages, 0.99) if ages else None,
        age_p999_ms=percentile(ages, 0.999) if ages else None, age_max_ms=max(ages, default=None),
    )  # fmt: skip


def _sink(bench: Bench, scenario: Scenario, folder: Path) -> AbstractContextManager[Sink]:
    is_plain = not (scenario.is_tls or scenario.rate_per_s or scenario.neighbour)
    if scenario.latency_ms == 0 and is_plain and has_nginx():
        return nginx_sink(folder)
    return our_sink(
        folder,
        scenario.latency_ms,
        tls_chain=bench.tls_chain if scenario.is_tls else None,
        has_stamps=bool(scenario.rate_per_s),
        neighbour=f"{NEIGHBOUR}={scenario.neighbour}" if scenario.neighbour else "",
    )


def _wait(holds: Callable[[], bool], process: Contender, seconds: float) -> bool:
    """Wait until it holds, and say whether it did."""
    deadline = time.monotonic() + seconds
    while not holds():
        process.check()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _backlog(cap_s: float, process: Contender, sink: Sink, events: int) -> tuple[Moment, Moment]:
    assert _wait(lambda: sink.answers > 0, process, START_S), "it does not begin"
    begin = Moment.now(process, sink)
    _wait(lambda: sink.answers >= events * FROM_SHARE, process, cap_s / 3)
    first = Moment.now(process, sink) if sink.answers >= min(WARM_EVENTS, events * FROM_SHARE) else begin
    seen = sink.answers
    if not _wait(lambda: sink.answers >= events * TO_SHARE, process, cap_s):
        # a slow one may answer in bursts: from the begin of one to the begin of another is what it does in that time
        least = max(seen + 1, first.answers + LEAST_EVENTS)
        assert _wait(lambda: sink.answers >= min(least, events), process, START_S), "it answers nothing any more"
    return first, Moment.now(process, sink)


def _steady(
    bench: Bench, scenario: Scenario, setup: Setup, process: Contender, sink: Sink
) -> tuple[Moment, Moment, int]:
    """Produce at the scenario's rate, and return the two moments and the number of events."""
    producer = Producer({"bootstrap.servers": setup.kafka.bootstrap_servers, "linger.ms": 0})
    random = Random(1)

    def produce(index: int, event_id: str) -> None:
        producer.produce(setup.topic, encode(sample_event(index, random, event_id), SCHEMA, 2),
                         partition=index % scenario.partitions)  # fmt: skip
        producer.poll(0)

    def stream(count: int, first: int, name: Callable[[int], str]) -> None:
        """Produce *count* events at the rate, number *first* and so on; *name* is asked when each is due."""
        started = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, started + number / scenario.rate_per_s - time.monotonic()))
            produce(first + number, name(number))

    produce(0, "warm-0")
    producer.flush(30)
    assert _wait(lambda: sink.answers > 0, process, START_S), "it does not begin"
    warm, count = (round(seconds * scenario.rate_per_s) for seconds in (WARM_S, bench.steady_s))
    stream(warm, 1, lambda number: f"warm-{number}")
    slow_at = count // 3 if scenario.has_slow else -1
    first = Moment.now(process, sink)
    stream(count, 1 + warm, lambda number: f"slow-{number}" if number == slow_at else f"t{time.time_ns()}-{number}")
    last = Moment.now(process, sink)
    producer.flush(30)
    return first, last, 1 + warm + count
