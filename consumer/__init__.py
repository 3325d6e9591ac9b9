"""kochava-consumer: delivers in-app events from Kafka to Kochava. The design is in docs/architecture.md."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("kochava-consumer")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"
