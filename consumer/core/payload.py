"""Kochava's rules: an event in neutral terms to the body of a post-install event. The contract is docs/kochava.md.

These rules are not the source's, so no mapping can switch them off: eight keys always there, percent-encoding, tracking
transparency on Apple, reserved keys, identity.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import orjson

from consumer.core.event import InAppEvent
from consumer.core.identity import device_ids, device_ip, family_of
from consumer.core.outcome import Rejected

MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_EVENT_KEYS = 16
RESERVED_KEYS = frozenset({
    "network", "source", "fb_campaign", "campaign", "site", "creative", "attribution_type", "integration_type",
    "integration_version", "cracked", "jailbroken",
})  # fmt: skip
STANDARD_EVENT_NAMES = frozenset({
    "Achievement", "Ad Click", "Ad View", "Add to Cart", "Add to Wish List", "Checkout Start", "Consent Granted",
    "Level Complete", "Purchase", "Push Opened", "Push Received", "Rating", "Registration Complete", "Search",
    "Start Trial", "Subscribe", "Tutorial Complete", "View", "_Deeplink",
})  # fmt: skip
_ATT_DETAILS = frozenset({"authorized", "denied", "notDetermined", "restricted"})
_UNKNOWN_AGENT = (("User-Agent", "Unknown"),)


@dataclass(frozen=True, slots=True)
class PayloadRules:
    """The choices that the contract leaves open; docs/settings.md, [kochava]."""

    require_device_id: bool = True
    device_ver: Literal["empty", "composed"] = "empty"
    device_ua: Literal["encoded", "raw"] = "encoded"
    usertime: Literal["seconds", "milliseconds"] = "seconds"
    reserved_keys: Literal["drop", "reject"] = "drop"
    max_event_keys: Literal["warn", "reject"] = "warn"
    default_currency: str | None = None


class KochavaPayload(NamedTuple):
    """A body, the headers it needs, and words for what was left out of it."""

    body: dict[str, Any]
    headers: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class StrictAuth:
    """An account's key and secret for signed requests. Never printed."""

    api_key: str
    app_secret: str


@lru_cache(maxsize=16_384)
def percent_encode(text: str) -> str:
    """Encode a user agent as RFC 3986 does; agents repeat, so the result is kept."""
    return quote(text, safe="")


def build(event: InAppEvent, guid: str, rules: PayloadRules) -> KochavaPayload | Rejected:
    """Return what is to be posted for *event* under the App GUID *guid*, or why nothing can be."""
    if not event.name:
        return Rejected("no_event_name")
    ip = device_ip(event.ip) if event.ip else None
    if ip is None:
        return Rejected("no_origination_ip")
    family = family_of(event.platform)
    ids = device_ids(family, event.ids)
    if not ids and (rules.require_device_id or not event.install_id):
        return Rejected("no_device_identifier")
    agent = event.user_agent.strip() if event.user_agent else ""
    composed = ""
    if (not agent or rules.device_ver == "composed") and event.model and event.os_name and event.os_version:
        composed = f"{event.model}-{event.os_name}-{event.os_version}"
    if not agent and not composed:
        return Rejected("no_device_ua")
    properties, warnings, refused = _event_data(event.properties, rules)
    if refused:
        return Rejected(refused)
    data: dict[str, Any] = {"event_name": event.name}
    if event.time_ms is not None:
        data["usertime"] = event.time_ms // 1000 if rules.usertime == "seconds" else event.time_ms
    if event.app_version:
        data["app_version"] = event.app_version
    data["origination_ip"] = ip
    data["device_ver"] = composed
    data["device_ua"] = percent_encode(agent) if rules.device_ua == "encoded" else agent
    data["device_ids"] = ids
    if family == "apple":
        data["app_tracking_transparency"] = _att(event)
    if event.gdpr_applies is not None or event.ad_user_data is not None or event.tc_string:
        gdpr = _gdpr(event)
        if gdpr is None:
            warnings.append("gdpr_incomplete")
        else:
            data["gdpr_privacy_consent"] = gdpr
    currency = event.currency or rules.default_currency
    if currency:
        currency = currency.strip().upper()
        if len(currency) == 3 and currency.isascii() and currency.isalpha():
            data["currency"] = currency
        else:
            warnings.append("currency_invalid")
    if event.limit_tracking is not None:
        data["device_limit_tracking"] = event.limit_tracking
    data["event_data"] = properties
    body = {
        "action": "event",
        "kochava_app_id": guid,
        "kochava_device_id": event.install_id or "",
        "data": data,
    }
    return KochavaPayload(body, () if agent else _UNKNOWN_AGENT, tuple(warnings))


