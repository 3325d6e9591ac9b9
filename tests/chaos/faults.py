"""The catalogue of faults: what is done, in which worlds, how often, and which duplicates it excuses.

A fault is a generator: it says whom it hurts, then how long to wait (seconds) before it goes on; when it ends, it is
healed. Of one lane only one fault is under way at a time; faults of different lanes overlap.
"""

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from confluent_kafka import KafkaException

from consumer.sandbox.events import APPS, EVENT_NAMES, PLATFORMS, guid
from tests.chaos.world import Embedded, ThreeNodes
from tests.support.registry import UNKNOWN_SCHEMA, Raw, _json

if TYPE_CHECKING:
    from tests.chaos.scenario import Scenario

Excuse: TypeAlias = Literal["", "crash", "away", "answer", "fatal"]
"""`crash`: what was not committed is sent again. `away`: a member may lose its partitions, or cannot commit. `answer`:
answers may be lost after Kochava accepted. `fatal`: `away`, and the member may end with exit code 4."""

Hurt: TypeAlias = Iterator[str | float]
ALL = frozenset({"one", "three", "embedded"})
REAL = frozenset({"one", "three"})
TWICE = "SIGTERM twice"
LOOK_S = 0.1
LARGE_BYTES = 2_000_000


@dataclass(frozen=True)
class FaultKind:
    name: str
    lane: str
    worlds: frozenset[str]
    weight: int
    excuse: Excuse
    hurt: Callable[["Scenario", Random], Hurt]


CATALOGUE: dict[str, FaultKind] = {}


def _fault(
    name: str, lane: str, *, worlds: frozenset[str] = ALL, weight: int = 2, excuse: Excuse = ""
) -> Callable[[Callable[["Scenario", Random], Hurt]], Callable[["Scenario", Random], Hurt]]:
    def add(hurt: Callable[["Scenario", Random], Hurt]) -> Callable[["Scenario", Random], Hurt]:
        CATALOGUE[name] = FaultKind(name, lane, worlds, weight, excuse, hurt)
        return hurt

    return add


def is_calm(seed: int) -> bool:
    return seed % 3 == 0


def plan(seed: int, world: str, seconds: float, *, mean_gap_s: float = 0.8) -> list[tuple[float, str, int]]:
    """Draw the schedule of *seed*: when (seconds from the start), which fault, and a seed for its own choices.

    Each third is calm: nothing in it excuses a duplicate, so that there may be none.
    """
    drawn = Random(f"{seed}-{world}")
    kinds = [kind for kind in CATALOGUE.values() if world in kind.worlds]
    if is_calm(seed):
        kinds = [kind for kind in kinds if not kind.excuse and kind.lane != "moments" and kind.name != TWICE]
    steps: list[tuple[float, str, int]] = []
    at_s = drawn.uniform(0.5, 1.5)
    while at_s < seconds:
        kind = drawn.choices(kinds, [each.weight for each in kinds])[0]
        steps.append((at_s, kind.name, drawn.getrandbits(32)))
        at_s += drawn.expovariate(1 / mean_gap_s)
    return steps


# -- members


@_fault("SIGKILL", "members", weight=6, excuse="crash")
def _kill(run: "Scenario", draw: Random) -> Hurt:
    name = run.members.any(draw)
    if name is not None:
        yield name
        run.members.kill(name)
    run.members.start()


@_fault("killed at a moment", "moments", weight=8)  # noted when it happens, which may be later or never
def _kill_at_a_moment(run: "Scenario", draw: Random) -> Hurt:
    moment, many = draw.choice([*run.members.MOMENTS.items()])
    yield ""
    run.members.start(kill_at=f"{moment}:{draw.randint(1, many)}")


@_fault("SIGTERM", "members", weight=5)
def _terminate(run: "Scenario", draw: Random) -> Hurt:
    yield from _end(run, draw, twice=False)


@_fault(TWICE, "members", weight=1)
def _terminate_twice(run: "Scenario", draw: Random) -> Hurt:
    yield from _end(run, draw, twice=True)


def _end(run: "Scenario", draw: Random, *, twice: bool) -> Hurt:
    name = run.members.any(draw)
    run.members.start()
    if name is not None:
        yield name
        run.members.tell_to_end(name)
        if twice:
            yield 0.2
            run.members.tell_to_end(name)
        while not run.members.has_ended(name):
            yield LOOK_S


