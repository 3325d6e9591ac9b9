"""One run: a world of brokers, real members, a sandbox, and a seeded schedule of faults; then all is healed, and told.

The schedule is drawn from the seed before anything starts. Machines are not deterministic, so a seed repeats the
schedule and not the interleaving.
"""

import json
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from confluent_kafka import KafkaException, Producer

from consumer.core.headers import ATTEMPTS, ORIGIN_OFFSET, ORIGIN_PARTITION, ORIGIN_TOPIC
from tests.chaos.faults import CATALOGUE, FaultKind, Hurt, plan
from tests.chaos.history import Fault, History, Late, Moved, Place, Post, Produced
from tests.chaos.members import Members, now_ms
from tests.chaos.records import Value, records
from tests.chaos.world import World
from tests.support.processes import SandboxProcess, Setup, sandbox
from tests.support.proxy import Proxy
from tests.support.registry import Registry

REST_S = 120.0
EVENTS_PER_S = 250
TRANSACTION_RECORDS = 40
UNKNOWN_S = "8"
"""Longer than a registry denies, as a fault, that it has what it has; and short enough to see its end."""


@dataclass
class _Active:
    """A fault that is under way."""

    kind: FaultKind
    steps: Hurt
    since_ms: int
    who: str
    wakes_at: float


def is_transactional(seed: int) -> bool:
    """Say whether the producer of *seed* uses transactions: one pair of seeds in three does.

    Of a pair one seed has each protocol, and worlds come by turns of four pairs: so each meets each.
    """
    return seed // 2 % 3 == 1


