"""The sandbox's account: exact under any history, bounded in every direction."""

from collections import Counter

from hypothesis import given, strategies as st

from consumer.sandbox.findings import Finding
from consumer.sandbox.ledger import KINDS_MAX_ENTRIES, PLACES_MAX_ENTRIES, STATUSES_MAX, Ledger, LogLine

REQUESTS = st.lists(
    st.tuples(
        st.none() | st.sampled_from("abc"),
        st.none() | st.sampled_from(["app-1", "app-2"]),
        st.sampled_from(["Purchase", "View"]),
        st.sampled_from([200, 503, "reset_after"]),
        st.booleans(),
    ),
    max_size=40,
)


@given(requests=REQUESTS)
def test_totals_are_those_of_a_plain_list(requests: list[tuple[str | None, str | None, str, int | str, bool]]) -> None:
    ledger = Ledger()
    for number, (event_id, app, event, status, accepted) in enumerate(requests):
        assert ledger.tries(event_id) == sum(
            event_id is not None and event_id == before[0] for before in requests[:number]
        )
        ledger.record(event_id, app, event, status, accepted, float(number))
    accepted_ids = Counter(request[0] for request in requests if request[4] and request[0] is not None)
    assert ledger.requests == len(requests)
    assert ledger.accepted == sum(request[4] for request in requests)
    assert ledger.accepted_ids == len(accepted_ids)
    assert ledger.duplicates == sum(count > 1 for count in accepted_ids.values())
    assert ledger.accepted_again == sum(count - 1 for count in accepted_ids.values())
    assert ledger.accepted_without_id == sum(request[0] is None and request[4] for request in requests)
    assert ledger.accepted == ledger.accepted_ids + ledger.accepted_again + ledger.accepted_without_id
    for entry in ledger:
        mine = [(number, *request) for number, request in enumerate(requests) if request[0] == entry.id]
        assert (entry.app, entry.event) == mine[0][2:4], "what an id was first"
        assert (entry.seen, entry.accepted) == (len(mine), sum(request[-1] for request in mine))
        assert (entry.first_ms, entry.last_ms) == (mine[0][0] * 1000, mine[-1][0] * 1000)
        assert entry.statuses == tuple(request[4] for request in mine)[-STATUSES_MAX:]
    summary = ledger.summary()
    by_app = Counter(request[1] or "(none)" for request in requests)
    assert {app: totals["requests"] for app, totals in summary["by_app"].items()} == by_app
    by_event = Counter(request[2] for request in requests if request[4])
    assert {name: totals["accepted"] for name, totals in summary["by_event"].items() if totals["accepted"]} == by_event


@given(requests=st.integers(0, 12), remembered=st.integers(1, 5), after=st.integers(-2, 14))
def test_the_log_has_the_last_requests_behind_a_number(requests: int, remembered: int, after: int) -> None:
    ledger = Ledger(log_max_entries=remembered)
    for number in range(1, requests + 1):
        ledger.record(f"id-{number}", "app", "View", 200, True, number / 1000, None if number % 3 == 0 else 0.02)
    first = max(requests - remembered, 0) + 1
    assert ledger.log_first == first
    assert list(ledger.log(after)) == [
        LogLine(number, number, f"id-{number}", "app", "View", 200, True, None if number % 3 == 0 else number + 20)
        for number in range(max(first, after + 1), requests + 1)
    ]


def test_an_iteration_shows_one_moment() -> None:
    ledger = Ledger()
    ledger.record("a", "app", "View", 200, True, 0.0)
    entries, lines = iter(ledger), ledger.log()
    ledger.record("b", "app", "View", 200, True, 0.0)
    assert [entry.id for entry in entries] == ["a"]
    assert [line.id for line in lines] == ["a"]


def test_ids_without_room_are_counted_but_not_remembered() -> None:
    ledger = Ledger(ids_max_entries=2)
    for event_id in ("a", "b", "c", "c", "a"):
        ledger.record(event_id, "app", "View", 200, True, 0.0)
    assert [entry.id for entry in ledger] == ["a", "b"]
    assert (ledger.requests, ledger.accepted, ledger.ledger_overflow) == (5, 5, 2)
    assert (ledger.accepted_ids, ledger.duplicates) == (2, 1)
    assert ledger.tries("c") == 0


def test_names_places_and_histories_are_bounded() -> None:
    ledger = Ledger()
    for number in range(KINDS_MAX_ENTRIES + 3):
        ledger.record("a", f"app-{number}", "View", number, False, 0.0)
        ledger.record_findings([Finding("unknown_key", f"data.{number}")], refused=True)
    summary = ledger.summary()
    assert len(summary["by_app"]) == KINDS_MAX_ENTRIES + 1
    assert summary["by_app"]["(other)"] == {"requests": 3, "accepted": 0}
    assert len(summary["findings_at"]) == PLACES_MAX_ENTRIES
    assert summary["findings"] == {"unknown_key": KINDS_MAX_ENTRIES + 3}
    assert len(ledger["a"].statuses) == STATUSES_MAX


def test_findings_count_payloads() -> None:
    ledger = Ledger()
    ledger.record_findings([Finding("null_value", "data.a"), Finding("null_value", "data.b")], refused=True)
    ledger.record_findings([Finding("null_value", "data.a")], refused=False)
    summary = ledger.summary()
    assert (summary["flawed"], summary["refused"]) == (2, 1)
    assert summary["findings"] == {"null_value": 2}
    assert summary["findings_at"] == {"null_value data.a": 2, "null_value data.b": 1}
