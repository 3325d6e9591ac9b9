"""SASL_SSL with SCRAM on a real Apache Kafka: who has the password, who is trusted, and a password that changes."""

import json
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from confluent_kafka.admin import NewPartitions

from tests.support.processes import ConsumerProcess, SandboxProcess, Setup, command, events, wait_until
from tests.support.secure_kafka import REAUTHENTICATE_S, SecureKafka

pytestmark = pytest.mark.kafka

FIRST, SECOND, WRONG = "first-S3cret, with=odd;signs", "second-S3cret", "wrong-S3cret"


class Door(NamedTuple):
    """The secure listener, and the file that holds the password of the test's own user."""

    kafka: SecureKafka
    user: str
    password_file: Path
    environment: dict[str, str]

    def write(self, password: str) -> None:
        """Replace the file as the kubelet does: at once."""
        new = self.password_file.with_suffix(".new")
        new.write_text(f"{password}\n")
        new.replace(self.password_file)


@pytest.fixture
def door(setup: Setup, kafka: SecureKafka, tmp_path: Path) -> Door:
    user, file = setup.topic, tmp_path / "password"
    kafka.set_password(user, FIRST)
    client = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "ssl.ca.location": str(kafka.ca_file),
        "topic.metadata.refresh.interval.ms": 1000,
    }
    environment = {
        "KOCHAVA_CONSUMER_KAFKA__BOOTSTRAP_SERVERS": kafka.secure_servers,
        "KOCHAVA_CONSUMER_KAFKA__CLIENT": json.dumps(client),
        "KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD_FILE": str(file),
    }
    setup.environment.update(environment)
    door = Door(kafka, user, file, environment)
    door.write(FIRST)
    return door


def reasons(consumer: ConsumerProcess) -> list[str]:
    return [line["reason"] for line in consumer.logged("kafka.error")]


def test_a_password_that_changes_is_followed(setup: Setup, kochava: SandboxProcess, door: Door) -> None:
    """Every connection shows the new password in the end: both readers, the producer, and who asks for offsets.

    A session lives REAUTHENTICATE_S, so whatever is answered later than that after the change knew the new one.
    Wrong designs excluded: one client is forgotten; a call from another thread; an empty file is believed.
    """
    kochava.set_rules({"match": {"id_prefix": "sick-", "first_tries": 4}, "do": {"status": 503}})
    setup.create_topics()
    made = events(300) + events(5, "sick-")
    setup.kafka.produce(setup.topic, [value for _, value in made])
    with setup.consumer() as consumer:
        wait_until(lambda: len(kochava.accepted()) == 305, "all are delivered over SASL_SSL")
        door.kafka.set_password(door.user, SECOND)
        changed_at = time.monotonic()
        door.write(SECOND)
        wait_until(lambda: consumer.logged("credentials.rotated"), "the change was seen")
        door.write("")
        wait_until(lambda: consumer.logged("credentials.unusable"), "an empty file is told, and changes nothing")
        number = 0
        while time.monotonic() < changed_at + 2 * REAUTHENTICATE_S:  # meanwhile the work goes on
            number += 1
            more = events(20, f"later{number}-") + events(1, f"sick-{number}-")
            made.extend(more)
            setup.kafka.produce(setup.topic, [value for _, value in more])
            wait_until(
                lambda: kochava.accepted() == {name for name, _ in made}, "each is delivered, sick ones by a tier"
            )
        setup.kafka.admin.create_partitions([NewPartitions(setup.topic, 6)])[setup.topic].result(30)
        wait_until(lambda: consumer.metric("kochava_assigned_partitions", topic=setup.topic) == 6, "new ones are ours")
        late = events(60, "late-")
        setup.kafka.produce(setup.topic, [value for _, value in late])
        wait_until(lambda: len(kochava.accepted()) == len(made) + 60, "those of the new partitions, too")
        wait_until(lambda: consumer.metric("kochava_events_in_flight") == 0, "all are settled")
        assert consumer.terminate() == 0
        assert len(consumer.logged("credentials.rotated")) == 1
        for trouble in ("consumer.lost", "offset.unresolved", "forward.failed"):
            assert consumer.logged(trouble) == []
        for secret in (FIRST, SECOND):
            assert secret not in consumer.text()
    assert kochava.duplicates() == 0
    assert setup.kafka.read_all(setup.dead_letter) == []
    committed = setup.kafka.committed(setup.group)
    assert sum(committed[setup.topic, number] for number in range(6)) == len(made) + 60, "all of it is committed"


