"""Dead letters: fingerprints, groups, markers, copies, and that a mask lets nothing through."""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
from hypothesis import given, strategies as st

from consumer.core.dead_letters import (
    Cause,
    DeadLetter,
    Place,
    Selection,
    group,
    headers_to_redrive,
    marker_for,
    read_cause,
    read_dead_letter,
    read_marker,
    with_copies,
)
from consumer.core.event import InAppEvent
from consumer.core.headers import OURS, Hop, read_hop, write_hop
from consumer.core.masking import MASK, mask, shown_of
from consumer.core.record import Headers, Record

words = st.sampled_from(["a", "b", "", "é\x1f", "\0"])
causes = st.builds(
    Cause, words, words, st.none() | st.integers(100, 599), st.none() | words, st.none() | words, st.none() | words
)
places = st.builds(Place, st.just("ours"), st.integers(0, 3), st.integers(0, 2**62))
origins = st.builds(Place, st.text(min_size=1), st.integers(0, 9), st.integers(0, 9))
letters = st.builds(
    DeadLetter, places, st.integers(0, 2**45), origins, st.integers(0, 3), st.booleans(), st.sampled_from([b"1", b"2"]),
    causes,
)  # fmt: skip
names = st.text(max_size=10) | st.sampled_from(sorted(OURS))
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=20)), max_size=6).map(tuple)


@given(causes, causes)
def test_a_fingerprint_stands_for_its_cause(one: Cause, other: Cause) -> None:
    assert (one.fingerprint == other.fingerprint) == (one == other)


def test_a_fingerprint_is_the_same_for_ever() -> None:
    """People note it down, and runbooks have it."""
    assert Cause("map", "unknown_app", None, "id 2", "com.example.game", "Purchase").fingerprint == "eab22c6b2bc5"


@given(st.lists(letters, max_size=30))
def test_groups_lose_nobody(given: list[DeadLetter]) -> None:
    found = group(given)
    assert {each.cause: each.count for each in found} == Counter(letter.cause for letter in given)
    for each in found:
        times = [letter.time_ms for letter in given if letter.cause == each.cause]
        assert (each.first_ms, each.last_ms) == (min(times), max(times))
        assert each.example in given
        assert each.example.cause == each.cause


@given(st.lists(letters, max_size=30, unique_by=lambda letter: letter.place))
def test_copies_are_of_the_same_event_and_each_place_is_there_once(given: list[DeadLetter]) -> None:
    found = with_copies(given)
    assert Counter(place for _, copies in found for place in copies) == Counter(letter.place for letter in given)
    identities = [(letter.origin, letter.redrive_count, letter.digest) for letter, _ in found]
    assert len(set(identities)) == len(identities)
    assert all(copies[0] == letter.place for letter, copies in found)


@given(places, origins)
def test_a_marker_names_its_dead_letter(place: Place, origin: Place) -> None:
    key, made = marker_for(place, origin)
    assert read_marker(Record("ours", place.partition, 99, 0, key, None, made)) == place[1:]
    assert read_marker(Record("ours", place.partition, 99, 0, key, b"", made)) is None, "an event is no marker"


@given(headers, st.none() | st.binary(max_size=9))
def test_any_record_is_read_without_an_error(source: Headers, value: bytes | None) -> None:
    record = Record("ours", 1, 2, 3, None, value, source)
    read_marker(record)
    for wire in ("confluent", "single_object", "plain"):
        read_dead_letter(record, read_cause(record, wire, None))


@given(headers, st.integers(0, 99), st.booleans(), st.integers(0, 9))
def test_a_redriven_record_begins_anew_and_keeps_what_is_not_ours(
    source: Headers, attempts: int, was_unconfirmed: bool, count: int
) -> None:
    hop = Hop("events", 1, 2, 3, attempts, 4, "1h", 0, was_unconfirmed, count)
    dead = write_hop(source, hop, stage="deliver", reason="http_400", status=400)
    made = headers_to_redrive(Record("ours", 9, 9, 9, b"k", b"v", dead))
    expected = hop._replace(attempts=0, tier=None, redrive_count=count + 1)
    assert read_hop(Record("retry", 0, 0, 0, b"k", b"v", made), is_ours=True) == expected
    theirs = tuple(each for each in source if each[0] not in OURS)
    assert made[: len(theirs)] == theirs
    assert ("kochava-reason", b"http_400") in made


@given(st.lists(letters, max_size=10), st.none() | st.integers(0, 2**45), st.none() | st.integers(0, 2**45))
def test_selections_narrow(given: list[DeadLetter], since: int | None, until: int | None) -> None:
    chosen = given[:2]
    for letter in given:
        in_time = (since is None or letter.time_ms >= since) and (until is None or letter.time_ms < until)
        assert Selection(since_ms=since, until_ms=until).has(letter) == in_time
        prints = Selection(frozenset(each.cause.fingerprint for each in chosen), since_ms=since, until_ms=until)
        if chosen:
            assert prints.has(letter) == (in_time and letter.cause in {each.cause for each in chosen})


SECRET = "s3cr3t"
leaves: Any = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9).map(SECRET.__add__)
    | st.binary(max_size=9).map(SECRET.encode().__add__) | st.decimals(allow_nan=False, allow_infinity=False)
    | st.datetimes(timezones=st.just(UTC), max_value=datetime(2025, 1, 1))  # noqa: DTZ001 - the strategy adds it
)  # fmt: skip
keys = st.sampled_from(["device", "ip", "name"]) | st.text(max_size=9).map(SECRET.__add__)
data = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


def leaves_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in (key, *leaves_of(inner))]
    return [leaf for inner in value for leaf in leaves_of(inner)] if isinstance(value, list) else [value]


@given(data)
def test_a_mask_lets_nothing_through(value: Any) -> None:
    masked = mask(value, names={"device", "ip", "name"}, shown=frozenset())
    assert SECRET not in orjson.dumps(masked).decode()
    for leaf in leaves_of(masked):
        assert leaf is None or leaf in {"device", "ip", "name"} or (isinstance(leaf, str) and leaf.startswith(MASK))


@given(data)
def test_a_mask_keeps_the_shape(value: Any) -> None:
    masked = mask(value, names=(), shown=frozenset())
    assert len(leaves_of(masked)) == len(leaves_of(value))


def test_what_may_be_shown_is() -> None:
    event = InAppEvent(app="com.example.game", platform="ios", name="Purchase", time_ms=1_790_000_000_123, ip="::1")
    datum = {"app": "com.example.game", "on": "ios", "what": "Purchase", "ip": "::1", "is": True,
             "at": datetime.fromtimestamp(1_790_000_000.123, UTC), "s": 1_790_000_000, "sum": Decimal("1.5"),
             "n": 1, "raw": b"ios", "none": None, "empty": ""}  # fmt: skip
    masked = mask(datum, names=datum, shown=shown_of(event))
    assert masked == {**datum, "ip": "••• text 3", "is": "••• boolean", "sum": "••• number", "n": "••• number",
                      "raw": "••• bytes 3", "empty": "••• text 0"}  # fmt: skip
    assert shown_of(None) == frozenset()
