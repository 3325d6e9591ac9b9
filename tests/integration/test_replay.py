"""`kochava-consumer replay` on a real broker: exactly what was asked for, once more, and no event of it twice."""

import json
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.support.kafka import RealKafka
from tests.support.processes import SandboxProcess, Setup, command, events, sandbox

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

FIRST_MS = 1_793_000_000_000
FROM, TO = "2026-10-26T07:33:20.000Z", "2026-10-26T07:33:21.000Z"
"""The second that begins at FIRST_MS."""


def produce_at(kafka: RealKafka, topic: str, records: list[tuple[int, bytes]], partition: int = -1) -> None:
    """Produce values with timestamps of our choice, epoch milliseconds."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for timestamp_ms, value in records:
        where = {} if partition < 0 else {"partition": partition}
        producer.produce(topic, value, timestamp=timestamp_ms, **where)
    assert producer.flush(30) == 0


def replay(setup: Setup, *options: str, first: str = FROM, last: str = TO) -> "subprocess.CompletedProcess[str]":
    return command(setup, "replay", "--from", first, "--to", last, "--yes", "--json", *options)


def numbers(done: "subprocess.CompletedProcess[str]") -> dict[str, object]:
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"replay"')]
    assert len(lines) == 1, done.stdout + done.stderr
    found: dict[str, object] = json.loads(lines[0])
    return found


def test_both_ends_are_exact_to_the_millisecond_whatever_the_order(kafka: RealKafka, tmp_path: Path) -> None:
    with sandbox(tmp_path / "sandbox") as kochava:
        setup = Setup(kafka, tmp_path, "replay-ends", f"{kochava.url}/track/json")
        setup.create_topics(partitions=2)  # one of them stays empty
        made = events(6)
        times = (FIRST_MS - 1, FIRST_MS + 999, FIRST_MS + 1000, FIRST_MS, FIRST_MS - 5000, FIRST_MS + 500)
        produce_at(kafka, setup.topic, [(ms, value) for ms, (_, value) in zip(times, made, strict=True)], partition=0)
        done = replay(setup)
        assert done.returncode == 0, done.stdout + done.stderr
        wanted = {event_id for ms, (event_id, _) in zip(times, made, strict=True) if FIRST_MS <= ms < FIRST_MS + 1000}
        assert kochava.accepted() == wanted
        found = numbers(done)
        assert (found["outside"], found["unsettled"], found["dead"]) == (found["read"] - 3, 0, [])  # type: ignore[operator]
