"""`dead-letters redrive`, against a real Apache Kafka: what is moved, what stays, and that nothing is moved twice."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Producer

from consumer.adapters.kafka_config import reader_conf, redrive_conf
from consumer.adapters.kafka_dead_letters import TopicReader
from consumer.adapters.kafka_redrive import TransactionalSender
from consumer.configuration import load
from consumer.core.dead_letters import Selection
from consumer.dead_letters import Examiner, Scan
from consumer.errors import KafkaFatalError
from consumer.redrive import Redrive, plan
from consumer.sandbox.events import PLATFORMS, guid
from tests.support.dead_letters import Given, listed, origins, write
from tests.support.kafka import ROOT, RealKafka, dying_with_us
from tests.support.kafka_client import Stored
from tests.support.processes import SandboxProcess, Setup, command, events, wait_until

pytestmark = pytest.mark.kafka


def redrive(setup: Setup, *options: str) -> subprocess.CompletedProcess[str]:
    return command(setup, "dead-letters", "redrive", *options)


def moved(setup: Setup) -> list[Stored]:
    return setup.kafka.read_all(setup.tier("1s"))


def ours(record: Stored) -> dict[str, str]:
    return {name: text for name, text in record.headers.items() if name.startswith("kochava-")}


def test_exactly_the_selected_ones_are_moved_unchanged_and_delivered(setup: Setup, kochava: SandboxProcess) -> None:
    kochava.set_rules({"match": {"id_prefix": "bad-"}, "do": {"status": 400}})
    setup.create_topics()
    other, bad = events(10, "other-", app_id="com.example.other", event_name="Purchase"), events(5, "bad-")
    producer = Producer({"bootstrap.servers": setup.kafka.bootstrap_servers})
    for number, (_, value) in enumerate([*other, *bad, ("", b"no Avro")]):
        producer.produce(
            setup.topic, value, b"\x00%d" % number, headers=[("trace", b"\xff"), ("kochava-redrive-count", b"9")]
        )
    producer.flush()
    with setup.consumer() as consumer:
        wait_until(lambda: len(setup.kafka.read_all(setup.dead_letter)) == 16, "all are given up")
        assert consumer.terminate() == 0
    before = {record.value: record for record in setup.kafka.read_all(setup.dead_letter)}
    source = setup.kafka.ends(setup.topic)
    (group,) = [each for each in listed(setup) if each["reason"] == "unknown_app"]
    assert (group["count"], group["app"]) == (10, "com.example.other")

    still = redrive(setup, "--fingerprint", group["fingerprint"], "--execute", "--yes")
    assert still.returncode == 5
    assert "10 would not: map: unknown_app" in still.stdout
    assert moved(setup) == []

    setup.apps |= {f"com.example.other/{name}": {"guid": guid("com.example.other", name)} for name in PLATFORMS}
    dry = redrive(setup, "--fingerprint", group["fingerprint"])
    assert dry.returncode == 0, dry.stderr
    assert "10 selected, 10 would be sent now" in dry.stdout
    assert "nothing was moved" in dry.stdout
    assert moved(setup) == []

    done = redrive(setup, "--fingerprint", group["fingerprint"], "--execute", "--yes")
    assert done.returncode == 0, done.stderr
    records = moved(setup)
    assert {record.value for record in records} == {value for _, value in other}
    assert len(records) == 10
    for record in records:
        was = before[record.value]
        assert (record.key, record.headers["trace"]) == (was.key, was.headers["trace"])
        kept = {name: text for name, text in ours(was).items() if name != "kochava-stage"}
        assert ours(record) == {**kept, "kochava-stage": "redrive", "kochava-redrive-count": "1"}
    assert setup.kafka.ends(setup.topic) == source, "others read the source topic, too"
    assert {each["reason"] for each in listed(setup)} == {"http_400", "bad_magic"}, "what was moved is none any more"
    with setup.consumer("again") as consumer:
        wait_until(lambda: kochava.accepted() == {event_id for event_id, _ in other}, "the consumer delivers them")
        wait_until(lambda: consumer.metric("kochava_events_in_flight") == 0, "all are settled")
        assert consumer.terminate() == 0
    assert kochava.duplicates() == 0


def test_what_fails_again_counts_its_redrives(setup: Setup, kochava: SandboxProcess) -> None:
    kochava.set_rules({"match": {"id_prefix": "bad-"}, "do": {"status": 400}})
    setup.create_topics()
    setup.kafka.produce(setup.topic, [events(1, "bad-")[0][1]])
    with setup.consumer():
        for count in (1, 2):
            wait_until(lambda count=count: sum(each["count"] for each in listed(setup)) == 1, "it is given up")
            assert redrive(setup, "--all", "--execute", "--yes").returncode == 0
            wait_until(lambda count=count: kochava.requests == count + 1, "it is tried again")
        wait_until(lambda: listed(setup), "it is given up again")
    dead = [record for record in setup.kafka.read_all(setup.dead_letter) if record.value is not None]
    assert [record.headers.get("kochava-redrive-count") for record in dead] == [None, "1", "2"]
    assert len(set(origins(dead))) == 1


def test_too_few_are_refused_and_the_others_stay(setup: Setup) -> None:
    setup.create_topics()
    made = [value for _, value in events(8)]
    write(
        setup, [*map(Given, made), Given(b"no Avro", "decode", "bad_magic"), Given(made[0][:40], "decode", "truncated")]
    )
    refused = redrive(setup, "--all", "--execute", "--yes")
    assert refused.returncode == 5
    assert refused.stderr == ("error: only 8 of 10 would be sent now, less than --least-share 0.9: nothing was moved\n")
    assert "1 would not: decode: bad_magic" in refused.stdout
    assert moved(setup) == []
    done = redrive(setup, "--all", "--execute", "--yes", "--least-share", "0.8")
    assert done.returncode == 0, done.stderr
    assert Counter(record.value for record in moved(setup)) == Counter(made)
    assert {each["reason"] for each in listed(setup)} == {"bad_magic", "truncated"}


def test_the_selection(setup: Setup) -> None:
    setup.create_topics()
    setup.kafka.configure_topic(setup.dead_letter, message_timestamp_type="CreateTime", retention_ms="-1")
    begin_ms = 1_790_000_000_000
    made = [value for _, value in events(10)]
    write(setup, [Given(value, timestamp_ms=begin_ms + 60_000 * n) for n, value in enumerate(made)])
    assert "4 selected" in redrive(setup, "--since", "2026-09-21T14:15:20", "--until", "2026-09-21T14:19:20Z").stdout
    assert "10 selected" in redrive(setup, "--until", "1ms").stdout
    by_origin = redrive(setup, *(f"--origin={setup.topic}/0/{n}" for n in (3, 5, 77)), "--execute", "--yes")
    assert by_origin.returncode == 0, by_origin.stderr
    assert {record.value for record in moved(setup)} == {made[3], made[5]}
    assert redrive(setup, "--fingerprint", "nonesuch").stdout.startswith("no dead letter is like that")
    for wrong in (
        [],
        ["--all", "--since", "1h"],
        ["--origin", "x/y"],
        ["--all", "--execute"],
        ["--all", "--rate", "0"],
    ):
        done = redrive(setup, *wrong)
        assert done.returncode == 2, wrong
        assert done.stderr.count("Error: ") == 1


def test_what_may_be_counted_twice_is_said_and_stays_marked(setup: Setup) -> None:
    setup.create_topics()
    made = [value for _, value in events(5)]
    write(setup, [
        Given(made[0], "deliver", "http_400", 400, attempts=1, was_unconfirmed=True),
        Given(made[1], "deliver", "unconfirmed", 200, attempts=2),
        Given(made[2], "deliver", "exhausted_timeout", attempts=12),
        Given(made[3], "deliver", "http_400", 400, attempts=1),
        Given(made[4], "deliver", "exhausted_connect", attempts=12),
    ])  # fmt: skip
    done = redrive(setup, "--all", "--execute", "--yes")
    assert done.returncode == 0, done.stderr
    assert "3 of those that would may have reached Kochava before" in done.stdout
    marked = {record.value for record in moved(setup) if record.headers.get("kochava-unconfirmed") == "1"}
    assert marked == {made[0]}
    assert {record.headers["kochava-attempts"] for record in moved(setup)} == {"0"}


def test_copies_of_a_dead_letter_are_one_event(setup: Setup) -> None:
    """A member that is killed before its commit writes a dead letter twice, on any partition if it has no key."""
    setup.create_topics()
    (_, first), (_, second) = events(2)
    write(setup, [
        *(Given(first, origin_offset=7, partition=partition) for partition in (0, 1)),
        Given(second, origin_offset=7, partition=0),  # a source topic that was made anew
    ])  # fmt: skip
    done = redrive(setup, "--all", "--execute", "--yes")
    assert done.returncode == 0, done.stderr
    assert Counter(record.value for record in moved(setup)) == Counter([first, second])
    assert listed(setup) == [], "the copy is marked, too"


def start_killed(setup: Setup, moment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*dying_with_us(), sys.executable, "-m", "tests.support.killed_redrive", "dead-letters", "redrive", "--all",
         "--execute", "--yes", "--rate", "100000", "--config", str(setup.write("killed"))],
        env={**os.environ, "KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(setup.apps), "KILLED_AT": moment},
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("moment", ["inside", "between"])
def test_killed_and_started_again_with_another_selection_it_moves_nothing_twice(setup: Setup, moment: str) -> None:
    """Excludes: markers outside of the transaction, and progress that is kept for each selection."""
    setup.create_topics()
    made = [value for _, value in events(200)]
    write(setup, [Given(value, reason=f"reason_{n % 3}") for n, value in enumerate(made)])
    process = start_killed(setup, moment)
    _, said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, said
    before = len(moved(setup))
    assert before == {"inside": 40, "between": 60}[moment]
    some = [each["fingerprint"] for each in listed(setup) if each["reason"] != "reason_0"]
    for selection in ([f"--fingerprint={each}" for each in some], ["--all"]):
        done = redrive(setup, *selection, "--execute", "--yes", "--rate", "100000")
        assert done.returncode == 0, done.stderr
    assert Counter(origins(moved(setup))) == Counter(f"{setup.topic}/0/{n}" for n in range(200))
    assert Counter(record.value for record in moved(setup)) == Counter(made)
    assert listed(setup) == []
    assert "no dead letter is like that" in redrive(setup, "--all", "--execute", "--yes").stdout


def test_a_broker_that_goes_away_leaves_what_the_next_run_goes_on_from(tmp_path: Path) -> None:
    kafka = RealKafka(tmp_path / "kafka")
    try:
        kafka.start()
        setup = Setup(kafka, tmp_path, "away", "http://127.0.0.1:9/track/json")
        setup.create_topics()
        write(setup, [Given(value) for _, value in events(200)])
        gate = tmp_path / "gate"
        process = start_killed(setup, str(gate))
        wait_until(gate.exists, "it is in the middle")
        kafka.kill()
        gate.unlink()
        said, error = process.communicate(timeout=120)
        assert process.returncode == 4, said + error
        assert "40 of 200 were moved, each once; start it again to move the rest" in error
        kafka.start()
        done = redrive(setup, "--all", "--execute", "--yes", "--rate", "100000")
        assert done.returncode == 0, done.stderr
        assert Counter(origins(moved(setup))) == Counter(f"{setup.topic}/0/{n}" for n in range(200))
    finally:
        kafka.kill()


def test_who_redrives_later_fences_who_began_earlier_and_leaves_out_what_they_moved(setup: Setup) -> None:
    setup.create_topics()
    write(setup, [Given(value) for _, value in events(100)])
    settings = load(setup.write("two"), {"KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(setup.apps)})
    conf = redrive_conf(settings, "test")

    def scan(reader: TopicReader) -> Scan:
        return Examiner(None, "confluent").scan(reader, setup.dead_letter, Selection())

    with TopicReader(reader_conf(settings, "one")) as one, TopicReader(reader_conf(settings, "two")) as two:
        seen_by_one, seen_by_two = scan(one), scan(two)
        first = Redrive(one, TransactionalSender(conf), setup.dead_letter, setup.tier("1s"))
        second = Redrive(two, TransactionalSender(conf), setup.dead_letter, setup.tier("1s"))
        chosen = first.open(plan(seen_by_one), seen_by_one.spans)
        half = dict(list(chosen.movable.items())[:50])
        first.run(type(chosen)(half, chosen.staying), 1000, lambda _: None)
        left = second.open(plan(seen_by_two), seen_by_two.spans)
        assert len(left.movable) == 50
        with pytest.raises(KafkaFatalError, match="another redrive for this group has begun"):
            first.run(chosen, 1000, lambda _: None)
        second.run(left, 1000, lambda _: None)
    assert Counter(origins(moved(setup))) == Counter(f"{setup.topic}/0/{n}" for n in range(100))
