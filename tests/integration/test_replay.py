"""`kochava-consumer replay` on a real broker: exactly what was asked for, once more, and no event of it twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from tests.support.kafka import ROOT, RealKafka, dying_with_us
from tests.support.processes import SandboxProcess, Setup, command, events, sandbox, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

FIRST_MS = 1_793_000_000_000
FROM, TO = "2026-10-26T07:33:20.000Z", "2026-10-26T07:33:21.000Z"
"""The second that begins at FIRST_MS."""


def produce_at(kafka: RealKafka, topic: str, records: list[tuple[int, bytes]], partitions: int = 1) -> None:
    """Produce values with timestamps of our choice, epoch milliseconds, on so many partitions by turns."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number, (timestamp_ms, value) in enumerate(records):
        producer.produce(topic, value, timestamp=timestamp_ms, partition=number % partitions)
        if number % 10_000 == 0:
            producer.flush(30)
    assert producer.flush(30) == 0


def replay(setup: Setup, *options: str, first: str = FROM, last: str = TO) -> "subprocess.CompletedProcess[str]":
    return command(setup, "replay", "--from", first, "--to", last, "--yes", "--json", *options)


def numbers(done: "subprocess.CompletedProcess[str]") -> dict[str, object]:
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"replay"')]
    assert len(lines) == 1, done.stdout + done.stderr
    found: dict[str, object] = json.loads(lines[0])
    return found


def test_both_ends_are_exact_to_the_millisecond_whatever_the_order(kafka: RealKafka, tmp_path: Path) -> None:
    with sandbox(tmp_path / "sandbox") as kochava:
        setup = Setup(kafka, tmp_path, "replay-ends", f"{kochava.url}/track/json")
        setup.create_topics(partitions=2, retention_ms="-1")  # one of them stays empty
        made = events(6)
        times = (FIRST_MS - 1, FIRST_MS + 999, FIRST_MS + 1000, FIRST_MS, FIRST_MS - 5000, FIRST_MS + 500)
        produce_at(kafka, setup.topic, [(ms, value) for ms, (_, value) in zip(times, made, strict=True)])
        done = replay(setup)
        assert done.returncode == 0, done.stdout + done.stderr
        wanted = {event_id for ms, (event_id, _) in zip(times, made, strict=True) if FIRST_MS <= ms < FIRST_MS + 1000}
        assert kochava.accepted() == wanted
        found = numbers(done)
        assert (found["outside"], found["unsettled"], found["dead"]) == (found["read"] - 3, 0, [])  # type: ignore[operator]


def test_only_what_is_selected_is_sent_and_the_running_group_stays_where_it_is(
    setup: Setup, kafka: RealKafka, kochava: SandboxProcess
) -> None:
    setup.create_topics(partitions=2, retention_ms="-1")
    made = events(40)
    produce_at(kafka, setup.topic, [(FIRST_MS, value) for _, value in made])
    with setup.consumer() as live:
        wait_until(lambda: len(kochava.accepted()) == 40, "the running group delivers all")
        assert live.terminate() == 0
    before = kafka.committed(setup.group)
    done = replay(setup, "--app", "com.example.puzzle/IOS", "--event", "Purchase",
                  "--where", '{path = "amount", above = 0}')  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = numbers(done)
    again = [event_id for event_id, times in kochava.ledger().items() if times == 2]
    assert found["sent"] == [{"app": "com.example.puzzle/ios", "event": "Purchase", "count": len(again)}]
    assert 0 < len(again) < 10
    assert found["not_selected"] == 40 - len(again)
    assert kafka.committed(setup.group) == before


def test_a_replay_that_is_killed_twice_goes_on_and_counts_right(
    setup: Setup, kafka: RealKafka, kochava: SandboxProcess
) -> None:
    """100,000 events: each is accepted, and sent again only what was in flight or not committed when it was killed."""
    setup.create_topics(partitions=6, retention_ms="-1")
    count = 100_000
    values = [value for _, value in events(count)]
    produce_at(kafka, setup.topic, [(FIRST_MS + at % 1000, value) for at, value in enumerate(values)], partitions=6)
    for killed_at in (20_000, 60_000):
        process = begin(setup)
        wait_until(lambda at=killed_at: kochava.requests >= at, "a part is sent", 120)  # type: ignore[misc]
        process.kill()
        process.wait()
    done = replay(setup, "--id", "twice")
    assert done.returncode == 0, done.stdout + done.stderr
    found = numbers(done)
    ledger = kochava.ledger()
    assert len(ledger) == count
    assert all(ledger.values()), "none is missing"
    twice = sum(times > 1 for times in ledger.values())
    sent = sum(one["count"] for one in found["sent"])  # type: ignore[union-attr, attr-defined, misc]
    assert sent + found["skipped"] == found["read"]  # type: ignore[operator]
    rate_per_interval = 20_000  # more than it does between two commits
    assert twice <= 2 * (512 + rate_per_interval)
    assert sent <= count - 60_000 + rate_per_interval + 512, "it went on where it was, not from the start"
    once_more = replay(setup, "--id", "twice")
    assert once_more.returncode == 0, once_more.stdout + once_more.stderr
    assert numbers(once_more)["sent"] == [], "it is over"


