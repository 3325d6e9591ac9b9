"""Copies from upstream: filtered if the event was delivered, and never at the price of an event."""

from pathlib import Path

import pytest

from consumer.configuration import load
from consumer.core.dedup import KEY_BYTES, Dedup, Entry, key_of
from consumer.core.lane import LanePolicy
from consumer.core.outcome import Answer, Fault
from consumer.errors import ExitCode, SettingsError
from consumer.parts import load_spec
from tests.support.rig import PLAN, Rig, on_the_bench
from tests.unit.test_configuration import MINIMAL

REFUSED_KEY = Answer(401)
UNAVAILABLE = Answer(503)
REJECTED = Answer(400)


def duplicates(rig: Rig) -> int:
    return int(rig.metrics.events_filtered.values.get(("duplicate",), 0))


def test_a_copy_of_a_delivered_event_is_filtered_and_settles() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a#1", "game:b#2")
        await rig.answer_all()
        rig.read(at, "game:a#1", "game:c#3", "game:b#2")
        await rig.answer_all()
        assert rig.transport.sent == ["game:a#1", "game:b#2", "game:c#3"]
        assert (duplicates(rig), rig.count("events_delivered")) == (2, 3)
        await rig.advance(0.25)
        assert rig.published == {at.partition: 5}
        assert rig.budget.records == 0

    on_the_bench(run, window_records=10)


def test_it_is_off_by_default() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a#1")
        await rig.answer()
        rig.read(at, "game:a#1")
        await rig.answer()
        assert duplicates(rig) == 0

    on_the_bench(run)


def test_events_without_an_id_are_never_duplicates() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a", "game:a", "game:a#", "game:a#")
        assert len(rig.transport.waiting) == 4
        await rig.answer_all()
        rig.read(at, "game:a", "game:a#")
        await rig.answer_all()
        assert rig.count("events_delivered") == 6

    on_the_bench(run, window_records=10)


def test_the_same_id_at_another_app_is_another_event() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a#1", "shop:a#1")
        await rig.answer_all()
        assert rig.count("events_delivered") == 2

    on_the_bench(run, window_records=10)


def test_copies_in_flight_wait_for_the_first_and_end_with_it() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a#1", "game:b#1", "game:x#2", "game:c#1")
        assert rig.transport.sent == ["game:a#1", "game:x#2"]
        await rig.answer(which="game:x#2")
        assert rig.budget.records == 3, "what waits is in flight"
        await rig.advance(0.25)
        assert rig.published == {at.partition: 0}, "I1"
        await rig.answer(which="game:a#1")
        assert (duplicates(rig), rig.count("events_delivered")) == (2, 2)
        await rig.advance(0.25)
        assert rig.published == {at.partition: 4}
        assert rig.budget.records == 0

    on_the_bench(run, window_records=10)


def test_a_copy_waits_while_the_first_is_tried_again() -> None:
    """An answer that was lost may have been a good one: nothing else is sent before that is known."""

    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), "game:a#1", "game:b#1")
        await rig.answer(Fault.RESET)
        await rig.advance(1)
        assert rig.transport.sent == ["game:a#1", "game:a#1"]
        await rig.answer()
        assert duplicates(rig) == 1

    on_the_bench(run, window_records=10)


def test_a_dead_letter_does_not_swallow_its_copy() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a#1", "game:b#1")
        await rig.answer(REJECTED)
        assert rig.transport.sent == ["game:a#1"], "its end is the broker's acknowledgement, not the answer"
        await rig.acknowledge()
        assert rig.transport.sent == ["game:a#1", "game:b#1"]
        await rig.answer()
        rig.read(at, "game:c#1")
        assert (duplicates(rig), rig.count("events_delivered"), rig.count("events_dead_lettered")) == (1, 1, 1)

    on_the_bench(run, window_records=10)


def test_a_retried_event_does_not_swallow_its_copy() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), "game:a#1", "game:b#1")
        await rig.answer(UNAVAILABLE)
        await rig.acknowledge()
        assert rig.forwarded() == [("retry.30s", "game:a#1")]
        await rig.answer(which="game:b#1")
        assert (duplicates(rig), rig.count("events_delivered")) == (0, 1)

    on_the_bench(run, window_records=10, max_attempts=1)