@_fault("a member joins", "members")
def _join(run: "Scenario", _: Random) -> Hurt:
    yield ""
    if len(run.members.names) < 4:
        run.members.start()


@_fault("SIGSTOP", "frozen", excuse="away")
def _stop_and_go(run: "Scenario", draw: Random) -> Hurt:
    yield from _freeze(run, draw, signal.SIGSTOP, draw.choice([2.0, 9.0]), signal.SIGCONT)


@_fault("event loop blocked", "frozen", weight=1, excuse="away")
def _block(run: "Scenario", draw: Random) -> Hurt:
    yield from _freeze(run, draw, signal.SIGUSR1, 10.5, None)  # the member's own handler sleeps for 10 s


def _freeze(run: "Scenario", draw: Random, stop: int, seconds: float, go: int | None) -> Hurt:
    name = run.members.any(draw, that_listens=True)
    if name is not None:
        yield name
        run.members.frozen.add(name)
        run.members.signal(name, stop)
        yield seconds
        if go is not None:
            run.members.signal(name, go)
        yield 1.0  # it wakes up: an order to end would be counted from before
        run.members.frozen.discard(name)


@_fault("no file descriptors left", "frozen", weight=1, excuse="away")
def _no_descriptors(run: "Scenario", draw: Random) -> Hurt:
    name = run.members.any(draw, that_listens=True)
    pid = run.members.pid(name) if name is not None else None
    if name is not None and pid is not None:
        yield name
        with suppress(OSError):
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, hard))
            yield draw.uniform(1, 3)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@_fault("the clock jumps", "clock")
def _jump(run: "Scenario", draw: Random) -> Hurt:
    name = run.members.any(draw, that_listens=True)
    if name is not None:
        yield name
        run.members.set_clock(name, draw.choice([-3_600_000, 3_600_000]))
        yield draw.uniform(1, 5)
        run.members.set_clock(name, 0)


# -- Kochava, and the way to it

SHORT_S = (0.5, 3)
FOR_AN_APP = "401 for one app"
ONE_APP = {"app": guid(APPS[0], PLATFORMS[0])}
ONE_KIND = {**ONE_APP, "event": EVENT_NAMES[0]}
LONG_S: dict[str, tuple[float, float]] = {
    FOR_AN_APP: (8, 12),  # so that some probes and a sweep of the held topic come to nothing
    "one kind hangs": (6, 12),  # so that positions stand still while others settle
    "one kind fails": (6, 12),  # so that records meet more than one tier
    "all is slow": (4, 8),  # so that partitions go while answers are under way
    "an outage": (8, 14),  # so that partitions go while all waits
}
"""Those that last, for how long, seconds; others come up beside them."""
SLOW = {"do": {"latency_ms": 2000}}
ECHO = {"success": "0", "error": "device not known"}
SINK_RULES: dict[str, tuple[Excuse, dict[str, Any]]] = {
    "503": ("", {"do": {"status": 503}}),
    "429 for a second": ("", {"do": {"status": 429, "headers": {"Retry-After": "1"}}}),
    "429 until a date": ("", {"do": {"status": 429, "headers": {"Retry-After": "Thu, 01 Jan 2099 00:00:00 GMT"}},
                              "match": {"share": 0.2}}),
    "429 of nonsense": ("", {"do": {"status": 429, "headers": {"Retry-After": "-9e99"}}}),
    "408": ("", {"do": {"status": 408}}),
    "400 for some": ("", {"match": {"share": 0.3}, "do": {"status": 400}}),
    "409 for some": ("", {"match": {"share": 0.1}, "do": {"status": 409}}),
    "413 for some": ("", {"match": {"share": 0.1}, "do": {"status": 413}}),
    "422 for some": ("", {"match": {"share": 0.1}, "do": {"status": 422}}),
    "half fails": ("", {"match": {"share": 0.5}, "do": {"status": 500}}),
    "200 that refuses": ("", {"match": {"share": 0.1}, "do": {"status": 200, "body": ECHO}}),
    "200 not understood": ("answer", {"match": {"share": 0.02}, "do": {"status": 200, "body": "ok", "accepted": True}}),
    "202": ("", {"do": {"status": 202}}),
    "202 and no more": ("answer", {"match": {"share": 0.02}, "do": {"status": 202, "body": "", "accepted": True}}),
    "204": ("answer", {"match": {"share": 0.02}, "do": {"status": 204, "accepted": True}}),
    "a portal's page": ("answer", {"match": {"share": 0.02}, "do": {"action": "html"}}),
    "redirect": ("", {"do": {"action": "redirect"}}),
    "resets before": ("", {"match": {"share": 0.3}, "do": {"action": "reset_before"}}),
    "resets after": ("answer", {"match": {"share": 0.3}, "do": {"action": "reset_after"}}),
    "hangs": ("", {"match": {"share": 0.1}, "do": {"action": "hang"}}),
    "is slow": ("answer", {"match": {"share": 0.05}, "do": {"latency_ms": 2500}}),
    "drips": ("answer", {"match": {"share": 0.05}, "do": {"drip_ms": 100}}),
    "a large body": ("answer", {"match": {"share": 0.05}, "do": {"body": "x" * 300_000, "accepted": True}}),
    "a bomb": ("answer", {"match": {"share": 0.02}, "do": {"body": "x" * 1_000_000, "accepted": True,
                                                           "headers": {"Content-Encoding": "gzip"}}}),
    "300 headers": ("answer", {"match": {"share": 0.05}, "do": {"headers": {f"X-{n}": "x" for n in range(300)}}}),
    "an interim answer first": ("", {"do": {"early_hints": True}}),
    "closes silently": ("", {"do": {"close": "silent"}}),
    FOR_AN_APP: ("", {"match": ONE_APP, "do": {"status": 401}}),
    "one kind hangs": ("", {"match": ONE_KIND, "do": {"action": "hang"}}),
    "one kind fails": ("", {"match": ONE_KIND, "do": {"status": 500}}),
    "all is slow": ("answer", {"do": {"latency_ms": "uniform:1500:2500"}}),
    "an outage": ("", {"do": {"status": 503}}),
    "403 for all": ("", {"do": {"status": 403}}),
    "404": ("", {"do": {"status": 404}}),
    "410": ("", {"do": {"status": 410}}),
}  # fmt: skip
"""Those that Kochava may have accepted, and whose answer is not understood, are `answer`."""