class Scenario:
    """A run of one seed. `play` returns its history."""

    PARTITIONS = 4

    def __init__(
        self, world: World, folder: Path, seed: int, *, protocol: str, seconds: float, wrong: str | None = None
    ) -> None:
        self.world = world
        self.name = f"chaos-{seed}-{protocol}-{now_ms()}"
        self._folder = folder
        self._draw = Random(seed)
        self._plan = plan(seed, world.name, seconds)
        self._seconds = seconds
        self._protocol = protocol
        self._wrong = wrong
        self._is_transactional = world.has_transactions and is_transactional(seed)
        self._faults: list[Fault] = []
        self._ids: dict[Value, str] = {}
        self._aborted: list[str] = []
        self._failure: BaseException | None = None
        self._rules: list[dict[str, Any]] = []

    def play(self) -> History:
        with (
            sandbox(self._folder / "sandbox", latency_ms="uniform:5:60") as self.kochava,
            Registry() as self.registry,
            Proxy(int(self.kochava.url.rpartition(":")[2])) as self.sink_proxy,
        ):
            endpoint = f"http://127.0.0.1:{self.sink_proxy.port}/track/json"
            setup = Setup(self.world.kafka, self._folder, self.name, endpoint, group_protocol=self._protocol)
            setup.bootstrap_servers = self.world.members_bootstrap
            setup.environment["KOCHAVA_CONSUMER_SCHEMAS__REGISTRY_URL"] = self.registry.url
            setup.environment["KOCHAVA_CONSUMER_SCHEMAS__UNKNOWN_ID_CONFIRM_S"] = UNKNOWN_S
            setup.create_topics(partitions=self.PARTITIONS)
            self._setup = setup
            self.group = setup.group
            self.our_topics = [*map(setup.tier, setup.tiers), setup.held, setup.dead_letter]
            self.world.watch_commits(self.group, self._read_partitions())
            self.members = Members(setup, self._faults, self._wrong, self.world.member_options)
            try:
                return self._play()
            finally:
                self.world.heal()
                self.members.kill_all()

    def _play(self) -> History:
        for _ in range(self._draw.randint(1, 3)):
            self.members.start()
        producing = threading.Thread(target=self._produce)
        producing.start()
        self._inject()
        producing.join()
        if self._failure is not None:
            raise RuntimeError(f"the suite's own producer failed: {self._failure}")
        self._heal()
        is_settled = self._comes_to_rest()
        self._keep_metrics()
        self.members.end_all()
        return self._tell(self.kochava, is_settled=is_settled)

    def _read_partitions(self) -> list[tuple[str, int]]:
        ours = [*map(self._setup.tier, self._setup.tiers), self._setup.held]
        return [(self.name, number) for number in range(self.PARTITIONS)] + [(at, n) for at in ours for n in (0, 1)]

    # -- events

    def _produce(self) -> None:
        """Produce evenly while faults happen, and note what has to become of each record."""
        values = records(self.name, round(self._seconds * EVENTS_PER_S), self._draw, self.registry)
        try:
            for event_id, value, is_kept in self._paced(values):
                if is_kept:
                    self._ids[value] = event_id
                else:
                    self._aborted.append(event_id)
        except BaseException as error:
            self._failure = error

    def _paced(self, values: Iterator[tuple[str, Value]]) -> Iterator[tuple[str, Value, bool]]:
        """Hand *values* to a producer, evenly.

        Returns:
            Each, and whether it may be delivered: not if its transaction is to be aborted.
        """
        producer = self._producer()
        started = time.monotonic()
        is_kept = True
        for index, (event_id, value) in enumerate(values):
            if self._is_transactional and index % TRANSACTION_RECORDS == 0:
                if index:
                    producer = self._end_transaction(producer, is_kept=is_kept)
                producer.begin_transaction()
                is_kept = index % (5 * TRANSACTION_RECORDS) != 0
            time.sleep(max(0.0, started + index / EVENTS_PER_S - time.monotonic()))
            yield event_id, value, is_kept
            try:
                producer.produce(self.name, value, key=str(index).encode())
                producer.poll(0)
            except KafkaException:  # an embedded broker can be told to end a producer for good
                producer = self._producer()
        if self._is_transactional:
            producer = self._end_transaction(producer, is_kept=is_kept)
        with suppress(KafkaException):  # ended for good: what is in the log counts
            assert producer.flush(120) == 0, "the suite's own producer gave up"

    def _producer(self) -> Producer:
        brokers = self.world.kafka.bootstrap_servers
        conf: dict[str, object] = {"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 5,
                                   "message.timeout.ms": 120_000, "log_level": 0}  # fmt: skip
        if not self._is_transactional:
            return Producer(conf)
        producer = Producer(
            {**conf, "transactional.id": self.name, "transaction.timeout.ms": 100_000, "message.timeout.ms": 90_000}
        )
        producer.init_transactions(120)
        return producer

    def _end_transaction(self, producer: Producer, *, is_kept: bool) -> Producer:
        """End the transaction, and go on with a new producer where this one can't: what is in the log counts."""
        try:
            producer.flush(90)
            if is_kept:
                producer.commit_transaction(120)
            else:
                producer.abort_transaction(120)
        except KafkaException:
            return self._producer()
        return producer

    # -- faults

    def _inject(self) -> None:
        """Play the plan: a step waits while another fault of its lane is under way."""
        todo = deque(self._plan)
        active: dict[str, _Active] = {}
        started = time.monotonic()
        while todo or active:
            now = time.monotonic() - started
            for one in [each for each in active.values() if each.wakes_at <= now]:
                self._go_on(one, active, now)
            for step in [each for each in todo if each[0] <= now]:
                kind = CATALOGUE[step[1]]
                if now > self._seconds:
                    todo.remove(step)
                elif kind.lane not in active:
                    todo.remove(step)
                    active[kind.lane] = _Active(kind, kind.hurt(self, Random(step[2])), now_ms(), "", now)
                    self._go_on(active[kind.lane], active, now)
            time.sleep(0.02)

    def _go_on(self, one: _Active, active: dict[str, _Active], now: float) -> None:
        for said in one.steps:
            if isinstance(said, str):
                one.who = said
            else:
                one.wakes_at = now + said
                return
        del active[one.kind.lane]
        if one.who:
            self._faults.append(Fault(one.since_ms, now_ms(), one.kind.name, one.who, one.kind.excuse))

    def begin_rule(self, rule: dict[str, Any]) -> None:
        """Let Kochava answer by *rule*, and where that says nothing, by those that began before."""
        self._rules.insert(0, rule)
        self.kochava.set_rules(*self._rules)

    def end_rule(self, rule: dict[str, Any]) -> None:
        self._rules.remove(rule)
        self.kochava.set_rules(*self._rules)

    def let_our_topics_take(self, most_bytes: int) -> bool:
        """Limit the size of records on our topics.

        Returns:
            Whether the brokers heard of it.
        """
        try:
            for topic in self.our_topics:
                self.world.kafka.configure_topic(topic, seconds=2, max_message_bytes=str(most_bytes))
        except (KafkaException, TimeoutError):
            return False
        return True

    def _heal(self) -> None:
        self.world.heal()
        self.kochava.set_rules()
        self.sink_proxy.set_mode("pass")
        self.registry.is_down = False
        self.registry.always_answer_with(None)
        if self.world.name == "embedded" and self._protocol == "consumer":
            # more members than partitions: the mock can leave one to nobody for good (plain clients show it, too)
            self.members.end_all()
        self.members.start()

    # -- the end

    def _comes_to_rest(self) -> bool:
        """Wait until every log of ours is read and committed to its end, and stays so."""
        records = self.world.kafka.read_all(self.name, seconds=600)
        last = {(self.name, record.partition): record.offset + 1 for record in records}
        deadline = time.monotonic() + REST_S
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            time.sleep(0.5)
            if not self.members.names:
                self.members.start()
            with suppress(KafkaException, TimeoutError):
                quiet = quiet + 1 if self._is_read(last) else 0
        return quiet >= 3

    def _is_read(self, last: dict[tuple[str, int], int]) -> bool:
        """Say whether all is committed, up to the *last* records of the source: markers may be left behind them."""
        committed = self.world.kafka.committed(self.group)
        topics = [*map(self._setup.tier, self._setup.tiers), self._setup.held]
        return all(committed.get(at, 0) >= end for at, end in last.items()) and all(
            committed.get((topic, number), low) >= high
            for topic in topics
            for number, (low, high) in self.world.kafka.ends(topic).items()
        )

    def _keep_metrics(self) -> None:
        """Keep what members tell to whoever scrapes them, beside their logs: it must be as silent (C8)."""
        for name in self.members.names:
            page = self.members._processes[name].probe("/metrics")[1]
            (self._folder / f"{name}.metrics.log").write_text(page)

    def _tell(self, kochava: SandboxProcess, *, is_settled: bool) -> History:
        members = self.members
        history = History(
            self.name, self._setup.dead_letter, request_timeout_ms=3000, commit_interval_ms=1000,
            faults=sorted(self._faults), exits=members.exits, owned=members.owned(), sent=members.sent(),
            written=members.written(), said=members.said(), late=sorted(self._late()),
            aborted=[event_id for event_id in self._aborted if event_id],
            peak_rss_mib=members.peak_rss_mib, is_settled=is_settled,
            is_classic=self._protocol == "classic", has_commit_log=self.world.has_commit_log,
        )  # fmt: skip
        for record in self.world.kafka.read_all(self.name):
            if record.value is not None:  # what a tombstone stands for is nowhere to be seen: it is passed over
                place = (record.topic, record.partition, record.offset)
                history.produced.append(Produced(place, self._ids[record.value]))
        for topic in self.our_topics:
            history.moved += self._moved(topic)
        history.posts = [*map(Post.of, _log_of(kochava))]
        history.commits = self.world.commits(self.group)
        return history

    def _late(self) -> Iterator[Late]:
        for proxy in (self.sink_proxy, *self.world.proxies):
            yield from map(Late._make, proxy.late)

    def _moved(self, topic: str) -> Iterator[Moved]:
        for record in self.world.kafka.read_all(topic):
            if ORIGIN_TOPIC in record.headers:  # the mark of a group's first start has none
                origin: Place = (
                    record.headers[ORIGIN_TOPIC],
                    int(record.headers[ORIGIN_PARTITION]),
                    int(record.headers[ORIGIN_OFFSET]),
                )
                place = (record.topic, record.partition, record.offset)
                yield Moved(record.timestamp_ms, place, origin, int(record.headers.get(ATTEMPTS, "0")))


def _log_of(kochava: SandboxProcess) -> Iterator[dict[str, object]]:
    with urllib.request.urlopen(f"{kochava.url}/_sandbox/log?after=0", timeout=60) as answer:
        yield from map(json.loads, answer)
