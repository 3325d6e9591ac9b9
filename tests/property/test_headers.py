"""I5 and the hop headers: what is written is read back, source headers survive, nothing grows."""

from hypothesis import given, strategies as st

from consumer.core.headers import OURS, Hop, not_before_ms, read_hop, write_hop
from consumer.core.record import Headers, Record

names = st.text(min_size=1, max_size=20) | st.sampled_from(sorted(OURS))
sources = st.lists(st.tuples(names, st.none() | st.binary(max_size=30)), max_size=8).map(tuple)
hops = st.builds(
    Hop,
    topic=st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable()),
    partition=st.integers(0, 10_000),
    offset=st.integers(0, 2**62),
    timestamp_ms=st.integers(-1, 2**45),
    attempts=st.integers(0, 1000),
    first_failure_ms=st.none() | st.integers(1, 2**45),
    tier=st.none() | st.sampled_from(["30s", "5m"]),
    not_before_ms=st.integers(0, 2**45),
    was_unconfirmed=st.booleans(),
    redrive_count=st.integers(0, 1000),
)


def record(headers: Headers) -> Record:
    return Record("ours", 1, 2, 3, None, b"v", headers)


@given(sources, hops)
def test_what_is_written_is_read_back(source: Headers, hop: Hop) -> None:
    headers = write_hop(source, hop, stage="deliver", reason="http_503", status=503)
    assert read_hop(record(headers), is_ours=True) == hop
    assert not_before_ms(record(headers)) == hop.not_before_ms


@given(sources, hops, hops)
def test_source_headers_stay_in_order_and_ours_never_grow(source: Headers, first: Hop, second: Hop) -> None:
    once = write_hop(source, first, stage="deliver", reason="a", status=None)
    twice = write_hop(once, second, stage="deliver", reason="b", status=None)
    theirs = tuple(header for header in source if header[0] not in OURS)
    assert twice[: len(theirs)] == theirs
    assert len(twice) - len(theirs) <= len(OURS)
    assert len({name for name, _ in twice[len(theirs) :]}) == len(twice) - len(theirs)


@given(sources)
def test_any_headers_are_read_without_an_error(source: Headers) -> None:
    hop = read_hop(record(source), is_ours=True)
    assert not_before_ms(record(source)) == hop.not_before_ms


def test_of_two_headers_with_our_name_the_last_one_counts_for_both_readers() -> None:
    """Found by the fuzzer: the reader of retry tiers took the first, the other one the last."""
    headers: Headers = (("kochava-not-before-ms", b"5"), ("kochava-not-before-ms", b"7"))
    assert not_before_ms(record(headers)) == read_hop(record(headers), is_ours=True).not_before_ms == 7


def test_a_producer_cannot_pretend_to_be_us() -> None:
    headers: Headers = (
        ("kochava-attempts", b"99"),
        ("kochava-origin-topic", b"elsewhere"),
        ("kochava-redrive-count", b"7"),
    )
    assert read_hop(record(headers), is_ours=False) == Hop("ours", 1, 2, 3)
