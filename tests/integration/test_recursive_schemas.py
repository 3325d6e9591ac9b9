"""A record that kills its decoder, among good ones, on a real Apache Kafka: it costs nobody else anything.

Once with our own decoder, which counts depth and lives; once with fastavro's, which a record 5,000 levels deep kills.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.support.processes import ConsumerProcess, SandboxProcess, Setup, command, events, wait_until
from tests.support.recursive import recursive_events, schema_folder

pytestmark = pytest.mark.kafka

DECODERS = {"ours": ("consumer", "too_deep"), "fastavro": ("tests.support.fragile_member", "killed_decoder")}


@contextmanager
def member(setup: Setup, module: str, name: str, **environment: str) -> Iterator[ConsumerProcess]:
    process = ConsumerProcess(setup, name, (), {"KOCHAVA_CONSUMER_SCHEMAS__ALLOW_RECURSIVE": "true", **environment})
    process.module = (module,)
    process.start()
    try:
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_record_that_kills_its_decoder_costs_no_other_and_not_the_process(
    setup: Setup, kochava: SandboxProcess, decoder: str
) -> None:
    module, reason = DECODERS[decoder]
    folder = schema_folder(setup)
    setup.create_topics()
    others = events(300)
    good = recursive_events(folder, 300, "deep-", 40)
    poison = recursive_events(folder, 3, "poison-", 20_000)
    values = [value for _, value in [*others, *good, *poison]]
    Random(11).shuffle(values)
    setup.kafka.produce(setup.topic, values)
    with member(setup, module, "consumer", KOCHAVA_CONSUMER_SCHEMAS__DIRECTORY=str(folder)) as consumer:
        wait_until(lambda: {one for one, _ in others} <= kochava.accepted(), "all of other schemas are delivered")
        wait_until(lambda: len(setup.kafka.read_all(setup.dead_letter)) == 3, "the poison is dead letters")
        wait_until(lambda: kochava.accepted() == {one for one, _ in others + good}, "all good ones are delivered")
        wait_until(lambda: consumer.metric("kochava_events_in_flight") == 0, "all are settled")
        assert consumer.metric("kochava_events_dead_lettered_total", reason=reason) == 3
        assert consumer.metric("kochava_decode_errors_total", kind=reason) == 3
        ends = [f"kochava_events_{end}_total" for end in ("delivered", "filtered", "retried", "held", "dead_lettered")]
        assert sum(map(consumer.metric, ends)) == consumer.metric("kochava_events_consumed_total"), "I3"
        assert consumer.metric("kochava_events_consumed_total", topic=setup.topic) == len(values)
        deaths = sum(line["count"] for line in consumer.logged("decoder.died"))
        assert (deaths > 0) == (decoder == "fastavro")
        assert consumer.terminate() == 0, "one process from the beginning to the end"
    dead = setup.kafka.read_all(setup.dead_letter)
    assert {record.value for record in dead} == {value for _, value in poison}
    for record in dead:
        assert record.headers["kochava-stage"] == "decode"
        assert record.headers["kochava-reason"] == reason
        assert record.headers["kochava-origin-topic"] == setup.topic
        assert record.headers["kochava-attempts"] == "0"
    assert kochava.duplicates() == 0
    positions = [at for (topic, _), at in setup.kafka.committed(setup.group).items() if topic == setup.topic]
    assert sum(positions) == len(values)


def test_a_consumer_that_ends_with_the_poison_in_hand_does_not_die_of_it_the_next_time(
    setup: Setup, kochava: SandboxProcess
) -> None:
    """Excludes: a crash loop under at-least-once."""
    module, reason = DECODERS["fastavro"]
    folder = schema_folder(setup)
    setup.create_topics(partitions=1)
    poison, good = recursive_events(folder, 1, "poison-", 20_000), recursive_events(folder, 50, "deep-", 3)
    setup.kafka.produce(setup.topic, [value for _, value in poison + good])
    environment = {"KOCHAVA_CONSUMER_SCHEMAS__DIRECTORY": str(folder)}
    with member(setup, module, "first", **environment) as consumer:
        wait_until(lambda: consumer.logged("decoder.died"), "the poison has killed once")
        consumer.kill()
    with member(setup, module, "second", **environment) as consumer:
        wait_until(lambda: kochava.accepted() == {one for one, _ in good}, "all good ones are delivered")
        wait_until(lambda: setup.kafka.read_all(setup.dead_letter), "the poison is a dead letter")
        assert consumer.terminate() == 0
    assert [record.headers["kochava-reason"] for record in setup.kafka.read_all(setup.dead_letter)] == [reason]


def test_without_the_setting_such_a_schema_is_refused_at_the_start(setup: Setup, kochava: SandboxProcess) -> None:
    folder = schema_folder(setup)
    refused = command(setup, "run", KOCHAVA_CONSUMER_SCHEMAS__DIRECTORY=str(folder))
    assert refused.returncode == 3
    assert "contains itself" in refused.stdout + refused.stderr


def test_the_map_command_shows_such_a_record_too(setup: Setup, kochava: SandboxProcess, tmp_path: Path) -> None:
    folder = schema_folder(setup)
    environment = {
        "KOCHAVA_CONSUMER_SCHEMAS__DIRECTORY": str(folder),
        "KOCHAVA_CONSUMER_SCHEMAS__ALLOW_RECURSIVE": "true",
    }
    for depth, code, words in ((3, 0, "would be sent"), (20_000, 5, "dead letter at stage decode: too_deep")):
        ((_, value),) = recursive_events(folder, 1, "deep-", depth)
        (tmp_path / "event.avro").write_bytes(value)
        shown = command(setup, "map", str(tmp_path / "event.avro"), **environment)
        assert (shown.returncode, words in shown.stderr + shown.stdout) == (code, True), shown
