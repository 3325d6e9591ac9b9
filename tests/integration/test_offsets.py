"""`offsets show | reset | undo` on a real Apache Kafka, as an operator would type them."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from consumer.adapters import kafka_offsets
from consumer.adapters.kafka_offsets import HasMembersError, KafkaOffsets, Write
from consumer.core.offset_map import Run, encode
from consumer.core.record import Partition
from consumer.errors import KafkaFatalError
from tests.support.canary import Search
from tests.support.kafka import ROOT, RealKafka, dying_with_us
from tests.support.processes import SandboxProcess, Setup, events, wait_until

pytestmark = pytest.mark.kafka

Commits = dict[tuple[str, int], tuple[int, str | None]]
RECORDS = 10
HOUR_MS = 3_600_000
COMMITTED = 5
LOCKED = "com.example.locked"
UNAUTHORISED = {"match": {"id_prefix": "blocker-"}, "do": {"status": 401}}
MARKERS = {"value": "canary-value-5f1c0a", "key": "canary-key-77ab31", "metadata": "canary-metadata-9902cd"}


def arguments(setup: Setup, *given: str) -> list[str]:
    return [sys.executable, "-m", "consumer", "offsets", *given, "--config", str(setup.write("kochava"))]


def environment(setup: Setup) -> dict[str, str]:
    return {**os.environ, "KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(setup.apps), "PYTHONPATH": str(ROOT)}


def run(setup: Setup, *given: str, code: int = 0) -> str:
    """Run it in a folder of its own, and return all that it said, in one line."""
    folder = setup.folder / "here"
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        arguments(setup, *given), capture_output=True, text=True, check=False, cwd=folder, timeout=60,
        env=environment(setup),
    )  # fmt: skip
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == code, said
    return said


def typed(setup: Setup, text: str, *given: str, meanwhile: Callable[[], object] = bool) -> int:
    """Run it on a terminal where somebody is asked, does something else, types *text*; return its exit code."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        process = subprocess.Popen(
            arguments(setup, *given), stdin=theirs, stdout=theirs, stderr=theirs, env=environment(setup),
            cwd=setup.folder,
        )  # fmt: skip
        os.close(theirs)
        said = b""
        while b"Type the group's name" not in said:
            said += terminal.read(4096)
        meanwhile()
        terminal.write(text.encode())
        with suppress(OSError):  # that is how the end of a terminal looks
            while terminal.read(4096):
                pass
        return process.wait(60)


def commits(setup: Setup) -> Commits:
    """Return what the group has committed on the source topic, with what was committed beside it."""
    partitions = [TopicPartition(setup.topic, number) for number in setup.kafka.ends(setup.topic)]
    with closing(
        Consumer({"bootstrap.servers": setup.kafka.bootstrap_servers, "group.id": setup.group, "log_level": 0})
    ) as client:
        found = client.committed(partitions, timeout=30)
    return {(at.topic, at.partition): (at.offset, at.metadata or None) for at in found if at.offset >= 0}


def at(setup: Setup, *offsets: int) -> Commits:
    return {(setup.topic, number): (offset, None) for number, offset in enumerate(offsets)}


def shown(setup: Setup) -> list[dict[str, Any]]:
    done = subprocess.run(
        arguments(setup, "show", "--json"), capture_output=True, text=True, check=True, cwd=ROOT, timeout=60,
        env=environment(setup),
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def files(setup: Setup) -> list[Path]:
    return sorted((setup.folder / "here").glob("*"))


@pytest.fixture
def start_ms() -> int:
    """When the first record of each partition was made: as long ago as there are records, in whole seconds."""
    return int(time.time()) * 1000 - RECORDS * HOUR_MS


@pytest.fixture
def filled(setup: Setup, start_ms: int) -> Setup:
    """Two partitions of ten records, an hour apart, and a group in the middle of both."""
    setup.create_topics(partitions=2)
    producer = Producer({"bootstrap.servers": setup.kafka.bootstrap_servers})
    for number in range(2):
        for index in range(RECORDS):
            producer.produce(
                setup.topic, f'{{"id": "{MARKERS["value"]}"}}', MARKERS["key"], number,
                timestamp=start_ms + index * HOUR_MS,
            )  # fmt: skip
    assert producer.flush(30) == 0
    setup.kafka.alter_offsets(setup.group, [TopicPartition(setup.topic, number, COMMITTED) for number in range(2)])
    return setup


@contextmanager
def member(setup: Setup, client_id: str = "pod-7") -> Iterator[Consumer]:
    """A live member of the group that has its partitions, and doesn't commit."""
    client = Consumer(
        {"bootstrap.servers": setup.kafka.bootstrap_servers, "group.id": setup.group, "client.id": client_id,
         "group.protocol": setup.group_protocol, "enable.auto.commit": False, "log_level": 0,
         **({"session.timeout.ms": 6000} if setup.group_protocol == "classic" else {})}
    )  # fmt: skip
    client.subscribe([setup.topic])
    try:
        wait_until(lambda: client.poll(0.1) or client.assignment(), "it has its partitions")
        yield client
    finally:
        client.close()


def iso(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms / 1000))


