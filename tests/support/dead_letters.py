"""Dead letters as the consumer writes them, without a consumer that has to fail first."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Producer

from consumer.core.headers import Hop, write_hop
from consumer.core.record import Headers
from tests.support.kafka_client import Stored
from tests.support.processes import Setup, command


class Given(NamedTuple):
    """One dead letter to be written."""

    value: bytes
    stage: str = "map"
    reason: str = "unknown_app"
    status: int | None = None
    attempts: int = 0
    was_unconfirmed: bool = False
    key: bytes | None = None
    headers: Headers = ()
    origin_offset: int | None = None
    """By default its position."""
    timestamp_ms: int = 0
    partition: int = -1


def write(setup: Setup, letters: Iterable[Given], topic: str = "") -> None:
    """Write *letters* with origins of the source topic's partition 0, at offsets by their position."""
    producer = Producer({"bootstrap.servers": setup.kafka.bootstrap_servers, "linger.ms": 50})
    for number, each in enumerate(letters):
        offset = number if each.origin_offset is None else each.origin_offset
        hop = Hop(setup.topic, 0, offset, 1_790_000_000_000, each.attempts, was_unconfirmed=each.was_unconfirmed)
        headers = write_hop(each.headers, hop, stage=each.stage, reason=each.reason, status=each.status)
        producer.produce(
            topic or setup.dead_letter, each.value, each.key, headers=list(headers), timestamp=each.timestamp_ms,
            **({"partition": each.partition} if each.partition >= 0 else {}),
        )  # fmt: skip
        while len(producer) > 50_000:
            producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(60) == 0


def listed(setup: Setup, *options: str, **environment: str) -> list[dict[str, Any]]:
    """Return the groups of `dead-letters list`."""
    done = command(setup, "dead-letters", "list", "--json", *options, **environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def origins(records: Sequence[Stored]) -> list[str]:
    """Return TOPIC/PARTITION/OFFSET of where *records* come from, by their headers."""
    return ["/".join(each.headers[f"kochava-origin-{part}"] for part in _ADDRESS) for each in records]


_ADDRESS = ("topic", "partition", "offset")