def test_a_wrong_password_is_named_and_mended_without_a_restart(
    setup: Setup, kochava: SandboxProcess, door: Door
) -> None:
    setup.create_topics()
    setup.kafka.produce(setup.topic, [value for _, value in events(50)])
    door.write(WRONG)
    checked = command(setup, "check", **door.environment)
    assert checked.returncode == 5
    said = " ".join(checked.stdout.split())
    assert "_AUTHENTICATION" in said
    assert "check sasl.username, sasl.mechanism and kafka.sasl_password" in said
    assert "invalid credentials" in said, "the client's own words"
    shown = command(setup, "offsets", "show", **door.environment)
    assert shown.returncode == 4
    with setup.consumer() as consumer:
        wait_until(lambda: "_AUTHENTICATION" in reasons(consumer), "it says why, and goes on trying")
        assert consumer.probe("/livez")[0] == 200
        assert consumer.probe("/startupz")[0] == 503
        door.write(FIRST)
        wait_until(lambda: len(kochava.accepted()) == 50, "with the right one it works")
        wait_until(lambda: consumer.probe("/readyz")[0] == 200, "both readers have joined")
        wait_until(
            lambda: (
                sum(at for (topic, _), at in setup.kafka.committed(setup.group).items() if topic == setup.topic) == 50
            ),
            "all is committed: soon nothing can be",
        )
        before = reasons(consumer).count("_AUTHENTICATION")
        door.kafka.set_password(door.user, SECOND)
        wait_until(lambda: reasons(consumer).count("_AUTHENTICATION") > before, "the file comes later than the change")
        more = events(50, "later-")
        setup.kafka.produce(setup.topic, [value for _, value in more])
        door.write(SECOND)
        wait_until(lambda: len(kochava.accepted()) == 100, "it has gone on by itself")
        wait_until(lambda: consumer.metric("kochava_events_in_flight") == 0, "all are settled")
        assert consumer.terminate() == 0
        assert len(consumer.logged("credentials.rotated")) == 2
        told = consumer.text()
    assert kochava.duplicates() == 0
    for text in (told, checked.stdout, checked.stderr, shown.stdout, shown.stderr):
        for secret in (WRONG, FIRST, SECOND):
            assert secret not in text
    assert command(setup, "check", **door.environment).returncode == 0


def test_a_broker_that_nobody_vouches_for_is_not_spoken_to(
    setup: Setup, kochava: SandboxProcess, door: Door, tmp_path: Path
) -> None:
    setup.create_topics()
    setup.kafka.produce(setup.topic, [value for _, value in events(5)])
    client = json.loads(door.environment["KOCHAVA_CONSUMER_KAFKA__CLIENT"])
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    client["ssl.ca.location"] = str(tmp_path / "other.pem")
    distrusting = {**door.environment, "KOCHAVA_CONSUMER_KAFKA__CLIENT": json.dumps(client)}
    checked = command(setup, "check", **distrusting)
    assert checked.returncode == 5
    said = " ".join(checked.stdout.split())
    assert "_SSL" in said
    assert "check ssl.ca.location" in said
    with setup.consumer(KOCHAVA_CONSUMER_KAFKA__CLIENT=json.dumps(client)) as consumer:
        wait_until(lambda: "_SSL" in reasons(consumer), "it says why, and goes on trying")
        assert consumer.terminate() == 0
        assert FIRST not in consumer.text() + checked.stdout + checked.stderr
    assert kochava.requests == 0
    client["enable.ssl.certificate.verification"] = False
    meant = {"KOCHAVA_CONSUMER_KAFKA__CLIENT": json.dumps(client), "KOCHAVA_CONSUMER_KAFKA__ALLOW_INSECURE": "true"}
    with setup.consumer("meant", **meant) as consumer:
        wait_until(lambda: len(kochava.accepted()) == 5, "a person may mean it")
        assert consumer.logged("kafka.insecure")[0]["properties"] == "enable.ssl.certificate.verification"
        assert consumer.terminate() == 0
