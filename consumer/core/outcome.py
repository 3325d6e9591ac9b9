"""What became of one try to deliver: the one place that reads an answer of Kochava.

The rules are the table in docs/kochava.md ("Reading the answer"); the body decides before the status does, since a 200
can carry a failure. No Kochava page documents failing answers, so what we do not understand is *Unconfirmed*, neither
success nor failure, and may be sent once more at most.
"""

from enum import Enum
from typing import Literal, NamedTuple, TypeAlias

import orjson


class Answer(NamedTuple):
    """An HTTP answer. `body` is cut at the transport's cap; `retry_after` is the raw header."""

    status: int
    body: bytes = b""
    retry_after: str | None = None


class Fault(Enum):
    """Why there was no answer. `sent` says whether Kochava may have seen the request: then a retry may duplicate."""

    CONNECT = ("connect", False)
    """Refused, unreachable or not connected in time."""
    DNS = ("dns", False)
    TLS = ("tls", False)
    TIMEOUT_UNSENT = ("timeout_unsent", False)
    """The deadline passed while waiting for a connection."""
    TIMEOUT = ("timeout", True)
    RESET = ("reset", True)
    PROTOCOL = ("protocol", True)
    """The answer was not HTTP, or larger than the caps."""

    def __init__(self, label: str, sent: bool) -> None:
        self.label = label
        self.sent = sent


class Delivered(NamedTuple):
    """Kochava accepted the event (it may still not record it: docs/kochava.md)."""

    status: int = 200


class Unconfirmed(NamedTuple):
    """A 2xx that we do not understand. Each further try may count as revenue, so there is at most one."""

    reason: str
    status: int


class Retryable(NamedTuple):
    """Worth another try. `retry_after` is the raw header, `may_duplicate` that the request may have arrived."""

    reason: str
    status: int | None = None
    retry_after: str | None = None
    may_duplicate: bool = False


class Rejected(NamedTuple):
    """Can never succeed as it is. The answer's text is not kept: it may echo identifiers."""

    reason: str
    status: int | None = None


class Misconfigured(NamedTuple):
    """Not the event's fault: our credentials (`app`) or our endpoint is wrong. Burns no attempt."""

    scope: Literal["app", "endpoint"]
    reason: str
    status: int | None = None


Outcome: TypeAlias = Delivered | Unconfirmed | Retryable | Rejected | Misconfigured

_RETRYABLE = frozenset({408, 425, 429})
_ENDPOINT = frozenset({404, 410})
_APP = frozenset({401, 403})
DELIVERED = Delivered()
"""The usual answer's."""
_PLAIN_SUCCESS = frozenset({b'{"success":"1"}', b'{"success":1}', b'{"success":true}'})


def classify(answer: Answer | Fault) -> Outcome:
    """Say what *answer* means for the event."""
    if isinstance(answer, Fault):
        if answer in {Fault.TLS, Fault.DNS}:
            return Misconfigured("endpoint", answer.label)
        return Retryable(answer.label, may_duplicate=answer.sent)
    status = answer.status
    if 200 <= status < 300:
        return _classify_success(status, answer.body)
    if status in _APP:
        return Misconfigured("app", f"http_{status}", status)
    if 300 <= status < 400 or status in _ENDPOINT:
        return Misconfigured("endpoint", f"http_{status}", status)
    if status in _RETRYABLE or status >= 500:
        # a 5xx may come from a proxy after the request went through
        return Retryable(f"http_{status}", status, answer.retry_after, may_duplicate=status >= 500)
    if status < 200:
        return Retryable("protocol", status, may_duplicate=True)
    return Rejected(f"http_{status}", status)


def _classify_success(status: int, body: bytes) -> Outcome:
    if body in _PLAIN_SUCCESS:  # the known good answer, without parsing it 20,000 times a second
        return DELIVERED if status == 200 else Delivered(status)
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Unconfirmed("not_json" if body.strip() else "empty_body", status)
    if not isinstance(parsed, dict):
        return Unconfirmed("not_an_object", status)
    success = parsed.get("success")
    if success is True or success == "1" or (type(success) is int and success == 1):
        return Delivered(status)
    if "error" in parsed:
        return Rejected("refused_by_kochava", status)
    return Unconfirmed("success_not_1", status)
