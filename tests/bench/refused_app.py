"""One app of twelve answers 401 for minutes: what does it cost the others, and what becomes of its own events?

    python -m tests.bench.refused_app [--minutes 10] [--rate 600]

A real Apache Kafka, one consumer with the lanes as they come, events at an even rate. First a minute in which all is
well, then one app's key is refused, then it is mended. Prints what the others got in both times, and ends with 5 if an
event was lost or dead-lettered, or is still held, or the end was not orderly; or if it cost the others more than 3 % of
their rate, or memory grew, or the lane stayed closed for longer than it may.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from consumer.sandbox.events import APPS, PLATFORMS, encode, guid, sample_event
from tests.bench.machine import cpu_s
from tests.support.kafka import RealKafka
from tests.support.processes import SCHEMA, ConsumerProcess, SandboxProcess, Setup, sandbox, wait_until

REFUSED = guid(APPS[0], PLATFORMS[0])
LANE = {"PROBE_INITIAL_S": "5", "PROBE_MAX_S": "60", "WAITING_RECORDS": "64", "WAITING_S": "20", "HELD_SWEEP_S": "60"}
"""As they are by default."""
LEAST_SHARE = 0.97
"""Of the rate that the others had before."""
FLAT_MIB = 4.0
"""How far the last two thirds of the time may lie apart."""
OPEN_S = float(LANE["PROBE_MAX_S"]) + 10
"""The lane opens by a probe: the longest pause between two, and the time of its answer."""


class Sample(NamedTuple):
    at: float
    of_others: float
    rss_mib: float
    cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=600, help="events per second, all apps")
    given = parser.parse_args()
    if given.minutes < 0.5:
        parser.error("a memory of thirds needs half a minute")
    with tempfile.TemporaryDirectory(prefix="refused-") as name:
        folder = Path(name)
        kafka = RealKafka(folder / "kafka").start()
        try:
            with sandbox(folder / "sandbox", latency_ms="uniform:5:30") as kochava:
                setup = Setup(kafka, folder, "refused", f"{kochava.url}/track/json")
                setup.environment = {f"KOCHAVA_CONSUMER_LANE__{key}": value for key, value in LANE.items()}
                setup.environment["KOCHAVA_CONSUMER_LOG__LEVEL"] = "info"
                setup.create_topics(partitions=6)
                sys.exit(_measure(setup, kochava, given.minutes * 60, given.rate))
        finally:
            kafka.kill()


def _measure(setup: Setup, kochava: SandboxProcess, seconds: float, rate: int) -> int:
    is_over = threading.Event()
    produced: list[str] = []
    feeding = threading.Thread(target=_feed, args=(setup, rate, produced, is_over), daemon=True)
    with setup.consumer() as consumer:
        feeding.start()
        wait_until(lambda: consumer.metric("kochava_events_delivered_total") > rate * 5, "it works")
        well = [*_watch(consumer, 60)]
        kochava.set_rules({"match": {"app": REFUSED}, "do": {"status": 401}})
        refused = [*_watch(consumer, seconds)]
        kochava.set_rules()
        mended = time.monotonic()
        wait_until(lambda: consumer.metric("kochava_lane_closed") == 0, "the lane opens", OPEN_S * 3)
        opened_s = time.monotonic() - mended
        is_over.set()
        feeding.join()
        wait_until(lambda: kochava.accepted() >= set(produced), "all are delivered", 300)
        delivered_s = time.monotonic() - mended
        wait_until(lambda: _held_left(setup) == 0, "the held topic is read to its end", 60)
        dead = consumer.metric("kochava_events_dead_lettered_total")
        held = consumer.metric("kochava_events_held_total")
        code = consumer.terminate()
    lost = len(set(produced) - kochava.accepted())
    shown = Table("measure", "all is well", f"401 for {seconds / 60:g} min", box=None)
    shown.add_row("other apps, events/s", f"{_rate(well):,.0f}", f"{_rate(refused):,.0f}")
    shown.add_row("CPU, µs per delivered event", f"{_cpu_us(well):.0f}", f"{_cpu_us(refused):.0f}")
    memory = (", ".join(f"{mib:.0f}" for mib in _thirds(of)) for of in (well, refused))
    shown.add_row("memory by thirds, MiB", *memory)
    Console(width=110).print(shown)
    print(f"lane open {opened_s:.1f} s after the mend, all delivered {delivered_s:.1f} s after; held {held:.0f}, "
          f"dead-lettered {dead:.0f}, lost {lost}, sent twice {kochava.duplicates()}, "
          f"left on the held topic {_held_left(setup)}, exit code {code}")  # fmt: skip
    if code != 0:
        print(*consumer.text().splitlines()[-20:], sep="\n")
    wrong = problems(well, refused, opened_s)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 5 if lost or dead or code or _held_left(setup) or wrong else 0


def problems(well: Sequence[Sample], refused: Sequence[Sample], opened_s: float) -> list[str]:
    """Return what the refused app cost the others that it must not."""
    found = []
    if (share := _rate(refused) / _rate(well)) < LEAST_SHARE:
        found.append(f"the others got {share:.1%} of their rate, less than {LEAST_SHARE:.0%}")
    _, second, third = _thirds(refused)
    if abs(third - second) > FLAT_MIB:
        found.append(f"memory is not flat: {second:.1f}, then {third:.1f} MiB")
    if opened_s > OPEN_S:
        found.append(f"the lane was closed for {opened_s:.1f} s after the mend, more than {OPEN_S:.0f} s")
    return found


def _feed(setup: Setup, rate: int, produced: list[str], is_over: threading.Event) -> None:
    producer = Producer({"bootstrap.servers": setup.kafka.bootstrap_servers, "linger.ms": 20})
    random = Random(1)
    started = time.monotonic()
    while not is_over.is_set():
        event_id = f"event-{len(produced)}"
        time.sleep(max(0.0, started + len(produced) / rate - time.monotonic()))
        producer.produce(setup.topic, encode(sample_event(len(produced), random, event_id), SCHEMA, 2))
        producer.poll(0)
        produced.append(event_id)
    assert producer.flush(60) == 0


def _watch(consumer: ConsumerProcess, seconds: float) -> Iterator[Sample]:
    assert consumer.process is not None
    pid = consumer.process.pid
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        all_apps = consumer.metric("kochava_events_delivered_total")
        of_refused = consumer.metric("kochava_events_delivered_total", app=f"{APPS[0]}/{PLATFORMS[0]}")
        yield Sample(time.monotonic(), all_apps - of_refused, rss_mib(pid), cpu_s(pid))
        time.sleep(5)


def rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def _held_left(setup: Setup) -> int:
    committed = setup.kafka.committed(setup.group)
    ends = setup.kafka.ends(setup.held)
    return sum(high - committed.get((setup.held, number), 0) for number, (_, high) in ends.items())


def _rate(of: Sequence[Sample]) -> float:
    return (of[-1].of_others - of[0].of_others) / (of[-1].at - of[0].at)


def _cpu_us(of: Sequence[Sample]) -> float:
    return (of[-1].cpu_s - of[0].cpu_s) / (of[-1].of_others - of[0].of_others) * 1e6


def _thirds(of: Sequence[Sample]) -> tuple[float, float, float]:
    """Return the median memory, MiB, of each third of the time: what is flat has the last two alike."""
    third = len(of) // 3
    first, second, last = (
        statistics.median(sample.rss_mib for sample in part)
        for part in (of[:third], of[third : 2 * third], of[2 * third :])
    )
    return first, second, last


if __name__ == "__main__":
    main()
