"""The completed-offsets map: what it says comes back, what it can't have said is ignored, and all is bounded."""

import base64
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from consumer.adapters.kafka_positions import StartPositions
from consumer.core.offset_map import (
    HEAD_CHARS,
    MAX_CHARS,
    VERSION,
    OffsetMap,
    Run,
    UnreadableMapError,
    decode,
    encode,
)
from consumer.telemetry import Metrics

NO_LIMIT = 2**63
positions = st.integers(0, 2**62)
lengths = st.integers(1, 100_000)


@st.composite
def maps(draw: st.DrawFn, most: int = 200) -> tuple[int, tuple[Run, ...]]:
    position = at = draw(positions)
    runs = []
    for gap, length in draw(st.lists(st.tuples(lengths, lengths), max_size=most)):
        runs.append(Run(at + gap, at + gap + length))
        at = runs[-1].end
    return position, tuple(runs)


def settled_behind(position: int, blockers: range) -> list[Run]:
    """Return the runs between *blockers*, offsets that are in flight."""
    return [Run(one + 1, other) for one, other in pairwise([position, *blockers])]


def text_of(body: bytes, position: int) -> str:
    """Return what a foreign or wrong writer could write: any numbers, with a good checksum."""
    checksum = zlib.crc32(position.to_bytes(8, "big") + body).to_bytes(4, "big")
    text = base64.urlsafe_b64encode(checksum + body).decode().replace("=", "")
    return f"{VERSION}{len(text):04d}{text}"


@given(maps(), st.integers(0, 2**40))
def test_what_was_encoded_is_decoded(made: tuple[int, tuple[Run, ...]], since_s: int) -> None:
    position, runs = made
    text, covered = encode(position, runs, since_s)
    assert decode(text, position, NO_LIMIT) == (OffsetMap(runs, since_s) if runs else OffsetMap())
    assert covered == sum(run.end - run.first for run in runs)


@given(maps(), st.text(max_size=20))
def test_what_stands_behind_the_text_is_not_read(made: tuple[int, tuple[Run, ...]], behind: str) -> None:
    """The client returns foreign memory behind metadata that has no NUL."""
    position, runs = made
    text, _ = encode(position, runs)
    if text:
        assert decode(text + behind, position, NO_LIMIT).runs == runs


@given(maps(most=50), st.integers(0, 300))
def test_where_not_all_fits_the_lowest_offsets_win(made: tuple[int, tuple[Run, ...]], max_chars: int) -> None:
    position, runs = made
    text, covered = encode(position, runs, max_chars=max_chars)
    kept = decode(text, position, NO_LIMIT).runs
    assert len(text) <= max_chars
    assert kept == runs[: len(kept)]
    assert covered == sum(run.end - run.first for run in kept)
    if len(kept) < len(runs):
        assert len(text) > max_chars - 20 or max_chars < HEAD_CHARS + 20, "no room is wasted"


@given(st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("latin-1"))), positions)
def test_any_text_is_understood_or_refused(text: str, position: int) -> None:
    try:
        runs = decode(text, position, NO_LIMIT).runs
    except UnreadableMapError:
        return
    assert (runs == ()) == (text == "")


@given(maps(most=20), st.data())
def test_a_changed_character_is_found(made: tuple[int, tuple[Run, ...]], data: st.DataObject) -> None:
    position, runs = made
    text, _ = encode(position, runs)
    if not text:
        return
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters().filter(lambda char: char != text[at])) + text[at + 1 :]
    try:
        assert decode(changed, position, NO_LIMIT).runs == runs, "only bits that carry nothing may differ"
    except UnreadableMapError:
        return


@given(maps(), st.integers(-1000, 1000).filter(bool))
def test_a_map_is_good_for_its_own_position_only(made: tuple[int, tuple[Run, ...]], shift: int) -> None:
    position, runs = made
    text, _ = encode(position, runs)
    if text and position + shift >= 0:
        with pytest.raises(UnreadableMapError, match="checksum"):
            decode(text, position + shift, NO_LIMIT)