def test_what_is_filtered_does_not_swallow_what_comes_later() -> None:
    """Only a delivery is remembered: a record that a rule leaves out, and one that was held, are not."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "drop:a#1", "off:a#2")
        await rig.acknowledge()
        assert rig.forwarded() == [("held", "off:a#2")]
        rig.read(at, "game:a#1", "off:a#2")
        await rig.answer()
        await rig.acknowledge()
        assert (rig.count("events_held"), rig.count("events_delivered"), duplicates(rig)) == (2, 1, 0)

    on_the_bench(run, window_records=10, switched_off=frozenset({"off"}))


def test_a_copy_waits_once_and_many_don_t_queue_up_behind_each_other() -> None:
    """Excludes a wait for each other copy in turn: twenty seconds for each of a thousand would stop the process."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, *[f"game:{i}#1" for i in range(5)])
        assert rig.transport.sent == ["game:0#1"]
        await rig.answer(UNAVAILABLE)
        await rig.acknowledge()
        assert len(rig.transport.waiting) == 4
        rig.read(at, "game:late#1")
        assert len(rig.transport.waiting) == 4, "one that comes now has not waited yet"
        await rig.answer(UNAVAILABLE, which="game:2#1")
        await rig.acknowledge()
        assert len(rig.transport.waiting) == 3, "it waits for the first of them and for no other"
        await rig.answer(which="game:3#1")
        assert duplicates(rig) == 1, "whoever of them is delivered ends the wait"
        await rig.answer_all()
        rig.read(at, "game:later#1")
        assert duplicates(rig) == 2
        await rig.advance(0.25)
        assert rig.published == {at.partition: 7}
        assert rig.budget.records == 0

    on_the_bench(run, window_records=10, max_attempts=1)


def test_a_copy_whose_wait_was_in_vain_is_filtered_if_another_one_was_delivered_meanwhile() -> None:
    async def run(rig: Rig) -> None:
        rig.read(rig.assign(), *[f"game:{i}#1" for i in range(3)])
        await rig.answer(UNAVAILABLE)
        await rig.acknowledge()
        assert rig.transport.sent == ["game:0#1", "game:1#1"], "there is one connection"
        await rig.answer()
        assert rig.transport.sent == ["game:0#1", "game:1#1"]
        assert duplicates(rig) == 1

    on_the_bench(run, window_records=10, max_attempts=1, connections=1)


def test_the_window_forgets_the_oldest_and_a_copy_beyond_it_is_sent() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a#1", "game:b#2", "game:c#3")
        await rig.answer_all()
        rig.read(at, "game:c#3", "game:b#2", "game:a#1")
        await rig.answer_all()
        assert (duplicates(rig), rig.count("events_delivered")) == (2, 4)

    on_the_bench(run, window_records=2)


def test_each_partition_and_each_assignment_begins_empty() -> None:
    """A record that is read again after a crash is no duplicate, unless it was delivered in this epoch."""

    async def run(rig: Rig) -> None:
        at, other = rig.assign(), rig.assign(number=1)
        rig.read(at, "game:a#1")
        await rig.answer()
        rig.read(other, "game:a#1")
        await rig.answer()
        rig.pipeline.fence([at], reason="lost")
        again = rig.assign()
        rig.read(again, "game:a#1", "game:a#1")
        await rig.answer()
        assert (duplicates(rig), rig.count("events_delivered")) == (1, 3)

    on_the_bench(run, window_records=10)


def test_what_is_delivered_from_a_tier_is_remembered_there_and_nowhere_else() -> None:
    async def run(rig: Rig) -> None:
        at, tier = rig.assign(), rig.assign(PLAN.topics[0])
        rig.read(tier, "game:a#1", "game:a#1")
        await rig.answer()
        assert duplicates(rig) == 1, "it was put there twice"
        rig.read(at, "game:a#1")
        await rig.answer()
        assert rig.count("events_delivered") == 2

    on_the_bench(run, window_records=10)


# -- while a copy waits


def test_a_copy_ends_with_its_first_during_a_drain() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a#1", "game:b#1", "game:c#2", "game:d#2")
        drain = rig.loop.create_task(rig.pipeline.drain([at], timeout_s=25, reason="revoked"))
        await rig.settle()
        assert not drain.done()
        await rig.answer(which="game:a#1")
        await rig.answer(REJECTED, which="game:c#2")
        await rig.acknowledge()
        assert [position.offset for position in await drain] == [3], "the next owner sends what has no good end"
        assert (duplicates(rig), rig.count("events_abandoned")) == (1, 1)
        assert rig.transport.sent == ["game:a#1", "game:c#2"]
        assert rig.budget.records == 0

    on_the_bench(run, window_records=10)