def _sink(rule: dict[str, Any], lasts_s: tuple[float, float]) -> Callable[["Scenario", Random], Hurt]:
    def hurt(run: "Scenario", draw: Random) -> Hurt:
        yield "Kochava"
        run.begin_rule(rule)
        yield draw.uniform(*lasts_s)
        run.end_rule(rule)

    return hurt


for _name, (_excuse, _rule) in SINK_RULES.items():
    _lane, _weight = ("long", 2) if _name in LONG_S else ("sink", 1)
    _fault(f"Kochava: {_name}", _lane, weight=_weight, excuse=_excuse)(_sink(_rule, LONG_S.get(_name, SHORT_S)))


@_fault("Kochava: a network that misbehaves", "wire", weight=4, excuse="answer")
def _wire_to_the_sink(run: "Scenario", draw: Random) -> Hurt:
    yield "Kochava"
    run.sink_proxy.set_mode(
        draw.choice(["blackhole", "half_open", "answers_only", "drip", "slow", "reset", "close", "refuse"])
    )
    yield draw.uniform(0.3, 3)
    run.sink_proxy.set_mode("pass")


# -- brokers


@_fault("broker killed", "brokers", worlds=REAL, excuse="away")
def _kill_a_broker(run: "Scenario", draw: Random) -> Hurt:
    number = _a_node(run, draw)
    yield f"broker-{number + 1}"
    node = run.world.nodes[number]
    node.kill()
    yield draw.uniform(0, 3)
    node.launch()
    while not node.listens():  # others go on meanwhile
        yield LOOK_S


@_fault("broker frozen", "brokers", worlds=REAL, excuse="away")
def _freeze_a_broker(run: "Scenario", draw: Random) -> Hurt:
    number = _a_node(run, draw)
    yield f"broker-{number + 1}"
    run.world.nodes[number].freeze()
    yield draw.uniform(1, 8)
    run.world.nodes[number].thaw()


