"""The log: structlog, JSON lines, an allowlist of fields for each event, nobody's data (I10).

Errors are told by their type and their place in the code: the text of an exception may hold the bytes it choked on.
"""

import logging
import traceback
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TextIO

import orjson
import structlog

from consumer import __version__
from consumer.telemetry.events import EVENTS

ALWAYS = frozenset({"ts", "level", "event", "service", "version"})
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("kochava-consumer")


def configure_logging(level: str, log_format: str, stream: TextIO) -> None:
    """Send log lines to *stream*: as JSON, or for people if *log_format* says so (auto: if it is a terminal)."""
    is_console = log_format == "console" or (log_format == "auto" and stream.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            scrub,
            structlog.dev.ConsoleRenderer(timestamp_key="ts", pad_event_to=24)
            if is_console
            else structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryHandler()]
    root.setLevel(logging.WARNING)


def _dumps(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=str).decode()


def scrub(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep what the catalogue allows. An event that it doesn't know goes out bare."""
    known = EVENTS.get(line["event"])
    allowed = ALWAYS | known.fields if known else ALWAYS
    kept: dict[str, Any] = {"ts": line["ts"], "level": line["level"], "event": line["event"]}
    kept["service"] = "kochava-consumer"
    kept["version"] = __version__
    for name, value in line.items():
        if name in allowed and name not in kept:
            kept[name] = value if isinstance(value, str | int | float | bool) else "[redacted]"
    return kept


def frames_of(error: BaseException) -> str:
    """Say where *error* came from, without its words: file:line:function, innermost last."""
    frames = traceback.extract_tb(error.__traceback__)
    return " ".join(f"{PurePath(frame.filename).name}:{frame.lineno}:{frame.name}" for frame in frames[-12:])


class _LibraryHandler(logging.Handler):
    """Warnings of libraries, by name only: httpx, for one, writes whole URLs."""

    def emit(self, record: logging.LogRecord) -> None:
        log.warning("library.log", logger=record.name, severity=record.levelname)


@dataclass(slots=True)
class Repeated:
    """Tells a repeated warning apart: the first is due, then one for each *interval_s* with its count."""

    interval_s: float = 10.0
    _seen: dict[str, list[float]] = field(default_factory=dict)

    def due(self, what: str, now: float) -> int:
        """Count one more of *what*.

        Returns:
            How many there were since the last line, if a line is due now; else 0.
        """
        seen = self._seen.get(what)
        if seen is None:
            self._seen[what] = [now, 0]
            return 1
        seen[1] += 1
        if now - seen[0] < self.interval_s:
            return 0
        count = int(seen[1])
        self._seen[what] = [now, 0]
        return count


def kafka_logger() -> logging.Logger:
    """Return what librdkafka's own lines go to: their level and facility only, since they may name hosts and users."""
    logger = logging.getLogger("librdkafka")
    logger.propagate = False
    logger.handlers = [_KafkaHandler()]
    return logger


class _KafkaHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        facility = str(record.args[0]) if isinstance(record.args, tuple) and record.args else ""
        log.warning("kafka.log", facility=facility, severity=record.levelname)
