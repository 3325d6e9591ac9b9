"""The log events: one catalogue. A field that is not listed here never reaches the log (I10)."""

from typing import NamedTuple


class LogEvent(NamedTuple):
    """What an event means, and the fields that it may carry beside ts, level, event, service and version."""

    meaning: str
    fields: frozenset[str]


def _event(meaning: str, *fields: str) -> LogEvent:
    return LogEvent(meaning, frozenset(fields))


_PLACE = ("topic", "partition", "offset")

EVENTS: dict[str, LogEvent] = {
    "consumer.started": _event("The process is up and joins its group.", "group"),
    "consumer.assigned": _event("Partitions are ours now.", "partitions", "owned"),
    "consumer.revoked": _event("Partitions went to another member, after a drain.", "partitions"),
    "consumer.drained": _event(
        "What was on its way has ended, or the deadline passed.", "partitions", "in_time", "duration_ms"
    ),
    "consumer.lost": _event("Partitions were taken from us; nothing of ours is committed.", "partitions"),
    "consumer.paused": _event("Nothing is read for now, and why.", "partitions", "reason"),
    "consumer.resumed": _event("Reading goes on.", "partitions"),
    "consumer.stalled": _event(
        "One record holds a partition's commit position; it is not read further.", *_PLACE, "span", "in_flight"
    ),
    "consumer.failed": _event("A bug of ours ends the process.", "error_type", "frames"),
    "offset.resolved": _event("A partition without a commit starts here, by this rule.", *_PLACE, "rule"),
    "offset.unresolved": _event("The committed offsets cannot be read; asked again.", "reason"),
    "offset.commit_failed": _event("A commit failed; the next one covers it.", "reason"),
    "delivery.rejected": _event("Kochava refused an event for good.", *_PLACE, "reason"),
    "breaker.opened": _event("The endpoint fails: nothing is read until a probe succeeds.", "reason", "in_flight"),
    "breaker.closed": _event("The endpoint works again.", "open_s"),
    "lane.closed": _event("Kochava refuses this app: its events wait or are held.", "app", "reason"),
    "lane.opened": _event("Kochava takes this app again.", "app", "waiting"),
    "schema.unavailable": _event("A schema cannot be had; its records wait.", "schema", "reason", "count"),
    "schema.fetched": _event("A schema is here.", "schema"),
    "forward.failed": _event(
        "A topic of ours takes no records; reading stops, they are tried again.", "topic", "reason", "count"
    ),
    "forward.recovered": _event("Our topics take records again.", "topic"),
    "guard.tripped": _event(
        "Too many dead letters: reading stops until a person restarts the process.", "share", "max_share"
    ),
    "kafka.error": _event("The Kafka client reports a problem that it works on by itself.", "reason", "count"),
    "kafka.log": _event("The Kafka client says something.", "facility", "severity"),
    "callback.failed": _event("A bug of ours in a callback of the Kafka client.", "callback", "error_type"),
    "library.log": _event(
        "A library logged a warning; its words are left out, they may hold data.", "logger", "severity"
    ),
    "progress": _event(
        "What was done since the last such line, and in all.",
        "interval_s",
        "consumed_per_s",
        "delivered_per_s",
        "consumed",
        "delivered",
        "filtered",
        "retried",
        "held",
        "dead_lettered",
        "in_flight",
        "lag_records",
        "connections",
        "reading",
    ),
    "shutdown.started": _event("The process was told to end.", "in_flight"),
    "shutdown.drained": _event(
        "What was on its way has ended, or the deadline passed.", "partitions", "in_time", "duration_ms"
    ),
    "shutdown.finished": _event("The process ends well."),
    "shutdown.forced": _event("The process ends at once; what was on its way is sent again.", "reason", "exit_code"),
}
