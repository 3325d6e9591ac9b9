"""`delivery.order = "key"`: events of one key are sent one after another, others beside them.

The next one of a key begins when the one before it has ended: delivered, filtered, or taken by one of our topics. A
retry or held topic gives no order back: what comes from it is ordered among what is in hand then.
"""

from collections import deque
from collections.abc import Callable, Iterable

from consumer.core.assignment import Assignment
from consumer.envelope import Envelope
from consumer.settlement import Settlement


class KeyOrder:
    """Whose turn it is, for each key of each assignment. Lives on the event loop."""

    def __init__(self, *, settlement: Settlement, requeue: Callable[[Iterable[Envelope]], None]) -> None:
        self._settlement = settlement
        self._requeue = requeue
        self._keys: dict[Assignment, dict[bytes, deque[Envelope] | None]] = {}
        """Those that wait behind the one whose turn it is."""

    def enter(self, envelope: Envelope) -> bool:
        """Say whether it is the turn of *envelope*; else it waits, in flight. Without a key it always is."""
        key = envelope.record.key
        if key is None or envelope.turn_over is not None:
            return True
        keys = self._keys.get(envelope.assignment)
        if keys is None:
            keys = self._keys[envelope.assignment] = {}
        if key not in keys:
            keys[key] = None
            envelope.turn_over = self._next
            return True
        waiting = keys[key]
        if waiting is None:
            keys[key] = deque([envelope])
        else:
            waiting.append(envelope)
        return False

    def _next(self, envelope: Envelope) -> None:
        keys, key = self._keys[envelope.assignment], envelope.record.key
        assert key is not None, "without one there is no turn"
        waiting = keys[key]
        if waiting:
            following = waiting.popleft()
            following.turn_over = self._next
            self._requeue([following])
        else:
            del keys[key]

    def leave(self, assignments: set[Assignment]) -> None:
        """Let go of all records of *assignments* that wait for their turn; those whose turn it is end by themselves."""
        for assignment in assignments & self._keys.keys():
            for key, waiting in self._keys[assignment].items():
                for envelope in waiting or ():
                    self._settlement.abandon(envelope)
                self._keys[assignment][key] = None

    def end(self, assignments: set[Assignment]) -> None:
        """Forget *assignments*, which are fenced."""
        for assignment in assignments:
            self._keys.pop(assignment, None)