def _event_data(source: dict[str, object], rules: PayloadRules) -> tuple[dict[str, object], list[str], str | None]:
    """Return flat properties, warnings, and a reason to refuse."""
    kept: dict[str, object] = {}
    warnings: list[str] = []
    for key, value in source.items():
        if value is None:
            continue
        if key in RESERVED_KEYS:
            if rules.reserved_keys == "reject":
                return kept, warnings, "reserved_key"
            warnings.append("reserved_key_dropped")
        elif isinstance(value, float) and not isfinite(value):
            warnings.append("number_not_finite")
        elif isinstance(value, str | int | float):
            kept[key] = value
        else:
            warnings.append("nested_value_dropped")
    if len(kept) > MAX_EVENT_KEYS:
        if rules.max_event_keys == "reject":
            return kept, warnings, "more_than_16_keys"
        warnings.append("more_than_16_keys")
    return kept, warnings, None


def _att(event: InAppEvent) -> dict[str, object]:
    """Always sent on Apple: without it Kochava assumes refusal and drops the IDFA."""
    if event.att_status not in _ATT_DETAILS:
        return {"att": False}
    block: dict[str, object] = {"att": event.att_status == "authorized"}
    if event.att_time_s is not None:
        block["att_time"] = event.att_time_s
    if event.att_duration_s is not None:
        block["att_duration"] = event.att_duration_s
    block["att_detail"] = event.att_status
    return block


def _gdpr(event: InAppEvent) -> dict[str, object] | None:
    """The block, if it is complete: consent is never invented."""
    block: dict[str, object] = {}
    if event.gdpr_applies is not None:
        block["gdpr_applies"] = int(event.gdpr_applies)
    has_signals = event.ad_user_data is not None and event.ad_personalization is not None
    if not event.tc_string and not has_signals:
        return None
    if event.tc_string:
        block["tc_string"] = event.tc_string
    if has_signals:
        block["ad_user_data"] = int(bool(event.ad_user_data))
        block["ad_personalization"] = int(bool(event.ad_personalization))
    return block


def serialise(
    payload: KochavaPayload, auth: StrictAuth | None = None
) -> tuple[bytes, tuple[tuple[str, str], ...]] | Rejected:
    """Return the bytes to post and the headers beside the fixed ones."""
    try:
        body = orjson.dumps(payload.body) if auth is None else _signable(payload.body)
    except (TypeError, ValueError):  # an integer beyond 64 bits, a lone surrogate
        return Rejected("not_json")
    if len(body) >= MAX_BODY_BYTES:
        return Rejected("body_too_large")
    return (body, payload.headers) if auth is None else (body, (*payload.headers, *sign(body, auth)))


def _signable(body: dict[str, Any]) -> bytes:
    """Serialise so that a server which hashes a re-encoded body gets the same bytes: as PHP writes JSON."""
    data = body["data"]
    if not data["event_data"]:  # an empty object may come back as an empty list
        body = {**body, "data": {key: value for key, value in data.items() if key != "event_data"}}
    return json.dumps(body, separators=(",", ":"), allow_nan=False).replace("/", "\\/").encode()


def sign(body: bytes, auth: StrictAuth) -> tuple[tuple[str, str], ...]:
    """Return the headers of strict authentication over exactly these bytes."""
    digest = hashlib.sha1(body).hexdigest()  # noqa: S324 - the contract's choice; the HMAC is what protects
    token = hmac.new(auth.api_key.encode(), (auth.app_secret + digest).encode(), hashlib.sha256).hexdigest()
    return (("Kochava-Api-Key", auth.api_key), ("Kochava-Auth-Token", token))
