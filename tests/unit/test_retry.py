"""Where a failed record goes, and how long Retry-After may make it wait."""

import time

import pytest
from hypothesis import given, strategies as st

from consumer.core.retry import RetryPlan, retry_after_s

PLAN = RetryPlan.of("events.kochava", ("5m", "30s", "1h"))
NOW_MS = 1_700_000_000_000  # Tue, 14 Nov 2023 22:13:20 GMT


def test_topics_are_named_after_the_prefix_in_order_of_delay() -> None:
    assert PLAN.topics == (
        "events.kochava.retry.30s",
        "events.kochava.retry.5m",
        "events.kochava.retry.1h",
        "events.kochava.held",
        "events.kochava.dead-letter",
    )


@pytest.mark.parametrize(
    ("passed", "wait_s", "expected"),
    [
        (None, 0, "30s"),
        (None, 31, "5m"),
        (None, 7200, "1h"),
        ("30s", 0, "5m"),
        ("30s", 301, "1h"),
        ("5m", 10, "1h"),
        ("1h", 0, None),
        ("2m", 0, "5m"),  # a tier of an earlier configuration
        ("nonsense", 0, "30s"),
    ],
)
def test_the_next_tier_covers_the_wait_and_is_never_passed_twice(
    passed: str | None, wait_s: float, expected: str | None
) -> None:
    tier = PLAN.next_tier(passed, wait_s)
    assert (tier.label if tier else None) == expected


@pytest.mark.parametrize(
    ("passed", "again"), [(None, "30s"), ("30s", "30s"), ("5m", "5m"), ("1h", "1h"), ("2m", "30s")]
)
def test_what_steps_aside_waits_where_it_last_waited(passed: str | None, again: str) -> None:
    assert PLAN.same_tier(passed).label == again


@given(st.lists(st.floats(0, 1e6), min_size=10, max_size=10))
def test_hops_are_bounded_by_the_number_of_tiers(waits: list[float]) -> None:
    passed, hops = None, 0
    for wait_s in waits:
        tier = PLAN.next_tier(passed, wait_s)
        if tier is None:
            break
        passed, hops = tier.label, hops + 1
    assert hops <= 3


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("-5", 0),
        ("1.5", 0),
        ("9" * 400, 3600),
        ("0" * 400 + "30", 30),  # found by the fuzzer
        ("0" * 10, 0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("soon", 0),
        ("٣", 0),
    ],
)
def test_retry_after_is_read_and_bounded(header: str | None, expected: float) -> None:
    assert retry_after_s(header, NOW_MS, 3600) == expected


@pytest.mark.parametrize("zone", ["UTC", "NZST-12NZDT", "EST5EDT"])
@pytest.mark.parametrize(
    "header", ["Tue, 14 Nov 2023 22:14:20 GMT", "Tuesday, 14-Nov-23 22:14:20 GMT", "Tue Nov 14 22:14:20 2023"]
)
def test_the_three_dates_of_http_are_utc_wherever_the_machine_is(
    monkeypatch: pytest.MonkeyPatch, zone: str, header: str
) -> None:
    """Found by the fuzzer: the last form names no zone, and was read as local time."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        assert retry_after_s(header, NOW_MS, 100_000) == 60
    time.tzset()


@given(st.text())
def test_any_header_gives_a_bounded_wait(header: str) -> None:
    assert 0 <= retry_after_s(header, NOW_MS, 60) <= 60
