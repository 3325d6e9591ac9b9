"""Small counters that guard big things, each against the obvious model."""

from hypothesis import given, strategies as st

from consumer.core.budget import InFlightBudget
from consumer.core.flood_guard import FloodGuard
from consumer.core.window import ShareWindow


@given(st.lists(st.booleans()), st.integers(1, 20))
def test_the_window_knows_its_last_notes(notes: list[bool], size: int) -> None:
    window = ShareWindow(size)
    for note in notes:
        window.add(note)
    last = notes[-size:]
    assert (window.total, window.marked) == (len(last), sum(last))
    assert window.share == (sum(last) / len(last) if last else 0.0)


@given(st.lists(st.booleans(), max_size=300))
def test_the_guard_trips_exactly_when_both_bounds_are_passed(ends: list[bool]) -> None:
    guard = FloodGuard(max_share=0.2, window_records=50, min_dead_letters=5)
    tripped = False
    for count, dead in enumerate(ends, 1):
        window = ends[max(0, count - 50) : count]
        expected = dead and not tripped and sum(window) >= 5 and sum(window) / len(window) > 0.2
        assert guard.note(dead) == expected
        tripped = tripped or expected
        assert guard.is_tripped == tripped


def test_the_first_bad_records_of_a_quiet_topic_are_no_flood() -> None:
    guard = FloodGuard(max_share=0.05, window_records=10_000, min_dead_letters=100)
    assert not any(guard.note(True) for _ in range(99))
    assert guard.note(True)


def test_room_counts_what_all_readers_took_and_closes_for_reasons() -> None:
    budget = InFlightBudget(max_records=10, max_bytes=1000)
    one, other = budget.new_intake(), budget.new_intake()
    assert budget.room == 10
    one.taken_records, one.taken_bytes = 3, 300
    other.taken_records, other.taken_bytes = 1, 100
    assert (budget.room, budget.is_worth_reading) == (6, True)
    other.taken_bytes = 700
    assert (budget.room, budget.is_worth_reading) == (0, False)
    budget.released_bytes = 999
    budget.closed_for = frozenset({"breaker"})
    assert (budget.room, budget.is_worth_reading) == (0, False)
    budget.closed_for = frozenset()
    assert budget.room == 6
