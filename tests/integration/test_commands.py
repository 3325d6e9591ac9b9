"""The commands that look around, against a real Apache Kafka, as an operator would type them."""

from pathlib import Path

import orjson
import pytest
import trustme
from confluent_kafka import Producer, TopicPartition

from tests.support.processes import Setup, command as run, events, sandbox, wait_until

pytestmark = pytest.mark.kafka


def test_topics_shows_what_is_missing_creates_it_and_judges_what_is_there(setup: Setup) -> None:
    setup.kafka.create_topic(setup.topic, 3)
    before = run(setup, "topics")
    assert before.returncode == 5
    assert before.stdout.count("missing: kochava-consumer topics --create") == 4
    made = run(setup, "topics", "--create")
    assert made.returncode == 0, made.stderr
    assert len(setup.kafka.ends(setup.tier("1s"))) == 3, "as many partitions as the source"
    setup.kafka.configure_topic(setup.tier("1s"), cleanup_policy="compact", retention_ms="1000")
    setup.kafka.configure_topic(setup.held, max_message_bytes="1000")
    after = run(setup, "topics")
    assert after.returncode == 5
    for word in ("compaction would drop waiting records", "retention.ms is 1000", "max.message.bytes is 1000"):
        assert word in after.stdout


def test_topics_finds_a_retry_topic_that_no_tier_reads(setup: Setup) -> None:
    setup.create_topics()
    setup.kafka.create_topic(f"{setup.topic}.kochava.retry.10m", 1)
    setup.kafka.produce(f"{setup.topic}.kochava.retry.10m", [b"x"] * 7)
    done = run(setup, "topics")
    assert done.returncode == 5
    assert "7 records wait here and no tier reads them" in done.stdout


def test_the_end_of_a_transaction_is_no_record_that_waits_for_a_tier(setup: Setup) -> None:
    """As `dead-letters redrive` leaves one behind; the tier it went to is configured no more."""
    setup.create_topics()
    orphan = f"{setup.topic}.kochava.retry.10m"
    setup.kafka.create_topic(orphan, 1)
    producer = Producer({"bootstrap.servers": setup.kafka.bootstrap_servers, "transactional.id": setup.topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(orphan, b"x")
    producer.commit_transaction(30)
    assert "2 records wait here" in run(setup, "topics").stdout
    setup.kafka.alter_offsets(setup.group, [TopicPartition(orphan, 0, 1)])
    done = run(setup, "topics")
    assert done.returncode == 0, done.stdout


def test_check_passes_where_run_would_work(setup: Setup) -> None:
    setup.create_topics()
    done = run(setup, "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_names_each_failure_with_what_to_do(setup: Setup) -> None:
    done = run(setup, "check", KOCHAVA_CONSUMER_KOCHAVA__ENDPOINT="http://127.0.0.1:9/track/json",
               KOCHAVA_CONSUMER_SCHEMAS__REGISTRY_URL="http://127.0.0.1:9")  # fmt: skip
    assert done.returncode == 5
    for word in ("doesn't exist", "kochava-consumer topics --create", "check kochava.endpoint", "schemas.registry_url"):
        assert word in done.stdout


def test_check_without_a_broker(setup: Setup) -> None:
    done = run(setup, "check", KOCHAVA_CONSUMER_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert done.returncode == 5
    assert "no answer from 127.0.0.1:9" in done.stdout


def test_map_shows_the_payload_of_a_record_on_the_broker_and_of_a_file(setup: Setup, tmp_path: Path) -> None:
    setup.create_topics(partitions=1)
    ((event_id, value),) = events(1)
    setup.kafka.produce(setup.topic, [value, b"junk"])
    from_broker = run(setup, "map", f"{setup.topic}/0/0")
    assert from_broker.returncode == 0, from_broker.stderr
    payload = orjson.loads(from_broker.stdout)
    assert payload["data"]["event_data"]["event_id"] == event_id
    (tmp_path / "event").write_bytes(value)
    assert orjson.loads(run(setup, "map", str(tmp_path / "event")).stdout) == payload
    refused = run(setup, "map", f"{setup.topic}/0/1")
    assert refused.returncode == 5
    assert "dead letter at stage decode" in refused.stderr
    assert run(setup, "map", f"{setup.topic}/0/99").returncode == 5
    assert run(setup, "map", "no/such").returncode == 2


@pytest.mark.parametrize("transport", ["fast", "httpx"])
def test_delivery_over_https(setup: Setup, tmp_path: Path, transport: str) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    options = ["--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.pem")]
    setup.create_topics()
    made = events(300)
    setup.kafka.produce(setup.topic, [value for _, value in made])
    with sandbox(tmp_path / "tls", options=options) as secure:
        setup.endpoint = f"{secure.url}/track/json"
        environment = {"KOCHAVA_CONSUMER_DELIVERY__TRANSPORT": transport}
        with setup.consumer("distrusting", **environment) as consumer:
            wait_until(lambda: consumer.logged("breaker.opened"), "a certificate of nobody's opens the breaker")
            assert consumer.logged("breaker.opened")[0]["reason"] == "tls"
            assert consumer.terminate() == 0
        with setup.consumer(
            "trusting", KOCHAVA_CONSUMER_KOCHAVA__CA_FILE=str(tmp_path / "ca.pem"), **environment
        ) as consumer:
            wait_until(lambda: consumer.metric("kochava_events_delivered_total") == 300, "all are delivered")
            assert consumer.terminate() == 0
    assert setup.kafka.read_all(setup.dead_letter) == []


def test_strict_authentication_is_signed_and_checked(setup: Setup, tmp_path: Path) -> None:
    for app in setup.apps.values():
        app["api_key"], app["app_secret"] = "test-api-key", "test-app-secret"
    setup.create_topics()
    made = events(60)
    setup.kafka.produce(setup.topic, [value for _, value in made])
    with sandbox(
        tmp_path / "strict", options=["--api-key", "test-api-key", "--app-secret", "test-app-secret"]
    ) as strict:
        setup.endpoint = f"{strict.url}/track/json"
        with setup.consumer() as consumer:
            wait_until(lambda: strict.accepted() == {event_id for event_id, _ in made}, "all signatures are good")
            assert consumer.terminate() == 0
            assert "test-app-secret" not in consumer.text()