def begin(setup: Setup, *options: str) -> "subprocess.Popen[bytes]":
    """Start a replay of the second and let it run."""
    log = (setup.folder / "replay.log").open("ab")
    return subprocess.Popen(
        [*dying_with_us(), sys.executable, "-m", "consumer", "replay", "--from", FROM, "--to", TO, "--yes",
         "--id", "twice", "--config", str(setup.write("kochava")), *options],
        stdout=log, stderr=log, cwd=ROOT,
        env={**os.environ, "KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(setup.apps)},
    )  # fmt: skip


def test_two_processes_share_a_replay(setup: Setup, kafka: RealKafka, kochava: SandboxProcess) -> None:
    setup.create_topics(partitions=4, retention_ms="-1")
    kochava.set_rules({"do": {"latency_ms": 50}})
    produce_at(kafka, setup.topic, [(FIRST_MS, value) for _, value in events(6000)], partitions=4)
    processes = [begin(setup, "--max-in-flight", "20", "--rate", "400/s") for _ in range(2)]
    codes = [process.wait(120) for process in processes]
    text = (setup.folder / "replay.log").read_text()
    assert codes == [0, 0], text
    ledger = kochava.ledger()
    assert len(ledger) == 6000
    assert set(ledger.values()) == {1}, "nothing crashed, so nothing is sent twice"
    planned = [json.loads(line) for line in text.splitlines() if '"replay.planned"' in line]
    assert [(line["partitions"], line["rule"]) for line in planned] == [(4, f"{FROM} to {TO}")] * 2
    delivered = [json.loads(line)["delivered"] for line in text.splitlines() if '"replay.finished"' in line]
    assert len(delivered) == 2
    assert sum(delivered) == 6000
    assert min(delivered) > 0, "both worked"


def test_another_plan_under_the_same_id_is_refused(setup: Setup, kafka: RealKafka, kochava: SandboxProcess) -> None:
    setup.create_topics(partitions=1, retention_ms="-1")
    produce_at(kafka, setup.topic, [(FIRST_MS, value) for _, value in events(3)])
    assert replay(setup, "--id", "one").returncode == 0
    other = replay(setup, "--id", "one", "--event", "Purchase")
    assert other.returncode == 4
    assert "choose another --id" in other.stderr
    assert set(kochava.ledger().values()) == {1}


def test_tails_that_never_come_end_it_all_the_same(setup: Setup, kafka: RealKafka, kochava: SandboxProcess) -> None:
    """Aborted transactions, markers, and a topic whose last records were compacted away."""
    setup.create_topics(partitions=1, retention_ms="-1")
    made = events(6)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": setup.topic})
    producer.init_transactions(30)
    for numbers_of, is_kept in (((0, 1), True), ((2, 3), False), ((4,), True), ((5,), False)):
        producer.begin_transaction()
        for number in numbers_of:
            producer.produce(setup.topic, made[number][1], timestamp=FIRST_MS)
        if is_kept:
            producer.commit_transaction(30)
        else:
            producer.flush(30)
            producer.abort_transaction(30)
    done = replay(setup)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kochava.accepted() == {made[number][0] for number in (0, 1, 4)}
    assert replay(setup).returncode == 0, "over already"


def test_a_dry_run_sends_nothing_leaves_nothing_and_masks_what_it_shows(
    setup: Setup, kafka: RealKafka, kochava: SandboxProcess
) -> None:
    setup.create_topics(partitions=2, retention_ms="-1")
    made = events(30)
    produce_at(kafka, setup.topic, [(FIRST_MS, value) for _, value in made])
    done = command(setup, "replay", "--from", FROM, "--to", TO, "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert kochava.requests == 0
    assert "would be sent" in done.stdout
    assert '"event_name"' in done.stdout
    for secret in (*(event_id for event_id, _ in made), "install-", "203.0.113", "1111-2222", "Mozilla"):
        assert secret not in done.stdout + done.stderr
    groups = kafka.admin.list_consumer_groups(request_timeout=10).result()
    assert not [group.group_id for group in groups.valid if "-dry-" in group.group_id]


def test_only_what_a_ledger_or_a_list_lacks_is_sent(setup: Setup, kafka: RealKafka, kochava: SandboxProcess) -> None:
    setup.create_topics(partitions=1, retention_ms="-1")
    made = events(20)
    produce_at(kafka, setup.topic, [(FIRST_MS, value) for _, value in made])
    listed = setup.folder / "there.csv"
    listed.write_text("event_id,at\n" + "".join(f"{event_id},1\n" for event_id, _ in made[:15]))
    done = replay(setup, "--only-missing", str(listed))
    assert done.returncode == 0, done.stdout + done.stderr
    assert kochava.accepted() == {event_id for event_id, _ in made[15:]}
    assert numbers(done)["known"] == 15
    ledger = setup.folder / "ledger.jsonl"
    ledger.write_text("".join(json.dumps({"id": event_id, "accepted": 1}) + "\n" for event_id in kochava.accepted()))
    again = replay(setup, "--only-missing", str(ledger), "--id", "rest")
    assert kochava.accepted() == {event_id for event_id, _ in made}
    assert set(kochava.ledger().values()) == {1}
    assert numbers(again)["known"] == 5


def test_failures_go_to_a_dead_letter_topic_of_their_own(
    setup: Setup, kafka: RealKafka, kochava: SandboxProcess
) -> None:
    setup.create_topics(partitions=1, retention_ms="-1")
    made = events(20)
    produce_at(kafka, setup.topic, [(FIRST_MS, value) for _, value in made])
    kochava.set_rules({"match": {"event": "Purchase"}, "do": {"status": 400}})
    done = replay(setup)
    assert done.returncode == 5, done.stdout + done.stderr
    dead = kafka.read_all(f"{setup.topic}.kochava.replay.dead-letter")
    accepted = kochava.accepted()
    assert len(dead) == 20 - len(accepted) > 0
    values = {value: event_id for event_id, value in made}
    assert {values[one.value] for one in dead} == {event_id for event_id, _ in made} - accepted
    assert sum(one["count"] for one in numbers(done)["dead"]) == len(dead)  # type: ignore[union-attr, attr-defined, misc]
    assert kafka.read_all(setup.dead_letter) == []
    kochava.set_rules()
    again = command(setup, "dead-letters", "redrive", "--topic", "replay", "--all", "--execute", "--yes")
    assert again.returncode == 0, again.stdout + again.stderr
    moved = kafka.read_all(setup.tier("1s"))
    assert {values[one.value] for one in moved} == {event_id for event_id, _ in made} - accepted
    assert len(moved) == len(dead), "the running group delivers them"


def test_records_that_retention_removed_before_they_were_read_are_counted(
    setup: Setup, kafka: RealKafka, kochava: SandboxProcess
) -> None:
    setup.create_topics(partitions=1, retention_ms="-1")
    made = events(300)
    produce_at(kafka, setup.topic, [(FIRST_MS, value) for _, value in made])
    kochava.set_rules({"do": {"latency_ms": 200}})
    process = begin(setup, "--max-in-flight", "2")
    wait_until(lambda: kochava.requests >= 5, "it works", 60)
    process.kill()
    process.wait()
    kochava.set_rules()
    future = kafka.admin.delete_records([TopicPartition(setup.topic, 0, 200)])
    for one in future.values():
        one.result()
    done = replay(setup, "--id", "twice", "--max-in-flight", "2")
    assert done.returncode == 5, done.stdout + done.stderr
    found = numbers(done)
    assert 0 < found["expired"] <= 200  # type: ignore[operator]
    assert "replay.expired" in done.stdout
    assert {event_id for event_id, _ in made[200:]} <= kochava.accepted()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--from", "2026-10-26T07:33:20", "--to", TO), "in which time zone"),
        (("--from", TO, "--to", FROM), "--to must be later than --from"),
        (("--from", FROM, "--to", TO, "--where", "{path"), "--where: write"),
        (("--from", FROM, "--to", TO, "--rate", "many"), "500/s"),
        (("--from", FROM, "--to", TO, "--id", "Not This"), "--id: lower case"),
        (("--from", FROM, "--to", TO), "add --yes"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_sentence(setup: Setup, kafka: RealKafka, options: tuple[str, ...],
                                                   said: str) -> None:  # fmt: skip
    setup.create_topics(partitions=1, retention_ms="-1")
    done = command(setup, "replay", *options)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