FORMS: dict[str, tuple[list[str], tuple[int, int], str]] = {
    "datetime": (["--to-datetime", "{hour_3}"], (3, 3), "4 records will be read again"),
    "datetime between": (["--to-datetime", "{hour_3_and_a_bit}"], (4, 4), "2 records will be read again"),
    "datetime late": (["--to-datetime", "2099-01-01T00:00:00+01:00"], (10, 10), "no record that late: the end"),
    "offset": (["--to-offset", "7"], (7, 7), "4 records will be skipped and never be sent."),
    "offset too high": (["--to-offset", "99"], (10, 10), "99 is beyond the end: the end"),
    "back": (["--shift-by", "-2"], (3, 3), "events that were sent already will be sent twice"),
    "on": (["--shift-by", "1"], (6, 6), "2 records will be skipped"),
    "too far back": (["--shift-by", "-6"], (0, 0), "-1 is before the start of the log: the start"),
    "duration": (["--by-duration", "510m"], (2, 2), "6 records will be read again"),
    "earliest": (["--to-earliest"], (0, 0), "10 records will be read again"),
    "latest": (["--to-latest"], (10, 10), "10 records will be skipped"),
    "partition": (["--to-earliest", "--partition", "1"], (5, 0), "5 records will be read again"),
    "topic and partition": (["--to-latest", "--partition", "{topic}:0"], (10, 5), "5 records will be skipped"),
    "topic": (["--to-earliest", "--topic", "{topic}"], (0, 0), "10 records will be read again"),
    "file": (["--from-file", "{file}"], (1, 9), "4 records will be read again"),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_shows_then_does_and_can_be_undone(filled: Setup, start_ms: int, tmp_path: Path, form: str) -> None:
    options, expected, said = FORMS[form]
    file = tmp_path / "offsets.csv"
    file.write_text(f'"{filled.topic}",0,1\n{filled.topic},1,9\n')
    hour_3 = start_ms + 3 * HOUR_MS
    names = {"hour_3": iso(hour_3), "hour_3_and_a_bit": iso(hour_3 + 1000), "topic": filled.topic,
             "file": str(file)}  # fmt: skip
    options = [option.format(**names) for option in options]
    before = commits(filled)
    dry = run(filled, "reset", *options)
    assert said in dry
    assert "Dry run: nothing was changed." in dry
    assert commits(filled) == before == at(filled, COMMITTED, COMMITTED)
    assert files(filled) == []
    done = run(filled, "reset", *options, "--execute", "--yes")
    assert said in done
    assert commits(filled) == at(filled, *expected)
    (backup,) = files(filled)
    assert backup.name.startswith(f"kochava-offsets-{filled.group}-2")
    assert f"offsets undo {backup.name} --execute" in done
    saved = json.loads(backup.read_text())
    assert saved["group"] == filled.group
    assert [(line["partition"], line["offset"], line["reset_to"]) for line in saved["partitions"]] == [
        (number, COMMITTED, offset) for number, offset in enumerate(expected) if offset != COMMITTED
    ]
    assert "put back" in run(filled, "undo", backup.name, "--execute", "--yes")
    assert commits(filled) == before


def test_the_start_of_the_log_bounds_a_reset(filled: Setup, start_ms: int) -> None:
    for future in filled.kafka.admin.delete_records([TopicPartition(filled.topic, 0, 3)]).values():
        future.result(30)
    assert "1 is before the start of the log: the start" in run(filled, "reset", "--to-offset", "1")
    assert "the log begins here: older records are gone" in run(filled, "reset", "--to-datetime", iso(start_ms))
    done = run(filled, "reset", "--to-offset", "1", "--execute", "--yes")
    assert "6 records will be read again" in done
    assert commits(filled) == at(filled, 3, 1)


def test_an_undo_is_shown_first_and_done_once(filled: Setup) -> None:
    run(filled, "reset", "--to-earliest", "--execute", "--yes")
    (backup,) = files(filled)
    assert "Dry run: nothing was changed." in run(filled, "undo", backup.name)
    assert commits(filled) == at(filled, 0, 0)
    assert "Done: 2 partitions put back." in run(filled, "undo", backup.name, "--execute", "--yes")
    assert "nothing to put back" in run(filled, "undo", backup.name, "--execute", "--yes")
    assert commits(filled) == at(filled, COMMITTED, COMMITTED)


def test_nothing_is_written_where_the_group_stands_there_already(filled: Setup) -> None:
    assert "Nothing would change" in run(filled, "reset", "--to-offset", str(COMMITTED), "--execute", "--yes")
    assert files(filled) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--partition", "7"], "has no partition 7: it has 2, from 0 on"),
        (["--topic", "{topic}.kochava.retry.9m"], "doesn't read"),
    ],
)
def test_what_does_not_exist_is_refused(filled: Setup, options: list[str], why: str) -> None:
    said = run(filled, "reset", "--to-latest", *(each.format(topic=filled.topic) for each in options), code=2)
    assert why in said


