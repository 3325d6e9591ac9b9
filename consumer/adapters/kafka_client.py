"""Making a client of librdkafka, saying what is wrong with its properties if it refuses them, and seeing it lost."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from consumer.errors import SettingsError

T = TypeVar("T")

FORGOTTEN_S = 5.0
"""A client that recovers by itself has asked its bootstrap servers after half a second, as measured."""

SHORTEST_VALUE_CHARS = 5
"""Shorter ones, such as "all", are parts of words."""


def make_client(kind: Callable[[dict[str, Any]], T], conf: dict[str, Any]) -> T:
    """Return a client of this *kind*.

    Raises:
        SettingsError: it refuses a property, such as one that it doesn't know or a file that isn't there.
    """
    try:
        return kind(conf)
    except KafkaException as error:
        problem: KafkaError = error.args[0]
        if problem.code() != KafkaError._INVALID_ARG:  # noqa: SLF001 - the client's own name for it
            raise
        raise SettingsError([f"kafka.client: {without(conf.values(), problem.str())}"]) from None


class KnownBrokers:
    """Whether a client still knows any broker, by its own statistics.

    A broker that is fenced (the cluster is rolled, its process was frozen) answers that there are none. Then librdkafka
    may forget all of them, those of `bootstrap.servers` too, and never ask anybody again: librdkafka issue 5301, seen
    with 2.16.0. It says nothing about that, and only a new client helps.
    """

    ADVICE = "it has forgotten all brokers (librdkafka issue 5301), as after they were restarted: restart the process"

    def __init__(self) -> None:
        self._none_since_us: int | None = None

    def are_forgotten(self, stats: Mapping[str, Any]) -> bool:
        """Say whether there was no broker in all *stats* of `FORGOTTEN_S` or more: two at least."""
        if any(broker["source"] != "logical" for broker in stats["brokers"].values()):
            self._none_since_us = None
        elif self._none_since_us is None:
            self._none_since_us = stats["ts"]
        return self._none_since_us is not None and stats["ts"] - self._none_since_us >= FORGOTTEN_S * 1e6


def without(values: Iterable[object], text: str) -> str:
    """Return the client's *text* without these *values*: a secret may stand in the wrong place."""
    given = {value for value in values if isinstance(value, str) and len(value) >= SHORTEST_VALUE_CHARS}
    for value in sorted(given, key=len, reverse=True):
        text = text.replace(value, "...")
    return text
