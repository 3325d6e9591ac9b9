"""What the product relies on of Kafka's producer, and what the simulation's fake claims: one suite for fake and real.

The real one is confluent-kafka on Apache Kafka. Left out: a fatal error, which no broker can be asked for, and a report
that says that a record timed out although the broker has it (`lost_reports`): the chaos suite cuts connections.
"""

from collections.abc import Iterator
from zlib import crc32

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.simulation.producer import QUEUE_RECORDS
from tests.support.kafka import RealKafka
from tests.support.producer_stages import CONF, GUARDED, PARTITIONS, FakeStage, RealStage, Stage, Writer

PAUSE_S = 0.5
"""In this time a record gets to a broker, and its answer back."""


@pytest.fixture(scope="module")
def guarded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKafka]:
    broker = RealKafka(tmp_path_factory.mktemp("guarded-kafka"), settings=GUARDED)
    try:
        yield broker.start()
    finally:
        broker.kill()


@pytest.fixture(params=["fake-0", "fake-1", "fake-2", pytest.param("real", marks=pytest.mark.kafka)])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    kind, _, seed = request.param.partition("-")
    made: Stage = FakeStage(int(seed)) if kind == "fake" else RealStage(request.getfixturevalue("guarded_kafka"))
    yield made
    made.end()


def test_a_report_comes_by_polling_only_and_says_that_the_broker_has_the_record(stage: Stage) -> None:
    writer = Writer(stage)
    headers = [("kochava-tier", b"30s"), ("empty", b""), ("none", None), ("kochava-tier", b"again")]
    made = [(b"a", b"value", headers), (b"b", None, []), (b"c", b"", [("x", b"\xff")])]
    for key, value, added in made:
        writer.produce(value, key=key, headers=added)
    stage.sleep(PAUSE_S)
    assert writer.reports == []
    assert writer.poll_until_reported(3) == [None] * 3
    expected = [(crc32(key) % PARTITIONS, key, value, added or None) for key, value, added in made]
    assert sorted(stage.stored()) == sorted(expected)


def test_records_of_a_key_stay_in_order(stage: Stage) -> None:
    writer = Writer(stage)
    values = [b"%d" % number for number in range(50)]
    for value in values:
        writer.produce(value)
    assert writer.poll_until_reported(50) == [None] * 50
    assert [value for _, _, value, _ in stage.stored()] == values


def test_a_full_queue_refuses_a_record_until_reports_are_taken(stage: Stage) -> None:
    """Not until the broker has them: a report that nobody has polled for holds its place."""
    writer = Writer(stage)
    for _ in range(QUEUE_RECORDS):
        writer.produce(b"taken")
    with pytest.raises(BufferError):
        writer.produce(b"refused")
    stage.sleep(PAUSE_S)
    with pytest.raises(BufferError):
        writer.produce(b"refused")
    writer.poll_until_reported(QUEUE_RECORDS)
    writer.produce(b"last")
    assert writer.poll_until_reported(QUEUE_RECORDS + 1) == [None] * (QUEUE_RECORDS + 1)
    assert [value for _, _, value, _ in stage.stored()] == [b"taken"] * QUEUE_RECORDS + [b"last"]


def test_what_is_too_large_for_the_client_is_refused_at_once_and_never_reported(stage: Stage) -> None:
    writer = Writer(stage)
    with pytest.raises(KafkaException) as refused:
        writer.produce(b"x" * (CONF["message.max.bytes"] + 1))
    assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    writer.produce(b"small")
    assert writer.poll_until_reported(1) == [None]
    stage.sleep(PAUSE_S)
    writer.client.poll(0)
    assert writer.reports == [None]


def test_what_is_too_large_for_the_topic_is_reported_and_the_next_one_is_taken(stage: Stage) -> None:
    stage.limit(2_000)
    writer = Writer(stage)
    writer.produce(b"x" * 3_000)
    assert writer.poll_until_reported(1) == ["MSG_SIZE_TOO_LARGE"]
    writer.produce(b"small")
    assert writer.poll_until_reported(2)[1] is None
    assert [value for _, _, value, _ in stage.stored()] == [b"small"]


def test_a_topic_that_refuses_us_is_reported_for_each_record(stage: Stage) -> None:
    stage.refuse()
    writer = Writer(stage)
    for _ in range(3):
        writer.produce(b"value")
    assert writer.poll_until_reported(3) == ["TOPIC_AUTHORIZATION_FAILED"] * 3
    assert stage.stored() == []


def test_a_topic_that_is_not_there_is_reported_for_each_record(stage: Stage) -> None:
    writer = Writer(stage)
    for _ in range(3):
        writer.produce(b"value", topic="unheard-of")
    assert writer.poll_until_reported(3) == ["UNKNOWN_TOPIC_OR_PART"] * 3
    writer.produce(b"value")
    assert writer.poll_until_reported(4)[3] is None


def test_without_brokers_a_record_times_out(stage: Stage) -> None:
    writer = Writer(stage, is_away=True, **{"delivery.timeout.ms": 1000})
    writer.produce(b"value")
    stage.sleep(PAUSE_S)
    writer.client.poll(0)
    assert writer.reports == []
    assert writer.poll_until_reported(1) == ["_MSG_TIMED_OUT"]


def test_a_purge_reports_at_the_next_poll_what_could_not_be_sent(stage: Stage) -> None:
    writer = Writer(stage, is_away=True)
    for _ in range(10):
        writer.produce(b"value")
    stage.sleep(PAUSE_S)
    writer.client.poll(0)
    assert writer.reports == []
    writer.client.purge()
    assert writer.reports == []
    writer.client.poll(0)
    assert writer.reports == ["_PURGE_QUEUE"] * 10
    assert stage.stored() == []
