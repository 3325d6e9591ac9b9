"""`dead-letters list`, `show` and `export`, against a real Apache Kafka."""

import json
import os
import pty
import subprocess
import sys
import time
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from fastavro import reader

from consumer.adapters import kafka_dead_letters
from consumer.adapters.kafka_config import reader_conf
from consumer.adapters.kafka_dead_letters import Span, TopicReader
from consumer.configuration import load
from consumer.errors import KafkaFatalError
from tests.support.canary_setup import MARKERS, OF_EVENTS, event, told_in
from tests.support.dead_letters import Given, listed, write
from tests.support.kafka import ROOT, RealKafka
from tests.support.processes import Setup, command, events

pytestmark = pytest.mark.kafka


def test_groups_are_counted_by_what_they_have_in_common(setup: Setup) -> None:
    setup.create_topics()
    made = [value for _, value in events(24, event_name="Purchase")]  # three apps on four platforms, twice
    setup.kafka.configure_topic(setup.dead_letter, message_timestamp_type="CreateTime", retention_ms="-1")
    write(setup, [
        *(Given(value, reason="no_device_ua", timestamp_ms=1_790_000_000_000 + 1000 * n)
          for n, value in enumerate(made)),
        *(Given(made[0], "deliver", "http_400", 400, timestamp_ms=1_790_000_000_000) for _ in range(5)),
        Given(b"junk", "decode", "bad_magic", timestamp_ms=1_790_000_000_000),
        Given(made[0][:40], "decode", "truncated", timestamp_ms=1_790_000_000_000),
    ])  # fmt: skip
    found = listed(setup)
    counts = {(each["reason"], each["app"], each["event"]): each["count"] for each in found}
    assert counts == {
        ("no_device_ua", "com.example.puzzle", "Purchase"): 8,
        ("no_device_ua", "com.example.racing", "Purchase"): 8,
        ("no_device_ua", "com.example.stories", "Purchase"): 8,
        ("http_400", "com.example.puzzle", "Purchase"): 5,
        ("bad_magic", None, None): 1,
        ("truncated", None, None): 1,
    }
    assert [each["count"] for each in found] == sorted((each["count"] for each in found), reverse=True)
    puzzle = next(each for each in found if each["app"] == "com.example.puzzle" and each["stage"] == "map")
    assert (puzzle["first"], puzzle["last"]) == ("2026-09-21T14:13:20Z", "2026-09-21T14:13:35Z")
    assert puzzle["example_origin"] in {f"{setup.topic}/0/{n}" for n in range(24)}
    assert puzzle["schema"] == "id 2"
    assert {each["fingerprint"] for each in listed(setup)} == {each["fingerprint"] for each in found}, "it is stable"
    assert len({each["fingerprint"] for each in found}) == len(found)
    table = command(setup, "dead-letters", "list").stdout
    assert all(each["fingerprint"] in table for each in found)
    assert listed(setup, "--no-decode")[0]["app"] is None


def test_a_topic_that_is_empty_or_missing(setup: Setup) -> None:
    missing = command(setup, "dead-letters", "list")
    assert missing.returncode == 5
    assert (
        missing.stderr.splitlines()[-1] == f"error: {setup.dead_letter} doesn't exist: kochava-consumer topics --create"
    )
    setup.create_topics()
    assert listed(setup) == []


