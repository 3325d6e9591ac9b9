"""What the contenders share: their orders, and the cheapest way from a record to the payload that the consumer sends.

The payload is that of the sample events and the built-in mapping only, and nothing is checked: that is the point.
`tests/unit/test_bench.py` holds it against the consumer's own.
"""

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from confluent_kafka import Consumer
from fastavro import parse_schema, schemaless_reader

ROOT = Path(__file__).resolve().parents[3]
WIRE_HEAD_BYTES = 5
HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


class Orders(NamedTuple):
    """One run, as the harness asks for it: JSON, the only argument of a contender."""

    bootstrap_servers: str
    topic: str
    group: str
    endpoint: str
    connections: int
    in_flight: int
    """Records at once."""
    ca_file: str = ""

    @classmethod
    def given(cls) -> "Orders":
        return cls(**json.loads(sys.argv[1]))

    def tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None

    def kafka(self, **conf: object) -> dict[str, Any]:
        """Return what configures confluent-kafka's consumer."""
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "group.id": self.group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "log_level": 0,
            **conf,
        }


def read(consumer: Consumer, records: int, wait_s: float) -> list[tuple[int, int, bytes]]:
    """Wait for a record, and return it with what is there, as partition, offset, value.

    `consume(records, wait_s)` alone would wait all of *wait_s* unless so many come, and every age would show it.
    """
    first = consumer.poll(wait_s)
    if first is None:
        return []
    return [
        (cast("int", message.partition()), cast("int", message.offset()), cast("bytes", message.value()))
        for message in (first, *consumer.consume(records - 1, 0))
        if not message.error()
    ]


def asked_to_stop() -> asyncio.Event:
    """Return an event that SIGTERM sets."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop


def decoder() -> Callable[[bytes], dict[str, Any]]:
    """Return what decodes one record of the sample events with fastavro."""
    schema = parse_schema(json.loads((ROOT / "schemas" / "in_app_event.v2.avsc").read_text()))

    def decode(value: bytes) -> dict[str, Any]:
        body = BytesIO(value)
        body.seek(WIRE_HEAD_BYTES)
        return schemaless_reader(body, schema, None)  # type: ignore[return-value]

    return decode


@lru_cache(maxsize=16_384)
def percent_encode(agent: str) -> str:
    return quote(agent, safe="")


@lru_cache(maxsize=64)
def guid(app: str, platform: str) -> str:
    return f"koexample-{app.rpartition('.')[2]}-{platform}-1a2b3c"


def payload(event: dict[str, Any]) -> dict[str, Any]:
    """Return what is posted for *event*."""
    device, platform, properties = event["device"], event["platform"], event["properties"]
    data: dict[str, Any] = {
        "event_name": event["event_name"],
        "usertime": int(event["occurred_at"].timestamp()),
        "app_version": event["app_version"],
        "origination_ip": device["ip"],
        "device_ver": "",
        "device_ua": percent_encode(device["user_agent"]),
    }
    if platform == "ios":
        consent = event["consent"]
        data["device_ids"] = {"idfa": device["advertising_id"], "idfv": device["vendor_id"]}
        data["app_tracking_transparency"] = {
            "att": consent["att_status"] == "authorized", "att_detail": consent["att_status"],
        }  # fmt: skip
        data["gdpr_privacy_consent"] = {
            "gdpr_applies": int(consent["gdpr_applies"]),
            "ad_user_data": int(consent["ad_user_data"]),
            "ad_personalization": int(consent["ad_personalization"]),
        }
    elif platform == "roku":
        data["device_ids"] = {"udid": device["udid"]}
    else:
        key = "adid" if platform == "android" else "fire_adid"
        data["device_ids"] = {key: device["advertising_id"], "android_id": device["android_id"]}
    if event["currency"] is not None:
        data["currency"] = event["currency"]
        properties["sum"] = float(event["amount"])
    properties["event_id"] = event["event_id"]
    data["event_data"] = properties
    return {
        "action": "event",
        "kochava_app_id": guid(event["app_id"], platform),
        "kochava_device_id": device["install_id"],
        "data": data,
    }
