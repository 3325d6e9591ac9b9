"""A replay's plan in the commits, its span and its selection; and the ids that it leaves out."""

from collections import deque

import pytest
from hypothesis import given, settings, strategies as st

from consumer.core.assignment import Assignment
from consumer.core.known_ids import KnownIds
from consumer.core.mapping import CompiledMapping, Filtered, MappingSpec, compile_mapping
from consumer.core.offset_map import MAX_CHARS, OffsetMap, decode
from consumer.core.record import Partition
from consumer.core.replay import NOT_SELECTED, Mark, Selection, Span, Unplanned, digest_of, narrowed, split, write_mark

MARKS = st.builds(Mark, st.text("0123456789abcdef", min_size=16, max_size=16), st.integers(0, 2**63 - 1))


@given(MARKS, st.text(max_size=50))
def test_a_mark_is_read_whatever_memory_lies_behind_it(mark: Mark, behind: str) -> None:
    assert split(write_mark(mark) + behind) == ("", mark)
    assert len(write_mark(mark)) <= 46


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_no_text_is_taken_for_a_mark_that_is_none(text: str) -> None:
    assert isinstance(split(text)[1], Unplanned)


@given(MARKS, st.data())
def test_a_damaged_mark_is_none(mark: Mark, data: st.DataObject) -> None:
    text = write_mark(mark)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("0123456789abcdefR.x"))
    damaged = text[:at] + other + text[at + 1 :]
    found = split(damaged)[1]
    assert damaged == text or isinstance(found, Unplanned)


@settings(max_examples=60)
@given(MARKS, st.lists(st.booleans(), max_size=3000), st.integers(0, 10**12))
def test_map_and_mark_share_the_metadata_and_both_are_read(mark: Mark, settled: list[bool], start: int) -> None:
    assignment = Assignment(Partition("events", 0), 1, start, OffsetMap(), mark.end, write_mark(mark))
    tracker = assignment.tracker
    for offset in range(start, start + len(settled)):
        tracker.track(offset)
    for offset, is_settled in zip(range(start, start + len(settled)), settled, strict=True):
        if is_settled:
            tracker.settle(offset)
    _, offset, metadata = assignment.position(1_790_000_000)
    assert len(metadata) <= MAX_CHARS
    map_text, found = split(metadata)
    assert found == mark
    runs = decode(map_text, offset, 2**63).runs
    covered = {at for run in runs for at in range(run.first, min(run.end, tracker.next))}
    assert covered <= {at for at, is_settled in zip(range(start, start + len(settled)), settled, strict=True)
                       if is_settled}  # fmt: skip


@given(st.integers(0, 50), st.integers(0, 60), st.lists(st.integers(0, 49), unique=True, max_size=20), st.randoms())
def test_the_end_is_committed_when_all_before_it_is_settled_and_not_earlier(
    start: int, length: int, gone: list[int], random: object
) -> None:
    """Whatever the log lacks: compacted away, aborted, or markers."""
    end = start + length
    there = [offset for offset in range(start, end) if offset - start not in gone]
    assignment = Assignment(Partition("events", 0), 1, start, OffsetMap(), end)
    tracker = assignment.tracker
    waiting = deque(there)
    in_flight: list[int] = []
    while waiting or in_flight:
        if waiting and (not in_flight or random.random() < 0.5):  # type: ignore[attr-defined]
            offset = waiting.popleft()
            tracker.track(offset)
            in_flight.append(offset)
            if not waiting:
                tracker.reach(end)
        else:
            tracker.settle(in_flight.pop(random.randrange(len(in_flight))))  # type: ignore[attr-defined]
        if waiting or in_flight:
            assert tracker.committable <= min([*in_flight, *waiting]) or tracker.committable in {*in_flight, *waiting}
            assert tracker.committable < end
    tracker.reach(end)
    assert tracker.committable == end


@given(st.integers(0, 2**41), st.integers(1, 10**6), st.integers(-2, 2))
def test_a_span_has_its_first_millisecond_and_not_its_last(first: int, length: int, at: int) -> None:
    span = Span(first, first + length)
    assert span.has(first + at) == (0 <= at < length)
    assert span.has(first + length + at) == (-length <= at < 0)


def test_a_digest_depends_on_everything_and_on_no_order() -> None:
    facts = {"a": 1, "b": {"x": (1, 2), "y": None}}
    assert digest_of(facts) == digest_of({"b": {"y": None, "x": [1, 2]}, "a": 1})
    assert digest_of(facts) != digest_of({**facts, "a": 2})


SCHEMA = {
    "type": "record", "name": "E", "fields": [{"name": name, "type": "string"} for name in ("app", "os", "name")],
}  # fmt: skip
FILTER = {"when": {"path": "name", "equals": "test"}, "reason": "own"}
ENTRY = {"records": "E", "app": "app", "platform": "os", "name": "name", "filter": FILTER}
SPEC = MappingSpec.parse({"type": [ENTRY]})


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        (Selection(), {"aiB", "aiC", "aIB", "bkB"}),
        (Selection(apps=("a",)), {"aiB", "aiC", "aIB"}),
        (Selection(apps=("a/I",)), {"aiB", "aiC", "aIB"}),
        (Selection(apps=("a/k",)), set()),
        (Selection(apps=("b", "a/i"), events=("B",)), {"aiB", "aIB", "bkB"}),
        (Selection(where={"path": "name", "equals": "C"}), {"aiC"}),
    ],
)
def test_a_selection_is_a_filter_of_the_mapping(selection: Selection, taken: set[str]) -> None:
    mapping = compile_mapping(narrowed(SPEC, selection), SCHEMA)
    assert isinstance(mapping, CompiledMapping)
    data = [dict(zip(("app", "os", "name"), text, strict=True)) for text in ("aiB", "aiC", "aIB", "bkB")]
    found = [mapping.map(datum) for datum in data]
    assert {"".join(datum.values()) for datum, one in zip(data, found, strict=True)
            if not isinstance(one, Filtered)} == taken  # fmt: skip
    assert {one.reason for one in found if isinstance(one, Filtered)} <= {NOT_SELECTED}
    assert mapping.map({"app": "a", "os": "i", "name": "test"}) == Filtered("own")


@given(st.lists(st.text(max_size=8), max_size=200), st.lists(st.text(max_size=8), max_size=50))
def test_known_ids_are_a_set(there: list[str], asked: list[str]) -> None:
    known = KnownIds(there)
    assert all(text in known for text in there)
    assert [text in known for text in asked] == [text in set(there) for text in asked]
    assert len(known) == len(there)


def test_an_id_across_two_others_is_not_known() -> None:
    """Excludes: a digest that is found in the end of one and the begin of the next."""
    known = KnownIds()
    known._buckets = [b"abcdefghijklmn" + b"opqrstuvwxyz12" for _ in known._buckets]

    class Digest:
        def __call__(self, _text: str) -> bytes:
            return b"\0\0" + b"hijklmnopqrstu"

    import consumer.core.known_ids as module

    original, module._digest = module._digest, Digest()
    try:
        assert "any" not in known
    finally:
        module._digest = original
