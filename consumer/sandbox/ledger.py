"""What the stand-in Kochava has counted: the account that a test, a demo or a rehearsal is settled against.

*Accepted* means that the event was counted as revenue, whatever answer the client then got to see. The record is made
when the request is complete, before any latency, so a client that gives up has not undone it.

Millions of ids must fit: an entry is a plain tuple of plain values, which the garbage collector soon stops visiting.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

from consumer.sandbox.findings import Finding

Status: TypeAlias = int | str
"""What the client was shown: an HTTP status, or `reset_before`, `reset_after`, `hang`."""

IDS_MAX_ENTRIES = 5_000_000
LOG_MAX_ENTRIES = 200_000
KINDS_MAX_ENTRIES = 10_000
"""Pairs of app and event name; what comes after them is counted as `(other)`."""
STATUSES_MAX = 16
"""An entry remembers the last ones."""
PLACES_MAX_ENTRIES = 1_000

_OTHER = ("(other)", "(other)")


class Entry(NamedTuple):
    """All about one event id."""

    id: str
    app: str | None
    event: str | None
    seen: int
    accepted: int
    first_ms: int
    last_ms: int
    statuses: tuple[Status, ...]


class LogLine(NamedTuple):
    """One request, in the order of their arrival."""

    seq: int
    time_ms: int
    id: str | None
    app: str | None
    event: str | None
    status: Status
    accepted: bool
    answered_ms: int | None
    """Nobody can have had the answer before; `None` if there was none."""


_Packed: TypeAlias = tuple[int, float, float, int, int, tuple[Status, ...]]
_Line: TypeAlias = tuple[float, str | None, int, Status, bool, float | None]


class Ledger:
    """Ids with what became of them, totals, and the last requests in order."""

    def __init__(self, ids_max_entries: int = IDS_MAX_ENTRIES, log_max_entries: int = LOG_MAX_ENTRIES) -> None:
        self._ids_max_entries = ids_max_entries
        self._ids: dict[str, _Packed] = {}
        self._kind_numbers: dict[tuple[str | None, str | None], int] = {}
        self._kinds: list[tuple[str | None, str | None]] = []
        self._kind_requests: list[int] = []
        self._kind_accepted: list[int] = []
        self._statuses: dict[tuple[Status, ...], tuple[Status, ...]] = {}
        self._log: deque[_Line] = deque(maxlen=log_max_entries)
        self._answers: Counter[Status] = Counter()
        self._findings: Counter[str] = Counter()
        self._places: Counter[str] = Counter()
        self.requests = 0
        self.accepted = 0
        self.accepted_ids = 0
        self.duplicates = 0
        """Ids accepted more than once."""
        self.accepted_again = 0
        """Acceptances beyond the first of their id."""
        self.accepted_without_id = 0
        self.refused = 0
        """Payloads that the checker's findings kept from being accepted."""
        self.flawed = 0
        """Payloads with findings, refused or not."""
        self.ledger_overflow = 0
        """Requests whose id found no room: counted above, but not by id."""

    def tries(self, event_id: str | None) -> int:
        """Return how often *event_id* has come before."""
        packed = self._ids.get(event_id) if event_id is not None else None
        return 0 if packed is None else packed[3]

    def record(
        self, event_id: str | None, app: str | None, event: str | None, status: Status, accepted: bool, now: float,
        delay_s: float | None = 0.0,
    ) -> None:  # fmt: skip
        """Note one request of *now* (epoch seconds), answered with *status* after *delay_s*, or never."""
        number = self._kind_numbers.get((app, event))
        if number is None:
            number = self._new_kind((app, event))
        self.requests += 1
        self._kind_requests[number] += 1
        self._answers[status] += 1
        if accepted:
            self.accepted += 1
            self._kind_accepted[number] += 1
        self._log.append((now, event_id, number, status, accepted, delay_s))
        if event_id is None:
            self.accepted_without_id += accepted
            return
        packed = self._ids.get(event_id)
        if packed is None:
            if len(self._ids) >= self._ids_max_entries:
                self.ledger_overflow += 1
                return
            self.accepted_ids += accepted
            self._ids[event_id] = (number, now, now, 1, int(accepted), self._shared((status,)))
            return
        number, first, _, seen, accepted_before, statuses = packed
        if accepted:
            if accepted_before == 0:
                self.accepted_ids += 1
            else:
                self.accepted_again += 1
                self.duplicates += accepted_before == 1
        statuses = self._shared((*statuses[1 - STATUSES_MAX :], status))
        self._ids[event_id] = (number, first, now, seen + 1, accepted_before + accepted, statuses)

    def record_findings(self, findings: Iterable[Finding], *, refused: bool) -> None:
        """Note what is wrong with one payload; its request is recorded by `record` as any other."""
        self.flawed += 1
        self.refused += refused
        findings = tuple(findings)
        self._findings.update({finding.code for finding in findings})  # a set: payloads are counted, not places
        for place in map(str, findings):
            if place in self._places or len(self._places) < PLACES_MAX_ENTRIES:
                self._places[place] += 1

    def _new_kind(self, kind: tuple[str | None, str | None]) -> int:
        if len(self._kinds) >= KINDS_MAX_ENTRIES:
            kind = _OTHER
            if kind in self._kind_numbers:
                return self._kind_numbers[kind]
        self._kinds.append(kind)
        self._kind_requests.append(0)
        self._kind_accepted.append(0)
        self._kind_numbers[kind] = number = len(self._kinds) - 1
        return number

    def _shared(self, statuses: tuple[Status, ...]) -> tuple[Status, ...]:
        # Most histories are short and alike: one tuple for all of them.
        return self._statuses.setdefault(statuses, statuses) if len(statuses) < 3 else statuses

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._ids

    def __getitem__(self, event_id: str) -> Entry:
        number, first, last, seen, accepted, statuses = self._ids[event_id]
        app, event = self._kinds[number]
        return Entry(event_id, app, event, seen, accepted, round(first * 1000), round(last * 1000), statuses)

    def __iter__(self) -> Iterator[Entry]:
        """Return the entries of this moment, in the order in which their ids first came."""
        return map(self.__getitem__, tuple(self._ids))

    def log(self, after: int = 0) -> Iterator[LogLine]:
        """Return the requests of this moment behind number *after*, as far as they are still remembered."""
        skipped = max(after - (self.log_first - 1), 0)
        return map(
            self._line, range(self.log_first + skipped, self.requests + 1), islice(list(self._log), skipped, None)
        )

    @property
    def log_first(self) -> int:
        """The number of the oldest request that `log` still has."""
        return self.requests - len(self._log) + 1

    def _line(self, seq: int, packed: _Line) -> LogLine:
        now, event_id, number, status, accepted, delay_s = packed
        app, event = self._kinds[number]
        answered_ms = None if delay_s is None else round((now + delay_s) * 1000)
        return LogLine(seq, round(now * 1000), event_id, app, event, status, accepted, answered_ms)

    def summary(self) -> dict[str, object]:
        """Return the totals, ready for JSON."""
        by_app: dict[str, dict[str, int]] = {}
        by_event: dict[str, dict[str, int]] = {}
        for number, kind in enumerate(self._kinds):
            for name, table in zip(kind, (by_app, by_event), strict=True):
                totals = table.setdefault(name or "(none)", {"requests": 0, "accepted": 0})
                totals["requests"] += self._kind_requests[number]
                totals["accepted"] += self._kind_accepted[number]
        return {
            "requests": self.requests,
            "accepted": self.accepted,
            "accepted_ids": self.accepted_ids,
            "duplicates": self.duplicates,
            "accepted_again": self.accepted_again,
            "accepted_without_id": self.accepted_without_id,
            "refused": self.refused,
            "flawed": self.flawed,
            "findings": dict(self._findings.most_common()),
            "findings_at": dict(self._places.most_common()),
            "answers": {str(status): count for status, count in self._answers.most_common()},
            "by_app": by_app,
            "by_event": by_event,
            "ledger_entries": len(self._ids),
            "ledger_overflow": self.ledger_overflow,
            "log_first": self.log_first,
            "log_last": self.requests,
        }
