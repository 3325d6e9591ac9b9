"""docs/replay.md, its commands executed in its order, each in the situation that the page tells of."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from confluent_kafka import Producer

from tests.support.kafka import ROOT, RealKafka
from tests.support.processes import SandboxProcess, Setup, command, events, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PAGE = (ROOT / "docs" / "replay.md").read_text()
DAY_MS = round(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
HOUR_MS = 3_600_000


def commands(heading: str) -> Iterator[list[str]]:
    """Yield the arguments of each command below *heading* of the page."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    for block in re.findall(r"```console\n(.*?)```", part, re.DOTALL):
        for line in block.splitlines():
            name, *arguments = shlex.split(line.removeprefix("$ "))
            assert name == "kochava-consumer"
            yield arguments


@pytest.fixture
def prepared(setup: Setup, kafka: RealKafka) -> Setup:
    """Topics, and an event for every quarter of an hour of 1 November and the day after."""
    kafka.create_topic(setup.topic, 1, retention_ms="-1")
    for name in (*map(setup.tier, setup.tiers), setup.held, setup.dead_letter):
        kafka.create_topic(name, 1, message_timestamp_type="LogAppendTime")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number, (_, value) in enumerate(events(192)):
        producer.produce(setup.topic, value, timestamp=DAY_MS + number * HOUR_MS // 4)
    assert producer.flush(30) == 0
    return setup


def typed(setup: Setup, arguments: list[str]) -> str:
    """Run a command of the page in this test's folder, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "consumer", *(each.replace("in-app-events", setup.topic) for each in arguments)],
        capture_output=True, text=True, check=False, cwd=setup.folder, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "KOCHAVA_CONSUMER_CONFIG": str(setup.write("kochava")),
             "KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(setup.apps)},
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_bad_deploy(prepared: Setup, kochava: SandboxProcess) -> None:
    look, send = commands("A bad deploy")
    shown = typed(prepared, look)
    assert "would be sent" in shown
    assert '"event_name"' in shown
    assert kochava.requests == 0
    typed(prepared, send)
    of_the_time = {event_id for event_id, value in events(192)[56:62] if b"Purchase" in value}
    assert of_the_time
    assert kochava.accepted() == of_the_time


def test_a_day_is_missing(prepared: Setup, kafka: RealKafka, kochava: SandboxProcess) -> None:
    made = [event_id for event_id, _ in events(192)]
    (prepared.folder / "there.csv").write_text("event_id\n" + "".join(f"{event_id}\n" for event_id in made[:60]))
    send, show, look, reset, undo = commands("A day is missing")
    typed(prepared, send)
    assert kochava.accepted() == set(made[60:96])
    moved_too_far = command(prepared, "offsets", "reset", "--to-latest", "--execute", "--yes",
                            "--backup", str(prepared.folder / "first.json"))  # fmt: skip
    assert moved_too_far.returncode == 0, moved_too_far.stderr
    assert "empty" in typed(prepared, show)
    assert "192 records will be read again" in typed(prepared, look)
    assert kafka.committed(prepared.group)[prepared.topic, 0] == 192
    typed(prepared, reset)
    assert kafka.committed(prepared.group)[prepared.topic, 0] == 0
    typed(prepared, undo)
    assert kafka.committed(prepared.group)[prepared.topic, 0] == 192


def test_a_topic_full_of_dead_letters(prepared: Setup, kafka: RealKafka, kochava: SandboxProcess) -> None:
    listing, show, look, redrive = commands("A topic full of dead letters")
    kochava.set_rules({"match": {"event": "Purchase"}, "do": {"status": 400}})
    purchases = {event_id for event_id, value in events(192) if b"Purchase" in value}
    with prepared.consumer() as live:
        wait_until(lambda: len(kafka.read_all(prepared.dead_letter)) == len(purchases), "they are given up")
        kochava.set_rules()
        assert "http_400" in typed(prepared, listing)
        assert "Purchase" in typed(prepared, show)
        typed(prepared, look)
        assert not kochava.accepted() & purchases
        typed(prepared, redrive)
        wait_until(lambda: kochava.accepted() >= purchases, "the running group delivers them")
        assert live.terminate() == 0
    assert set(kochava.ledger().values()) <= {0, 1}, "none is sent twice"
