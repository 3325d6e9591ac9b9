"""Records that kill the process that decodes them: what do they cost all others?

    python -m tests.bench.poison [--events 40000] [--poison 10] [--runs 2]

A real Apache Kafka, answers after 20 ms, a backlog that is read as fast as it goes, with and without poison spread
among the same events. The decoder apart is fastavro's, which a record 20,000 levels deep kills: twice, then it is a
dead letter. Prints what the others got per second, the best of the runs, and the ratio of both. Ends with 5 if anything
but the poison is a dead letter, or the end was not orderly; who waits in vain for the others or the poison fails.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.support.kafka import RealKafka
from tests.support.processes import ConsumerProcess, Setup, events, sandbox, wait_until
from tests.support.recursive import recursive_events, schema_folder

DEPTH = 20_000
MEASURED = (0.1, 0.9)
"""Between these shares of the others, so that neither the start nor the end counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--poison", type=int, default=10)
    parser.add_argument("--runs", type=int, default=2)
    given = parser.parse_args()
    rates: dict[int, list[float]] = {0: [], given.poison: []}
    is_whole = True
    with tempfile.TemporaryDirectory(prefix="poison-") as name:
        kafka = RealKafka(Path(name) / "kafka").start()
        try:
            for run in range(given.runs):
                for poison in rates:
                    rate, deaths, wrong = _run(kafka, Path(name) / f"{run}-{poison}", given.events, poison)
                    rates[poison].append(rate)
                    is_whole = is_whole and not wrong
                    print(f"run {run + 1}, poison {poison:3}: {rate:8,.0f} others/s, the decoder died {deaths} times"
                          f"{wrong and ': ' + wrong}", flush=True)  # fmt: skip
        finally:
            kafka.kill()
    without, with_poison = (max(each) for each in rates.values())
    print(
        f"others per second: {without:,.0f} without, {with_poison:,.0f} with poison; ratio {with_poison / without:.2f}"
    )
    sys.exit(0 if is_whole else 5)


def _run(kafka: RealKafka, folder: Path, count: int, poison: int) -> tuple[float, int, str]:
    """Return the others' rate, the deaths while they were delivered, and what is wrong, if anything is."""
    with sandbox(folder / "sandbox", latency_ms="20") as kochava:
        setup = Setup(kafka, folder, f"poison-{folder.name}", f"{kochava.url}/track/json")
        setup.create_topics(partitions=6)
        schemas = schema_folder(setup)
        made = [value for _, value in events(count)]
        for number, (_, value) in enumerate(recursive_events(schemas, poison, "poison-", DEPTH)):
            made.insert(number * len(made) // poison, value)
        kafka.produce(setup.topic, made)
        environment = {
            "KOCHAVA_CONSUMER_SCHEMAS__DIRECTORY": str(schemas),
            "KOCHAVA_CONSUMER_SCHEMAS__ALLOW_RECURSIVE": "true",
            "KOCHAVA_CONSUMER_LOG__LEVEL": "info",
        }
        consumer = ConsumerProcess(setup, "consumer", (), environment)
        consumer.module = ("tests.support.fragile_member",)
        consumer.start()
        try:
            (from_s, first), (to_s, last) = (_when(consumer, share * count) for share in MEASURED)
            wait_until(lambda: len(kochava.accepted()) == count, "all others are delivered")
            deaths = sum(line["count"] for line in consumer.logged("decoder.died"))
            wait_until(lambda: len(kafka.read_all(setup.dead_letter)) >= poison, "the poison is dead letters", 300)
            code = consumer.terminate()
        finally:
            consumer.kill()
        found = {
            "dead letters too many": len(kafka.read_all(setup.dead_letter)) - poison,
            "exit code": code,
        }
    return (last - first) / (to_s - from_s), deaths, ", ".join(f"{what} {n}" for what, n in found.items() if n)


def _when(consumer: ConsumerProcess, delivered: float) -> tuple[float, float]:
    """Return a moment after so many were *delivered*, and how many were."""
    found = 0.0

    def is_reached() -> bool:
        nonlocal found
        found = consumer.metric("kochava_events_delivered_total")
        return found >= delivered

    wait_until(is_reached, f"{delivered:,.0f} are delivered", 120)
    return time.monotonic(), found


if __name__ == "__main__":
    main()
