"""The adaptive limit: against a server whose capacity is known, and its bounds under any answers."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from consumer.core.concurrency import Concurrency, ConcurrencyPolicy


@dataclass
class Server:
    """Serves *capacity* requests at a time, each in *service_s*; more of them wait; it refuses beyond *refuses_at*."""

    capacity: int
    service_s: float = 0.02
    refuses_at: int = 10**9

    def latency_s(self, on_the_wire: int) -> float:
        return self.service_s * max(1.0, on_the_wire / self.capacity)


@dataclass
class Run:
    """Sends as much as the limit lets through, in rounds of one latency."""

    concurrency: Concurrency
    now: float = 0.0
    rounds: int = 0
    answers: int = 0
    refused: int = 0

    def play(self, server: Server, rounds: int, *, most: int = 10**9) -> None:
        for _ in range(rounds):
            sent = min(self.concurrency.limit, most)
            if sent < most:
                self.concurrency.is_wanted = True
            latency_s = server.latency_s(sent)
            self.now += latency_s
            self.rounds += 1
            for number in range(sent):
                throttled = number >= server.refuses_at
                self.refused += throttled
                self.concurrency.answered(latency_s, self.now, throttled=throttled)
            self.answers += sent


def begin(floor: int = 1, ceiling: int = 512) -> Run:
    return Run(Concurrency(ConcurrencyPolicy(floor, ceiling)))


def test_it_goes_from_1_to_200_in_few_round_trips() -> None:
    """Vector and Netflix need about one for each step; windows of 50 ms are two and a half round trips of 20 ms."""
    run = begin()
    while run.concurrency.limit < 200:
        run.play(Server(10_000), 1)
    assert run.rounds <= 40
    run.play(Server(10_000), 10)
    assert run.concurrency.limit == 512


@pytest.mark.parametrize("capacity", [20, 100, 300])
def test_it_stays_near_what_the_server_takes(capacity: int) -> None:
    """Excludes both a limit that creeps up with the latency that it makes itself, and one that starves."""
    run = begin(ceiling=5_000)
    server = Server(capacity, service_s=0.1)
    run.play(server, 100)
    limits = []
    for _ in range(300):
        run.play(server, 1)
        limits.append(run.concurrency.limit)
    assert max(limits) < 5 * capacity
    assert sum(limit >= capacity for limit in limits) > 0.9 * len(limits), "the server has always something to do"


def test_throttling_cuts_at_once_and_only_once_per_round_trip() -> None:
    run = begin()
    run.play(Server(10_000), 40)
    assert run.concurrency.limit == 512
    limits = [512]
    for _ in range(30):
        run.play(Server(10_000, refuses_at=100), 1)
        if run.concurrency.limit != limits[-1]:
            limits.append(run.concurrency.limit)
    assert run.concurrency.reason in {"throttled", "room"}
    assert min(limits) <= 110
    assert all(later >= earlier * 0.69 for earlier, later in pairwise(limits))


def test_after_throttling_it_grows_slowly_and_is_refused_little() -> None:
    run = begin()
    server = Server(10_000, refuses_at=100)
    run.play(server, 100)
    run.refused = run.answers = 0
    run.play(server, 1_000)
    assert run.refused / run.answers < 0.1
    assert run.answers / 1_000 > 75, "and it uses most of what it may"


def test_a_server_that_is_slower_for_other_reasons_is_not_starved() -> None:
    run = begin()
    run.play(Server(10_000, service_s=0.02), 50)
    run.play(Server(10_000, service_s=0.5), 30)
    assert run.concurrency.limit == 512


def test_latency_that_our_own_loop_may_add_is_no_reason() -> None:
    run = begin(ceiling=64)
    run.play(Server(1, service_s=0.0005), 2_000)
    assert run.concurrency.limit == 64


def test_what_is_not_wanted_does_not_grow() -> None:
    run = begin()
    run.play(Server(10_000), 500, most=8)
    assert 8 <= run.concurrency.limit <= 16


def test_a_restart_begins_at_the_floor() -> None:
    run = begin(floor=4)
    run.play(Server(10_000), 50)
    run.concurrency.restart(run.now)
    assert (run.concurrency.limit, run.concurrency.reason) == (4, "start")
    run.play(Server(10_000), 40)
    assert run.concurrency.limit == 512


answers = st.tuples(
    st.floats(0.0001, 30, allow_nan=False), st.floats(0, 2, allow_nan=False), st.booleans(), st.booleans()
)


@given(st.integers(1, 50), st.integers(0, 500), st.lists(answers, max_size=300))
def test_it_keeps_its_bounds_whatever_is_answered(
    floor: int, room: int, told: list[tuple[float, float, bool, bool]]
) -> None:
    concurrency = Concurrency(ConcurrencyPolicy(floor, floor + room, min_answers=1))
    now = 0.0
    for latency_s, passes_s, throttled, wanted in told:
        now += passes_s
        concurrency.is_wanted |= wanted
        before = concurrency.limit
        moved = concurrency.answered(latency_s, now, throttled=throttled)
        assert floor <= concurrency.limit <= floor + room
        assert moved == (concurrency.limit != before)
        assert before * 0.7 - 1 <= concurrency.limit <= before * 2