@given(maps())
def test_a_run_beyond_the_limit_spoils_the_whole_map(made: tuple[int, tuple[Run, ...]]) -> None:
    """Excludes: a run of 2^31 that would skip every real record."""
    position, runs = made
    text, _ = encode(position, runs)
    if runs:
        assert decode(text, position, runs[-1].end).runs == runs
        with pytest.raises(UnreadableMapError, match="span"):
            decode(text, position, runs[-1].end - 1)


def test_a_hundred_thousand_behind_one_blocker_take_a_line() -> None:
    text, covered = encode(7_000_000_000, [Run(7_000_000_001, 7_000_100_001)])
    assert covered == 100_000
    assert len(text) < 20


def test_a_full_budget_of_blockers_fits() -> None:
    """1,024 in flight, the default, spread over the longest span."""
    runs = settled_behind(0, range(97, 100_000, 97))
    text, covered = encode(0, runs)
    assert covered == sum(run.end - run.first for run in runs)
    assert len(text) <= MAX_CHARS


def test_its_length_never_passes_what_the_broker_takes() -> None:
    text, covered = encode(0, settled_behind(0, range(200, 10_000_000, 200)))
    assert MAX_CHARS - 8 <= len(text) <= MAX_CHARS
    assert covered > 100_000
    assert text.isascii()


@given(st.integers(0, MAX_CHARS))
def test_the_work_is_bounded_by_the_room_and_not_by_the_runs(max_chars: int) -> None:
    """Of ten thousand runs no more are looked at than could fit, at two bytes each, and one that does not."""
    looked_at = []
    runs = (looked_at.append(at) or Run(2 * at + 1, 2 * at + 2) for at in range(10_000))
    _, covered = encode(0, runs, max_chars=max_chars)
    assert covered <= len(looked_at) <= max(0, max_chars - HEAD_CHARS) * 3 // 8 + 1


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_the_length_does_not_grow_with_the_span(gap: int, settled: int) -> None:
    """Two numbers, whatever they are: at most five bytes each below 2^35."""
    text, covered = encode(5, [Run(5 + gap, 5 + gap + settled)])
    assert covered == settled
    assert len(text) <= HEAD_CHARS + (4 + 1 + 5 + 5) * 4 // 3


@given(st.lists(st.integers(0, 255), max_size=9999).map(bytes), positions)
@example(b"\x00" + b"\x01" * 7000, 0)
@example(b"\x00" + b"\x80" * 7000, 0)
@example(b"\xff" * 9 + b"\x7f" + b"\x01\x01", 0)
def test_what_is_read_is_bounded_by_the_text(body: bytes, position: int) -> None:
    """Even with a good checksum: two numbers a run, at least a byte each, none beyond 63 bits."""
    try:
        found = decode(text_of(body, position), position, NO_LIMIT)
    except UnreadableMapError:
        return
    assert 2 * len(found.runs) < max(2, len(body))
    assert found.since_s < 2**63
    assert all(one.end <= other.first for one, other in pairwise(found.runs))


class StrangeMetadata:
    """A committed position as the client hands it over; it may fail to read what others wrote."""

    topic, partition = "events", 0

    def __init__(self, offset: int, raw: bytes) -> None:
        self.offset = offset
        self._raw = raw

    @property
    def metadata(self) -> str:
        return self._raw.decode()


class TenThousandRecords:
    def get_watermark_offsets(self, _at: object, **_options: object) -> tuple[int, int]:
        return 0, 10_000


@st.composite
def metadata(draw: st.DrawFn) -> bytes:
    """What stands in a commit: anything, a map of ours, or one that was damaged on its way."""
    raw = draw(st.binary(max_size=60))
    ours = encode(draw(st.sampled_from([100, 101])), [Run(102, 105), Run(110, draw(st.integers(111, 20_000)))])[
        0
    ].encode()
    return draw(st.sampled_from([raw, ours, ours + raw, ours[:-3], raw + ours]))


