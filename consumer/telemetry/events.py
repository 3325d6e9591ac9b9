"""The log events: one catalogue. A field that is not listed here never reaches the log (I10).

Fields are names, numbers and words of our own code or settings, and coordinates in Kafka. What came out of a record is
not among them.
"""

from typing import Literal, NamedTuple, TypeAlias

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


class LogEvent(NamedTuple):
    """What an event means, and the fields that it may carry beside ts, level, event, service and version."""

    level: Level
    meaning: str
    fields: tuple[str, ...]


def _debug(meaning: str, *fields: str) -> LogEvent:
    return LogEvent("debug", meaning, fields)


def _info(meaning: str, *fields: str) -> LogEvent:
    return LogEvent("info", meaning, fields)


def _warning(meaning: str, *fields: str) -> LogEvent:
    return LogEvent("warning", meaning, fields)


def _error(meaning: str, *fields: str) -> LogEvent:
    return LogEvent("error", meaning, fields)


_PLACE = ("topic", "partition", "offset")

EVENTS: dict[str, LogEvent] = {
    "consumer.started": _info("The process is up and joins its group.", "group", "shadow"),
    "consumer.assigned": _info("Partitions are ours now.", "partitions", "owned"),
    "consumer.revoked": _info("Partitions went to another member, after a drain.", "partitions"),
    "consumer.drained": _info(
        "What was on its way has ended, or the deadline passed.", "partitions", "in_time", "duration_ms"
    ),
    "consumer.lost": _warning("Partitions were taken from us; nothing of ours is committed.", "partitions"),
    "consumer.paused": _info("Nothing is read for now, and why.", "partitions", "reason"),
    "consumer.resumed": _info("Reading goes on.", "partitions"),
    "consumer.stalled": _warning(
        "One record holds a partition's commit position; it is not read further.", *_PLACE, "span", "in_flight"
    ),
    "consumer.failed": _error("The process ends because of this; 4 and the like are ExitCode's.", "exit_code"),
    "replay.planned": _info(
        "A bounded replay begins or goes on: events are sent again, on purpose.",
        "group",
        "partitions",
        "records",
        "rule",
    ),
    "replay.expired": _error("Retention removed records of the replay before they were read.", *_PLACE, "records"),
    "replay.finished": _info("All that this process was given of the replay is done.", "group", "delivered", "dead"),
    "offset.resolved": _debug("A partition without a commit starts here, by this rule.", *_PLACE, "rule"),
    "offset.unresolved": _warning("The committed offsets cannot be read; asked again.", "reason"),
    "offset.map_read": _info(
        "An earlier owner settled so many records beyond its commit; they are not sent again.", *_PLACE, "settled"
    ),
    "offset.map_ignored": _warning(
        "The commit's metadata is no map of ours, or not for this position.", *_PLACE, "reason"
    ),
    "offset.commit_failed": _warning("A commit failed; the next one covers it.", "reason"),
    "event.dead_lettered": _warning(
        "A record was given up to a person; the first of each reason, then one per 10 s with their count.",
        *_PLACE,
        "app",
        "stage",
        "reason",
        "status_code",
        "attempts",
        "count",
    ),
    "event.retried": _debug(
        "A record goes to a retry tier.", *_PLACE, "app", "tier", "reason", "status_code", "attempts"
    ),
    "event.held": _debug("A record goes to the held topic.", *_PLACE, "app", "reason"),
    "delivery.rejected": _debug("Kochava refused an event for good.", *_PLACE, "reason"),
    "delivery.unconfirmed": _warning(
        "A 2xx that we don't understand: the event is tried once more at most.",
        *_PLACE,
        "reason",
        "status_code",
        "count",
    ),
    "breaker.opened": _error("The endpoint fails: nothing is read until a probe succeeds.", "reason", "in_flight"),
    "breaker.closed": _info("The endpoint works again.", "open_s"),
    "lane.closed": _error("Kochava refuses this app, or it fails alone: its events wait or are held.", "app", "reason"),
    "lane.opened": _info("Kochava takes this app again.", "app", "waiting"),
    "schema.unavailable": _warning("A schema cannot be had; its records wait.", "schema", "reason", "count"),
    "schema.fetched": _info("A schema is here.", "schema"),
    "decoder.died": _warning(
        "The process for records of recursive types ended, as by a signal; it is started again.", "reason", "count"
    ),
    "mapping.misfit": _error("A schema lacks what the mapping asks for; its records are dead letters.", "problem"),
    "forward.failed": _warning(
        "A topic of ours takes no records; reading stops, they are tried again.", "topic", "reason", "count"
    ),
    "forward.recovered": _info("Our topics take records again.", "topic"),
    "guard.tripped": _error(
        "Too many dead letters: reading stops until a person restarts the process.", "share", "max_share"
    ),
    "kafka.error": _warning("The Kafka client reports a problem that it works on by itself.", "reason", "count"),
    "kafka.brokers_forgotten": _error(
        "The Kafka client has forgotten all brokers (a defect of librdkafka): the process ends, start it again.",
        "client",
    ),
    "kafka.log": _warning("The Kafka client says something.", "facility", "severity", "count"),
    "kafka.insecure": _warning("kafka.allow_insecure permits these: somebody could listen in.", "properties"),
    "credentials.rotated": _info("The file of the Kafka password has another one; the clients have it now."),
    "credentials.unusable": _warning(
        "The file of the Kafka password holds none; the one before stays in use.", "reason", "count"
    ),
    "callback.failed": _error("A bug of ours in a callback of the Kafka client.", "callback"),
    "library.log": _warning(
        "A library logged a warning (or an error, then as one); its words are left out, they may hold data.",
        "logger",
        "place",
        "count",
    ),
    "exception.uncaught": _error("A bug: nobody caught this.", "where"),
    "admin.not_listening": _warning("A replay goes on without probes and metrics: something else has the port."),
    "admin.listening": _info("Probes and metrics are served.", "port"),
    "progress": _info(
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
    "shutdown.started": _info("The process was told to end.", "in_flight"),
    "shutdown.drained": _info(
        "What was on its way has ended, or the deadline passed.", "partitions", "in_time", "duration_ms"
    ),
    "shutdown.finished": _info("The process ends well."),
    "shutdown.forced": _error("The process ends at once; what was on its way is sent again.", "reason", "exit_code"),
}
