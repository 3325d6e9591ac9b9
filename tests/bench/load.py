"""Topics full of events, and the settings that go with them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from confluent_kafka import Producer
from fastavro import parse_schema

from consumer.sandbox.events import APPS, PLATFORMS, encode, guid, sample_event
from tests.bench.scenarios import Scenario
from tests.support.kafka import ROOT
from tests.support.kafka_client import KafkaClient
from tests.support.processes import SCHEMA, Setup

VARIETY = 20_000
"""Different events; they repeat."""
NEIGHBOUR = guid(APPS[0], PLATFORMS[0])
"""The app that a scenario's `neighbour` is about, and the ID that its requests carry."""
FIRST_SCHEMA = 1001
COMPRESSES_TO = 10
"""Padding shrinks to a tenth, as events do; one letter over and over would come out of next to nothing."""


def app_id(index: int, of: int) -> str:
    """Return the app of event number *index*; the first three are those of the sample events."""
    number = index // len(PLATFORMS) % of
    return APPS[number] if number < len(APPS) else f"com.example.game-{number}"


def of_neighbour(count: int) -> int:
    """Return how many of *count* events on a topic are the neighbour's."""
    return sum(index % VARIETY % (len(PLATFORMS) * len(APPS)) == 0 for index in range(count))


def prepare(kafka: KafkaClient, folder: Path, topic: str, scenario: Scenario) -> Setup:
    """Return what configures a consumer of the scenario's events."""
    setup = Setup(kafka, folder, topic, "")
    ids = {app_id(number * len(PLATFORMS), scenario.app_ids) for number in range(scenario.app_ids)}
    setup.apps = {f"{app}/{name}": {"guid": guid(app, name)} for app in sorted(ids) for name in PLATFORMS}
    if scenario.schemas:
        setup.environment["KOCHAVA_CONSUMER_SCHEMAS__DIRECTORY"] = str(_schema_folder(folder, scenario.schemas))
    if scenario.order != "none":
        setup.environment["KOCHAVA_CONSUMER_DELIVERY__ORDER"] = scenario.order
    return setup


def _schema_folder(folder: Path, count: int) -> Path:
    """Write *count* schemas: our newest, and one more field with a name of its own."""
    made = folder / f"schemas-{count}"
    made.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (made / f"{number}.avsc").write_text(json.dumps(_variant(number)))
    return made


def _variant(number: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "schemas" / "in_app_event.v2.avsc").read_text())
    extra = {"name": f"extra_{number}", "type": ["null", "string"], "default": None}
    return {**document, "fields": [*document["fields"], extra], "confluent.id": FIRST_SCHEMA + number}


def values(scenario: Scenario, count: int, *, padding: int = 0) -> list[bytes]:
    """Return *count* record values; with *padding*, about so many bytes of text in a field that nothing maps."""
    random = Random(1)
    schemas = [parse_schema(_variant(number)) for number in range(scenario.schemas)]
    made = []
    for index in range(count):
        event = sample_event(index, random) | {"app_id": app_id(index, scenario.app_ids)}
        if schemas:
            number = index % len(schemas)
            if padding:
                block = f"{random.getrandbits(4 * (padding // COMPRESSES_TO)):x}"
                event[f"extra_{number}"] = block * COMPRESSES_TO
            made.append(encode(event, schemas[number], FIRST_SCHEMA + number))
        else:
            made.append(encode(event, SCHEMA, 2))
    return made


@contextmanager
def filled_topic(
    setup: Setup, scenario: Scenario, count: int, *, padding: int = 0, **client: str | int
) -> Iterator[None]:
    """Make the topic of *setup* with *count* events, and delete it afterwards; *client*: the producer's."""
    setup.kafka.create_topic(setup.topic, scenario.partitions)
    if count:
        print(f"producing {count:,} events", flush=True)
        _produce(setup, scenario, count, values(scenario, min(VARIETY, count), padding=padding), client)
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


def _produce(setup: Setup, scenario: Scenario, count: int, made: list[bytes], client: dict[str, str | int]) -> None:
    producer = Producer({"bootstrap.servers": setup.kafka.bootstrap_servers, "linger.ms": 20,
                         "queue.buffering.max.messages": 200_000, **client})  # fmt: skip
    for index in range(count):
        key = f"user-{index % scenario.keys}" if scenario.keys else None
        while True:
            try:
                producer.produce(setup.topic, made[index % len(made)], key, partition=index % scenario.partitions)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0, "everything is produced"
