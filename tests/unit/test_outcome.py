"""Every status, every fault and every shape of a 2xx body, read as the table in docs/kochava.md says."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from consumer.core.outcome import (
    Answer,
    Delivered,
    Fault,
    Misconfigured,
    Outcome,
    Rejected,
    Retryable,
    Unconfirmed,
    classify,
)


def naively(status: int) -> Outcome:
    """Read the table row by row, for an answer whose Retry-After is 7."""
    reason = f"http_{status}"
    if status in {401, 403}:
        return Misconfigured("app", reason, status)
    if status in {404, 410, *range(300, 400)}:
        return Misconfigured("endpoint", reason, status)
    if status in {408, 425, 429}:
        return Retryable(reason, status, "7", may_duplicate=False)
    if status in range(400, 500):
        return Rejected(reason, status)
    if status in range(100, 200):
        return Retryable("protocol", status, None, may_duplicate=True)
    return Retryable(reason, status, "7", may_duplicate=True)


@pytest.mark.parametrize("body", [b"", b'{"success":"1"}', b'{"error":"x"}', b"\xff"])
def test_every_status_that_is_no_success(body: bytes) -> None:
    """Whatever the body says: only a 2xx can deliver."""
    for status in (*range(100, 200), *range(300, 600), 999):
        outcome = classify(Answer(status, body, "7"))
        assert (type(outcome), outcome) == (type(naively(status)), naively(status))


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.CONNECT, Retryable("connect")),
        (Fault.DNS, Misconfigured("endpoint", "dns")),
        (Fault.TLS, Misconfigured("endpoint", "tls")),
        (Fault.TIMEOUT_UNSENT, Retryable("timeout_unsent")),
        (Fault.TIMEOUT, Retryable("timeout", may_duplicate=True)),
        (Fault.RESET, Retryable("reset", may_duplicate=True)),
        (Fault.PROTOCOL, Retryable("protocol", may_duplicate=True)),
    ],
)
def test_every_fault(fault: Fault, outcome: Outcome) -> None:
    assert (type(classify(fault)), classify(fault)) == (type(outcome), outcome)


def test_no_fault_is_forgotten() -> None:
    assert {fault.name for fault in Fault} == {
        "CONNECT", "DNS", "TLS", "TIMEOUT_UNSENT", "TIMEOUT", "RESET", "PROTOCOL",
    }  # fmt: skip


BODIES: list[tuple[bytes, type[Outcome], str]] = [
    (b'{"success":"1"}', Delivered, ""),
    (b'{"success":1}', Delivered, ""),
    (b'{"success":true}', Delivered, ""),
    (b'{ "success" : "1" }', Delivered, ""),
    (b'{"success": 1, "error": "none"}', Delivered, ""),
    (b'{"success": true}\n', Delivered, ""),
    (b'{"error":"bad app"}', Rejected, "refused_by_kochava"),
    (b'{"success":"0","error":"bad app"}', Rejected, "refused_by_kochava"),
    (b'{"success":false,"error":null}', Rejected, "refused_by_kochava"),
    (b'{"success":"0"}', Unconfirmed, "success_not_1"),
    (b'{"success":0}', Unconfirmed, "success_not_1"),
    (b'{"success":false}', Unconfirmed, "success_not_1"),
    (b'{"success":null}', Unconfirmed, "success_not_1"),
    (b'{"success":1.0}', Unconfirmed, "success_not_1"),
    (b'{"success":2}', Unconfirmed, "success_not_1"),
    (b'{"success":["1"]}', Unconfirmed, "success_not_1"),
    (b'{"Success":"1"}', Unconfirmed, "success_not_1"),
    (b"{}", Unconfirmed, "success_not_1"),
    (b"[]", Unconfirmed, "not_an_object"),
    (b'"1"', Unconfirmed, "not_an_object"),
    (b"1", Unconfirmed, "not_an_object"),
    (b"null", Unconfirmed, "not_an_object"),
    (b"", Unconfirmed, "empty_body"),
    (b" \r\n", Unconfirmed, "empty_body"),
    (b"OK", Unconfirmed, "not_json"),
    (b'{"success":"1"', Unconfirmed, "not_json"),
    (b'"\xff"', Unconfirmed, "not_json"),
]


@pytest.mark.parametrize(("body", "kind", "reason"), BODIES, ids=[repr(body) for body, _, _ in BODIES])
def test_the_body_of_a_success_decides(body: bytes, kind: type[Outcome], reason: str) -> None:
    for status in (200, 201, 204, 299):
        outcome = classify(Answer(status, body))
        assert type(outcome) is kind
        assert getattr(outcome, "reason", "") == reason
        if kind is not Delivered:
            assert outcome.status == status


def test_a_delivery_keeps_the_status_that_it_was_told_with() -> None:
    assert classify(Answer(202, b'{"success": 1}')) == Delivered(202)
    assert classify(Answer(202, b'{"success":1}')) == Delivered(202)
    assert classify(Answer(200, b'{"success":1}')) == Delivered(200)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.sampled_from(["", "0", "1", "true"]),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.sampled_from(["success", "error"]), values),
)


@given(json_values, st.booleans(), st.integers(200, 299))
def test_any_json_is_a_success_by_its_word_only(value: Any, short: bool, status: int) -> None:
    """Excludes: a number that happens to equal True, a text that is true, a success deeper in."""
    body = json.dumps(value, separators=(",", ":") if short else None).encode()
    success = value.get("success") if isinstance(value, dict) else None
    is_one = any(type(success) is type(one) and success == one for one in ("1", 1, True))
    assert isinstance(classify(Answer(status, body)), Delivered) == is_one


@given(st.integers(0, 10_000), st.binary(max_size=40))
def test_any_answer_is_one_outcome(status: int, body: bytes) -> None:
    outcome = classify(Answer(status, body))
    assert isinstance(outcome, Delivered | Unconfirmed | Retryable | Rejected | Misconfigured)
    assert isinstance(outcome, Delivered | Unconfirmed) <= (200 <= status < 300)
