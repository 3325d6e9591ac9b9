"""The log: structlog, JSON lines, an allowlist of fields for each event, nobody's data (I10).

Errors are told by their type and their place in the code, never by their text: it may hold the bytes they choked on.
A log that cannot be written must not stop the work; its lines are dropped.
"""

import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TextIO

import orjson
import structlog

from consumer import __version__
from consumer.telemetry.events import EVENTS

SERVICE = "kochava-consumer"
REDACTED = "[redacted]"
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
ALWAYS = frozenset({"ts", "level", "event", "service", "version"})
OF_ERRORS = frozenset({"error_type", "frames"})
"""Fields that any event may carry; `exc_info` becomes them."""

MAX_TEXT_CHARS = 300
MAX_CAUSES = 4
MAX_FRAMES = 12
MAX_REPEATED = 1000
WRITE_TIMEOUT_S = 1.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class UncataloguedError(Exception):
    """A log line whose event or fields are not in the catalogue: add them to `telemetry.events`."""


def configure_logging(level: str, log_format: str, stream: TextIO, *, strict: bool = False) -> None:
    """Send the lines of this process and the warnings of its libraries to *stream*.

    Args:
        level: debug, info, warning or error; lines below it are left out.
        log_format: json, console (for people), or auto: console if *stream* is a terminal.
        stream: where lines go.
        strict: raise `UncataloguedError` for what the catalogue doesn't know, instead of leaving it out. For tests.
    """
    if level not in LEVELS:
        raise ValueError(f"a log level is one of {', '.join(LEVELS)}, not {level!r}")
    is_console = log_format == "console" or (log_format == "auto" and stream.isatty())
    _configure(level, _Lines(stream), is_console=is_console, strict=strict)
    root = logging.getLogger()
    root.handlers = [_Libraries()]
    root.setLevel(logging.WARNING)  # httpx tells whole URLs below it


def scrub_uncaught() -> None:
    """Tell exceptions that nobody caught as lines, too: Python's own way prints their text."""
    sys.unraisablehook = lambda of: _uncaught("unraisable", of.exc_value)
    threading.excepthook = lambda of: _uncaught("thread", of.exc_value)
    sys.excepthook = lambda _kind, error, _traceback: _uncaught("main", error)


def _uncaught(where: str, error: BaseException | None) -> None:
    log.error("exception.uncaught", where=where, exc_info=error)


def _configure(level: str, lines: "_Lines", *, is_console: bool, strict: bool) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            _scrub_strictly if strict else scrub,
            structlog.dev.ConsoleRenderer(timestamp_key="ts", pad_event_to=24, colors=lines.are_for_a_terminal)
            if is_console
            else _as_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )


# -- what a line may say


