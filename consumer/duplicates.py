"""Copies from upstream: filtered if the event was delivered in this assignment, made to wait while it is on its way.

Best effort, and never at the price of an event. What is remembered begins empty with each assignment, so a copy on the
other side of a restart, a rebalance or a retry topic is sent.
"""

from collections.abc import Callable, Iterable
from functools import partial

from consumer.core.assignment import Assignment
from consumer.core.dedup import Dedup, Entry, key_of
from consumer.delivery import Delivery
from consumer.envelope import Envelope
from consumer.settlement import Settlement


class Duplicates:
    """Stands before delivery, if it is switched on. Lives on the event loop."""

    def __init__(
        self,
        window_records: int,
        *,
        delivery: Delivery,
        settlement: Settlement,
        requeue: Callable[[Iterable[Envelope]], None],
    ) -> None:
        self._window_records = window_records
        self._delivery = delivery
        self._settlement = settlement
        self._requeue = requeue
        self._memories: dict[Assignment, Dedup[Envelope]] = {}

    def begin(self, assignments: Iterable[Assignment]) -> None:
        """Begin to remember for *assignments*."""
        for assignment in assignments:
            self._memories[assignment] = Dedup(self._window_records)

    def admit(self, envelope: Envelope, event_id: str | None, *, is_probe: bool) -> bool:
        """Do as `Delivery.admit`, unless *envelope* is a copy. What comes a second time, from its lane, has entered."""
        if event_id and envelope.ended is None:
            key = key_of(envelope.app, event_id)
            match self._memories[envelope.assignment].enter(key, envelope, has_waited=envelope.has_waited):
                case Entry.FIRST | Entry.BESIDE:
                    envelope.ended = partial(self._ended, key)
                case Entry.WAITS:
                    envelope.has_waited = True
                    return False
                case Entry.DUPLICATE:
                    self._filter(envelope)
                    return False
        return self._delivery.admit(envelope, is_probe=is_probe)

    def _ended(self, key: bytes, envelope: Envelope, delivered: bool) -> None:
        copies = self._memories[envelope.assignment].leave(key, envelope, delivered=delivered)
        if delivered:
            for copy in copies:
                self._filter(copy)
        elif copies:
            self._requeue(copies)

    def _filter(self, envelope: Envelope) -> None:
        self._settlement.end(envelope, "filtered", ("duplicate",))

    def end(self, assignments: set[Assignment]) -> None:
        """Forget *assignments*, which are about to be fenced; what waits is the next owner's."""
        for assignment in assignments & self._memories.keys():  # one that is lost during its drain is fenced twice
            for copy in self._memories.pop(assignment).waiting():
                self._settlement.abandon(copy)
