"""I7: what only a wrong endpoint explains opens at once; one probe at a time closes it again."""

import pytest

from consumer.core.breaker import Breaker, BreakerPolicy
from consumer.core.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable, Unconfirmed

FAILING = Retryable("http_503", 503)
WRONG_URL = Misconfigured("endpoint", "http_404", 404)
WRONG_KEY = Misconfigured("app", "http_401", 401)


def breaker(**changes: float) -> Breaker:
    return Breaker(BreakerPolicy(**changes))  # type: ignore[arg-type]


def test_one_misconfigured_endpoint_answer_opens() -> None:
    it = breaker()
    assert it.note(WRONG_URL, 0.0)
    assert it.reason == "http_404"


@pytest.mark.parametrize("outcome", [Delivered(), Rejected("http_400", 400), WRONG_KEY])
def test_answers_of_a_working_endpoint_never_open(outcome: Outcome) -> None:
    it = breaker()
    assert not any(it.note(outcome, 0.0) for _ in range(5000))


def test_it_opens_on_half_of_the_last_answers_but_not_on_the_first_few() -> None:
    it = breaker()
    assert not any(it.note(FAILING, 0.0) for _ in range(19))
    assert it.note(FAILING, 0.0)
    it = breaker()
    for _ in range(100):
        assert not it.note(Delivered(), 0.0)
    assert [it.note(FAILING, 0.0) for _ in range(50)].index(True) == 49


def test_more_than_one_percent_unconfirmed_opens() -> None:
    it = breaker()
    odd = Unconfirmed("not_json", 200)
    for _ in range(990):
        it.note(Delivered(), 0.0)
    assert [it.note(odd, 0.0) for _ in range(11)] == [False] * 10 + [True]
    assert it.reason == "unconfirmed_answers"


def test_only_a_probe_closes_and_probes_come_one_at_a_time_at_growing_intervals() -> None:
    it = breaker(probe_initial_s=1.0, probe_max_s=3.0)
    it.note(WRONG_URL, 10.0)
    assert not it.note(Delivered(), 10.5), "a late answer to an earlier request decides nothing"
    assert not it.probes.take(10.9)
    assert it.probes.take(11.0)
    assert not it.probes.take(11.0), "one at a time"
    it.note(FAILING, 11.2, probe=True)
    assert not it.probes.take(13.1)
    assert it.probes.take(13.2)
    it.note(FAILING, 13.2, probe=True)
    assert not it.probes.take(16.1), "the interval doubles up to its maximum"
    assert it.probes.take(16.2)
    assert it.note(Delivered(), 16.3, probe=True)
    assert not it.is_open


def test_a_probe_that_is_refused_for_its_app_shows_a_working_endpoint() -> None:
    it = breaker()
    it.note(WRONG_URL, 0.0)
    assert it.note(WRONG_KEY, 2.0, probe=True)
    assert not it.is_open


def test_after_closing_it_counts_afresh() -> None:
    it = breaker()
    for _ in range(20):
        it.note(FAILING, 0.0)
    it.note(Delivered(), 2.0, probe=True)
    assert not any(it.note(FAILING, 3.0) for _ in range(19))