def _a_node(run: "Scenario", draw: Random) -> int:
    """Choose a broker; of three, mostly the one that coordinates the group or leads a partition."""
    world = run.world
    if isinstance(world, ThreeNodes):
        found = [world.cluster.coordinator_of(run.group), world.cluster.leader_of(run.name, 0), draw.randrange(3)]
        chosen = draw.choice([number for number in found if number is not None])
        return int(chosen)
    return 0


@_fault("two brokers of three frozen", "brokers", worlds=frozenset({"three"}), weight=1, excuse="away")
def _freeze_two_brokers(run: "Scenario", draw: Random) -> Hurt:
    yield "brokers"
    numbers = draw.sample(range(3), 2)  # no write has two replicas in sync, and the quorum is gone
    for number in numbers:
        run.world.nodes[number].freeze()
    yield draw.uniform(1, 6)
    for number in numbers:
        run.world.nodes[number].thaw()


@_fault("leaders and coordinators move", "moves", worlds=frozenset({"three"}), weight=3, excuse="away")
def _move_leaders(run: "Scenario", _: Random) -> Hurt:
    yield "brokers"
    assert isinstance(run.world, ThreeNodes)
    with suppress(KafkaException, TimeoutError):
        run.world.cluster.elect_preferred_leaders()


@_fault("a network that misbehaves before a broker", "moves", worlds=REAL, weight=3, excuse="away")
def _wire_to_a_broker(run: "Scenario", draw: Random) -> Hurt:
    number = draw.randrange(len(run.world.proxies))
    yield f"broker-{number + 1}"
    run.world.proxies[number].set_mode(
        draw.choice(["blackhole", "half_open", "answers_only", "drip", "slow", "reset", "close"])
    )
    yield draw.uniform(0.5, 6)
    run.world.proxies[number].set_mode("pass")


@_fault("brokers that know of no broker", "moves", worlds=REAL, weight=1, excuse="away")
def _no_brokers(run: "Scenario", draw: Random) -> Hurt:
    yield "brokers"  # as while a cluster is rolled; the client may forget all of them, and then a new process is needed
    for proxy in run.world.proxies:
        proxy.set_mode("no_brokers")
    yield draw.uniform(0.5, 4)
    for proxy in run.world.proxies:
        proxy.set_mode("pass")


@_fault("members are fenced", "moves", worlds=REAL, weight=4, excuse="away")
def _fence(run: "Scenario", draw: Random) -> Hurt:
    yield "brokers"
    is_slow = draw.random() < 0.5  # answers come when the partition is nobody's
    if is_slow:
        run.begin_rule(SLOW)
    for proxy in run.world.proxies:
        proxy.set_mode("fenced")
    yield draw.uniform(3, 6)  # one heartbeat at least
    for proxy in run.world.proxies:
        proxy.set_mode("pass")
    if is_slow:
        run.end_rule(SLOW)


@_fault("our topics refuse", "ours", worlds=REAL, excuse="away")
def _refuse(run: "Scenario", draw: Random) -> Hurt:
    yield "brokers"
    run.let_our_topics_take(10)
    yield draw.uniform(0.5, 2)
    while not run.let_our_topics_take(LARGE_BYTES):
        yield 0.5


DISCONNECT, LEADER_NOT_AVAILABLE, NOT_LEADER = -195, 5, 6
PRODUCE, FETCH = 0, 1
API_ERRORS: dict[str, tuple[int, list[int], Excuse]] = {
    "OffsetCommit": (8, [27, 22, 25, 16, 14, 7, 110, 113, 29, 30, 12, DISCONNECT], "away"),
    "OffsetFetch": (9, [113, 16, 14, 30, DISCONNECT], "away"),
    "Fetch": (1, [6, 3, 74, DISCONNECT], "away"),
    "FindCoordinator": (10, [15, 14, DISCONNECT], "away"),
    "Heartbeat": (12, [27, 25, 22, 29, 30, DISCONNECT], "away"),
    "JoinGroup": (11, [16, 27, 79, DISCONNECT], "away"),
    "SyncGroup": (14, [27, 22, 25, DISCONNECT], "away"),
    "ConsumerGroupHeartbeat": (68, [110, 25, 14, 16, DISCONNECT], "away"),
    "Produce": (0, [6, 19, 20, 7, 10, 29, DISCONNECT], "away"),
    "InitProducerId": (22, [51, 14, DISCONNECT], "away"),
    "Metadata": (3, [5, 7, 3, 29, DISCONNECT], "away"),
    "ListOffsets": (2, [6, 7, DISCONNECT], "away"),
    "OffsetCommit for good": (8, [82], "fatal"),
    "Produce for good": (0, [45], "fatal"),
    "InitProducerId for good": (22, [90], "fatal"),
    "Fetch for good": (1, [1], "fatal"),
}


