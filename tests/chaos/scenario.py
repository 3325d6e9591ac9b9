"""One run: a real Kafka, real members, a sandbox, and a seeded schedule of faults; then all is healed, and told.

The schedule is drawn from the seed before anything starts. Machines are not deterministic, so a seed repeats the
schedule and not the interleaving.
"""

import contextlib
import json
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from confluent_kafka import Producer

from consumer.core.headers import ATTEMPTS, ORIGIN_OFFSET, ORIGIN_PARTITION, ORIGIN_TOPIC
from tests.chaos.commit_log import read_commits
from tests.chaos.history import Exit, Fault, History, Moved, Place, Post, Produced
from tests.chaos.member import MOMENTS
from tests.support.kafka import RealKafka
from tests.support.processes import ConsumerProcess, SandboxProcess, Setup, events, sandbox

REST_S = 90.0
DEADLINE_S = 8 + 5 + 5 + 5
"""Drain, close and what the watchdog adds, as `Setup` sets them; and a busy machine."""
PARTITIONS = 4
EVENTS_PER_S = 250
SINK_RULES: dict[str, dict[str, object]] = {
    "sink answers 503": {"do": {"status": 503}},
    "sink answers 429": {"do": {"status": 429, "headers": {"Retry-After": "1"}}},
    "sink answers 400": {"match": {"share": 0.3}, "do": {"status": 400}},
    "sink fails half": {"match": {"share": 0.5}, "do": {"status": 500}},
    "sink resets before": {"match": {"share": 0.3}, "do": {"action": "reset_before"}},
    "sink resets after": {"match": {"share": 0.3}, "do": {"action": "reset_after"}},
    "sink hangs": {"match": {"share": 0.1}, "do": {"action": "hang"}},
    "sink is slow": {"match": {"share": 0.05}, "do": {"latency_ms": 2500}},
    "sink answers 401": {"match": {"app": "com.example.puzzle"}, "do": {"status": 401}},
    "sink answers 404": {"do": {"status": 404}},
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Scenario:
    """A run of one seed. `play` returns its history."""

    def __init__(
        self, kafka: RealKafka, folder: Path, seed: int, *, protocol: str, seconds: float, wrong: str | None = None
    ) -> None:
        self._kafka = kafka
        self._folder = folder
        self._random = Random(seed)
        self._seconds = seconds
        self._wrong = wrong
        self._name = f"chaos-{seed}-{protocol}-{now_ms()}"
        self._protocol = protocol
        self._members: dict[str, ConsumerProcess] = {}
        self._started = 0
        self._faults: list[Fault] = []
        self._exits: list[Exit] = []

    # -- the run

    def play(self) -> History:
        with sandbox(self._folder / "sandbox", latency_ms="uniform:5:60") as kochava:
            self._kochava = kochava
            self._setup = Setup(
                self._kafka, self._folder, self._name, f"{kochava.url}/track/json", group_protocol=self._protocol
            )
            self._setup.create_topics(partitions=PARTITIONS)
            try:
                return self._play(kochava)
            finally:
                self._kafka.thaw()
                for member in self._members.values():
                    member.kill()

    def _play(self, kochava: SandboxProcess) -> History:
        for _ in range(self._random.randint(1, 3)):
            self._start_member()
        producing = threading.Thread(target=self._produce)
        producing.start()
        ends = time.monotonic() + self._seconds
        while time.monotonic() < ends:
            time.sleep(self._random.uniform(0.5, 2.5))
            self._inject()
        producing.join()
        kochava.set_rules()
        self._start_member()
        is_settled = self._comes_to_rest()
        for name in [*self._members]:
            self._end(name)
        return self._tell(kochava, is_settled=is_settled)

    def _produce(self) -> None:
        """Produce evenly while faults happen; one record in 97 is no event."""
        count = round(self._seconds * EVENTS_PER_S)
        made = events(count, f"{self._name}-")
        self._values = [b"\x00broken" if index % 97 == 0 else value for index, (_, value) in enumerate(made)]
        self._ids = ["" if index % 97 == 0 else event_id for index, (event_id, _) in enumerate(made)]
        producer = Producer(
            {"bootstrap.servers": self._kafka.bootstrap_servers, "enable.idempotence": True, "linger.ms": 5,
             "message.timeout.ms": 120_000, "log_level": 0}
        )  # fmt: skip
        started = time.monotonic()
        for index, value in enumerate(self._values):
            time.sleep(max(0.0, started + index / EVENTS_PER_S - time.monotonic()))
            producer.produce(self._name, value, key=str(index).encode())
            producer.poll(0)
        assert producer.flush(120) == 0, "the test's own producer gave up"

    # -- faults

    def _inject(self) -> None:
        weights: dict[Callable[[], None], int] = {
            self._kill: 4, self._kill_at_a_moment: 4, self._terminate: 3, self._join: 2, self._stop_and_go: 1,
            self._hurt_the_sink: 6, self._kill_the_broker: 1, self._freeze_the_broker: 1, self._refuse_retries: 1,
        }  # fmt: skip
        self._random.choices([*weights], [*weights.values()])[0]()

    def _note(self, kind: str, who: str, since_ms: int) -> None:
        self._faults.append(Fault(since_ms, now_ms(), kind, who))

    def _start_member(self, *, kill_at: str | None = None) -> None:
        self._started += 1
        name = f"member-{self._started}"
        member = ConsumerProcess(self._setup, name, (), {})
        options = ("--wrong", self._wrong) if self._wrong else ()
        if kill_at is not None:
            options = (*options, "--kill-at", kill_at)
        member.module = ("tests.chaos.member", *options) if options else ("consumer",)
        self._members[name] = member.start()

    def _any(self) -> str | None:
        self._bury()
        return self._random.choice([*self._members]) if self._members else None

    def _bury(self) -> None:
        """Note who has ended by himself: at his moment, or for a reason of his own."""
        for name, member in [*self._members.items()]:
            assert member.process is not None
            code = member.process.poll()
            if code is None:
                continue
            del self._members[name]
            if code == -signal.SIGKILL:
                self._note("killed at a moment", name, _last_write_ms(member))
            else:
                self._exits.append(Exit(now_ms(), name, code, 0.0, DEADLINE_S))

    def _kill(self) -> None:
        name = self._any()
        if name is not None:
            since_ms = now_ms()
            self._members.pop(name).kill()
            self._note("SIGKILL", name, since_ms)
        self._start_member()

    def _kill_at_a_moment(self) -> None:
        moment = self._random.choice([*MOMENTS])
        many = {"answered": 500, "settled": 20, "stored": 60, "mapped": 8, "acknowledged": 10}[moment]
        self._start_member(kill_at=f"{moment}:{self._random.randint(1, many)}")

    def _terminate(self) -> None:
        name = self._any()
        if name is not None:
            self._end(name, twice=self._random.random() < 0.2)
        self._start_member()

    def _end(self, name: str, *, twice: bool = False) -> None:
        member = self._members.pop(name)
        since, since_ms = time.monotonic(), now_ms()
        member.signal(signal.SIGTERM)
        if twice:
            time.sleep(0.2)
            with contextlib.suppress(ProcessLookupError):
                member.signal(signal.SIGTERM)
        try:
            code = member.wait(DEADLINE_S * 2)
        except Exception:
            member.kill()
            code = -signal.SIGKILL
        self._exits.append(Exit(since_ms, name, code, time.monotonic() - since, DEADLINE_S))
        if code == -signal.SIGKILL:
            self._note("killed at a moment", name, _last_write_ms(member))
            self._exits.pop()

    def _join(self) -> None:
        self._bury()
        if len(self._members) < 4:
            self._start_member()

    def _stop_and_go(self) -> None:
        name = self._any()
        if name is not None:
            since_ms = now_ms()
            self._members[name].signal(signal.SIGSTOP)
            time.sleep(self._random.choice([2.0, 9.0]))
            self._members[name].signal(signal.SIGCONT)
            self._note("SIGSTOP", name, since_ms)

    def _hurt_the_sink(self) -> None:
        kind = self._random.choice([*SINK_RULES])
        since_ms = now_ms()
        self._kochava.set_rules(SINK_RULES[kind])
        time.sleep(self._random.uniform(0.5, 3))
        self._kochava.set_rules()
        self._note(kind, "sink", since_ms)

    def _kill_the_broker(self) -> None:
        since_ms = now_ms()
        self._kafka.kill()
        time.sleep(self._random.uniform(0, 2))
        self._kafka.start()
        self._note("broker killed", "broker", since_ms)

    def _freeze_the_broker(self) -> None:
        since_ms = now_ms()
        self._kafka.freeze()
        time.sleep(self._random.uniform(1, 8))
        self._kafka.thaw()
        self._note("broker frozen", "broker", since_ms)

    def _refuse_retries(self) -> None:
        since_ms = now_ms()
        topics = [*map(self._setup.tier, self._setup.tiers), self._setup.dead_letter]
        with contextlib.suppress(Exception):  # a broker that is away refuses by itself
            for topic in topics:
                self._kafka.configure_topic(topic, max_message_bytes="10")
        time.sleep(self._random.uniform(0.5, 2))
        for topic in topics:
            self._kafka.configure_topic(topic, max_message_bytes="2000000")
        self._note("retry topics refuse", "broker", since_ms)

    # -- the end

    def _comes_to_rest(self) -> bool:
        """Wait until every log of ours is read and committed to its end, and stays so."""
        deadline = time.monotonic() + REST_S
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            time.sleep(0.5)
            self._bury()
            if not self._members:
                self._start_member()
            with contextlib.suppress(Exception):
                quiet = quiet + 1 if self._is_read() else 0
        return quiet >= 3

    def _is_read(self) -> bool:
        committed = self._kafka.committed(self._setup.group)
        topics = [self._name, *map(self._setup.tier, self._setup.tiers), self._setup.held]
        return all(
            committed.get((topic, number), low) >= high
            for topic in topics
            for number, (low, high) in self._kafka.ends(topic).items()
        )

    def _tell(self, kochava: SandboxProcess, *, is_settled: bool) -> History:
        history = History(
            self._name, self._setup.dead_letter, request_timeout_ms=3000, commit_interval_ms=1000,
            faults=sorted(self._faults), exits=self._exits, is_settled=is_settled,
        )  # fmt: skip
        numbers = dict(zip(self._values, self._ids, strict=True))
        for record in self._kafka.read_all(self._name):
            place = (record.topic, record.partition, record.offset)
            history.produced.append(Produced(place, numbers.get(record.value or b"", "")))
        for topic in (*map(self._setup.tier, self._setup.tiers), self._setup.held, self._setup.dead_letter):
            history.moved += self._moved(topic)
        history.posts = [
            Post(line["time_ms"], line["id"] or "", str(line["status"]), line["accepted"]) for line in _log_of(kochava)
        ]
        history.commits = read_commits(self._kafka, self._setup.group)
        return history

    def _moved(self, topic: str) -> Iterator[Moved]:
        for record in self._kafka.read_all(topic):
            if ORIGIN_TOPIC in record.headers:  # the mark of a group's first start has none
                origin: Place = (
                    record.headers[ORIGIN_TOPIC],
                    int(record.headers[ORIGIN_PARTITION]),
                    int(record.headers[ORIGIN_OFFSET]),
                )
                place = (record.topic, record.partition, record.offset)
                yield Moved(record.timestamp_ms, place, origin, int(record.headers.get(ATTEMPTS, "0")))


def _last_write_ms(member: ConsumerProcess) -> int:
    """Return about when a process ended that killed itself: it logs its progress each second, at least."""
    return round(member.log_file.stat().st_mtime * 1000)


def _log_of(kochava: SandboxProcess) -> Iterator[dict[str, object]]:
    with urllib.request.urlopen(f"{kochava.url}/_sandbox/log?after=0", timeout=60) as answer:
        yield from map(json.loads, answer)