def scrub(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep what the catalogue allows. An event that it doesn't know goes out bare."""
    event = line["event"]
    known = EVENTS.get(event)
    kept: dict[str, Any] = {
        "ts": line["ts"],
        "level": line["level"],
        "event": event if known or _is_a_name(event) else REDACTED,
    }
    allowed = OF_ERRORS.union(known.fields) if known else OF_ERRORS
    for name, value in {**line, **_told(line.get("exc_info"))}.items():
        if name in allowed:
            kept[name] = _plain(value)
    return kept


def _scrub_strictly(logger: Any, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    known = EVENTS.get(line["event"])
    if known is None:
        raise UncataloguedError(f"the event {line['event']!r}")
    unknown = line.keys() - set(known.fields) - OF_ERRORS - ALWAYS - {"exc_info"}
    if unknown:
        raise UncataloguedError(f"fields of {line['event']}: {', '.join(sorted(unknown))}")
    return scrub(logger, method, line)


def _is_a_name(event: object) -> bool:
    return (
        isinstance(event, str)
        and event.isascii()
        and event.replace(".", "").replace("_", "").isalpha()
        and len(event) <= 64
    )


def _plain(value: object) -> str | int | float | bool | None:
    if isinstance(value, str):
        # a line stays one line, and a terminal obeys nobody; JSON has no lone surrogates
        text = value if value.isprintable() else value.encode("unicode_escape").decode()
        return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}…"
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else REDACTED
    return value if value is None or isinstance(value, float) else REDACTED


def _told(exc_info: object) -> dict[str, str]:
    """Turn what logging calls *exc_info* into fields."""
    if exc_info is True:
        exc_info = sys.exception()
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    if not isinstance(exc_info, BaseException):
        return {}
    return {"error_type": name_of(exc_info), "frames": frames_of(exc_info)}


def name_of(error: BaseException) -> str:
    """Name the type of *error*, and what caused it, without their words: "SystemError from KafkaException"."""
    names = [type(error).__name__]
    while len(names) < MAX_CAUSES and error.__cause__ is not None:
        error = error.__cause__
        names.append(type(error).__name__)
    return " from ".join(names)


def frames_of(error: BaseException) -> str:
    """Say where *error* came from, without its words: file:line:function, innermost last."""
    found = [
        f"{PurePath(frame.f_code.co_filename).name}:{line}:{frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return " ".join(found[-MAX_FRAMES:])


def _as_json(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> str:
    head = {"ts": line["ts"], "level": line["level"], "event": line["event"]}
    return orjson.dumps({**head, "service": SERVICE, "version": __version__, **line}).decode()


class _Lines:
    """Where finished lines go."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._writing = threading.Lock()

    @property
    def are_for_a_terminal(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def msg(self, line: str) -> None:
        # a thread that is stuck in a write must not hold up the others: one of them is the watchdog
        if not self._writing.acquire(timeout=WRITE_TIMEOUT_S):
            return
        try:
            with suppress(OSError, ValueError):  # a closed pipe, a full disk, a closed file
                stream = self._stream or sys.stderr
                stream.write(f"{line}\n")
                stream.flush()
        finally:
            self._writing.release()

    debug = info = warning = error = msg


_configure("warning", _Lines(), is_console=False, strict=False)  # structlog's own default prints every field


# -- what others say


@dataclass(slots=True)
class Repeated:
    """Tells a repeated warning apart: the first is due, then one for each *interval_s* with its count."""

    interval_s: float = 10.0
    _seen: dict[str, tuple[float, int]] = field(default_factory=dict)

    def due(self, what: str, now: float) -> int:
        """Count one more of *what*.

        Returns:
            How many there were since the last line, if a line is due now; else 0.
        """
        if what not in self._seen and len(self._seen) >= MAX_REPEATED:
            what = "other"
        seen = self._seen.get(what)
        if seen is not None and now - seen[0] < self.interval_s:
            self._seen[what] = (seen[0], seen[1] + 1)
            return 0
        self._seen[what] = (now, 0)
        return seen[1] + 1 if seen else 1


class _Libraries(logging.Handler):
    """Warnings of libraries, by their place in the code: their words may hold data."""

    def __init__(self) -> None:
        super().__init__()
        self._repeated = Repeated()

    def emit(self, record: logging.LogRecord) -> None:
        place = f"{PurePath(record.pathname).name}:{record.lineno}"
        count = self._repeated.due(f"{record.name} {place}", record.created)
        if count:
            tell = log.error if record.levelno >= logging.ERROR else log.warning
            tell("library.log", logger=record.name, place=place, count=count, exc_info=record.exc_info)


def kafka_logger() -> logging.Logger:
    """Return what librdkafka's own lines go to: their level and facility only, since they may name hosts and users."""
    logger = logging.getLogger("librdkafka")
    logger.propagate = False
    logger.handlers = [_Kafka()]
    return logger


class _Kafka(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._repeated = Repeated()

    def emit(self, record: logging.LogRecord) -> None:
        facility = str(record.args[0]) if isinstance(record.args, tuple) and record.args else ""
        count = self._repeated.due(f"{facility} {record.levelname}", record.created)
        if count:
            log.warning("kafka.log", facility=facility, severity=record.levelname, count=count)
