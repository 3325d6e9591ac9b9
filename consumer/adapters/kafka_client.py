"""Making a client of librdkafka, and saying what is wrong with its properties if it refuses them."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from consumer.errors import SettingsError

T = TypeVar("T")

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


def without(values: Iterable[object], text: str) -> str:
    """Return the client's *text* without these *values*: a secret may stand in the wrong place."""
    given = {value for value in values if isinstance(value, str) and len(value) >= SHORTEST_VALUE_CHARS}
    for value in sorted(given, key=len, reverse=True):
        text = text.replace(value, "...")
    return text
