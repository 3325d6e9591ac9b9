"""A record on its way, with what is needed to end it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from consumer.core.assignment import Assignment
from consumer.core.headers import Hop, read_hop
from consumer.core.record import Record
from consumer.ports import Decoded, Request, Undecodable


@dataclass(eq=False)
class Envelope:
    """One record in the process. Made when it is read, released exactly once.

    What most of them never need is a default of the class: to set twenty attributes takes a microsecond.
    """

    record: Record
    assignment: Assignment
    is_ours: bool
    """It stands on a topic of ours, so that its headers are believed."""
    taken_at: float
    """Monotonic seconds."""
    decoded: Decoded | Undecodable | None = field(default=None, init=False)
    """What a process apart has made of the record; None for those that are decoded here."""
    app: str = field(default="", init=False)
    """The configured app key, once it is known: the lane, and a metric label."""
    event: str = field(default="", init=False)
    """A bounded metric label."""
    time_ms: int | None = field(default=None, init=False)
    """When the user acted."""
    request: Request | None = field(default=None, init=False)
    tries: int = field(default=0, init=False)
    """Tries of this hop that count: not those that met a misconfiguration."""
    is_unconfirmed: bool = field(default=False, init=False)
    """Kochava answered a 2xx that we do not understand: one more try at most."""
    is_lane_probe: bool = field(default=False, init=False)
    has_probed: bool = field(default=False, init=False)
    """It asked for the open breaker and failed: others come first, since it may fail for a reason of its own."""
    is_stepping_aside: bool = field(default=False, init=False)
    """It leaves for a retry tier because it holds up its partition."""
    is_active: bool = field(default=False, init=False)
    """May end by itself soon, so that a drain waits for it."""
    ended: Callable[["Envelope", bool], None] | None = field(default=None, init=False)
    """Told of its end, and whether it was delivered, since copies of it may wait for that. Not told if it is abandoned:
    then they are, too."""
    turn_over: Callable[["Envelope"], None] | None = field(default=None, init=False)
    """Its turn among those of its key has come; told of its end. Not told if it is abandoned."""
    _hop: Hop | None = field(default=None, init=False)
    has_waited: bool = field(default=False, init=False)
    """It is a copy and waited for the end of another one."""

    @property
    def hop(self) -> Hop:
        """What our topics remember of it. Read when it is asked for: what is delivered at once needs none."""
        if self._hop is None:
            self._hop = read_hop(self.record, is_ours=self.is_ours)
        return self._hop


def place_of(envelope: Envelope) -> dict[str, str | int]:
    """Return where a record stood on the topic it was read from, for a log line."""
    record = envelope.record
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}