def test_a_retry_topic_can_be_reset_too(filled: Setup) -> None:
    tier = filled.tier("1s")
    filled.kafka.produce(tier, [b"x"] * 6)
    run(filled, "reset", "--to-latest", "--topic", tier, "--execute", "--yes")
    committed = {key: offset for key, offset in filled.kafka.committed(filled.group).items() if key[0] == tier}
    assert sum(committed.values()) == 6
    assert commits(filled) == at(filled, COMMITTED, COMMITTED), "the others stay"


def test_a_group_with_members_is_refused_and_they_are_named(
    setup: Setup, kochava: SandboxProcess, group_protocol: str
) -> None:
    setup.create_topics(partitions=2)
    setup.kafka.produce(setup.topic, [value for _, value in events(20)])
    with setup.consumer() as consumer:
        wait_until(lambda: len(kochava.accepted()) == 20, "all are delivered")
        wait_until(lambda: sum(offset for offset, _ in commits(setup).values()) == 20, "and committed")
        before = commits(setup)
        dry = run(setup, "reset", "--to-earliest")
        assert "--execute would be refused now" in dry
        assert "20 records will be read again" in dry
        said = run(setup, "reset", "--to-earliest", "--execute", "--yes", code=5)
        assert "nothing was changed" in said
        assert f"group '{setup.group}' (stable) has 2 members: stop all of them first" in said
        assert f"{socket.gethostname()} on 127.0.0.1, 2 partitions" in said
        assert commits(setup) == before
        assert files(setup) == []
        assert consumer.terminate() == 0
    run(setup, "reset", "--to-earliest", "--execute", "--yes")
    (backup,) = files(setup)
    with member(setup):
        said = run(setup, "undo", backup.name, "--execute", "--yes", code=5)
        assert f"error: nothing was changed: group '{setup.group}' (stable) has 1 member: stop" in said
        assert "pod-7 on 127.0.0.1" in run(setup, "undo", backup.name)
        assert commits(setup) == at(setup, 0, 0)
    run(setup, "undo", backup.name, "--execute", "--yes")
    assert commits(setup) == before


