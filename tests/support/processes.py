"""The real processes, as tests use them: the consumer and the sandbox, on settings of the test's own."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fastavro import parse_schema

from consumer.sandbox.events import APPS, PLATFORMS, encode, guid, sample_event
from tests.support.kafka import ROOT, dying_with_us, free_port
from tests.support.kafka_client import KafkaClient

WAIT_S = 60.0
SCHEMA = parse_schema(json.loads((ROOT / "schemas" / "in_app_event.v2.avsc").read_text()))


def wait_until(holds: Callable[[], object], what: str, seconds: float = WAIT_S) -> None:
    """Wait for something that is on its way; the only way in which these tests wait."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


def events(count: int, prefix: str = "event-", seed: int = 1, **changes: Any) -> list[tuple[str, bytes]]:
    """Return event ids and record values in Confluent's wire format."""
    random = Random(seed)
    made = []
    for index in range(count):
        event = {**sample_event(index, random, f"{prefix}{index}"), **changes}
        made.append((event["event_id"], encode(event, SCHEMA, 2)))
    return made


@dataclass
class SandboxProcess:
    """The stand-in Kochava."""

    url: str

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/_sandbox/{path}", timeout=10) as answer:
            return json.load(answer)

    def set_rules(self, *rules: dict[str, Any]) -> None:
        request = urllib.request.Request(f"{self.url}/_sandbox/rules", data=json.dumps(rules).encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def ledger(self) -> dict[str, int]:
        """Return how often each event id was accepted."""
        with urllib.request.urlopen(f"{self.url}/_sandbox/ledger", timeout=30) as answer:
            return {line["id"]: line["accepted"] for line in map(json.loads, answer)}

    def accepted(self) -> set[str]:
        return {event_id for event_id, times in self.ledger().items() if times}

    def duplicates(self) -> int:
        return int(self.get("summary")["accepted_again"])

    @property
    def requests(self) -> int:
        return int(self.get("summary")["requests"])


@contextmanager
def sandbox(
    folder: Path, *rules: dict[str, Any], latency_ms: str = "5", options: Sequence[str] = ()
) -> Iterator[SandboxProcess]:
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "sandbox.ready"
    rules_file = folder / "rules.json"
    rules_file.write_text(json.dumps(rules))
    log = (folder / "sandbox.log").open("ab")
    process = subprocess.Popen(
        [*dying_with_us(), sys.executable, "-m", "consumer", "sandbox", "--port", "0", "--quiet",
         "--latency-ms", latency_ms,
         "--rules", str(rules_file), "--ready-file", str(ready), *options],
        stdout=log, stderr=log, cwd=ROOT,
    )  # fmt: skip
    try:
        wait_until(lambda: ready.exists() or process.poll() is not None, "the sandbox listens")
        assert process.poll() is None, (folder / "sandbox.log").read_text()
        yield SandboxProcess(json.loads(ready.read_text())["url"].removesuffix("/track/json").rstrip("/"))
    finally:
        process.kill()
        process.wait()
        log.close()


@dataclass
class Setup:
    """What one test runs: a topic of its own on the shared broker, and settings to change."""

    kafka: KafkaClient
    folder: Path
    topic: str
    endpoint: str
    group_protocol: str = "classic"
    start: str = "earliest"
    tiers: tuple[str, ...] = ("1s", "2s")
    apps: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {f"{app}/{name}": {"guid": guid(app, name)} for app in APPS for name in PLATFORMS}
    )
    environment: dict[str, str] = field(default_factory=dict)
    bootstrap_servers: str = ""
    """Where members find the brokers, if not directly."""

    @property
    def group(self) -> str:
        return f"{self.topic}-group"

    @property
    def dead_letter(self) -> str:
        return f"{self.topic}.kochava.dead-letter"

    @property
    def held(self) -> str:
        return f"{self.topic}.kochava.held"

    def tier(self, label: str) -> str:
        return f"{self.topic}.kochava.retry.{label}"

    def create_topics(self, partitions: int = 3, *, source: bool = True, **config: str) -> None:
        if source:
            self.kafka.create_topic(self.topic, partitions, **config)
        for name in (*map(self.tier, self.tiers), self.held, self.dead_letter):
            # the broker's time: whether a record was there before a commit is asked of it
            self.kafka.create_topic(name, 2, max_message_bytes="2000000", message_timestamp_type="LogAppendTime")

    def write(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.toml"
        session = "session_timeout_ms = 6000\n" if self.group_protocol == "classic" else ""
        path.write_text(
            f"""
[kafka]
bootstrap_servers = "{self.bootstrap_servers or self.kafka.bootstrap_servers}"
group_id = "{self.group}"
topics = ["{self.topic}"]
start = "{self.start}"
group_protocol = "{self.group_protocol}"
statistics_interval_ms = 500
{session}
[kochava]
endpoint = "{self.endpoint}"
[delivery]
connections = 64
max_in_flight_records = 512
request_timeout_s = 3
connect_timeout_s = 2
retry_budget_s = 4
backoff_initial_s = 0.05
backoff_max_s = 0.2
drain_timeout_s = 8
close_timeout_s = 5
[lane]
probe_initial_s = 0.5
probe_max_s = 1
waiting_records = 4
waiting_s = 2
held_sweep_s = 5
[breaker]
probe_initial_s = 0.3
probe_max_s = 1
[retry]
tiers = {json.dumps(self.tiers)}
[dead_letter]
max_share = 1
[log]
format = "json"
level = "debug"
progress_interval_s = 1
"""
        )
        return path

    @contextmanager
    def consumer(self, name: str = "consumer", *options: str, **environment: str) -> "Iterator[ConsumerProcess]":
        """Run a member until the block ends."""
        process = ConsumerProcess(self, name, options, {**self.environment, **environment})
        process.start()
        try:
            yield process
        finally:
            process.kill()


class ConsumerProcess:
    """`kochava-consumer run`."""

    def __init__(self, setup: Setup, name: str, options: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self._config = setup.write(name)
        self._options = options
        self.port = free_port()
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("KOCHAVA_CONSUMER_")},
            "KOCHAVA_CONSUMER_ADMIN__LISTEN": f"127.0.0.1:{self.port}",
            "KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(setup.apps),
            **environment,
        }
        self.log_file = setup.folder / f"{name}.log"
        self.module: tuple[str, ...] = ("consumer",)
        """What Python runs; a test's own starter can stand before it."""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "ConsumerProcess":
        log = self.log_file.open("ab")
        self.process = subprocess.Popen(
            [*dying_with_us(), sys.executable, "-m", *self.module, "run", "--config", str(self._config),
             *self._options],
            stdout=log, stderr=log, env=self._environment, cwd=ROOT,
        )  # fmt: skip
        log.close()
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def terminate(self, seconds: float = 30) -> int:
        """Let it end as Kubernetes does, and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def probe(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's series that have *labels*."""
        total = 0.0
        for line in self.probe("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(f'{key}="{text}"' in series for key, text in labels.items()):
                total += float(value)
        return total

    def log(self) -> list[dict[str, Any]]:
        lines = []
        for line in self.log_file.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                lines.append(json.loads(line))
        return lines

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line.get("event") == event]

    def text(self) -> str:
        return self.log_file.read_text()


def feed_evenly(setup: Setup, values: Sequence[bytes], per_s: int) -> None:
    """Produce *values* at a rate that is never above *per_s*, each tenth of a second some."""
    for start in range(0, len(values), per_s // 10):
        setup.kafka.produce(setup.topic, values[start : start + per_s // 10])
        time.sleep(0.1)


def command(setup: Setup, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as an operator would type it, and return what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "consumer", *arguments, "--config", str(setup.write("kochava"))],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
        env={**os.environ, "KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(setup.apps), **environment},
    )  # fmt: skip