def test_brokers_that_are_away_end_it_in_one_sentence(setup: Setup, tmp_path: Path) -> None:
    away = {"KOCHAVA_CONSUMER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    done = command(setup, "dead-letters", "list", **away)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"error: cannot read {setup.dead_letter} of 127.0.0.1:9: ")
    assert done.stderr.count("\n") == 1


def test_brokers_that_go_away_while_a_topic_is_read_are_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_dead_letters, "SILENCE_S", 3.0)
    kafka = RealKafka(tmp_path / "kafka")
    try:
        kafka.start()
        setup = Setup(kafka, tmp_path, "away", "http://127.0.0.1:9/track/json")
        setup.create_topics()
        write(setup, [Given(b"x")])
        settings = load(setup.write("away"), {"KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(setup.apps)})
        with TopicReader(reader_conf(settings, "test")) as reader:
            spans = {number: Span(span.start, span.end + 1) for number, span in reader.spans(setup.dead_letter).items()}
            reading = reader.read(setup.dead_letter, spans)
            assert len(next(reading)) == 1
            kafka.kill()
            with pytest.raises(KafkaFatalError, match="said nothing for 3 s"):
                next(reading)
    finally:
        kafka.kill()


def test_a_hundred_thousand(setup: Setup, record_property: Any) -> None:
    setup.create_topics()
    made = [value for _, value in events(1000)]
    write(setup, [Given(made[n % 1000], "deliver", f"http_4{n % 7:02}", 400) for n in range(100_000)])
    begun = time.monotonic()
    found = listed(setup)
    seconds = time.monotonic() - begun
    print(f"100,000 dead letters listed in {seconds:.1f} s, the start of the command included")
    record_property("seconds", seconds)
    assert sum(each["count"] for each in found) == 100_000


SHOWN = {"event name", "unknown app", "platform", "moment"}
"""What of an event may be shown."""


def write_markers(setup: Setup) -> list[bytes]:
    """Write dead letters that are full of markers, of each kind; the last one on the held topic, too."""
    values = [event("ok-", 0), event("ok-", 1), event("x-", 2, app_id=OF_EVENTS["unknown app"]),
              event("x-", 3, platform=OF_EVENTS["platform"]), OF_EVENTS["bytes"].encode()]  # fmt: skip
    key, headers = OF_EVENTS["key"].encode(), ((OF_EVENTS["header name"], OF_EVENTS["header"].encode()),)
    reasons = [("deliver", "http_400"), ("map", "no_device_ua"), ("map", "unknown_app"), ("map", "x"), ("decode", "y")]
    letters = [Given(value, *why, key=key, headers=headers) for value, why in zip(values, reasons, strict=True)]
    write(setup, letters)
    write(setup, letters[-3:], setup.held)
    return values


def test_nothing_of_an_event_is_shown_unless_it_is_asked_for(setup: Setup, tmp_path: Path) -> None:
    setup.create_topics()
    values = write_markers(setup)
    groups = listed(setup)
    assert {each["app"] for each in groups} >= {OF_EVENTS["unknown app"]}, "it tells which app is missing"
    origins = [f"--origin={setup.topic}/0/{number}" for number in range(len(values))]
    masked = [
        ("list",), ("list", "--json"), ("list", "--topic", "held"), ("export", "--all", "-"),
        ("redrive", "--all"), *(("show", origin) for origin in origins),
        *(("show", each["example"]) for each in groups), ("show", f"--origin={setup.topic}/0/1", "--topic", "held"),
    ]  # fmt: skip
    for arguments in masked:
        done = command(setup, "dead-letters", *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        assert told_in(done.stdout + done.stderr) <= SHOWN, arguments
    shown = command(setup, "dead-letters", "show", origins[0]).stdout
    assert '"advertising_id": "••• text 36"' in shown, "it looked at what it masks"
    assert f'"event_name": "{OF_EVENTS["event name"]}"' in shown
    assert "today it would be sent as" in shown
    assert "kochava-reason" in shown
    revealed = command(setup, "dead-letters", "show", origins[0], "--reveal").stdout
    expected = {"advertising id", "install id", "address", "user agent", "custom id", "key", "header", "header name",
                "property", "property name", "session"}  # fmt: skip
    assert told_in(revealed) >= expected
    lines = tmp_path / "revealed.jsonl"
    assert command(setup, "dead-letters", "export", "--all", "--reveal", str(lines)).returncode == 0
    assert told_in(lines.read_bytes()) >= expected
    assert set(MARKERS) >= expected | SHOWN


def test_an_export_holds_the_bytes_keys_and_headers(setup: Setup, tmp_path: Path) -> None:
    setup.create_topics()
    values = write_markers(setup)
    header = (OF_EVENTS["header name"], OF_EVENTS["header"].encode())
    lines, container = tmp_path / "some.jsonl", tmp_path / "some.avro"
    for name, file in (("jsonl", lines), ("avro", container)):
        done = command(setup, "dead-letters", "export", "--all", "--reveal", "--format", name, str(file))
        assert done.returncode == 0, done.stderr
        assert done.stderr == "5 exported\n"
        assert file.stat().st_mode & 0o777 == 0o600, "for its owner only"
    from_lines = [json.loads(line) for line in lines.read_text().splitlines()]
    with container.open("rb") as opened:
        from_avro = list(reader(opened))
    stored = {(at.partition, at.offset): at for at in setup.kafka.read_all(setup.dead_letter)}
    assert len(from_lines) == len(from_avro) == len(stored) == len(values)
    assert sorted(b64decode(each["value"]) for each in from_lines) == sorted(values)
    for each in from_avro:
        record = stored[each["partition"], each["offset"]]
        assert (each["key"], each["value"], each["reason"]) == (
            record.key,
            record.value,
            record.headers["kochava-reason"],
        )
        assert [
            (name, value) for name, value in ((of["name"], of["value"]) for of in each["headers"])
        ] == record.raw_headers
        assert header in record.raw_headers
        assert f"{each['origin_topic']}/{each['origin_partition']}" == f"{setup.topic}/0"
    refused = command(setup, "dead-letters", "export", "--all", "--format", "avro", str(tmp_path / "no.avro"))
    assert refused.returncode == 2
    assert "add --reveal" in refused.stderr
    assert sorted(path.name for path in tmp_path.glob("*.avro*")) == ["some.avro"]


def test_show_says_what_is_not_there(setup: Setup) -> None:
    setup.create_topics()
    write(setup, [Given(b"no Avro", "decode", "bad_magic", partition=0)])
    for arguments, code, words in (
        ([f"{setup.dead_letter}/0/7"], 5, "there is no record"),
        ([f"{setup.dead_letter}/77/0"], 5, "there is no record"),
        ([f"{setup.topic}/0/0"], 2, "--origin looks for"),
        ([f"--origin={setup.topic}/0/5"], 5, "came from"),
        ([], 2, "say which"),
    ):
        done = command(setup, "dead-letters", "show", *arguments)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    shown = command(setup, "dead-letters", "show", f"{setup.dead_letter}/0/0").stdout
    assert "cannot be decoded" in shown
    assert "not sent: decode: bad_magic" in shown


def test_the_held_topic_shows_what_the_group_has_not_taken(setup: Setup) -> None:
    setup.create_topics()
    made = [value for _, value in events(6)]
    write(setup, [Given(value, "lane", "http_401", partition=0) for value in made], setup.held)
    setup.kafka.alter_offsets(setup.group, [TopicPartition(setup.held, 0, 4)])
    assert sum(each["count"] for each in listed(setup, "--topic", "held")) == 2
    assert listed(setup) == []


def test_on_a_terminal_it_is_coloured_and_a_bar_shows_how_far_it_is(setup: Setup) -> None:
    setup.create_topics()
    write(setup, [Given(value) for _, value in events(3)])
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "consumer", "dead-letters", "show", f"--origin={setup.topic}/0/0",
         "--config", str(setup.write("terminal"))],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", "KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(setup.apps)},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    with suppress(OSError):  # how a terminal says that nobody is left
        while chunk := os.read(ours, 65536):
            said += chunk
    os.close(ours)
    assert process.wait(60) == 0
    assert b"reading" in said
    assert b"\x1b[" in said