def test_the_broker_itself_refuses_a_commit_beside_members(filled: Setup, group_protocol: str) -> None:
    """So nobody can come between the look and the commit."""
    conf = {"bootstrap.servers": filled.kafka.bootstrap_servers}
    with KafkaOffsets(conf, filled.group) as offsets:
        with member(filled):
            with pytest.raises(HasMembersError):
                offsets.commit([Write(Partition(filled.topic, 0), 1), Write(Partition(filled.topic, 1), 1)])
            assert commits(filled) == at(filled, COMMITTED, COMMITTED)
        offsets.commit([Write(Partition(filled.topic, 0), 1), Write(Partition(filled.topic, 1), 2)])
    assert commits(filled) == at(filled, 1, 2)


def test_a_group_that_rebalances_is_refused(filled: Setup) -> None:
    """One member has its partitions and doesn't come back for the rebalance that another one wants."""
    with member(filled, "pod-slow"):
        late = Consumer(
            {"bootstrap.servers": filled.kafka.bootstrap_servers, "group.id": filled.group, "client.id": "pod-late",
             "session.timeout.ms": 6000, "log_level": 0}
        )  # fmt: skip
        late.subscribe([filled.topic])
        try:
            with KafkaOffsets({"bootstrap.servers": filled.kafka.bootstrap_servers}, filled.group) as offsets:
                wait_until(lambda: late.poll(0.1) or offsets.group().state == "preparing rebalancing", "it rebalances")
                said = run(filled, "reset", "--to-earliest", "--execute", "--yes", code=5)
                assert "(preparing rebalancing) has " in said
                assert "pod-slow on 127.0.0.1" in said
                with pytest.raises(HasMembersError):
                    offsets.commit([Write(Partition(filled.topic, 0), 1)])
        finally:
            late.close()
    assert commits(filled) == at(filled, COMMITTED, COMMITTED)


def test_a_group_that_nobody_knows_gets_its_first_commits(setup: Setup, kochava: SandboxProcess) -> None:
    setup.create_topics(partitions=1)
    made = events(20)
    setup.kafka.produce(setup.topic, [value for _, value in made])
    assert "unknown to the brokers (dead), 0 members" in run(setup, "show")
    assert "there is nothing to shift on" in run(setup, "reset", "--shift-by", "1", code=2)
    assert "this makes its first there" in run(setup, "reset", "--to-offset", "15", "--execute", "--yes")
    assert commits(setup) == at(setup, 15)
    (backup,) = files(setup)
    assert "one can't be taken away: stays" in run(setup, "undo", backup.name, "--execute", "--yes")
    assert commits(setup) == at(setup, 15)
    with setup.consumer() as consumer:
        wait_until(lambda: kochava.accepted() == {event_id for event_id, _ in made[15:]}, "those from there on")
        wait_until(lambda: commits(setup) == at(setup, 20), "are committed")
        assert consumer.terminate() == 0
    assert kochava.requests == 5
    said = run(setup, "undo", backup.name, "--execute", "--yes", code=5)
    assert f"the commits of {setup.topic}/0 are neither as before the reset nor as it wrote them" in said
    assert commits(setup) == at(setup, 20)


def test_an_undo_gives_the_map_back_and_the_next_member_uses_it(
    setup: Setup, kochava: SandboxProcess, group_protocol: str
) -> None:
    setup.create_topics(partitions=1)
    setup.apps[LOCKED] = {"guid": "kolocked-1"}
    setup.environment["KOCHAVA_CONSUMER_LANE__WAITING_S"] = "600"  # it waits in memory, not on the held topic
    kochava.set_rules(UNAUTHORISED)
    made = events(1, "blocker-", app_id=LOCKED) + events(300)
    setup.kafka.produce(setup.topic, [value for _, value in made])
    with setup.consumer() as consumer:
        wait_until(lambda: consumer.metric("kochava_events_delivered_total") == 300, "all others are delivered")
        assert consumer.terminate() == 0
        before = commits(setup)
        assert before[setup.topic, 0][0] == 0
        assert before[setup.topic, 0][1]
        said = run(setup, "reset", "--to-earliest", "--execute", "--yes")
        assert "300 records will be read again" in said
        assert "settled beyond the commit (300 records on 1 partition) is forgotten" in said
        assert commits(setup) == at(setup, 0)
        (backup,) = files(setup)
        assert "with its map of what is settled beyond it" in run(setup, "undo", backup.name, "--execute", "--yes")
        assert commits(setup) == before
        kochava.set_rules()
        consumer.start()
        wait_until(lambda: commits(setup)[setup.topic, 0][0] == 301, "the blocking one is delivered, others passed")
        assert consumer.terminate() == 0
    assert kochava.duplicates() == 0
    assert len(kochava.accepted()) == 301


