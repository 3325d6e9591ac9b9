"""The contracts between the pipeline and the outside world; each has one test suite for all its implementations."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from consumer.core.outcome import Answer, Fault
from consumer.core.record import Headers, Partition, Record


class Clock(Protocol):
    """Time, injected: nothing else in the process asks the operating system for it."""

    def monotonic(self) -> float:
        """Return seconds that only grow. All deadlines are in it."""

    def wall_ms(self) -> int:
        """Return epoch milliseconds, for what outlives the process: headers, ages."""


class Request(NamedTuple):
    """One POST. `headers` are those beyond the fixed ones (Host, Content-Type, Content-Length, User-Agent)."""

    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Answered: TypeAlias = Callable[[Answer | Fault], None]


class Transport(Protocol):
    """Requests to one endpoint over kept connections. Used from the event loop only.

    A callback and not a coroutine: the happy path creates no task and no future per event (docs/architecture.md).
    """

    def send(self, request: Request, deadline: float, answered: Answered) -> None:
        """POST *request* and call *answered* exactly once, later, from the event loop; never from within `send`.

        Waits for a free connection when all are busy, first come first served, but not beyond `last_moment`.
        *deadline* (monotonic seconds) bounds everything: waiting, connecting, sending, reading. Every remote fault is a
        `Fault`; bugs raise. Redirects are not followed, cookies not kept, bodies not decoded and cut at 64 KiB, no
        proxy taken from the environment.
        """

    async def close(self) -> None:
        """Drop all connections at once. Requests on the way end as `Fault.RESET` or `TIMEOUT_UNSENT`."""


def last_moment(now: float, deadline: float) -> float:
    """Return until when a request that is to be sent *now* may wait for a connection: half of its time.

    Sent later, its answer might come when it has been given up, and then the event counts twice.
    """
    return (now + deadline) / 2


class Decoded(NamedTuple):
    """A decoded Avro record. `schema` identifies the writer schema among those of this process."""

    schema: int
    datum: dict[str, object]


class Undecodable(NamedTuple):
    """A record that no amount of waiting makes readable. `reason` is a stable word, such as `truncated`."""

    reason: str


class SchemaNeeded(NamedTuple):
    """The writer schema isn't here yet: await `Decoder.fetch(reference)`, then decode again."""

    reference: object
    """Hashable, opaque: an id, a guid or a fingerprint."""


class Apart(NamedTuple):
    """The record could kill whoever decodes it: await `Decoder.decode_apart(work)`."""

    schema: int
    """As `Decoded.schema` will say."""
    work: object
    """Opaque."""


class Decoder(Protocol):
    """Avro bytes to Python values. Used from the event loop only."""

    def decode(self, record: Record) -> Decoded | Undecodable | SchemaNeeded | Apart:
        """Decode the value of *record*, which is not None. Pure CPU, bounded, never blocks, never raises for data."""

    async def fetch(self, reference: object) -> None:
        """Wait until *reference* is known or known not to exist, whatever the outage; one fetch at a time for each.

        Afterwards `decode` answers `Decoded` or `Undecodable` for it. An outage blocks for as long as it lasts.
        """

    async def decode_apart(self, work: object) -> Decoded | Undecodable:
        """Decode where it can do no harm. What kills the decoder, or takes it too long, twice is `Undecodable`.

        Waits for as long as there is no process to decode in. May be cancelled.
        """

    def parsed_schema(self, schema: int) -> dict[str, object]:
        """Return the parsed (fastavro) writer schema behind `Decoded.schema`."""


class ForwardProblem(NamedTuple):
    """Why the broker did not take a record. `reason` is librdkafka's error name."""

    reason: str


class Forwarder(Protocol):
    """Our own topics: retry tiers, held, dead letters. Used from the event loop only."""

    def forward(
        self, topic: str, record: Record, headers: Headers, reported: Callable[[ForwardProblem | None], None]
    ) -> None:
        """Produce *record*'s key and value, unchanged, with *headers* to *topic*.

        Calls *reported* exactly once, later, from the event loop: with None after the broker's acknowledgement (all
        in-sync replicas), else with the problem. Only the acknowledgement may settle the record (I2).
        """

    async def close(self, timeout_s: float) -> None:
        """Flush within *timeout_s*; what is not acknowledged by then is reported as a problem."""


Positions: TypeAlias = dict[Partition, int]
