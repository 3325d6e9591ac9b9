"""The headers that travel with a record through our own topics.

Source headers stay as they came (schema ids can live there); ours are replaced at each hop, so they never grow. They
are believed only on our own topics: a producer's header of the same name means nothing.
"""

from typing import NamedTuple

from consumer.core.record import Headers, Record

ORIGIN_TOPIC = "kochava-origin-topic"
ORIGIN_PARTITION = "kochava-origin-partition"
ORIGIN_OFFSET = "kochava-origin-offset"
ORIGIN_TIMESTAMP_MS = "kochava-origin-timestamp-ms"
ATTEMPTS = "kochava-attempts"
FIRST_FAILURE_MS = "kochava-first-failure-ms"
NOT_BEFORE_MS = "kochava-not-before-ms"
TIER = "kochava-tier"
STAGE = "kochava-stage"
REASON = "kochava-reason"
STATUS = "kochava-status"
UNCONFIRMED = "kochava-unconfirmed"
REDRIVE_COUNT = "kochava-redrive-count"
REDRIVEN = "kochava-redriven"
"""Of a marker on the dead-letter topic (`core.dead_letters`); no event carries it."""

OURS = frozenset({
    ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET, ORIGIN_TIMESTAMP_MS, ATTEMPTS, FIRST_FAILURE_MS, NOT_BEFORE_MS, TIER,
    STAGE, REASON, STATUS, UNCONFIRMED, REDRIVE_COUNT, REDRIVEN,
})  # fmt: skip


class Hop(NamedTuple):
    """What our topics remember about a record. `origin` is where it stood on the source topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    attempts: int = 0
    """Tries to deliver it so far, over all hops."""
    first_failure_ms: int | None = None
    tier: str | None = None
    """The label of the last tier it passed."""
    not_before_ms: int = 0
    was_unconfirmed: bool = False
    """A 2xx that we did not understand came for it once: it may be sent once more at most."""
    redrive_count: int = 0
    """How often a person has sent it on from the dead-letter topic."""


def read_hop(record: Record, *, is_ours: bool) -> Hop:
    """Return what is known of *record*: from its headers if it stands on a topic of ours, else from itself."""
    if not is_ours:
        return Hop(record.topic, record.partition, record.offset, record.timestamp_ms)
    ours = {name: value.decode("utf-8", "replace") for name, value in record.headers if name in OURS and value}
    return Hop(
        topic=ours.get(ORIGIN_TOPIC, record.topic),
        partition=_integer(ours.get(ORIGIN_PARTITION), record.partition),
        offset=_integer(ours.get(ORIGIN_OFFSET), record.offset),
        timestamp_ms=_integer(ours.get(ORIGIN_TIMESTAMP_MS), record.timestamp_ms),
        attempts=_integer(ours.get(ATTEMPTS), 0),
        first_failure_ms=_integer(ours.get(FIRST_FAILURE_MS), 0) or None,
        tier=ours.get(TIER),
        not_before_ms=_integer(ours.get(NOT_BEFORE_MS), 0),
        was_unconfirmed=ours.get(UNCONFIRMED) == "1",
        redrive_count=max(0, _integer(ours.get(REDRIVE_COUNT), 0)),
    )


def write_hop(source: Headers, hop: Hop, *, stage: str, reason: str, status: int | None) -> Headers:
    """Return *source* without our old headers and with those of *hop*; all of ours are UTF-8 text."""
    ours = {
        ORIGIN_TOPIC: hop.topic,
        ORIGIN_PARTITION: str(hop.partition),
        ORIGIN_OFFSET: str(hop.offset),
        ORIGIN_TIMESTAMP_MS: str(hop.timestamp_ms),
        ATTEMPTS: str(hop.attempts),
        STAGE: stage,
        REASON: reason,
    }
    if hop.first_failure_ms is not None:
        ours[FIRST_FAILURE_MS] = str(hop.first_failure_ms)
    if hop.not_before_ms:
        ours[NOT_BEFORE_MS] = str(hop.not_before_ms)
    if hop.tier is not None:
        ours[TIER] = hop.tier
    if status is not None:
        ours[STATUS] = str(status)
    if hop.was_unconfirmed:
        ours[UNCONFIRMED] = "1"
    if hop.redrive_count:
        ours[REDRIVE_COUNT] = str(hop.redrive_count)
    kept = tuple(header for header in source if header[0] not in OURS)
    return kept + tuple((name, value.encode()) for name, value in ours.items())


def not_before_ms(record: Record) -> int:
    """Return when a record of a retry tier is due, epoch milliseconds; 0 if it doesn't say. As `read_hop`, the last."""
    for name, value in reversed(record.headers):
        if name == NOT_BEFORE_MS and value:
            return _integer(value.decode("utf-8", "replace"), 0)
    return 0


def _integer(text: str | None, default: int) -> int:
    if text is None or len(text) > 20:
        return default
    try:
        return int(text)
    except ValueError:
        return default