def test_a_reset_that_died_half_way_is_told_and_put_back(filled: Setup) -> None:
    text, _ = encode(COMMITTED, [Run(7, 9)], 1)
    with_map = [TopicPartition(filled.topic, 0, COMMITTED, text), TopicPartition(filled.topic, 1, COMMITTED, text)]
    filled.kafka.alter_offsets(filled.group, with_map)
    before = commits(filled)
    run(filled, "reset", "--to-earliest", "--execute", "--yes")
    (backup,) = files(filled)
    filled.kafka.alter_offsets(filled.group, with_map[1:])  # as if only the first had been written
    said = run(filled, "undo", backup.name)
    assert "0 0 5 goes back, with its map" in said
    assert "1 0 5 5 as before the reset: nothing to do" in said
    assert "Done: 1 partition put back." in run(filled, "undo", backup.name, "--execute", "--yes")
    assert commits(filled) == before


def test_only_a_person_who_types_the_groups_name_gets_it(filled: Setup) -> None:
    backup = filled.folder / "backup.json"
    reset = ("reset", "--to-earliest", "--execute", "--backup", str(backup))
    assert "there is no terminal to confirm on" in run(filled, *reset, code=2)
    assert typed(filled, "yes\n", *reset) == 5
    assert commits(filled) == at(filled, COMMITTED, COMMITTED)
    assert not backup.exists()
    assert typed(filled, f"{filled.group}\n", *reset) == 0
    assert commits(filled) == at(filled, 0, 0)
    first = backup.read_bytes()
    assert "exists: name another file by --backup; nothing was changed" in run(
        filled, "reset", "--to-latest", "--execute", "--yes", "--backup", str(backup), code=2
    )
    assert backup.read_bytes() == first
    assert commits(filled) == at(filled, 0, 0)
    undo = ("undo", str(backup), "--execute")
    assert "there is no terminal to confirm on" in run(filled, *undo, code=2)
    assert typed(filled, f"{filled.group}\n", *undo) == 0
    assert commits(filled) == at(filled, COMMITTED, COMMITTED)


def test_what_changes_while_a_person_thinks_is_not_confirmed(filled: Setup) -> None:
    backup = filled.folder / "backup.json"

    def move() -> None:
        filled.kafka.alter_offsets(filled.group, [TopicPartition(filled.topic, 1, 6)])

    reset = ("reset", "--to-earliest", "--execute", "--backup", str(backup))
    assert typed(filled, f"{filled.group}\n", *reset, meanwhile=move) == 5
    assert commits(filled) == at(filled, COMMITTED, 6)
    assert not backup.exists()
    run(filled, *reset, "--yes")
    assert typed(filled, f"{filled.group}\n", "undo", str(backup), "--execute", meanwhile=move) == 0, "as before"
    assert commits(filled) == at(filled, COMMITTED, 6)
    backup.unlink()
    run(filled, *reset, "--yes")
    done = typed(
        filled, f"{filled.group}\n", "undo", str(backup), "--execute",
        meanwhile=lambda: filled.kafka.alter_offsets(filled.group, [TopicPartition(filled.topic, 1, 7)]),
    )  # fmt: skip
    assert done == 5
    assert commits(filled) == at(filled, 0, 7)


