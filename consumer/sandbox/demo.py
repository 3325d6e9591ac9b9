"""The whole job in a minute: a broker, a stand-in Kochava, the real consumer process, a crash, a ledger that balances.

Every record that is produced is known by its coordinates, every delivery by its event id. At the end each record must
have been delivered or be a dead letter, and not both; duplicates are counted and explained.
"""

# ruff: noqa: S603 - the processes are our own

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from fastavro import parse_schema

from consumer.errors import CheckFailedError
from consumer.sandbox.events import APPS, PLATFORMS, encode, guid, sample_event

SCHEMA_ID = 2
TIERS = ("2s", "5s")
PARTITIONS = 12
START_S = 20.0
DEADLINE_S = 120.0
KILL_AT = 0.4

ODD_SHARES = {
    "truncated": 0.004, "not Avro": 0.002, "unknown schema": 0.001,
    "no address": 0.003, "no device id": 0.003, "unknown app": 0.0015,
    "refused by the body": 0.003, "refused by the status": 0.002,
    "second try": 0.03, "retry topic": 0.0015, "answer lost": 0.001,
}  # fmt: skip
"""How many of the events are odd, and in what way; about 2 % end as dead letters."""

RULES: list[dict[str, Any]] = [
    {"name": "refused by the body", "match": {"id_prefix": "refused-body-"},
     "do": {"body": {"success": "0", "error": "not accepted"}, "accepted": False}},
    {"name": "refused by the status", "match": {"id_prefix": "refused-status-"}, "do": {"status": 400}},
    {"name": "second try", "match": {"id_prefix": "second-", "first_tries": 1}, "do": {"status": 503}},
    {"name": "retry topic", "match": {"id_prefix": "later-", "first_tries": 4}, "do": {"status": 503}},
    {"name": "answer lost", "match": {"id_prefix": "lost-answer-", "first_tries": 1}, "do": {"action": "reset_after"}},
]  # fmt: skip

_PREFIXES = {"refused by the body": "refused-body-", "refused by the status": "refused-status-",
             "second try": "second-", "retry topic": "later-", "answer lost": "lost-answer-"}  # fmt: skip

DEAD = frozenset({
    "truncated", "not Avro", "unknown schema", "no address", "no device id", "unknown app", "refused by the body",
    "refused by the status",
})  # fmt: skip


class Made(NamedTuple):
    """One record of the demo: its event id and what is odd about it."""

    event_id: str
    kind: str
    value: bytes


class DemoError(CheckFailedError):
    """The demo did not come to its end; says what the consumer logged last."""

    def __init__(self, what: str, log: str) -> None:
        super().__init__(f"{what}; its last lines:\n{log}")


@dataclass(slots=True)
class Now:
    """What the live view shows."""

    produced: int = 0
    delivered: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    requests: int = 0
    state: str = "starting"


@dataclass(slots=True)
class Account:
    """The ledger of the demo."""

    produced: int
    delivered: int
    dead: int
    lost: list[str]
    both: list[str]
    unexpected: list[str]
    duplicates: int
    explained: Counter[str]
    reasons: dict[tuple[str, str], tuple[int, str]]
    """By stage and reason: how many, and where the first one came from."""
    seconds: float = 0.0
    exit_code: int | None = None

    @property
    def balances(self) -> bool:
        return not (self.lost or self.both or self.unexpected) and self.produced == self.delivered + self.dead


