"""librdkafka's message to a `Record`. The client's types leave open what a message without an error always has."""

from typing import Any

from confluent_kafka import Message

from consumer.core.record import Record


def to_record(message: Message) -> Record:
    """Keep the bytes and coordinates of *message*, which is no error, and let go of the client's object."""
    it: Any = message
    headers = it.headers()
    return Record(
        it.topic(),
        it.partition(),
        it.offset(),
        it.timestamp()[1],
        it.key(),
        it.value(),
        tuple(headers) if headers else (),
    )
