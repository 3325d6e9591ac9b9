"""What waits on our own topics is not in flight: it is given back and read again when it is due."""

from consumer.core.headers import NOT_BEFORE_MS
from consumer.core.parking import Parked, Parking
from consumer.core.record import Partition, Record
from consumer.core.retry import RetryPlan

PLAN = RetryPlan.of("e", ("30s", "5m"))
TIER = Partition("e.retry.30s", 0)
HELD = Partition("e.held", 0)
NOW = 1_000_000


def at(partition: Partition, offset: int, due_ms: int | None = None) -> Record:
    headers = () if due_ms is None else ((NOT_BEFORE_MS, str(due_ms).encode()),)
    return Record(partition.topic, partition.number, offset, 0, None, b"v", headers)


def test_source_records_never_wait() -> None:
    assert Parking(PLAN).place(at(Partition("e", 0), 5, NOW * 2), NOW) is None


def test_a_tier_waits_for_its_head() -> None:
    parking = Parking(PLAN)
    assert parking.place(at(TIER, 5, NOW), NOW) is None
    parked = parking.place(at(TIER, 6, NOW + 10), NOW)
    assert parked == Parked(6, NOW + 10)
    parking.park(TIER, parked)
    assert parking.due(NOW + 9) == []
    assert parking.due(NOW + 10) == [TIER]
    assert parking.parked == {}


def test_a_clock_that_jumped_back_stops_a_tier_no_longer_than_its_delay() -> None:
    assert Parking(PLAN).place(at(TIER, 5, NOW + 3_600_000), NOW) == Parked(5, NOW + 30_000)


def test_a_clock_that_was_ahead_costs_a_tier_its_delay_once() -> None:
    """Each record is looked at again when its wait is over; then it must not wait anew, nor each one behind it.

    Found by the simulation (seed 7821): a pod whose clock was an hour ahead stopped the tier for that hour.
    """
    parking = Parking(PLAN)
    hour = 3_600_000
    parking.park(TIER, Parked(5, NOW + 30_000))
    assert parking.place(at(TIER, 5, NOW + 30_000 + hour), NOW) == Parked(5, NOW + 30_000)
    assert parking.place(at(TIER, 5, NOW + 30_000 + hour), NOW + 30_000) is None
    assert parking.place(at(TIER, 6, NOW + 30_007 + hour), NOW + 30_000) == Parked(6, NOW + 30_007)
    assert parking.place(at(TIER, 6, NOW + 30_007 + hour), NOW + 30_007) is None
    assert parking.place(at(TIER, 7, NOW + 60_000), NOW + 30_007) == Parked(7, NOW + 60_000), "a good clock's record"
    assert parking.place(at(TIER, 8, NOW + 60_000 + 2 * hour), NOW + 60_000) == Parked(8, NOW + 90_000), "further ahead"


def test_our_own_clock_that_jumps_back_frees_what_waits() -> None:
    parking = Parking(PLAN)
    parking.park(TIER, Parked(5, NOW + 10_000))
    assert parking.due(NOW - 20_001) == [TIER]
    parking.park(TIER, Parked(5, NOW + 10_000))
    assert parking.due(NOW - 20_000) == []


def test_a_record_without_its_moment_is_due() -> None:
    assert Parking(PLAN).place(at(TIER, 5), NOW) is None


def test_the_held_topic_is_read_in_sweeps_that_end() -> None:
    parking = Parking(PLAN)
    first = parking.place(at(HELD, 3), NOW)
    assert first == Parked(3, None)
    parking.park(HELD, first)
    assert parking.due(NOW * 10) == [], "no time frees it"
    assert not parking.sweep(HELD, end=3), "nothing there"
    assert parking.sweep(HELD, end=5)
    assert parking.place(at(HELD, 3), NOW) is None
    assert not parking.sweep_is_over(HELD, 4)
    assert parking.place(at(HELD, 4), NOW) is None
    assert parking.sweep_is_over(HELD, 5)
    assert parking.place(at(HELD, 5), NOW) == Parked(5, None), "what was held again waits for the next sweep"


def test_a_sweep_goes_on_to_what_was_held_while_it_ran() -> None:
    """A lane that opens in the middle of a sweep: nothing of it must wait for the next one."""
    parking = Parking(PLAN)
    parking.park(HELD, Parked(3, None))
    assert parking.held_position(HELD) == 3
    assert parking.sweep(HELD, end=5)
    assert parking.held_position(HELD) is None
    assert not parking.sweep(HELD, end=8), "it runs already"
    assert not parking.sweep_is_over(HELD, 5)
    assert parking.place(at(HELD, 7), NOW) is None
    assert parking.sweep_is_over(HELD, 8)


def test_a_sweep_ends_too_where_its_last_records_are_gone() -> None:
    parking = Parking(PLAN)
    parking.park(HELD, Parked(3, None))
    assert parking.sweep(HELD, end=5)
    assert parking.place(at(HELD, 9), NOW) == Parked(9, None)


def test_a_partition_that_is_not_ours_any_more_is_forgotten() -> None:
    parking = Parking(PLAN)
    parking.park(TIER, Parked(1, NOW))
    parking.forget(TIER)
    assert parking.due(NOW * 2) == []
