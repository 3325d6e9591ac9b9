"""Kochava's rules: an event in neutral terms to the body of a post-install event. The contract is docs/kochava.md.

These rules are not the source's, so no mapping can switch them off: eight keys always there, percent-encoding, tracking
transparency on Apple, reserved keys, identity.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from decimal import Decimal
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
_REVENUE_KEYS = ("sum", "price")
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
    """For events with a `sum` or a `price` that name none; what has no money needs no currency."""


class KochavaPayload(NamedTuple):
    """A body, the headers it needs, and stable words for what is odd about it, for the caller to count."""

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
    return quote(text, safe="", errors="replace")


def build(event: InAppEvent, guid: str, rules: PayloadRules) -> KochavaPayload | Rejected:
    """Return what is to be posted for *event* under the App GUID *guid*, or why nothing can be."""
    name = event.name
    if not name or name.isspace():
        return Rejected("no_event_name")
    ip = device_ip(event.ip) if event.ip else None
    if ip is None:
        return Rejected("no_origination_ip")
    family = family_of(event.platform)
    ids = device_ids(family, event.ids)
    install_id = event.install_id
    if not install_id or install_id.isspace():
        install_id = ""
    if not ids and (rules.require_device_id or not install_id):
        return Rejected("no_device_identifier")
    agent = event.user_agent.strip() if event.user_agent else ""
    device_ver = _device_ver(event) if not agent or rules.device_ver == "composed" else ""
    if not agent and not device_ver:
        return Rejected("no_device_ua")
    warnings: list[str] = []
    if name not in STANDARD_EVENT_NAMES:
        warnings.append("unmapped_event_name")
    event_data = _event_data(event.properties, rules, warnings)
    if isinstance(event_data, Rejected):
        return event_data
    data: dict[str, Any] = {"event_name": name}
    if event.time_ms is not None:
        data["usertime"] = event.time_ms // 1000 if rules.usertime == "seconds" else event.time_ms
    if event.app_version:
        data["app_version"] = event.app_version
    data["origination_ip"] = ip
    data["device_ver"] = device_ver
    data["device_ua"] = percent_encode(agent) if rules.device_ua == "encoded" else agent
    data["device_ids"] = ids
    if family == "apple":
        data["app_tracking_transparency"] = _att(event)
    gdpr = _gdpr(event, warnings)
    if gdpr:
        data["gdpr_privacy_consent"] = gdpr
    currency = _currency(event.currency, event_data, rules, warnings)
    if currency:
        data["currency"] = currency
    if event.limit_tracking is not None:
        data["device_limit_tracking"] = event.limit_tracking
    data["event_data"] = event_data
    body = {"action": "event", "kochava_app_id": guid, "kochava_device_id": install_id, "data": data}
    return KochavaPayload(body, () if agent else _UNKNOWN_AGENT, tuple(warnings))


def _device_ver(event: InAppEvent) -> str:
    """All three parts or nothing; hyphens inside of a part stay."""
    parts = (event.model, event.os_name, event.os_version)
    return (
        "-".join(part.strip() for part in parts if part) if all(part and not part.isspace() for part in parts) else ""
    )


def _event_data(source: dict[str, object], rules: PayloadRules, warnings: list[str]) -> dict[str, object] | Rejected:
    """Return flat properties."""
    kept: dict[str, object] = {}
    for key, value in source.items():
        if value is None:
            continue
        kind = type(value)
        if key in RESERVED_KEYS:
            if rules.reserved_keys == "reject":
                return Rejected("reserved_key")
            warnings.append("reserved_key_dropped")
        elif kind is str or kind is int or kind is bool or kind is Decimal:
            kept[key] = value
        elif isinstance(value, float):
            if isfinite(value):
                kept[key] = value
            else:
                warnings.append("number_not_finite")
        else:
            warnings.append("value_dropped")
    if len(kept) > MAX_EVENT_KEYS:
        if rules.max_event_keys == "reject":
            return Rejected("more_than_16_keys")
        warnings.append("more_than_16_keys")
    return kept


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


def _gdpr(event: InAppEvent, warnings: list[str]) -> dict[str, object] | None:
    """The block, if it is complete: consent is never invented."""
    user_data, personalization = event.ad_user_data, event.ad_personalization
    if event.gdpr_applies is None and not event.tc_string and user_data is None and personalization is None:
        return None
    block: dict[str, object] = {}
    if event.gdpr_applies is not None:
        block["gdpr_applies"] = int(event.gdpr_applies)
    has_signals = user_data is not None and personalization is not None
    if not event.tc_string and not has_signals:
        warnings.append("gdpr_incomplete")
        return None
    if event.tc_string:
        block["tc_string"] = event.tc_string
    if has_signals:
        block["ad_user_data"] = int(bool(user_data))
        block["ad_personalization"] = int(bool(personalization))
    return block


def _currency(code: str | None, event_data: dict[str, object], rules: PayloadRules, warnings: list[str]) -> str | None:
    code = code.strip().upper() if code else None
    if not code and rules.default_currency and any(key in event_data for key in _REVENUE_KEYS):
        code = rules.default_currency.upper()
    if not code:
        return None
    if len(code) == 3 and code.isascii() and code.isalpha():
        return code
    warnings.append("currency_invalid")
    return None


def serialise(
    payload: KochavaPayload, auth: StrictAuth | None = None
) -> tuple[bytes, tuple[tuple[str, str], ...]] | Rejected:
    """Return the bytes to post and the headers beside the fixed ones.

    A signed event needs a device id, whatever the rules allow: an empty `device_ids` may not be hashed as it was sent,
    and the 401 for this one event would hold all of its app.
    """
    if auth is not None and payload.body["data"].get("device_ids") == {}:
        return Rejected("no_device_identifier")
    try:
        body = orjson.dumps(payload.body, _exact) if auth is None else _signable(payload.body)
    except (TypeError, ValueError):  # an integer beyond 64 bits, a lone surrogate
        return Rejected("not_json")
    if len(body) >= MAX_BODY_BYTES:
        return Rejected("body_too_large")
    return (body, payload.headers) if auth is None else (body, (*payload.headers, *sign(body, auth)))


def _exact(value: object) -> orjson.Fragment:
    """Write the digits of a number that no double equals; orjson itself knows no Decimal."""
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(format(value, "f"))
    raise TypeError


_NOT_SIGNABLE = re.compile(r"[^\x00-\x7f]")


def _signable(body: dict[str, Any]) -> bytes:
    """Serialise so that a server which hashes a re-encoded body gets the same bytes: as PHP writes JSON."""
    data = body["data"]
    if not data["event_data"]:  # an empty object may come back as an empty list
        body = {**body, "data": {key: value for key, value in data.items() if key != "event_data"}}
    text = orjson.dumps(body, _exact).decode()
    return _NOT_SIGNABLE.sub(_escaped, text.replace("/", "\\/")).encode()  # both occur in JSON texts only


def _escaped(character: re.Match[str]) -> str:
    """Return the escape of JSON for a character, twice for what UTF-16 writes in two units."""
    units = character[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def sign(body: bytes, auth: StrictAuth) -> tuple[tuple[str, str], ...]:
    """Return the headers of strict authentication over exactly these bytes."""
    digest = hashlib.sha1(body).hexdigest()  # noqa: S324 - the contract's choice; the HMAC is what protects
    token = hmac.new(auth.api_key.encode(), (auth.app_secret + digest).encode(), hashlib.sha256).hexdigest()
    return (("Kochava-Api-Key", auth.api_key), ("Kochava-Auth-Token", token))
