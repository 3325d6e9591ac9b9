"""What may be shown of an event: its name, app, platform and time, and which fields have a value, never the values.

What is shown is decided by value, not by name: a value is shown only if it equals one that may be. So a mapping that
calls a device id `name` is the one thing that could show it, and no schema can.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from consumer.core.event import InAppEvent

MASK = "•••"
PAYLOAD_NAMES = frozenset({
    "action", "kochava_app_id", "kochava_device_id", "data", "event_name", "usertime", "app_version", "origination_ip",
    "device_ver", "device_ua", "device_ids", "idfa", "idfv", "adid", "fire_adid", "android_id", "udid", "rida",
    "app_tracking_transparency", "att", "att_time", "att_duration", "att_detail", "gdpr_privacy_consent",
    "gdpr_applies", "tc_string", "ad_user_data", "ad_personalization", "currency", "device_limit_tracking",
    "event_data", "event_id", "sum", "price",
})  # fmt: skip
"""Names of the contract with Kochava; every other one in a payload came with the event."""

_KINDS: dict[type, str] = {
    str: "text", bytes: "bytes", bool: "boolean", int: "number", float: "number", Decimal: "number"
}  # fmt: skip


def shown_of(event: InAppEvent | None) -> frozenset[Any]:
    """Return the values of *event* that may be shown."""
    if event is None:
        return frozenset()
    texts = {text for text in (event.app, event.platform, event.name) if text}
    times = set() if event.time_ms is None else {event.time_ms, event.time_ms // 1000}
    return frozenset(texts | times)


def mask(value: Any, *, names: Collection[str], shown: Collection[Any]) -> Any:
    """Return *value* with every leaf masked that is not among *shown*, and every key that is not among *names*.

    Keys of a map are data, too. Type and length stay, and what is null: it says what is missing.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        return dict(_masked_entries(value, names, shown))
    if isinstance(value, list | tuple):
        return [mask(each, names=names, shown=shown) for each in value]
    return value if _may_be_shown(value, shown) else describe(value)


def _masked_entries(value: Mapping[Any, Any], names: Collection[str], shown: Collection[Any]) -> Iterator[Any]:
    for number, (key, inner) in enumerate(value.items(), 1):
        name = key if key in names else f"{MASK} key {number}"
        yield name, mask(inner, names=names, shown=shown)


def _may_be_shown(value: Any, shown: Collection[Any]) -> bool:
    if isinstance(value, datetime):
        return value.tzinfo is not None and int(value.timestamp() * 1000 + 0.5) in shown
    return type(value) in {str, int} and value in shown


def describe(value: object) -> str:
    """Return the type of *value* and, of texts and bytes, the length."""
    kind = _KINDS.get(type(value), type(value).__name__)
    length = f" {len(value)}" if isinstance(value, str | bytes) else ""
    return f"{MASK} {kind}{length}"