def test_a_commit_that_a_frozen_broker_does_not_answer_is_given_up(
    filled: Setup, kafka: RealKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's own synchronous commit waits for as long as the broker is frozen, and so does its close."""
    monkeypatch.setattr(kafka_offsets, "COMMIT_TIMEOUT_S", 1.0)
    began = time.monotonic()
    try:
        with KafkaOffsets({"bootstrap.servers": filled.kafka.bootstrap_servers}, filled.group) as offsets:
            offsets.standing([filled.topic])
            kafka.freeze()
            with pytest.raises(KafkaFatalError, match="_TIMED_OUT"):
                offsets.commit([Write(Partition(filled.topic, 0), 1)])
        assert time.monotonic() - began < 30
    finally:
        kafka.thaw()
    assert commits(filled) in (at(filled, COMMITTED, COMMITTED), at(filled, 1, COMMITTED)), "undo takes both"


def test_show_tells_lag_in_time_group_and_members(filled: Setup, start_ms: int, group_protocol: str) -> None:
    filled.kafka.alter_offsets(filled.group, [TopicPartition(filled.topic, 1, RECORDS)])
    first, second = [line for line in shown(filled) if line["topic"] == filled.topic]
    assert [*first] == ["topic", "partition", "start", "committed", "end", "lag", "lag_s", "settled", "blocking",
                        "blocking_s", "metadata_ignored", "at", "group"]  # fmt: skip
    assert (first["start"], first["committed"], first["end"], first["lag"]) == (0, COMMITTED, RECORDS, 5)
    age_s = time.time() - (start_ms + COMMITTED * HOUR_MS) / 1000
    assert age_s - 60 <= first["lag_s"] <= age_s + 1
    assert (second["lag"], second["lag_s"]) == (0, 0)
    assert first["group"] == {"id": filled.group, "state": "empty", "members": []}
    ours = [line for line in shown(filled) if line["topic"] != filled.topic]
    assert ours
    assert {line["lag_s"] for line in ours} == {None}, "no commit, no lag"
    assert f"group {filled.group}: empty, 0 members" in run(filled, "show")
    with member(filled, "pod-8"):
        (group,) = {json.dumps(line["group"]) for line in shown(filled)}
        assert json.loads(group) == {
            "id": filled.group, "state": "stable",
            "members": [{"client_id": "pod-8", "host": "127.0.0.1", "partitions": 2}],
        }  # fmt: skip
        said = run(filled, "show")
        assert f"group {filled.group}: stable, 1 member client id host partitions pod-8 127.0.0.1 2 topic" in said
        assert " 5 10 5 5 h 0 min " in said


@pytest.mark.parametrize(("options", "is_terminal"), [((), False), (("--json",), False), ((), True)])
def test_watch_goes_on_until_it_is_told_to_end(filled: Setup, options: tuple[str, ...], is_terminal: bool) -> None:
    ours, theirs = pty.openpty() if is_terminal else os.pipe()
    process = subprocess.Popen(
        [*dying_with_us(), *arguments(filled, "show", "--watch", "--interval", "0.2", *options)],
        stdout=theirs, env={**environment(filled), "COLUMNS": "180"}, cwd=ROOT,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    rounds = '"state":"empty"' if options else f"group {filled.group}: empty"

    def has_said(offset: int) -> bool:
        nonlocal said
        said += os.read(ours, 65536)
        text = said.decode("utf-8", "replace")
        return (f'"committed":{offset},' if options else f" {offset} ") in text and text.count(rounds) >= 3

    try:
        wait_until(lambda: has_said(COMMITTED), "it looks again and again")
        filled.kafka.alter_offsets(filled.group, [TopicPartition(filled.topic, 0, 8)])
        said = b""
        wait_until(lambda: has_said(8), "it shows what has changed")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("command", [["show"], ["reset", "--to-latest", "--execute", "--yes"]])
def test_without_a_broker(setup: Setup, command: list[str]) -> None:
    setup.bootstrap_servers = "127.0.0.1:9"
    assert "on 127.0.0.1:9: " in run(setup, *command, code=4)
    assert files(setup) == []


def test_nothing_of_a_record_and_no_metadata_of_others_is_told(filled: Setup) -> None:
    filled.kafka.alter_offsets(filled.group, [TopicPartition(filled.topic, 0, COMMITTED, MARKERS["metadata"])])
    said = run(filled, "show") + run(filled, "show", "--json")
    assert "foreign" in said
    reset = run(filled, "reset", "--to-earliest", "--execute", "--yes")
    assert "Metadata that another tool committed is dropped on 1 partition, and not backed up." in reset
    (backup,) = files(filled)
    undo = run(filled, "undo", backup.name, "--execute", "--yes")
    assert "without the metadata of another tool" in undo
    assert commits(filled) == at(filled, COMMITTED, COMMITTED)
    assert Search(MARKERS)(said + reset + undo + backup.read_text()) == []