@given(metadata())
@example(encode(100, [Run(101, 200)])[0].encode())
@example(encode(100, [Run(101, 20_000)])[0].encode())
@example(encode(99, [Run(101, 200)])[0].encode())
@example(b"\xff\xfe")
@example(b"")
def test_any_metadata_is_understood_or_ignored_and_counted(raw: bytes) -> None:
    metrics = Metrics()
    start = StartPositions(
        metrics=metrics, clock=None, pause=None, admin_conf={}, group_id="g", source_topics=["events"], our_topics=[],
        start="earliest", budget_s=1.0, max_span_records=10_000,
    )  # fmt: skip
    at = StrangeMetadata(100, raw)
    told: list[Any] = []
    text = start._metadata(at, told)
    found = start._map(TenThousandRecords(), at, text, told) if text else OffsetMap()
    for tell in told:
        tell()
    ignored = sum(metrics.offset_maps_ignored.values.values())
    assert ignored == (not found.runs and bool(raw))
    assert {reason for (reason,) in metrics.offset_maps_ignored.values} <= {
        "foreign", "truncated", "damaged", "checksum", "span", "unreadable",
    }  # fmt: skip
    assert all(100 < run.first < run.end <= 10_000 for run in found.runs)


def test_nothing_to_say_is_nothing() -> None:
    assert encode(5, []) == ("", 0)
    assert decode("", 5, 5) == OffsetMap()


GOOD = encode(0, [Run(1, 3)])[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2" + GOOD[1:], "foreign"),
        (GOOD[:4], "foreign"),
        ("1 004AAAA", "foreign"),
        ("1\u0660\u0660\u0660\u0664AAAA", "foreign"),
        (GOOD[:-1], "truncated"),
        ("10004A\u0660AA", "damaged"),
        ("10004A*AA", "damaged"),
        ("10001A", "damaged"),
        (f"1{len(GOOD) - HEAD_CHARS + 4:04d}{GOOD[HEAD_CHARS:]}****", "damaged"),
        (GOOD[:5] + "B" + GOOD[6:], "checksum"),
        ("10000", "checksum"),
        (text_of(b"\x07\x01", 0), "damaged"),
        (text_of(b"\x07\x01\x01\x01", 0), "damaged"),
        (text_of(b"\x07\x01\x00", 0), "damaged"),
        (text_of(b"\x07\x01\x01\x01\x00", 0), "damaged"),
        (text_of(b"\x07\x01\x81", 0), "damaged"),
        (text_of(b"\x80" * 9 + b"\x01", 0), "damaged"),
        (text_of(b"\x07\x01\x64", 0), "span"),
    ],
)
def test_each_reason_to_ignore_a_map(text: str, reason: str) -> None:
    with pytest.raises(UnreadableMapError, match=f"^{reason}$"):
        decode(text, 0, 100)


def test_the_text_is_a_contract_with_the_next_version() -> None:
    """Written down by hand from the module's docstring: a map is read by whatever version comes next."""
    assert encode(7, [Run(8, 9)], 5) == ("10010nodKaQUBAQ", 1)
    for body, runs in (
        (b"\x00\x01\x7f\x80\x01\x80\x01", (Run(1, 128), Run(256, 384))),  # the first number of two bytes
        (b"\x00\x01\x01\x01\x17", (Run(1, 2), Run(3, 26))),  # ends with a letter that must not be cut off
    ):
        assert encode(0, runs)[0] == text_of(body, 0)
        assert decode(text_of(body, 0), 0, NO_LIMIT) == OffsetMap(runs, 0)


def test_a_run_that_just_fits_is_in() -> None:
    text, covered = encode(0, [Run(1, 2)])
    assert covered == 1
    assert encode(0, [Run(1, 2)], max_chars=len(text)) == (text, 1)
    assert encode(0, [Run(1, 2)], max_chars=len(text) - 1) == ("", 0)


def test_what_a_good_checksum_may_say() -> None:
    assert decode(text_of(b"\x07", 0), 0, 100) == OffsetMap((), 7)
    assert decode(text_of(b"", 0), 0, 100) == OffsetMap()
    assert decode(text_of(b"\x07\x00\x64", 0), 0, 100) == OffsetMap((Run(0, 100),), 7)
    assert decode(text_of(b"\xff" * 8 + b"\x7f", 0), 0, 100) == OffsetMap((), 2**63 - 1)


@pytest.mark.parametrize(
    "text", ["x", "1", "1000", "10000", "10004AAAA", "1\u0660\u0660\u0660\u0664AAAA", "2" + "0" * 40, "19999AAAA"]
)
def test_short_and_foreign_texts_are_refused(text: str) -> None:
    with pytest.raises(UnreadableMapError):
        decode(text, 0, NO_LIMIT)
