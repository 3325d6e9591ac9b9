"""What a bounded replay does differently: it sends what was asked for, once more, and says what became of all of it."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from consumer.core.event import InAppEvent
from consumer.core.known_ids import KnownIds
from consumer.core.masking import PAYLOAD_NAMES, mask, shown_of
from consumer.core.record import Record
from consumer.core.replay import NOT_SELECTED, Selection, Span
from consumer.core.retry import RetryPlan
from consumer.telemetry import Metrics
from consumer.translate import Filtered, Prepared, Step, Translator

OUTSIDE = Filtered("outside")
KNOWN = Filtered("known")
SAMPLES = 3
"""Payloads that a dry run keeps to be looked at."""


class Seen(NamedTuple):
    """How far this process has come."""

    read: int
    delivered: int
    dead: int


@dataclass(frozen=True)
class Replay:
    """One bounded replay, as a process of it needs it."""

    replay_id: str
    group_id: str
    span: Span
    selection: Selection
    digest: str
    is_dry: bool = False
    known: KnownIds | None = None
    """Events that are not sent again."""
    warn_before_ms: int = 0
    """Events that say they are older are counted."""
    partitions: int = 0
    """Of the plan, and the records that are left of it."""
    records: int = 0
    watch: Callable[[Seen], None] = lambda _: None


def own_topics(prefix: str) -> RetryPlan:
    """Return where a replay's failures go: one topic of their own, for whatever has no further try in the process."""
    topic = f"{prefix}.replay.dead-letter"
    return RetryPlan((), topic, topic)


@dataclass
class Notes:
    """What a translator has seen beside what becomes of each record."""

    old: int = 0
    """Events whose own time is before the set age."""
    samples: list[tuple[str, Any]] = field(default_factory=list)
    """App and masked payload of the first events."""


class ReplayTranslator(Translator):
    """Leaves out what lies outside of the span, and what is known already."""

    def __init__(self, replay: Replay, **known: Any) -> None:
        super().__init__(**known)
        self._replay = replay
        self.notes = Notes()

    def translate(self, record: Record) -> Step:
        if not self._replay.span.has(record.timestamp_ms):
            return OUTSIDE
        return super().translate(record)

    def _prepare(self, event: InAppEvent) -> Step:
        known = self._replay.known
        if known is not None and event.event_id is not None and event.event_id in known:
            return KNOWN
        step = super()._prepare(event)
        if type(step) is Prepared:
            if event.time_ms is not None and event.time_ms < self._replay.warn_before_ms:
                self.notes.old += 1
            if self._replay.is_dry and len(self.notes.samples) < SAMPLES:
                payload = mask(orjson.loads(step.request.body), names=PAYLOAD_NAMES, shown=shown_of(event))
                self.notes.samples.append((step.app, payload))
        return step


class Reconciliation(NamedTuple):
    """What became of all that one process read. Every record is in exactly one of the numbers."""

    read: int
    sent: Mapping[tuple[str, str], int]
    """By app and event."""
    filtered: Mapping[str, int]
    """By the mapping's own reasons."""
    outside: int
    not_selected: int
    known: int
    skipped: int
    """Settled before, by this process or an earlier one."""
    dead: Mapping[tuple[str, str], int]
    """By reason and app."""
    expired: int
    """Removed by retention before they could be read: not among those read."""
    unsettled: int
    """Left for whoever goes on: another process that took over a partition, or the next start."""

    @property
    def adds_up(self) -> bool:
        accounted = (
            sum(self.sent.values()) + sum(self.filtered.values()) + self.outside + self.not_selected + self.known
            + self.skipped + sum(self.dead.values()) + self.unsettled
        )  # fmt: skip
        return self.read == accounted

    def as_json(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "sent": [{"app": app, "event": event, "count": n} for (app, event), n in sorted(self.sent.items())],
            "filtered": dict(self.filtered),
            "outside": self.outside,
            "not_selected": self.not_selected,
            "known": self.known,
            "skipped": self.skipped,
            "dead": [{"reason": reason, "app": app, "count": n} for (reason, app), n in sorted(self.dead.items())],
            "expired": self.expired,
            "unsettled": self.unsettled,
        }


def reconcile(metrics: Metrics) -> Reconciliation:
    """Return what *metrics* say, at the end of a process."""
    sent: Counter[tuple[str, str]] = Counter()
    for (_, event, app), count in metrics.events_delivered.values.items():
        sent[app, event] += count
    filtered = Counter({reason: count for (reason,), count in metrics.events_filtered.values.items() if count})
    ours = (filtered.pop(reason, 0) for reason in (OUTSIDE.reason, NOT_SELECTED, KNOWN.reason))
    outside, not_selected, known = ours
    dead: Counter[tuple[str, str]] = Counter()
    for (reason, app), count in metrics.events_dead_lettered.values.items():
        dead[reason, app] += count
    for (app,), count in metrics.events_held.values.items():  # a lane that was closed: they are there, too
        dead["held", app] += count
    skipped = metrics.settled_before_skipped.total + metrics.redelivered_skipped.total
    return Reconciliation(
        read=metrics.events_consumed.total + skipped,
        sent={key: count for key, count in sent.items() if count},
        filtered=filtered,
        outside=outside,
        not_selected=not_selected,
        known=known,
        skipped=skipped,
        dead={key: count for key, count in dead.items() if count},
        expired=metrics.replay_expired.total,
        unsettled=metrics.events_abandoned.total,
    )
