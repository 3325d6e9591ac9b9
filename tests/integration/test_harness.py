"""The ground that the other tests stand on: the broker does what they rely on, and ends when they end."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from tests.support.kafka import COMPACTED, ROOT, RealKafka
from tests.support.processes import wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("_", "-")[:100]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RealKafka]:
    """A broker that a test may hurt."""
    broker = RealKafka(tmp_path / "own").start()
    yield broker
    broker.kill()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_is_produced_is_read_with_its_key_and_headers(kafka: RealKafka, topic: str) -> None:
    kafka.create_topic(topic, 3)
    kafka.produce(topic, [b"%d" % index for index in range(100)])
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(topic, None, key=b"k", partition=2, headers={"name": "wert ä".encode(), "empty": None})
    assert producer.flush(30) == 0
    found = kafka.read_all(topic)
    assert sorted(record.value for record in found if record.value is not None) == sorted(b"%d" % i for i in range(100))
    (bare,) = [record for record in found if record.value is None]
    assert (bare.key, bare.partition, bare.headers) == (b"k", 2, {"name": "wert ä", "empty": ""})
    assert sum(high - low for low, high in kafka.ends(topic).values()) == 101


def test_a_transaction_leaves_a_gap_and_an_aborted_one_is_not_read(kafka: RealKafka, topic: str) -> None:
    kafka.create_topic(topic, 1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions()
    for value, end in ((b"a", producer.commit_transaction), (b"b", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value)
        assert producer.flush(30) == 0
        end()
    kafka.produce(topic, [b"c"])
    assert [(record.offset, record.value) for record in kafka.read_all(topic)] == [(0, b"a"), (4, b"c")]
    assert kafka.ends(topic) == {0: (0, 5)}


def test_a_compacted_topic_is_compacted_within_a_test(kafka: RealKafka, topic: str) -> None:
    kafka.create_topic(topic, 1, **COMPACTED)
    kafka.produce(topic, [b"first"])
    kafka.produce(topic, [b"last"])  # the same key, "0"

    def compacted() -> bool:
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        producer.produce(topic, b"", key=b"nudge")  # closes the segment
        producer.flush(30)
        return [record.value for record in kafka.read_all(topic) if record.key == b"0"] == [b"last"]

    wait_until(compacted, "only the last record of a key is left", 90)
    offsets = [record.offset for record in kafka.read_all(topic)]
    assert offsets[0] == 1, "the survivor keeps its offset"


def test_offsets_of_an_empty_group_can_be_moved_and_those_of_a_live_one_not(kafka: RealKafka, topic: str) -> None:
    kafka.create_topic(topic, 1)
    kafka.produce(topic, [b""] * 10)
    group = f"{topic}-group"
    member = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "auto.offset.reset": "earliest",
                       "enable.auto.commit": False})  # fmt: skip
    member.subscribe([topic])
    try:
        wait_until(lambda: member.consume(10, 0.2), "the member reads")
        member.commit(offsets=[TopicPartition(topic, 0, 8)], asynchronous=False)
        with pytest.raises((AssertionError, KafkaException)):
            kafka.alter_offsets(group, [TopicPartition(topic, 0, 1)])
        assert kafka.committed(group) == {(topic, 0): 8}
    finally:
        member.close()
    kafka.alter_offsets(group, [TopicPartition(topic, 0, 1)])
    assert kafka.committed(group) == {(topic, 0): 1}
    kafka.delete_group(group)
    assert kafka.committed(group) == {}


def test_acknowledged_records_outlive_a_kill_and_a_stop_and_nothing_outlives_a_wipe(own: RealKafka) -> None:
    own.create_topic("kept", 1)
    own.produce("kept", [b"before"])
    own.kill()
    own.start()
    own.produce("kept", [b"between"])
    own.stop()
    own.start()
    assert [record.value for record in own.read_all("kept")] == [b"before", b"between"]
    own.wipe()
    own.start()
    assert "kept" not in own.admin.list_topics(timeout=30).topics


def test_a_frozen_broker_answers_nobody_until_it_thaws(own: RealKafka) -> None:
    own.create_topic("cold", 1)
    producer = Producer({"bootstrap.servers": own.bootstrap_servers})
    own.produce("cold", [b"warm"])
    own.freeze()
    producer.produce("cold", b"waits")
    assert producer.flush(1) == 1, "nothing is acknowledged"
    own.thaw()
    assert producer.flush(30) == 0
    assert [record.value for record in own.read_all("cold")] == [b"warm", b"waits"]


def test_it_does_not_take_another_broker_for_itself(kafka: RealKafka, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=f"port {kafka.port} is taken"):
        RealKafka(tmp_path / "second", kafka.port).start()


def test_it_says_why_it_did_not_start(tmp_path: Path) -> None:
    broker = RealKafka(tmp_path / "broken")
    broker.folder.mkdir()
    (broker.folder / "server.properties").write_text("process.roles=nonsense\n")
    with pytest.raises(RuntimeError, match=r"did not start; the end of its log:\n[\s\S]*nonsense"):
        broker.start()


@pytest.mark.skipif(
    sys.platform != "linux", reason="the broker dies with us by prctl(PR_SET_PDEATHSIG), which is Linux's"
)
@pytest.mark.parametrize("number", [15, 9], ids=["SIGTERM", "SIGKILL"])
def test_the_broker_dies_with_whoever_started_it(number: int, tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from tests.support.kafka import RealKafka;"
        f"broker = RealKafka(pathlib.Path({str(tmp_path)!r})).start();"
        "print(broker._process.pid, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert starter.stdout is not None
        broker = int(starter.stdout.readline())
        assert runs(broker)
        os.kill(starter.pid, number)
        wait_until(lambda: not runs(broker), "the broker is gone")
    finally:
        starter.kill()
        starter.wait()
        starter.stdout.close()


@pytest.mark.parametrize("missing", ["java", "mvn"])
def test_without_java_or_maven_it_says_what_to_install(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = tmp_path / ({"java": "mvn", "mvn": "java"}[missing])
    present.write_text("#!/bin/sh\n")
    present.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tests.support.kafka.CACHE", tmp_path / "cache")
    with pytest.raises(RuntimeError, match="install them"):
        RealKafka(tmp_path / "broker")


def test_people_can_run_one_and_end_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.kafka", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Apache Kafka listens on 127.0.0.1:")
        servers = line.split()[4].rstrip(";")
        Consumer({"bootstrap.servers": servers, "group.id": "g"}).list_topics(timeout=30)
        process.terminate()
        assert process.wait(30) == 0
        assert list(tmp_path.iterdir()) == [], "its data is deleted"
        with pytest.raises(KafkaException):
            Consumer({"bootstrap.servers": servers, "group.id": "g"}).list_topics(timeout=1)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
