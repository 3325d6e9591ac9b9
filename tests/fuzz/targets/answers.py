"""Every answer means what the table "Reading the answer" of docs/kochava.md says, read here a second time with the
standard library's JSON; an outcome never holds a part of the body, which may echo identifiers.
"""  # fmt: skip

import json
from math import isinf
from typing import NoReturn

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
from tests.fuzz.feed import Feed

MAX_BYTES = 400
WORDS = [
    b'{"success":"1"}', b'"success"', b'"error"', b"true", b"null", b"1.0", b"1e0", b"\\u0031", b"\\ud800", b"\\u0073",
    b"NaN", b"\xef\xbb\xbf", b":1", b"-1",
]  # fmt: skip
STATUSES = (200, 201, 204, 299, 300, 302, 400, 401, 403, 404, 408, 410, 413, 422, 425, 429, 499, 500, 503, 100, 199)


def check(data: bytes) -> None:
    feed = Feed(data)
    which = feed.number()
    if which < len(Fault):
        _check_fault([*Fault][which])
        return
    status = feed.choice(STATUSES) if which < 200 else 100 + feed.number(2) % 900
    retry_after = feed.block().decode("latin-1") if which % 2 else None
    body = feed.rest()
    outcome = classify(Answer(status, body, retry_after))
    assert outcome == _table(status, body, retry_after), (status, outcome)


def _check_fault(fault: Fault) -> None:
    outcome = classify(fault)
    if fault in {Fault.TLS, Fault.DNS}:
        assert outcome == Misconfigured("endpoint", fault.label)
    else:
        sent = fault in {Fault.TIMEOUT, Fault.RESET, Fault.PROTOCOL}
        assert outcome == Retryable(fault.label, None, None, sent)


def _table(status: int, body: bytes, retry_after: str | None) -> Outcome:
    word = f"http_{status}"
    if status // 100 == 2:
        return _success(status, body)
    if status in {401, 403}:
        return Misconfigured("app", word, status)
    if status // 100 == 3 or status in {404, 410}:
        return Misconfigured("endpoint", word, status)
    if status // 100 == 1:
        return Retryable("protocol", status, None, may_duplicate=True)
    if status in {408, 425, 429}:
        return Retryable(word, status, retry_after, may_duplicate=False)
    if status >= 500:
        return Retryable(word, status, retry_after, may_duplicate=True)
    return Rejected(word, status)


def _success(status: int, body: bytes) -> Outcome:
    try:
        parsed = json.loads(body.decode("utf-8"), parse_float=_double, parse_constant=_refuse)
        json.dumps(parsed, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        return Unconfirmed("not_json" if body.strip() else "empty_body", status)
    if not isinstance(parsed, dict):
        return Unconfirmed("not_an_object", status)
    success = parsed.get("success")
    if (isinstance(success, bool | int) and success == 1) or (isinstance(success, str) and success == "1"):
        return Delivered(status)
    return Rejected("refused_by_kochava", status) if "error" in parsed else Unconfirmed("success_not_1", status)


def _double(text: str) -> float:
    """What no double holds may be refused (RFC 8259, section 6), and is: then nobody acts on it."""
    number = float(text)
    return _refuse(text) if isinf(number) else number


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


SEEDS = [
    *(bytes([number]) for number in range(len(Fault))),
    b"\x10\x00" + b'{"success":"1"}',
    b"\x10\x00" + b'{"success": 1, "error": "x"}',
    b"\x10\x01" + b'{"success":true}',
    b"\x10\x00" + b'{"success":"0","error":"no such app"}',
    b"\x10\x00" + b'[1, 2.5e3, "\\u00e9", null, {}]',
    b"\x10\x00",
    b"\x11\x0f\x02" + b"30" + b"slow down",
    b"\xf0\x01\x90" + b"<html>",
]  # fmt: skip
