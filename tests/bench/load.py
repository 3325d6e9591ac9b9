"""Topics full of events."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from confluent_kafka import Producer

from tests.support.processes import Setup, events

VARIETY = 20_000
"""Different events; they repeat."""


@contextmanager
def filled_topic(setup: Setup, partitions: int, count: int) -> Iterator[None]:
    """Make the topic of *setup* with *count* events, and delete it afterwards."""
    setup.kafka.create_topic(setup.topic, partitions)
    if count:
        print(f"producing {count:,} events", flush=True)
        _produce(setup, partitions, count)
    try:
        yield
    finally:
        setup.kafka.delete_topic(setup.topic)


@contextmanager
def own_topics(setup: Setup, name: str) -> Iterator[str]:
    """Make the topics of one run for what fails, and give their prefix.

    On those of another group this one would be taken for one whose commits the broker has forgotten.
    """
    ours = replace(setup, topic=f"{setup.topic}-{name}")
    ours.create_topics(source=False)
    try:
        yield f"{ours.topic}.kochava"
    finally:
        for topic in (*map(ours.tier, ours.tiers), ours.held, ours.dead_letter):
            ours.kafka.delete_topic(topic)


def _produce(setup: Setup, partitions: int, count: int) -> None:
    values = [value for _, value in events(min(VARIETY, count))]
    producer = Producer({"bootstrap.servers": setup.kafka.bootstrap_servers, "linger.ms": 20,
                         "queue.buffering.max.messages": 200_000})  # fmt: skip
    for index in range(count):
        while True:
            try:
                producer.produce(setup.topic, values[index % len(values)], partition=index % partitions)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0, "everything is produced"
