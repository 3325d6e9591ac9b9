"""What a reset does to events is counted right, against a model that looks at each record by itself."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies as st

from consumer.core.offset_map import OffsetMap, Run, encode
from consumer.core.record import Partition
from consumer.core.reset import (
    ShiftBy,
    Target,
    ToEach,
    ToEarliest,
    ToLatest,
    ToOffset,
    ToTime,
    UnusableResetError,
    meaning,
    plan,
)
from consumer.core.reset_arguments import EPOCH, before_now, choose, choose_each, from_csv, to_datetime
from consumer.core.reset_backup import UnreadableBackupError, Verdict, backup_of, dump, judge, load
from consumer.core.standing import Commit, Standing

AT = Partition("in-app-events", 0)
OFFSETS = st.integers(0, 60)


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    """A group anywhere on a short log, the commit outside of it included; the map lies between commit and end."""
    low, high = sorted((draw(OFFSETS), draw(OFFSETS)))
    committed = draw(st.none() | OFFSETS)
    if committed is None:
        return Standing(AT, low, None, high)
    runs, at = [], committed
    while draw(st.booleans()):
        first = at + draw(st.integers(1, 5))
        end = first + draw(st.integers(1, 5))
        if end > high:
            break
        runs.append(Run(first, end))
        at = end
    text, _ = encode(committed, runs, 7)
    return Standing(AT, low, committed, high, OffsetMap(tuple(runs), 7 if runs else 0), metadata=text)


TARGETS: st.SearchStrategy[Target] = st.one_of(
    st.builds(ToOffset, st.integers(0, 80)),
    st.builds(ShiftBy, st.integers(-80, 80)),
    st.just(ToEarliest()),
    st.just(ToLatest()),
    st.just(ToTime(0)),
    st.integers(0, 80).map(lambda offset: ToEach({AT: offset})),
)


def is_done(now: Standing, offset: int) -> bool:
    """Say whether the group needs nothing more of this record, as the consumer judges at a start."""
    assert now.committed is not None
    return offset < now.committed or any(run.first <= offset < run.end for run in now.map.runs)


@given(standings(), TARGETS, st.none() | OFFSETS)
def test_each_record_of_the_log_is_counted_once(now: Standing, target: Target, first: int | None) -> None:
    try:
        (move,) = plan([now], target, {AT: first})
    except UnusableResetError:
        assert isinstance(target, ShiftBy)
        assert now.committed is None
        return
    assert now.low <= move.to <= now.high, "it stays in the log"
    if now.committed is None:
        assert (move.again, move.skipped) == (0, 0)
        return
    log = range(now.low, now.high)
    assert move.again == sum(is_done(now, offset) for offset in log if offset >= move.to)
    assert move.skipped == sum(not is_done(now, offset) for offset in log if offset < move.to)


@given(standings(), st.integers(-80, 80))
def test_what_is_asked_for_is_done_or_the_note_says_why_not(now: Standing, offset: int) -> None:
    for target, wanted in ((ToOffset(offset), offset), (ToEach({AT: offset}), offset),
                           (ShiftBy(offset), None if now.committed is None else now.committed + offset)):  # fmt: skip
        if wanted is not None:
            (move,) = plan([now], target, {})
            assert (move.to == wanted) == (move.note == "")
            if move.note:
                assert move.note.startswith(f"{wanted} is ")
                assert move.to == (now.low if wanted < now.low else now.high)


@given(standings())
def test_edges_and_times(now: Standing) -> None:
    def to(target: Target, first: int | None = None) -> tuple[int, str]:
        (move,) = plan([now], target, {AT: first})
        return move.to, move.note

    assert to(ToEarliest()) == (now.low, "")
    assert to(ToLatest()) == (now.high, "")
    assert to(ToTime(1)) == (now.high, "no record that late: the end")
    for first in range(now.low + 1, now.high):
        assert to(ToTime(1), first) == (first, "")
    if 0 < now.low < now.high:
        assert to(ToTime(1), now.low) == (now.low, "the log begins here: older records are gone")


@given(standings(), TARGETS)
def test_nothing_is_written_where_the_commit_is_that_already(now: Standing, target: Target) -> None:
    if now.committed is None and isinstance(target, ShiftBy):
        return
    (move,) = plan([now], target, {AT: None})
    same = now.committed == move.to and not now.metadata
    assert move.changes_something == (not same)
    assert (meaning([move]) == ["Nothing would change: the group stands there already."]) == same


@given(st.integers(0, 253402300799999), st.integers(0, 999), st.integers(-14 * 60, 14 * 60))
def test_a_moment_is_the_first_millisecond_that_is_not_before_it(ms: int, us: int, zone_minutes: int) -> None:
    zone = timezone(timedelta(minutes=zone_minutes))
    try:
        moment = (EPOCH + timedelta(milliseconds=ms, microseconds=us)).astimezone(zone)
    except OverflowError:  # a day beyond the year 9999
        return
    assert to_datetime(moment.isoformat()).at_ms == ms + (us > 0)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_and_breaks_nothing(text: str) -> None:
    for read in (to_datetime, lambda text: before_now(text, 1_700_000_000_000), from_csv,
                 lambda text: choose((), (text,), ["a"], ["a"])):  # fmt: skip
        with suppress(UnusableResetError):
            found = read(text)
            assert not isinstance(found, ToTime) or found.at_ms >= 0


@given(
    st.dictionaries(
        st.builds(Partition, st.sampled_from(["a", "b-c", "d.e_f"]), st.integers(0, 99)), OFFSETS, min_size=1
    )
)
def test_a_file_of_offsets_is_read_as_the_tool_writes_it(offsets: dict[Partition, int]) -> None:
    lines = [f"{topic},{number},{offset}" for (topic, number), offset in offsets.items()]
    assert from_csv("\n".join(lines) + "\n") == ToEach(offsets)
    assert from_csv("\r\n".join(line.replace(",", '",', 1).join(['"', ""]) for line in lines)) == ToEach(offsets)


@given(st.lists(standings(), min_size=1, max_size=5), OFFSETS)
def test_a_backup_survives_the_disk_and_tells_each_state(found: list[Standing], offset: int) -> None:
    found = [now._replace(partition=Partition("t", number)) for number, now in enumerate(found)]
    moves = [move for move in plan(found, ToOffset(offset), {}) if move.changes_something]
    backup = backup_of("g", "2026-11-01T00:00:00+00:00", moves)
    if not moves:
        return
    assert load(dump(backup)) == backup
    for move, saved in zip(moves, backup.saved, strict=True):
        assert judge(saved, move.before.commit) is Verdict.AS_BEFORE
        written = judge(saved, Commit(move.to))
        assert written is (Verdict.RESTORE if move.before.committed is not None else Verdict.NOT_REMOVABLE)
        assert judge(saved, Commit(move.to + 1)) in {Verdict.MOVED, Verdict.AS_BEFORE}
        member, _ = encode(move.to, [Run(move.to + 1, move.to + 2)], 9)
        assert judge(saved, Commit(move.to, member)) is Verdict.MOVED, "a member has settled something since"
        assert judge(saved, Commit(move.to, is_foreign=True)) is Verdict.MOVED


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789truefalsn ', max_size=60).map(str.encode))
def test_no_file_is_taken_for_a_backup(content: bytes) -> None:
    with pytest.raises(UnreadableBackupError):
        load(content)


MAP, _ = encode(5, [Run(6, 9)], 3)
GOOD = dump(
    backup_of("g", "then", plan([Standing(AT, 0, 5, 9, OffsetMap((Run(6, 9),), 3), None, MAP)], ToOffset(2), {}))
)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"version": 1', '"version": 2', "its version is 2"),
        ('"group": "g"', '"group": 7', "lacks"),
        ('"reset_to": 2', '"reset_to": -2', "not as a reset writes it"),
        ('"reset_to": 2', '"reset_to": "2"', "not as a reset writes it"),
        ('"offset": 5', '"offset": 6', "damaged"),
        ('"offset": 5', '"offset": null', "damaged"),
        ('"metadata": "1', '"metadata": "2', "damaged"),
        ('"foreign_metadata": false', '"foreign_metadata": 0', "not as a reset writes it"),
        ('"topic": "in-app-events"', '"topic": ""', "not as a reset writes it"),
    ],
)
def test_a_backup_that_somebody_changed_is_refused(old: str, new: str, why: str) -> None:
    assert load(GOOD).group == "g"
    assert old in GOOD.decode()
    with pytest.raises(UnreadableBackupError, match=why):
        load(GOOD.decode().replace(old, new).encode())


def test_a_backup_with_a_partition_twice_is_refused() -> None:
    backup = load(GOOD)
    with pytest.raises(UnreadableBackupError, match="twice"):
        load(dump(backup._replace(saved=backup.saved * 2)))


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-01T09:30:00Z", datetime(2026, 11, 1, 9, 30, tzinfo=UTC)),
        ("2026-11-01 09:30+02:00", datetime(2026, 11, 1, 7, 30, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", EPOCH),
        ("1969-12-31T23:59:59.999Z", EPOCH),  # -1 would mean the end to a broker, and -2 the start
        ("0001-01-01T00:00:00+14:00", EPOCH),
    ],
)
def test_moments(text: str, at: datetime) -> None:
    assert to_datetime(text) == ToTime(int(at.timestamp() * 1000))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2026-11-01T09:30:00", "write 2026-11-01T09:30:00Z for UTC"),
        ("2026-11-01", "write 2026-11-01T00:00:00Z for UTC"),
        ("yesterday", "write it as 2026-11-01T09:30:00Z"),
        ("1762000000", "is no date and time"),
    ],
)
def test_what_is_no_moment_is_refused_and_says_how_to_write_it(text: str, hint: str) -> None:
    with pytest.raises(UnusableResetError) as refused:
        to_datetime(text)
    assert hint in str(refused.value)


def test_durations() -> None:
    now_ms = 1_700_000_000_000
    assert before_now("2h", now_ms) == ToTime(now_ms - 7_200_000)
    assert before_now("250ms", now_ms) == ToTime(now_ms - 250)
    assert before_now("99999d", now_ms) == before_now("9" * 400 + "d", now_ms) == ToTime(0)
    with pytest.raises(UnusableResetError, match="such as 90m, 2h or 1d"):
        before_now("-2h", now_ms)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no line"),
        ("t,0", "line 1 is not topic,partition,offset"),
        ("topic,partition,offset\nt,0,1", "line 1 is not"),
        ("t,0,1\ng,t,1,5", "line 2 is not"),
        ("t,0,-1", "line 1 is not"),
        ("t,0,1\n\nt,0,2", "line 3 names t/0 a second time"),
        ("t,0,²", "line 1 is not"),
    ],
)
def test_what_is_no_file_of_offsets_is_refused_by_its_line(text: str, why: str) -> None:
    with pytest.raises(UnusableResetError, match=why):
        from_csv(text)


SOURCES, READ = ["a", "b"], ["a", "b", "a.kochava.held"]


@pytest.mark.parametrize(
    ("topics", "limits", "numbers"),
    [
        ((), (), {"a": None, "b": None}),
        (("b",), (), {"b": None}),
        (("a.kochava.held",), (), {"a.kochava.held": None}),
        ((), ("b:0,2", "b:5", "a:1"), {"b": frozenset({0, 2, 5}), "a": frozenset({1})}),
        (("b",), ("3", "4,5"), {"b": frozenset({3, 4, 5})}),
        (("a", "b"), ("b:1",), {"a": None, "b": frozenset({1})}),
    ],
)
def test_partitions_are_chosen(topics: tuple[str], limits: tuple[str], numbers: object) -> None:
    assert choose(topics, limits, SOURCES, READ).numbers == numbers


def test_a_number_alone_is_clear_where_there_is_one_source_topic() -> None:
    assert choose((), ("0,1",), ["a"], ["a"]).numbers == {"a": frozenset({0, 1})}


@pytest.mark.parametrize(
    ("topics", "limits", "why"),
    [
        (("c",), (), "doesn't read 'c'; it reads a, b, a.kochava.held"),
        ((), ("c:0",), "doesn't read 'c'"),
        ((), ("0",), "Write a:0"),
        ((), ("a:-1",), "write 0,1 or a:0,1"),
        ((), ("a:x",), "names no partitions"),
        (("a",), ("b:0",), "--topic names others"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(topics: tuple[str], limits: tuple[str], why: str) -> None:
    with pytest.raises(UnusableResetError, match=why):
        choose(topics, limits, SOURCES, READ)


def test_what_does_not_exist_is_not_chosen() -> None:
    found = [Standing(Partition("a", number), 0, 1, 2) for number in range(3)]
    assert choose(("a",), (), SOURCES, READ).select(found) == found
    assert choose((), ("a:2,0",), SOURCES, READ).select(found) == [found[0], found[2]]
    assert choose_each([Partition("a", 1)], READ).select(found) == [found[1]]
    with pytest.raises(UnusableResetError, match="has no partition 3, 9: it has 3, from 0 on"):
        choose((), ("a:9,3,0",), SOURCES, READ).select(found)
    with pytest.raises(UnusableResetError, match="'b' does not exist"):
        choose(("b",), (), SOURCES, READ).select(found)
    with pytest.raises(UnusableResetError, match="doesn't read 'z'"):
        choose_each([Partition("z", 0)], READ)


def test_the_sentences_say_what_happens_to_events() -> None:
    now = Standing(AT, 0, 5, 9, OffsetMap((Run(6, 9),), 3), None, MAP)
    said = " ".join(meaning(plan([now], ToOffset(4), {})))
    assert said.startswith("4 records will be read again: events that were sent already will be sent twice")
    assert "settled beyond the commit (3 records on 1 partition) is forgotten" in said
    assert meaning(plan([now], ToLatest(), {}))[0] == "1 record will be skipped and never be sent."
    foreign = Standing(AT, 0, 5, 9, map_problem="foreign")
    assert meaning(plan([foreign], ToOffset(5), {})) == [
        "Metadata that another tool committed is dropped on 1 partition, and not backed up."
    ]
    assert meaning(plan([Standing(AT, 0, None, 9)], ToOffset(5), {})) == [
        "The group has no commit on 1 partition yet: this makes its first there."
    ]
