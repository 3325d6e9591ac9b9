"""Payloads to be looked at, without what belongs to people."""

from typing import Any

import orjson

SHOWN = frozenset({"action", "event_name", "usertime", "app_version", "currency", "gdpr_applies", "att", "att_detail"})
"""What says nothing of a person."""
MASK = "•••"


def masked_payload(body: bytes) -> str:
    """Return *body* with every value masked that may belong to a person; names of fields stay."""
    return orjson.dumps(_masked(orjson.loads(body), "")).decode()


def _masked(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _masked(each, key) for key, each in value.items()}
    return value if name in SHOWN or value == "" else MASK