def test_copies_of_what_only_waits_do_not_hold_up_a_drain() -> None:
    """The first ones stand at each of the gates: their lane, the breaker, and the queue before the connections."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "sick:1#1")
        await rig.answer(REFUSED_KEY)
        rig.read(at, "sick:2#1", "game:b#2", "game:c#2")
        await rig.answer(Answer(404))
        rig.read(at, "game:d#3", "game:d#3")
        drain = rig.loop.create_task(rig.pipeline.drain([at], timeout_s=25, reason="revoked"))
        await rig.settle()
        assert drain.done(), "at once"
        assert rig.count("events_abandoned") == 6
        assert rig.budget.records == 0

    on_the_bench(run, window_records=10)


def test_a_fence_lets_go_of_what_waits_and_a_late_answer_moves_nothing() -> None:
    """I4."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a#1", "game:b#1", "game:c#2", "game:d#2")
        await rig.answer(UNAVAILABLE, which="game:c#2")
        rig.pipeline.fence([at], reason="lost")
        await rig.settle()
        assert rig.count("events_abandoned") == 4
        assert rig.budget.records == 1, "the one on the wire"
        again = rig.assign()
        rig.read(again, "game:a#1")
        await rig.answer()
        assert (duplicates(rig), rig.count("stale_answers"), rig.budget.records) == (0, 1, 1)
        await rig.answer()
        assert again.tracker.committable == 1
        assert rig.budget.records == 0

    on_the_bench(run, window_records=10)


def test_a_partition_that_is_lost_during_its_drain_is_let_go_once() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a#1", "game:b#1")
        drain = rig.loop.create_task(rig.pipeline.drain([at], timeout_s=25, reason="revoked"))
        await rig.settle()
        rig.pipeline.fence([at], reason="lost")
        await rig.answer()
        assert await drain == []
        assert rig.count("events_abandoned") == 2
        assert rig.budget.records == 0

    on_the_bench(run, window_records=10)


def test_other_partitions_keep_their_memory_when_one_leaves() -> None:
    async def run(rig: Rig) -> None:
        stays, goes = rig.assign(), rig.assign(number=1)
        rig.read(stays, "game:a#1", "game:b#1")
        rig.read(goes, "game:c#1")
        rig.pipeline.fence([goes], reason="lost")
        await rig.answer(which="game:a#1")
        assert duplicates(rig) == 1
        await rig.answer_all()

    on_the_bench(run, window_records=10)


def test_a_first_that_blocks_its_partition_steps_aside_and_its_copy_goes_on() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a#1", "game:b#1", *[f"game:{i}" for i in range(10)])
        await rig.answer(UNAVAILABLE, which="game:a#1")
        for index in range(10):
            await rig.answer(which=f"game:{index}")
        rig.pipeline.over_span()
        await rig.settle()
        await rig.acknowledge()
        assert rig.forwarded() == [("retry.30s", "game:a#1")]
        await rig.answer(which="game:b#1")
        await rig.advance(0.25)
        assert rig.published == {at.partition: 12}

    on_the_bench(run, window_records=10, max_span_records=20)


def test_a_lane_that_opens_sends_the_first_and_filters_its_copies() -> None:
    """A record that comes back from its lane must not wait for itself."""

    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "sick:0#0")
        await rig.answer(REFUSED_KEY)
        rig.read(at, "sick:1#1", "sick:2#1", "sick:3#0")
        await rig.advance(5)
        while rig.transport.waiting:
            await rig.answer()
        assert sorted(rig.transport.sent) == ["sick:0#0", "sick:0#0", "sick:1#1"]
        assert (duplicates(rig), rig.count("events_delivered")) == (2, 2)
        assert rig.budget.records == 0

    on_the_bench(run, window_records=10, lane=LanePolicy(waiting_records=2))


def test_a_lane_that_stays_closed_holds_the_first_and_then_its_copy() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "sick:1#1", "sick:2#1")
        await rig.answer(REFUSED_KEY)
        assert rig.count("events_held") == 0
        await rig.acknowledge()
        await rig.acknowledge()
        assert rig.forwarded() == [("held", "sick:1#1"), ("held", "sick:2#1")]
        assert rig.transport.sent == ["sick:1#1"]
        await rig.advance(0.25)
        assert rig.published == {at.partition: 2}
        assert rig.budget.records == 0

    on_the_bench(run, window_records=10, lane=LanePolicy(waiting_records=0))


