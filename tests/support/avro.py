"""Avro for tests: events of the built-in schemas, records around bytes, a decoder for one schema."""

import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from fastavro import parse_schema, schemaless_writer

from consumer.adapters.avro_decoder import AvroDecoder
from consumer.adapters.schema_directory import builtin_schemas
from consumer.core.record import Headers, Record
from consumer.core.schema_guard import SchemaText
from consumer.core.wire_format import Configured

EVENT: dict[str, Any] = {
    "event_id": "7b0e6a40-0d5c-4f4e-9a3c-1d2e3f405162",
    "app_id": "shop",
    "platform": "android",
    "event_name": "purchase",
    "occurred_at": datetime(2026, 11, 3, 12, 0, 0, 123000, tzinfo=UTC),
    "app_version": "4.2.1",
    "currency": "EUR",
    "amount": Decimal("19.9900"),
    "device": {
        "install_id": "KA1234567890abcdef",
        "advertising_id": "38400000-8cf0-11bd-b23e-10b96e40000d",
        "vendor_id": None,
        "android_id": None,
        "udid": None,
        "user_agent": "Mozilla/5.0 (Linux; Android 16; Pixel 9) AppleWebKit/537.36 Mobile Safari/537.36",
        "ip": "203.0.113.7",
        "model": "Pixel 9",
        "os_name": "Android",
        "os_version": "16",
    },
    "consent": {
        "att_status": "denied",
        "att_time": None,
        "gdpr_applies": True,
        "tc_string": None,
        "ad_user_data": True,
        "ad_personalization": False,
    },
    "properties": {"sku": "A-1", "quantity": 2, "rating": 3.5, "gift": True},
}
"""A version 1 event, as it is read back."""
NEW_IN_V2 = {
    "device": {"custom_ids": {}, "limit_ad_tracking": None},
    "consent": {"att_duration_s": None},
    "session_id": None,
}
EVENT_V2: dict[str, Any] = {
    **EVENT,
    "device": {**EVENT["device"], "custom_ids": {"loyalty": "42"}, "limit_ad_tracking": False},
    "consent": {**EVENT["consent"], "att_duration_s": 4},
    "session_id": "s-1",
}


class ManualClock:
    """Time stands still until it is moved; `sleep` moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000)

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.now += delay_s


def builtin(version: int) -> dict[str, Any]:
    """Return the text of a built-in schema as JSON."""
    document: dict[str, Any] = json.loads((builtin_schemas() / f"in_app_event.v{version}.avsc").read_text())
    return document


def encode(schema: Any, datum: Any) -> bytes:
    """Write *datum* without anything before it."""
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(schema), datum)
    return out.getvalue()


def record_of(value: bytes | None, headers: Headers = ()) -> Record:
    return Record("events", 0, 0, 0, None, value, headers)


def plain_decoder(schema: Any, **kwargs: Any) -> AvroDecoder:
    """Return a decoder of records that all have *schema*."""
    return AvroDecoder("plain", clock=ManualClock(), known={Configured(): SchemaText(json.dumps(schema))}, **kwargs)


def one_field(kind: Any) -> dict[str, Any]:
    """Return a record schema with the field `f` alone."""
    return {"type": "record", "name": "One", "fields": [{"name": "f", "type": kind}]}
