"""The run: one long-lived member, a second one that comes and goes, a steady rate, mixed faults; then all is healed.

Every kind of answer comes up shortly; then faults come as from a deck of cards: each once, shuffled, and again. The
first deck is the warm-up: what a kind of fault costs for the first time (buffers, code, series of metrics) is no leak.
After each card the system must come back while events go on arriving; then a quiet window is left in which it is
measured. The faults themselves are those of the chaos suite, and so is the judge of what became of each event.
"""

import json
import math
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import NamedTuple

from confluent_kafka import Producer

from tests.chaos.faults import CATALOGUE
from tests.chaos.history import Fault, History, Post, Produced
from tests.chaos.members import now_ms
from tests.chaos.scenario import Scenario
from tests.chaos.world import World
from tests.soak.judge import Span
from tests.soak.sample import Looker, Sample
from tests.support.kafka import ROOT
from tests.support.processes import ConsumerProcess, SandboxProcess, events, wait_until

OUR_PARTITIONS = 6
"""Of two tiers and the held topic, as `Setup` makes them."""
POISON_EVERY = 97
CHUNK = 100
SETTLE_S = 4.0
"""From when events are settled in time until a window is quiet: retry tiers, a held sweep, idle connections end."""
QUIET_S = 5.0
RECOVER_S = 60.0
IDLE_S = 20.0
"""Some times the idle timeout, for a busy machine."""
STEP_S = 8.0
"""No step of a fault lasts longer: the refusal of an app, which does for a schedule, leaves too few windows here."""
CARD_S = 45.0
"""A card is played only if so much time is left for it, so that the end is quiet."""
ENVIRONMENT = {
    "KOCHAVA_CONSUMER_LOG__LEVEL": "info",
    "KOCHAVA_CONSUMER_DELIVERY__IDLE_TIMEOUT_S": "3",
    "KOCHAVA_CONSUMER_DELIVERY__MAX_CONNECTION_AGE_S": "60",
    "MALLOC_ARENA_MAX": "2",
}
"""Logs and memory as in the image; connections that come and go as much as they can."""
LANES = {"sink", "long", "wire", "brokers", "moves", "ours", "registry"}
"""Faults of the chaos suite that hurt no member."""
ENDS_MEMBERS = {"brokers that know of no broker"}
"""The client may not outlive it, and here one member is looked at all the time."""
BROKER_SESSION_MS = 15_000
"""Longer than a broker is frozen: one that is fenced for it knows of no broker."""
FAULTS = tuple(
    kind.name
    for kind in CATALOGUE.values()
    if kind.lane in LANES and "one" in kind.worlds and kind.name not in ENDS_MEMBERS
)
BROKER = tuple(name for name in FAULTS if CATALOGUE[name].lane in {"brokers", "moves", "ours"})
SINK = tuple(name for name in FAULTS if CATALOGUE[name].lane in {"sink", "long", "wire"})
MEMBERS = {"second member joins and leaves": False, "second member joins and is killed": True}
DECK = (*FAULTS, *MEMBERS)


class Recovery(NamedTuple):
    """A card, and how long after its end all was as before, with events arriving all the while."""

    kind: str
    at_ms: int
    ended_ms: int
    recovered_ms: int

    @property
    def seconds(self) -> float:
        return (self.recovered_ms - self.ended_ms) / 1000


@dataclass
class Run:
    """All facts of a run."""

    history: History
    rate: float
    seconds: float
    protocol: str
    seed: int
    started_ms: int = 0
    warm_ms: int = 0
    """When every kind of fault had been seen once."""
    samples: list[Sample] = field(default_factory=list)
    quiet: list[Span] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_at_rest: float | None = None
    """Connections, when they had had the time to go; None if nobody could tell."""

    @property
    def judged(self) -> list[Span]:
        """The quiet windows after the warm-up."""
        return [window for window in self.quiet if window.at_ms >= self.warm_ms]


