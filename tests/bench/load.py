"""Topics full of events."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

from tests.support.processes import Setup, events

VARIETY = 20_000
"""Different events; they repeat."""


@contextmanager
def filled_topic(setup: Setup, partitions: int, count: int) -> Iterator[None]:
    """Make the topics of *setup* with *count* events, and delete what is large afterwards."""
    setup.create_topics(partitions=partitions)
    if count:
        print(f"producing {count:,} events", flush=True)
        _produce(setup, partitions, count)
    try:
        yield
    finally:
        for topic in (setup.topic, *map(setup.tier, setup.tiers), setup.held, setup.dead_letter):
            setup.kafka.delete_topic(topic)


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
