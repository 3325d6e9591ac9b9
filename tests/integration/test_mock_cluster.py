"""The embedded broker of the demo: ordinary clients work with it, and it fails when told to."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from consumer.sandbox import mock_cluster
from consumer.sandbox.mock_cluster import MockCluster
from tests.support.kafka import ROOT, RealKafka
from tests.support.processes import SandboxProcess, Setup, events, wait_until

PRODUCE, OFFSET_COMMIT = 0, 8
TOPIC_AUTHORIZATION_FAILED, MESSAGE_TOO_LARGE, ILLEGAL_GENERATION, LEADER_NOT_AVAILABLE = 29, 10, 22, 5


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as made:
        yield made


def consumer_of(servers: str, **conf: object) -> Consumer:
    return Consumer(
        {"bootstrap.servers": servers, "group.id": "g", "auto.offset.reset": "earliest", "enable.auto.commit": False,
         "session.timeout.ms": 2000, "heartbeat.interval.ms": 200, **conf}
    )  # fmt: skip


def send(servers: str, topic: str, count: int, **conf: object) -> list[KafkaError | None]:
    """Produce and return the error of each record."""
    seen: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 1, **conf})
    for index in range(count):
        producer.produce(topic, b"%d" % index, on_delivery=lambda error, _: seen.append(error))
    assert producer.flush(30) == 0
    return seen


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_reads_what_was_produced_and_goes_on_where_it_committed(protocol: str) -> None:
    conf: dict[str, object] = {"group.protocol": protocol}
    with MockCluster() as cluster:
        cluster.create_topic("events", 4)
        assert send(cluster.bootstrap_servers, "events", 200) == [None] * 200
        for expected in (200, 50):
            if protocol == "consumer":
                member = Consumer({"bootstrap.servers": cluster.bootstrap_servers, "group.id": "g", **conf,
                                   "auto.offset.reset": "earliest", "enable.auto.commit": False})  # fmt: skip
            else:
                member = consumer_of(cluster.bootstrap_servers, **conf)
            member.subscribe(["events"])
            found: list[bytes] = []

            def all_there(member: Consumer = member, found: list[bytes] = found, expected: int = expected) -> bool:
                found.extend(message.value() for message in member.consume(100, 0.1) if message.error() is None)
                return len(found) >= expected

            wait_until(all_there, f"{expected} records are read")
            member.commit(asynchronous=False)
            member.close()
            assert sorted(found) == sorted(b"%d" % index for index in range(expected))
            send(cluster.bootstrap_servers, "events", 50)


def test_a_topic_that_exists_is_refused(cluster: MockCluster) -> None:
    cluster.create_topic("events", 1)
    with pytest.raises(RuntimeError, match="error 36"):
        cluster.create_topic("events", 1)


@pytest.mark.parametrize(("name", "partitions"), [("a", 0), ("a", -1), ("a", 10_001), ("", 1), ("a b", 1), ("ä", 1)])
def test_what_would_abort_the_process_is_refused_before(cluster: MockCluster, name: str, partitions: int) -> None:
    with pytest.raises(ValueError, match="no topic can be"):
        cluster.create_topic(name, partitions)


def test_nobody_as_leader_is_refused_and_metadata_can_say_that_there_is_none(cluster: MockCluster) -> None:
    cluster.create_topic("events", 1)
    with pytest.raises(ValueError, match="no broker -1"):
        cluster.set_leader("events", 0, -1)
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0})
    cluster.set_topic_error("events", LEADER_NOT_AVAILABLE)
    assert producer.list_topics("events", timeout=10).topics["events"].error.code() == LEADER_NOT_AVAILABLE
    cluster.set_topic_error("events", 0)
    assert producer.list_topics("events", timeout=10).topics["events"].error is None


def test_a_cluster_has_a_broker() -> None:
    with pytest.raises(ValueError, match="at least one"):
        MockCluster(0)


def test_a_closed_cluster_is_an_error_and_not_a_crash() -> None:
    cluster = MockCluster()
    cluster.close()
    cluster.close()
    for use in (
        lambda: cluster.create_topic("a", 1),
        lambda: cluster.set_broker_down(1),
        lambda: cluster.set_broker_up(1),
        lambda: cluster.set_rtt(1, 0),
        lambda: cluster.push_errors(PRODUCE, 1),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_pushed_errors_meet_the_next_requests_and_only_those(cluster: MockCluster) -> None:
    cluster.create_topic("events", 1)
    cluster.push_errors(PRODUCE, MESSAGE_TOO_LARGE)
    (refused,) = send(cluster.bootstrap_servers, "events", 1)
    assert refused is not None
    assert refused.code() == MESSAGE_TOO_LARGE
    assert send(cluster.bootstrap_servers, "events", 1) == [None]


def test_a_commit_can_be_refused(cluster: MockCluster) -> None:
    cluster.create_topic("events", 1)
    cluster.push_errors(OFFSET_COMMIT, TOPIC_AUTHORIZATION_FAILED)
    member = consumer_of(cluster.bootstrap_servers)
    at = [TopicPartition("events", 0, 1)]
    try:
        with pytest.raises(KafkaException):
            member.commit(offsets=at, asynchronous=False)
        member.commit(offsets=at, asynchronous=False)
        assert member.committed(at, timeout=30)[0].offset == 1
    finally:
        member.close()


def test_a_broker_that_is_down_takes_nothing_until_it_is_up(cluster: MockCluster) -> None:
    cluster.create_topic("events", 1)
    assert send(cluster.bootstrap_servers, "events", 1) == [None]
    cluster.set_broker_down(1)
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "reconnect.backoff.max.ms": 200})
    producer.produce("events", b"waits")
    assert producer.flush(1) == 1
    cluster.set_broker_up(1)
    assert producer.flush(30) == 0
    with pytest.raises(RuntimeError, match="refused"):
        cluster.set_broker_down(9)


def test_a_slow_broker_answers_late(cluster: MockCluster) -> None:
    cluster.create_topic("events", 1)
    send(cluster.bootstrap_servers, "events", 1)
    cluster.set_rtt(1, 60_000)
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    producer.produce("events", b"late")
    assert producer.flush(1) == 1, "no answer within a second"
    cluster.set_rtt(1, 0)


def test_several_brokers(tmp_path: Path) -> None:
    with MockCluster(brokers=3) as cluster:
        assert len(cluster.bootstrap_servers.split(",")) == 3
        cluster.create_topic("events", 6)
        assert send(cluster.bootstrap_servers, "events", 60) == [None] * 60


def test_a_client_without_the_mock_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "confluent_kafka"
    package.mkdir()
    monkeypatch.setattr(mock_cluster.confluent_kafka, "__file__", str(package / "__init__.py"))
    with pytest.raises(RuntimeError, match="from its wheel"):
        MockCluster()

    class Bare:
        def __init__(self, path: str) -> None:
            self.path = path

    libraries = tmp_path / "confluent_kafka.libs"
    libraries.mkdir()
    (libraries / "librdkafka-1.so.1").touch()
    monkeypatch.setattr(mock_cluster.ctypes, "CDLL", Bare)
    with pytest.raises(RuntimeError, match="this librdkafka has no rd_kafka_"):
        MockCluster()


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "consumer.sandbox.mock_cluster", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_a_process_of_its_own(tmp_path: Path, number: signal.Signals) -> None:
    ready = tmp_path / "ready.json"
    with start("--topics", "a:6,b:3", "--ready-file", str(ready)) as process:
        try:
            wait_until(ready.exists, "it is ready")
            servers = json.loads(ready.read_text())["bootstrap_servers"]
            looking = consumer_of(servers)
            topics = looking.list_topics(timeout=30).topics
            looking.close()
            assert {name: len(topic.partitions) for name, topic in topics.items()} == {"a": 6, "b": 3}
            process.send_signal(number)
            output = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, output) == (0, ("", ""))


def test_without_a_file_it_prints_where_it_listens() -> None:
    with start() as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("127.0.0.1:")
        finally:
            process.kill()


@pytest.mark.parametrize("topics", ["a", "a:", ":3", "a:x", "a:0", "a:-1", "a b:1"])
def test_topics_that_are_none_are_a_usage_error(topics: str) -> None:
    with start("--topics", topics) as process:
        _, error = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "is not name:partitions, as in events:6" in error


def test_a_first_commit_that_is_refused_makes_no_forgotten_group(
    cluster: MockCluster, kochava: SandboxProcess, tmp_path: Path
) -> None:
    """Excludes: "nothing to commit" taken for a commit. The mark that followed it kept the group from ever starting."""
    setup = Setup(cast("RealKafka", cluster), tmp_path, "refused", f"{kochava.url}/track/json")
    for topic in (setup.topic, *map(setup.tier, setup.tiers), setup.held, setup.dead_letter):
        cluster.create_topic(topic, 2)
    made = events(30)
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    for _, value in made:
        producer.produce(setup.topic, value)
    assert producer.flush(30) == 0
    cluster.push_errors(OFFSET_COMMIT, ILLEGAL_GENERATION, ILLEGAL_GENERATION)
    with setup.consumer() as consumer:
        wait_until(lambda: kochava.accepted() == {event_id for event_id, _ in made}, "all are delivered")
        wait_until(lambda: consumer.probe("/readyz")[0] == 200, "both readers have joined")
        assert "ILLEGAL_GENERATION" in consumer.text()
        assert consumer.terminate() == 0
