"""Events that end in the screens that led to them: a type that contains itself, and records deep enough to kill."""

import json
from pathlib import Path
from random import Random
from typing import Any

from fastavro import parse_schema

from consumer.sandbox.events import encode, sample_event
from tests.support.kafka import ROOT
from tests.support.processes import Setup

RECURSIVE_ID = 9
SCREEN = {
    "type": "record",
    "name": "Screen",
    "fields": [{"name": "name", "type": "string"}, {"name": "before", "type": ["null", "Screen"]}],
}


def recursive_schema() -> dict[str, Any]:
    """Return our newest schema, with such a field at its end."""
    document: dict[str, Any] = json.loads((ROOT / "schemas" / "in_app_event.v2.avsc").read_text())
    document["fields"].append({"name": "screen", "type": ["null", SCREEN]})
    return document


def screens(depth: int) -> bytes:
    """Return the value of the last field."""
    return b"\x02\x02x" * depth + b"\0"


def schema_folder(setup: Setup) -> Path:
    """Our own schemas, and one whose events end in the screens that led to them."""
    folder = setup.folder / "schemas"
    folder.mkdir(parents=True)
    for path in (ROOT / "schemas").glob("*.avsc"):
        (folder / path.name).write_text(path.read_text())
    (folder / "recursive.avsc").write_text(json.dumps({**recursive_schema(), "confluent.id": RECURSIVE_ID}))
    return folder


def recursive_events(folder: Path, count: int, prefix: str, depth: int) -> list[tuple[str, bytes]]:
    """Return event ids and record values; what ends them, fastavro could not write."""
    schema = parse_schema(json.loads((folder / "recursive.avsc").read_text()))
    random = Random(7)
    made = []
    for index in range(count):
        event = {**sample_event(index, random, f"{prefix}{index}"), "screen": None}
        value = encode(event, schema, RECURSIVE_ID)
        assert value.endswith(b"\0")
        made.append((event["event_id"], value[:-1] + screens(depth)))
    return made
