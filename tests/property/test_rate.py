"""No window of time sees more than its rate allows, whatever is asked when."""

from hypothesis import given, strategies as st

from consumer.core.rate import Rate

RATES = st.floats(0.01, 1e5)
PAUSES = st.lists(st.floats(0, 10) | st.just(0.0), min_size=1, max_size=60)


@given(RATES, st.integers(1, 50), PAUSES)
def test_a_rate_is_never_passed_over_any_time(per_s: float, burst: int, pauses: list[float]) -> None:
    rate, now, taken = Rate(per_s, burst), 1e6, []
    for pause in pauses:
        now += pause
        while len(taken) < 300 and rate.wait_s(now) == 0:
            rate.take(now)
            taken.append(now)
    for first, since in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + per_s * (taken[last] - since + 1e-5)


@given(RATES, st.integers(1, 50), PAUSES)
def test_who_waits_as_long_as_it_says_may(per_s: float, burst: int, pauses: list[float]) -> None:
    rate, now = Rate(per_s, burst), 1e6
    for pause in pauses:
        now += pause
        now += rate.wait_s(now) + 1e-6
        assert rate.wait_s(now) == 0
        rate.take(now)
