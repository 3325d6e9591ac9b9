"""What the process tells: metrics and log events, each with one catalogue."""

from consumer.telemetry.logs import (
    Repeated,
    UncataloguedError,
    configure_logging,
    frames_of,
    kafka_logger,
    log,
    scrub_uncaught,
)
from consumer.telemetry.metrics import Counter, Gauge, Histogram, Metrics
from consumer.telemetry.progress import Progress

__all__ = [
    "Counter", "Gauge", "Histogram", "Metrics", "Progress", "Repeated", "UncataloguedError", "configure_logging",
    "frames_of", "kafka_logger", "log", "scrub_uncaught",
]  # fmt: skip
