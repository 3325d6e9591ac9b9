"""Any headers are read without an error; read, written and read again they say the same, and they never grow; source
headers stay as they came; a producer's header of our name means nothing; both readers of a due time agree.
"""  # fmt: skip

from consumer.core.headers import OURS, Hop, not_before_ms, read_hop, write_hop
from consumer.core.record import Headers, Record
from tests.fuzz.feed import Feed

MAX_BYTES = 800
NAMES = tuple(sorted(OURS))
WORDS = [b"-1", b"0", b"1", b"9" * 20, b"9" * 21, b"1_0", b"+5", b"30s", b"\xd9\xa3", b"\xff\xfe"]


def check(data: bytes) -> None:
    feed = Feed(data)
    partition, offset, timestamp_ms = feed.number(2), feed.number(7), feed.number(6) - 1
    status = feed.number(2) or None
    source = _headers(feed)
    record = Record("orders", partition, offset, timestamp_ms, b"k", b"v", source)
    own = Hop("orders", partition, offset, timestamp_ms)

    assert read_hop(record, is_ours=False) == own, "a producer cannot pretend to be us"
    hop = read_hop(record, is_ours=True)
    _check_types(hop)
    assert not_before_ms(record) == hop.not_before_ms
    theirs = tuple(header for header in source if header[0] not in OURS)
    if not source or source == theirs:
        assert hop == own

    written = write_hop(source, hop, stage="deliver", reason="http_503", status=status)
    again = record._replace(topic="orders.held", partition=0, offset=0, timestamp_ms=0, headers=written)
    assert read_hop(again, is_ours=True) == hop
    assert not_before_ms(again) == hop.not_before_ms
    assert written[: len(theirs)] == theirs
    ours = written[len(theirs) :]
    assert len(dict(ours)) == len(ours) <= len(OURS)
    assert {name for name, _ in ours} <= OURS
    assert all(isinstance(value, bytes) for _, value in ours)
    assert write_hop(written, hop, stage="deliver", reason="http_503", status=status) == written, "it never grows"


def _headers(feed: Feed) -> Headers:
    made: list[tuple[str, bytes | None]] = []
    while feed:
        which = feed.number()
        name = NAMES[which % len(NAMES)] if which < 240 else feed.block().decode("utf-8", "replace")
        size = feed.number()
        made.append((name, None if size == 255 else feed.take(size)))
    return tuple(made)


def _check_types(hop: Hop) -> None:
    for number in (hop.partition, hop.offset, hop.timestamp_ms, hop.attempts, hop.not_before_ms, hop.redrive_count):
        assert type(number) is int
    assert type(hop.topic) is str
    assert hop.first_failure_ms is None or (type(hop.first_failure_ms) is int and hop.first_failure_ms != 0)
    assert hop.tier is None or (type(hop.tier) is str and hop.tier)
    assert type(hop.was_unconfirmed) is bool


def _seed(*headers: tuple[str, bytes]) -> bytes:
    made = bytearray(b"\x00\x03" + b"\x00" * 6 + b"\x07" + b"\x01" * 6 + b"\x01\xf7")
    for name, value in headers:
        made += bytes([NAMES.index(name)]) if name in OURS else bytes([250, len(name)]) + name.encode()
        made += bytes([len(value)]) + value
    return bytes(made)


SEEDS = [
    _seed(),
    _seed(("trace", b"abc"), *((name, b"12") for name in NAMES)),
    _seed(*((name, value or b"") for name, value in write_hop(
        (), Hop("in-app-events", 3, 2**40, 1_790_000_000_000, 4, 1_790_000_000_001, "30s", 1_790_000_030_000, True),
        stage="deliver", reason="http_503", status=503))),
    _seed(("kochava-not-before-ms", b"5"), ("kochava-not-before-ms", b"x")),
    _seed(("kochava-attempts", b"99999999999999999999"), ("kochava-tier", b"5m"), ("kochava-unconfirmed", b"1")),
]  # fmt: skip