def _api(key: int, codes: list[int]) -> Callable[["Scenario", Random], Hurt]:
    def hurt(run: "Scenario", draw: Random) -> Hurt:
        yield "brokers"
        assert isinstance(run.world, Embedded)
        run.world.cluster.push_errors(key, *draw.choices(codes, k=draw.randint(1, 8)))
        yield 3.0  # until they are used up, or nearly

    return hurt


for _name, (_key, _codes, _excuse) in API_ERRORS.items():
    _fault(f"{_name} fails", "api", worlds=frozenset({"embedded"}), weight=2, excuse=_excuse)(_api(_key, _codes))


@_fault("broker down", "brokers", worlds=frozenset({"embedded"}), weight=4, excuse="away")
def _down(run: "Scenario", draw: Random) -> Hurt:
    assert isinstance(run.world, Embedded)
    which = draw.choice([[1], [2], [3], [1, 2, 3]])
    yield "brokers"
    for broker in which:
        run.world.cluster.set_broker_down(broker)
    yield draw.uniform(0.5, 4)
    for broker in which:
        run.world.cluster.set_broker_up(broker)


@_fault("slow brokers", "rtt", worlds=frozenset({"embedded"}), weight=3, excuse="away")
def _slow_brokers(run: "Scenario", draw: Random) -> Hurt:
    assert isinstance(run.world, Embedded)
    yield "brokers"
    for broker in (1, 2, 3):
        run.world.cluster.set_rtt(broker, draw.choice([0, 200, 1000, 5000]))
    yield draw.uniform(1, 4)
    for broker in (1, 2, 3):
        run.world.cluster.set_rtt(broker, 0)


@_fault("another coordinator and other leaders", "moves", worlds=frozenset({"embedded"}), weight=4, excuse="away")
def _another_coordinator(run: "Scenario", draw: Random) -> Hurt:
    assert isinstance(run.world, Embedded)
    yield "brokers"
    run.world.cluster.set_coordinator(run.group, draw.randint(1, 3))
    for partition in range(run.PARTITIONS):
        run.world.cluster.set_leader(run.name, partition, draw.randint(1, 3))
    yield 1.0


@_fault("no leader", "moves", worlds=frozenset({"embedded"}), weight=3, excuse="away")
def _no_leader(run: "Scenario", draw: Random) -> Hurt:
    assert isinstance(run.world, Embedded)
    yield "brokers"
    cluster, topic = run.world.cluster, draw.choice([run.name, *run.our_topics])
    cluster.set_topic_error(topic, LEADER_NOT_AVAILABLE)
    for api_key in (FETCH, PRODUCE):  # who knows a leader is sent to ask for it
        cluster.push_errors(api_key, *[NOT_LEADER] * 100)
    yield draw.uniform(0.5, 5)
    cluster.set_topic_error(topic, 0)
    for api_key in (FETCH, PRODUCE):
        cluster.clear_errors(api_key)


# -- the registry


@_fault("the registry is away", "registry", weight=2)
def _registry_away(run: "Scenario", draw: Random) -> Hurt:
    yield "registry"
    run.registry.is_down = True
    yield draw.uniform(1, 5)
    run.registry.is_down = False


@_fault("the registry fails", "registry", weight=2)
def _registry_fails(run: "Scenario", draw: Random) -> Hurt:
    yield "registry"
    answer = draw.choice([Raw(500), Raw(401, b"{}"), Raw(429), Raw(404, b'"Not Found"'), _json(UNKNOWN_SCHEMA, 404)])
    run.registry.always_answer_with(answer)
    yield draw.uniform(1, 5)
    run.registry.always_answer_with(None)


@_fault("the registry hangs", "registry")
def _registry_hangs(run: "Scenario", draw: Random) -> Hurt:
    yield "registry"
    run.registry.always_answer_with(Raw(hang=True))  # those that asked meanwhile get nothing afterwards, too
    yield draw.uniform(1, 5)
    run.registry.always_answer_with(None)
