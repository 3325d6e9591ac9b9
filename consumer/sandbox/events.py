"""Made-up in-app events of three apps on four platforms, for the demo, the tests and the benchmarks.

They follow schemas/in_app_event.v2.avsc. Nothing in them is anybody's: ids are counted, addresses are those that
RFC 5737 and RFC 3849 set aside for documentation.
"""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from random import Random
from typing import Any

from fastavro import schemaless_writer

APPS = ("com.example.puzzle", "com.example.racing", "com.example.stories")
PLATFORMS = ("ios", "android", "roku", "fireos")
EVENT_NAMES = ("Purchase", "Level Complete", "Tutorial Complete", "Registration Complete", "shop_opened")
EPOCH = datetime(2026, 11, 1, tzinfo=UTC)

_AGENTS = {
    "ios": "Puzzle/5.6.7 (iPhone; iOS 17.5) CFNetwork/1494 Darwin/23.4.0",
    "android": "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36",
    "roku": "Roku/DVP-9.10 (519.10E04111A)",
    "fireos": "Mozilla/5.0 (Linux; Android 9; AFTMM Build/PS7233) AppleWebKit/537.36",
}


def guid(app: str, platform: str) -> str:
    """Return the App GUID that the demo gives an app on a platform."""
    return f"koexample-{app.rpartition('.')[2]}-{platform}-1a2b3c"


def sample_event(index: int, random: Random, event_id: str | None = None) -> dict[str, Any]:
    """Return event number *index* as fastavro writes it."""
    platform = PLATFORMS[index % len(PLATFORMS)]
    name = random.choice(EVENT_NAMES)
    serial = f"{index:012x}"
    device: dict[str, Any] = {
        "install_id": f"install-{serial}",
        "advertising_id": f"11111111-2222-3333-4444-{serial}" if platform != "roku" else None,
        "vendor_id": f"55555555-6666-7777-8888-{serial}" if platform == "ios" else None,
        "android_id": serial if platform in {"android", "fireos"} else None,
        "udid": f"roku-{serial}" if platform == "roku" else None,
        "user_agent": _AGENTS[platform],
        "ip": f"203.0.113.{index % 254 + 1}" if index % 5 else f"2001:db8::{index % 65535 + 1:x}",
        "model": {"ios": "iPhone15,2", "android": "Pixel 8", "roku": "4800X", "fireos": "AFTMM"}[platform],
        "os_name": {"ios": "iOS", "android": "Android", "roku": "Roku OS", "fireos": "Fire OS"}[platform],
        "os_version": {"ios": "17.5", "android": "14", "roku": "12.5", "fireos": "6.2"}[platform],
        "custom_ids": {},
        "limit_ad_tracking": None,
    }
    is_purchase = name == "Purchase"
    return {
        "event_id": event_id or f"event-{index}",
        "app_id": APPS[index // len(PLATFORMS) % len(APPS)],
        "platform": platform,
        "event_name": name,
        "occurred_at": EPOCH + timedelta(milliseconds=index * 7),
        "app_version": "5.6.7",
        "currency": "EUR" if is_purchase else None,
        "amount": Decimal(random.randrange(99, 9999)).scaleb(-2) if is_purchase else None,
        "device": device,
        "consent": {"att_status": "authorized", "gdpr_applies": True, "ad_user_data": True, "ad_personalization": True}
        if platform == "ios"
        else None,
        "properties": {"order_id": f"order-{serial}", "level": index % 40, "score": 0.5 + index % 100},
        "session_id": f"session-{index // 7}",
    }


def encode(event: dict[str, Any], parsed_schema: Any, schema_id: int) -> bytes:
    """Return *event* in Confluent's wire format."""
    buffer = BytesIO()
    buffer.write(struct.pack(">bI", 0, schema_id))
    schemaless_writer(buffer, parsed_schema, event)
    return buffer.getvalue()


def sample_events(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Return *count* events, the same for the same *seed*."""
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    return (sample_event(index, random) for index in range(count))