class Soak(Scenario):
    """A long run. `soak` returns its facts; *tell* is called each second with what is going on."""

    def __init__(
        self, world: World, folder: Path, seed: int, *, seconds: float, rate: float, protocol: str,
        tell: Callable[[float, str], None],
    ) -> None:  # fmt: skip
        super().__init__(world, folder, seed, protocol=protocol, seconds=seconds)
        self._rate = rate
        self._seed = seed
        self._tell_progress = tell
        self._doing = "starting"
        self._is_over = threading.Event()
        self._is_watched = threading.Event()
        self._posts: list[Post] = []
        self._last_request = 0

    def soak(self) -> Run:
        """Play, and return what happened."""
        history = self.play()
        self._run.history = history
        return self._run

    # -- the run

    def _play(self) -> History:
        self._run = Run(History("", "", 0, 0), self._rate, self._seconds, self._protocol, self._seed)
        self._setup.environment.update(ENVIRONMENT)
        schema = json.loads((ROOT / "schemas" / "in_app_event.v2.avsc").read_text())
        self.registry.register(self.name, schema, schema_id=schema["confluent.id"])
        self._resident = self.members.start()
        wait_until(lambda: self._assigned(self._resident) == self.PARTITIONS, "the member has all source partitions")
        self._run.started_ms = now_ms()
        with ThreadPoolExecutor(2) as pool:
            watching, producing = pool.submit(self._watch), pool.submit(self._feed)
            try:
                self._play_cards()
                self._is_over.set()
                made = producing.result()
                self._doing = "coming to rest"
                is_settled = self._comes_to_rest()
                self._let_go()
            finally:
                self._is_over.set()
                self._is_watched.set()
        watching.result()
        self.members.end_all()
        history = self._tell(self.kochava, is_settled=is_settled)
        if len(history.produced) != made:
            self._run.problems.append(f"{made} records were produced and {len(history.produced)} are on the topic")
        return history

    def _play_cards(self) -> None:
        run, ends = self._run, time.monotonic() + self._seconds
        run.warm_ms = now_ms() + round(self._seconds * 500)  # at the latest
        self._be_quiet(min(10.0, self._seconds / 4))
        self._see_all_answers(ends)
        deck: list[str] = []
        decks = 0
        while time.monotonic() < ends - min(CARD_S, self._seconds / 3):
            if not deck:
                if decks == 1:
                    run.warm_ms = min(run.warm_ms, now_ms())
                deck, decks = [*DECK], decks + 1
                self._draw.shuffle(deck)
            is_back = self._play_card(deck.pop())
            if self._has_died():
                run.problems.append("the long-lived member ended by itself: " + run.recoveries[-1].kind)
                return
            if is_back:
                self._be_quiet(QUIET_S)
        while (left := ends - time.monotonic()) > 0:
            self._be_quiet(min(QUIET_S, left))

    def _see_all_answers(self, ends: float) -> None:
        """Let each kind of trouble on the way to Kochava come up shortly, if half of the time is left after it."""
        if ends - time.monotonic() < 4 * len(SINK):
            return
        for kind in SINK:
            self._doing = f"first: {kind}"
            self._do(kind, longest_s=1.5)
        time.sleep(SETTLE_S)

    def _play_card(self, kind: str) -> bool:
        """Do it, and return whether all is as before within the time there is for it."""
        self._doing, since_ms = kind, now_ms()
        if kind in MEMBERS:
            self._visit(is_killed=MEMBERS[kind])
        elif kind == "our topics refuse":  # only what fails needs them
            self._do("Kochava: half fails", beside=kind)
        elif kind in SINK or self._draw.random() < 0.5:
            self._do(kind)
        else:
            self._do(self._draw.choice(SINK), beside=kind)
        ended_ms = now_ms()
        self._doing = f"coming back: {kind}"
        deadline = time.monotonic() + RECOVER_S
        while not (is_back := self._is_back(ended_ms)) and time.monotonic() < deadline and not self._has_died():
            time.sleep(0.2)
        if not is_back:
            self._run.problems.append(f"not back {RECOVER_S:.0f} s after: {kind}")
        self._run.recoveries.append(Recovery(kind, since_ms, ended_ms, now_ms()))
        self._doing = "settling"
        time.sleep(SETTLE_S)
        return is_back

    def _be_quiet(self, seconds: float) -> None:
        self._doing, since_ms = "quiet", now_ms()
        time.sleep(seconds)
        self._run.quiet.append(Span(since_ms, now_ms()))

    def _let_go(self) -> None:
        """Wait until connections are closed for idleness: what is still there then, nobody needs."""
        self._doing, deadline = "letting go", time.monotonic() + IDLE_S
        while (left := self._run.samples[-1].values.get("connections")) != 0 and time.monotonic() < deadline:
            time.sleep(0.2)
        self._run.left_at_rest = left
        if left != 0:
            self._run.problems.append(f"{left} connections are open {IDLE_S:.0f} s after the last event")

    def _has_died(self) -> bool:
        assert self._resident.process is not None
        return self._resident.process.poll() is not None

    def _is_back(self, since_ms: int) -> bool:
        """Say whether the newest looks, taken after *since_ms*, find all partitions here and events settled in time."""
        newest = [sample for sample in self._run.samples[-2:] if sample.at_ms > since_ms]
        return len(newest) == 2 and all(map(self._is_well, newest))

    def _is_well(self, sample: Sample) -> bool:
        values = sample.values  # none of those that are judged: what leaks must not look like trouble that is to end
        return (
            values.get("assigned") == self.PARTITIONS + OUR_PARTITIONS
            and values["circuit"] == values["lanes"] == 0
            and values.get("age_p50_ms", math.inf) < 1000
        )

    # -- faults

    def _do(self, kind: str, *, beside: str | None = None, longest_s: float = STEP_S) -> None:
        """Play a fault of the chaos suite to its end, and another one *beside* it."""
        fault, since_ms, who = CATALOGUE[kind], now_ms(), ""
        for step in fault.hurt(self, Random(self._draw.getrandbits(32))):
            if isinstance(step, str):
                who = step
                continue
            if beside is not None:
                self._do(beside)
                beside = None
            time.sleep(min(step, longest_s))
        self._faults.append(Fault(since_ms, now_ms(), kind, who, fault.excuse))

    def _visit(self, *, is_killed: bool) -> None:
        """Let a second member have its share for some seconds."""
        since_ms = now_ms()
        visitor = self.members.start()
        name = visitor.name
        wait_until(lambda: self._assigned(visitor) > 0, "the second member has partitions")
        time.sleep(self._draw.uniform(2, 4))
        if is_killed:
            killed_ms = now_ms()
            self.members.kill(name)
            self._faults.append(Fault(killed_ms, now_ms(), "SIGKILL", name, "crash"))
        else:
            self.members.tell_to_end(name)
            wait_until(lambda: self.members.has_ended(name), "the second member ends")
        self._faults.append(Fault(since_ms, now_ms(), "second member", name))

    def _assigned(self, member: ConsumerProcess) -> float:
        return member.metric("kochava_assigned_partitions", topic=self.name)

    # -- beside it

    def _feed(self) -> int:
        """Produce evenly, stamped with their time; one record in 97 is no event. Return how many there were."""
        producer = Producer(
            {"bootstrap.servers": self.world.kafka.bootstrap_servers, "enable.idempotence": True, "linger.ms": 5,
             "message.timeout.ms": 120_000, "log_level": 0}
        )  # fmt: skip
        started, index = time.monotonic(), 0
        while not self._is_over.is_set():
            chunk = events(CHUNK, f"{self.name}-{index // CHUNK}-", seed=index, occurred_at=datetime.now(UTC))
            for _, value in chunk:
                time.sleep(max(0.0, started + index / self._rate - time.monotonic()))
                producer.produce(self.name, b"\x07broken" if index % POISON_EVERY == 0 else value, key=b"%d" % index)
                producer.poll(0)
                index += 1
        assert producer.flush(120) == 0, "the test's own producer gave up"
        return index

    def _id_of(self, index: int) -> str:
        return "" if index % POISON_EVERY == 0 else f"{self.name}-{index // CHUNK}-{index % CHUNK}"

    def _watch(self) -> None:
        """Look once a second, and take what the sandbox has noted: it remembers only the last requests."""
        looker, started, number = Looker(self._resident), time.monotonic(), 0
        while not self._is_watched.wait(max(0.0, started + number - time.monotonic())):
            sample = looker.look()
            self._run.samples.append(sample)
            self._take_posts()
            self._tell_progress(time.monotonic() - started, self._line(sample))
            number = int(time.monotonic() - started) + 1

    def _line(self, sample: Sample) -> str:
        shown = {"delivered_per_s": "/s", "rss_mib": "MiB", "lag": "lag", "in_flight": "in flight"}
        numbers = " ".join(f"{sample.values[key]:5.0f} {unit}" for key, unit in shown.items() if key in sample.values)
        return f"{numbers}  {self._doing}"

    def _take_posts(self) -> None:
        with urllib.request.urlopen(
            f"{self.kochava.url}/_sandbox/log?after={self._last_request}", timeout=60
        ) as answer:
            for line in map(json.loads, answer):
                assert line["seq"] == self._last_request + 1, "the sandbox forgot requests that were not read"
                self._last_request = line["seq"]
                self._posts.append(Post.of(line))

    # -- the end

    def _tell(self, kochava: SandboxProcess, *, is_settled: bool) -> History:
        self._take_posts()
        history = History(
            self.name, self._setup.dead_letter, request_timeout_ms=3000, commit_interval_ms=1000,
            faults=sorted(self._faults), exits=self.members.exits, owned=self.members.owned(), sent=self.members.sent(),
            said=self.members.said(), peak_rss_mib=self.members.peak_rss_mib, is_settled=is_settled, posts=self._posts,
        )  # fmt: skip
        for record in self.world.kafka.read_all(self.name, seconds=600):
            place = (record.topic, record.partition, record.offset)
            history.produced.append(Produced(place, self._id_of(int(record.key or b"0"))))
        for topic in self.our_topics:
            history.moved += self._moved(topic)
        history.commits = self.world.commits(self.group)
        return history
