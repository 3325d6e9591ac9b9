"""Any Retry-After gives a wait between 0 and the cap; seconds and the three dates of RFC 9110 give what they say, in
whatever zone the machine is; a lower cap cuts and does nothing else; what is no date and no number asks for nothing.
"""  # fmt: skip

import os
import time
from datetime import UTC, datetime, timedelta

from consumer.core.retry import retry_after_s
from tests.fuzz.feed import Feed

MAX_BYTES = 200
WORDS = [
    b"GMT", b"UTC", b"-0000", b"+2359", b"Sun, 06 Nov 1994 08:49:37", b"06-Nov-94", b"Feb", b"9999", b"24:00:60",
    b"9" * 9, b"EST",
]  # fmt: skip
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
HUGE_S = 1e12


def check(data: bytes) -> None:
    before = os.environ.get("TZ")
    _set_zone("NZST-12NZDT")  # a machine may be set to any zone; a date of HTTP is UTC
    try:
        _check(data)
    finally:
        _set_zone(before)


def _set_zone(zone: str | None) -> None:
    if zone is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = zone
    if hasattr(time, "tzset"):
        time.tzset()


def _check(data: bytes) -> None:
    feed = Feed(data)
    kind = feed.number() % 3
    now_ms = feed.number(6) % 4_000_000_000_000
    cap_s = feed.number(2) / 4
    if kind == 0:
        _check_bounds(feed.rest().decode("latin-1"), now_ms, cap_s)
    elif kind == 1:
        seconds = feed.number(feed.number() % 12)
        text = " " * (feed.number() % 3) + "0" * (feed.number() % 8) + str(seconds) + "\t" * (feed.number() % 3)
        _check_bounds(text, now_ms, cap_s)
        assert retry_after_s(text, now_ms, cap_s) == min(float(seconds), cap_s)
    else:
        _check_date(EPOCH + timedelta(seconds=feed.number(5) % 250_000_000_000), feed.number() % 3, now_ms, cap_s)


def _check_bounds(header: str, now_ms: int, cap_s: float) -> None:
    wait_s = retry_after_s(header, now_ms, cap_s)
    assert 0 <= wait_s <= cap_s
    unbounded_s = retry_after_s(header, now_ms, HUGE_S)
    assert wait_s == min(unbounded_s, cap_s)
    if not any(char.isdigit() for char in header):
        assert wait_s == 0
    if not header.strip().isdigit() and 0 < unbounded_s < HUGE_S:
        # a date: a second later there is a second less to wait
        assert abs(unbounded_s - retry_after_s(header, now_ms - 1000, HUGE_S) + 1) < 0.001


def _check_date(moment: datetime, form: int, now_ms: int, cap_s: float) -> None:
    day, month, clock = DAYS[moment.weekday()], MONTHS[moment.month - 1], f"{moment:%H:%M:%S}"
    if form == 0:
        text = f"{day[:3]}, {moment.day:02} {month} {moment.year:04} {clock} GMT"
    elif form == 1:
        text = f"{day[:3]} {month} {moment.day:2} {clock} {moment.year:04}"
    elif 1969 <= moment.year <= 2068:
        text = f"{day}, {moment.day:02}-{month}-{moment.year % 100:02} {clock} GMT"
    else:
        return
    expected_s = min(max((moment - EPOCH).total_seconds() - now_ms / 1000, 0), cap_s)
    assert abs(retry_after_s(text, now_ms, cap_s) - expected_s) < 0.001, (form, text)


NOW = b"\x01\x8b\xcf\xe5\x68\x00"  # Tue, 14 Nov 2023 22:13:20 GMT
SEEDS = [
    b"\x00" + NOW + b"\x40\x00120",
    b"\x00" + NOW + b"\x40\x00Tue, 14 Nov 2023 22:14:20 GMT",
    b"\x00" + NOW + b"\x40\x00Tuesday, 14-Nov-23 22:14:20 GMT",
    b"\x00" + NOW + b"\x40\x00Tue Nov 14 22:14:20 2023",
    b"\x00" + NOW + b"\x40\x00Tue, 14 Nov 2023 22:14:20 -0500",
    b"\x01" + NOW + b"\x40\x00\x02\x01\x00\x01\x02\x01",
    b"\x02" + NOW + b"\x40\x00\x00\x65\x53\xf3\x58\x00",
    b"\x02" + NOW + b"\x40\x00\x00\x65\x53\xf3\x58\x01",
    b"\x02" + NOW + b"\x40\x00\x00\x65\x53\xf3\x58\x02",
]