def test_a_copy_is_no_probe_and_does_not_use_one_up() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "game:a#1")
        await rig.answer()
        rig.read(at, "game:b#2")
        await rig.answer(Answer(404))
        assert rig.delivery.breaker.is_open
        rig.read(at, "game:a#1", "game:c#2", "game:d#3")
        await rig.advance(1)
        assert len(rig.transport.waiting) == 1, "the probe"
        await rig.answer()
        assert not rig.delivery.breaker.is_open
        await rig.answer_all()
        assert (rig.count("events_delivered"), duplicates(rig)) == (3, 2)
        assert rig.budget.records == 0

    on_the_bench(run, window_records=10)


def test_copies_of_a_record_whose_schema_came_late_are_filtered_too() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "schema:a#1", "schema:a#1")
        assert rig.transport.sent == []
        rig.decoder.here.set()
        await rig.settle()
        await rig.answer()
        assert (rig.count("events_delivered"), duplicates(rig)) == (1, 1)

    on_the_bench(run, window_records=10)


def test_a_first_in_the_queue_is_abandoned_with_its_copies() -> None:
    async def run(rig: Rig) -> None:
        at = rig.assign()
        rig.read(at, "sick:0#0")
        await rig.answer(REFUSED_KEY)
        rig.read(at, "sick:1#1", "sick:2#1")
        await rig.advance(5)
        rig.read(at, "game:a")
        await rig.answer(which="sick:0#0")
        assert [request.body for request, _, _ in rig.transport.waiting] == [b"game:a"], "there is one connection"
        rig.pipeline.fence([at], reason="lost")
        await rig.answer()
        assert rig.count("events_abandoned") == 3
        assert rig.budget.records == 0

    on_the_bench(run, window_records=10, connections=1)


# -- what is remembered


def test_what_is_delivered_twice_counts_once_in_the_window() -> None:
    memory: Dedup[str] = Dedup(2)
    assert memory.enter(b"1", "first", has_waited=False) is Entry.FIRST
    assert memory.enter(b"1", "beside", has_waited=True) is Entry.BESIDE
    memory.leave(b"1", "beside", delivered=True)
    memory.leave(b"1", "first", delivered=True)
    assert memory.enter(b"2", "other", has_waited=False) is Entry.FIRST
    memory.leave(b"2", "other", delivered=True)
    assert memory.enter(b"1", "copy", has_waited=False) is Entry.DUPLICATE
    assert memory.enter(b"2", "copy", has_waited=False) is Entry.DUPLICATE


def test_a_key_has_one_size_and_tells_apart() -> None:
    keys = {key_of(app, event_id) for app in ("a", "ab", "") for event_id in ("b", "", "bc", "x" * 100_000, "\ud800")}
    assert len(keys) == 15
    assert {len(key) for key in keys} == {KEY_BYTES}


# -- settings

WITHOUT_ID = """
[[type]]
records = "com.acme.UserAction"
app = "app"
name = "action"
"""


def settings_text(tmp_path: Path, mapping: str, dedup: str, *, event_id: str = "") -> Path:
    (tmp_path / "mapping.toml").write_text(mapping)
    path = tmp_path / "kochava.toml"
    path.write_text(
        f'{MINIMAL}\n[mapping]\nfile = "{tmp_path / "mapping.toml"}"\n{event_id}\n[dedup]\n{dedup}\n'
        '[schemas]\nregistry_url = "https://registry"\n'
    )
    return path


def test_without_an_event_id_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs an event id") as caught:
        load_spec(load(settings_text(tmp_path, WITHOUT_ID, "window_records = 100"), {}))
    assert caught.value.exit_code is ExitCode.SETTINGS


@pytest.mark.parametrize(
    ("mapping", "dedup", "event_id"),
    [
        (WITHOUT_ID, "window_records = 0", ""),
        (WITHOUT_ID, "window_records = 100", 'event_id = "id"'),
        (f'{WITHOUT_ID}event_id = "id"', "window_records = 100", ""),
        (f'{WITHOUT_ID}{WITHOUT_ID.replace("User", "Other")}event_id = "id"', "window_records = 100", ""),
    ],
)
def test_one_type_with_an_id_is_enough(tmp_path: Path, mapping: str, dedup: str, event_id: str) -> None:
    load_spec(load(settings_text(tmp_path, mapping, dedup, event_id=event_id), {}))


def test_a_window_below_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"dedup\.window_records"):
        load(settings_text(tmp_path, WITHOUT_ID, "window_records = -1"), {})