@dataclass(slots=True)
class Demo:
    """One run. *show* is called whenever something changed."""

    events: int
    kafka: str | None
    seed: int
    show: Callable[[Now], None]
    now: Now = field(default_factory=Now)
    topic: str = "in-app-events"
    _log: Path | None = None
    _bad: int = 0
    """How many of the records must end as dead letters."""

    @property
    def _log_tail(self) -> str:
        return "".join(self._log.read_text().splitlines(keepends=True)[-8:]) if self._log else ""

    def run(self) -> Account:
        """Do everything.

        Raises:
            DemoError: the consumer ended, or it took too long.
        RuntimeError: a process did not start.
        """
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="kochava-demo-") as name:
            folder = Path(name)
            with self._broker(folder) as servers, _sandbox(folder) as url:
                config = self._write_config(folder, servers, url)
                made = self._produce(servers)
                exit_code = self._consume(folder, config, servers, url)
                account = self._account(servers, url, made)
        account.seconds = time.monotonic() - started
        account.exit_code = exit_code
        return account

    # -- the surroundings

    @property
    def _topics(self) -> dict[str, int]:
        ours = {f"{self.topic}.kochava.retry.{tier}": 4 for tier in TIERS}
        return {self.topic: PARTITIONS, **ours, f"{self.topic}.kochava.held": 2, f"{self.topic}.kochava.dead-letter": 4}

    @contextmanager
    def _broker(self, folder: Path) -> Iterator[str]:
        if self.kafka is None:
            topics = ",".join(f"{name}:{count}" for name, count in self._topics.items())
            with _process(
                [sys.executable, "-m", "consumer.sandbox.mock_cluster", "--topics", topics], folder, "broker"
            ) as ready:
                yield ready["bootstrap_servers"]
            return
        self.topic = f"in-app-events-demo-{uuid.uuid4().hex[:8]}"
        admin = AdminClient({"bootstrap.servers": self.kafka})
        for future in admin.create_topics([NewTopic(name, count) for name, count in self._topics.items()]).values():
            future.result(START_S)
        try:
            yield self.kafka
        finally:
            for future in admin.delete_topics([*self._topics]).values():
                future.result(START_S)

    def _write_config(self, folder: Path, servers: str, url: str) -> Path:
        apps = "\n".join(
            f'[kochava.apps."{app}/{platform}"]\nguid = "{guid(app, platform)}"'
            for app in APPS
            for platform in PLATFORMS
        )
        path = folder / "kochava.toml"
        path.write_text(
            f"""
[kafka]
bootstrap_servers = "{servers}"
group_id = "{self.topic}-demo"
topics = ["{self.topic}"]
start = "earliest"
session_timeout_ms = 2000
auto_commit_interval_ms = 250
[kochava]
endpoint = "{url}/track/json"
{apps}
[delivery]
connections = 128
request_timeout_s = 3
connect_timeout_s = 3
retry_budget_s = 5
drain_timeout_s = 8
backoff_max_s = 1
[retry]
tiers = {json.dumps(TIERS)}
[admin]
listen = ""
"""
        )
        return path

    # -- the events

    def make(self) -> Iterator[Made]:
        """Yield the records, the same for the same seed."""
        random = Random(self.seed)  # noqa: S311 - reproducible, not secret
        schema = parse_schema(json.loads(_schema_text()))
        kinds = [kind for kind, share in ODD_SHARES.items() for _ in range(round(share * self.events))]
        kinds += ["plain"] * (self.events - len(kinds))
        random.shuffle(kinds)
        for index, kind in enumerate(kinds):
            event_id = f"{_PREFIXES.get(kind, 'event-')}{index}"
            event = sample_event(index, random, event_id)
            match kind:
                case "no address":
                    event["device"]["ip"] = None
                case "no device id":
                    event["device"].update(dict.fromkeys(("advertising_id", "vendor_id", "android_id", "udid")))
                case "unknown app":
                    event["app_id"] = "com.example.unheard-of"
            value = encode(event, schema, 999 if kind == "unknown schema" else SCHEMA_ID)
            match kind:
                case "truncated":
                    value = value[: len(value) // 2]
                case "not Avro":
                    value = b'{"event": "purchase"}'
            yield Made(event_id, kind, value)

    def _produce(self, servers: str) -> dict[tuple[int, int], Made]:
        """Produce all events, and remember where each one stands."""
        producer = Producer({"bootstrap.servers": servers, "linger.ms": 20, "acks": "all", "log_level": 0})
        made: dict[tuple[int, int], Made] = {}

        def stands(record: Made, error: Any, message: Any) -> None:
            if error is not None:
                raise RuntimeError(f"the broker did not take an event: {error.name()}")
            made[message.partition(), message.offset()] = record

        for index, record in enumerate(self.make()):
            producer.produce(
                self.topic,
                record.value,
                partition=index % PARTITIONS,
                on_delivery=partial(stands, record),
            )
            if index % 1000 == 999:
                producer.poll(0)
                self._tell(produced=len(made), state="producing")
        producer.flush(START_S)
        self._bad = sum(record.kind in DEAD for record in made.values())
        self._tell(produced=len(made), state="produced")
        return made

    # -- the consumer, and its crash

    def _consume(self, folder: Path, config: Path, servers: str, url: str) -> int:
        self._log = folder / "consumer.log"
        log = self._log.open("ab")
        command = [sys.executable, "-m", "consumer", "run", "--config", str(config)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._watch(process, servers, url, until=lambda: self.now.delivered >= KILL_AT * self.events)
            process.kill()
            process.wait()
            self._tell(state="killed (SIGKILL)")
            time.sleep(1)
            process = subprocess.Popen(command, stdout=log, stderr=log)
            self._tell(state="started again")
            self._watch(process, servers, url, until=lambda: self._is_done() and self._is_done_still(servers, url))
            self._tell(state="ending (SIGTERM)")
            process.send_signal(signal.SIGTERM)
            return process.wait(START_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            log.close()

    def _watch(self, process: subprocess.Popen[bytes], servers: str, url: str, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            self._look(servers, url)
            if until():
                return
            if process.poll() is not None:
                raise DemoError(f"the consumer ended by itself with exit code {process.returncode}", self._log_tail)
            if time.monotonic() > deadline:
                raise DemoError(f"not done after {DEADLINE_S:.0f} s: {self.now}", self._log_tail)
            time.sleep(0.1)

    def _look(self, servers: str, url: str) -> None:
        summary = _get(f"{url}/_sandbox/summary")
        dead = sum(high - low for low, high in _watermarks(servers, f"{self.topic}.kochava.dead-letter"))
        self._tell(
            delivered=summary["accepted_ids"],
            duplicates=summary["accepted_again"],
            requests=summary["requests"],
            dead_letters=dead,
        )

    def _is_done(self) -> bool:
        # dead letters may be written twice, deliveries are counted by their ids: neither makes up for the other
        return self.now.delivered >= self.now.produced - self._bad and self.now.dead_letters >= self._bad

    def _is_done_still(self, servers: str, url: str) -> bool:
        """Look twice: what is sent again after the crash may still be on its way."""
        before = self.now.requests
        time.sleep(1.5)
        self._look(servers, url)
        return self.now.requests == before

    def _tell(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self.now, name, value)
        self.show(self.now)

    # -- the ledger

    def _account(self, servers: str, url: str, made: dict[tuple[int, int], Made]) -> Account:
        with urllib.request.urlopen(f"{url}/_sandbox/ledger") as answer:  # noqa: S310 - our own sandbox
            ledger = {line["id"]: line["accepted"] for line in map(json.loads, answer)}
        dead: Counter[str] = Counter()
        reasons: dict[tuple[str, str], tuple[int, str]] = {}
        for headers in _read_headers(servers, f"{self.topic}.kochava.dead-letter"):
            place = int(headers["kochava-origin-partition"]), int(headers["kochava-origin-offset"])
            dead[made[place].event_id] += 1
            key = headers["kochava-stage"], headers["kochava-reason"]
            count, first = reasons.get(key, (0, f"{headers['kochava-origin-topic']}/{place[0]}/{place[1]}"))
            reasons[key] = count + 1, first
        delivered = {event_id for event_id, accepted in ledger.items() if accepted}
        extra = {event_id: accepted - 1 for event_id, accepted in ledger.items() if accepted > 1}
        kinds = {record.event_id: record.kind for record in made.values()}
        explained: Counter[str] = Counter()
        for event_id, times in extra.items():
            explained["its answer was lost" if kinds[event_id] == "answer lost" else "sent again after the crash"] += (
                times
            )
        for times in dead.values():
            explained["dead-lettered again after the crash"] += times - 1
        everything = made.values()
        return Account(
            produced=len(made),
            delivered=len(delivered),
            dead=len(dead),
            lost=[r.event_id for r in everything if r.event_id not in delivered and r.event_id not in dead],
            both=[r.event_id for r in everything if r.event_id in delivered and r.event_id in dead],
            unexpected=[r.event_id for r in everything if (r.event_id in dead) != (r.kind in DEAD)],
            duplicates=sum(extra.values()) + sum(times - 1 for times in dead.values()),
            explained=+explained,
            reasons=reasons,
        )


def _schema_text() -> str:
    package = Path(str(files("consumer")))
    folder = package / "schemas" if (package / "schemas").is_dir() else package.parent / "schemas"
    return (folder / "in_app_event.v2.avsc").read_text("utf-8")


@contextmanager
def _process(command: list[str], folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Run a server until the block ends; give what it wrote when it was ready."""
    ready = folder / f"{name}.ready"
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([*command, "--ready-file", str(ready)], stdout=log, stderr=log, env=os.environ)
    try:
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the {name} did not start:\n{(folder / f'{name}.log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield json.loads(ready.read_text())
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


@contextmanager
def _sandbox(folder: Path) -> Iterator[str]:
    rules = folder / "rules.json"
    rules.write_text(json.dumps(RULES))
    command = [sys.executable, "-m", "consumer", "sandbox", "--port", "0", "--quiet", "--rules", str(rules),
               "--latency-ms", "lognormal:15:0.5"]  # fmt: skip
    with _process(command, folder, "sandbox") as ready:
        yield ready["url"].removesuffix("/track/json").rstrip("/")


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own sandbox
        found: dict[str, Any] = json.load(answer)
        return found


def _looking(servers: str) -> Consumer:
    return Consumer({
        "bootstrap.servers": servers, "group.id": "demo-looking", "enable.auto.commit": False,
        "enable.partition.eof": True, "log_level": 0,
    })  # fmt: skip


def _watermarks(servers: str, topic: str) -> list[tuple[int, int]]:
    consumer = _looking(servers)
    try:
        numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return [
            consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10, cached=False)
            for number in numbers
        ]
    finally:
        consumer.close()


def _read_headers(servers: str, topic: str) -> Iterator[dict[str, str]]:
    """Yield the headers of every record of *topic*."""
    bounds = _watermarks(servers, topic)
    left = {number for number, (low, high) in enumerate(bounds) if high > low}
    consumer = _looking(servers)
    try:
        consumer.assign([TopicPartition(topic, number, bounds[number][0]) for number in left])
        while left:
            for message in consumer.consume(500, 0.5):
                if message.error() is not None:
                    left.discard(message.partition())
                else:
                    headers: Any = message.headers() or ()
                    yield {name: value.decode() for name, value in headers if value is not None}
    finally:
        consumer.close()
