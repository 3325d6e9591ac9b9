"""What the suite's producer writes: events, whose schema evolves, and now and then a record that is odd or no event."""

import json
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from math import inf, nan
from random import Random
from typing import Any

from fastavro import parse_schema

from consumer.sandbox.events import encode, sample_event
from tests.support.kafka import ROOT
from tests.support.registry import Registry

ODD_EVERY = 41
UNKNOWN_ID = 2_000_000_000
UNKNOWN_SHARE = 1 / 3
"""Of the schedules. Such a record makes its partition wait, so there is one at most."""
_HUGE = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
"""A length of 2**63 - 1."""

Value = bytes | None

NO_EVENT: dict[str, Callable[[bytes, int, Random], Value]] = {
    "another magic byte": lambda value, _at, _draw: b"\7" + value[1:],
    "something behind it": lambda value, _at, _draw: value + b"x",
    "cut off": lambda value, _at, draw: value[: draw.randrange(5, len(value))],
    "shorter than a schema id": lambda value, _at, draw: value[: draw.randrange(5)],
    "a tombstone": lambda _value, _at, _draw: None,
    "a string longer than everything": lambda value, at, _draw: value[:5] + _HUGE + value[at:],
    "no UTF-8": lambda value, at, _draw: value[:at] + b"\xff" + value[at + 1 :],
}
"""Made of an event's value and the place of its id."""
UNMAPPABLE: dict[str, dict[str, Any]] = {
    "not a number": {"properties": {"score": nan}},
    "infinite": {"properties": {"score": -inf}},
    "an app that nobody knows": {"app_id": "com.example.unheard"},
    "no name": {"event_name": " "},
}
"""What is changed in an event, after which it can never be sent."""
ODD: dict[str, dict[str, Any]] = {
    "the end of time": {"occurred_at": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)},  # Kochava refuses it
    "a string of 100 kB": {"properties": {"note": "x" * 100_000}},
}
"""What is changed in an event that is sent all the same."""


def records(name: str, count: int, draw: Random, registry: Registry) -> Iterator[tuple[str, Value]]:
    """Yield *count* values and the ids of their events: none where nothing can be sent, so a dead letter must tell.

    Only a tombstone leaves no trace.
    """
    schema = json.loads((ROOT / "schemas" / "in_app_event.v2.avsc").read_text())
    unknown_at = draw.randrange(1, count) if draw.random() < UNKNOWN_SHARE else None
    kinds = [*NO_EVENT, *UNMAPPABLE, *ODD]
    for index in range(count):
        if index % (count // 3 + 1) == 0:  # as if a producer was upgraded: an id that nobody has seen, a field more
            added = {"name": f"since_{index}", "type": ["null", "string"], "default": None}
            writer = {**schema, "doc": f"{name} {index}", "fields": [*schema["fields"], *([added] if index else [])]}
            number = registry.register(name, writer)
            parsed = parse_schema({**writer, "name": "InAppEvent"})
        event_id = f"{name}-{index}"
        event = sample_event(index, draw, event_id)
        if index == unknown_at:
            yield "", struct.pack(">bI", 0, UNKNOWN_ID) + encode(event, parsed, number)[5:]
            continue
        kind = kinds[index // ODD_EVERY % len(kinds)] if index % ODD_EVERY == 0 else ""
        value = encode({**event, **UNMAPPABLE.get(kind, {}), **ODD.get(kind, {})}, parsed, number)
        if kind in NO_EVENT:
            yield "", NO_EVENT[kind](value, value.index(event_id.encode()), draw)
        else:
            yield "" if kind in UNMAPPABLE else event_id, value
