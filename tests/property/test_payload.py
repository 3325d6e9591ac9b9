"""Any event is refused with a known word, or becomes a body that keeps the contract.

The contract is written here a second time, as a list of statements about the JSON that is sent; nothing of `core` is
used to check it.
"""

import json
import re
from decimal import Decimal
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

from hypothesis import example, given, strategies as st

from consumer.core.event import InAppEvent
from consumer.core.outcome import Rejected
from consumer.core.payload import PayloadRules, StrictAuth, build, serialise

REASONS = {
    "no_event_name", "no_origination_ip", "no_device_identifier", "no_device_ua", "reserved_key", "more_than_16_keys",
    "body_too_large", "not_json",
}  # fmt: skip
WARNINGS = {
    "reserved_key_dropped", "more_than_16_keys", "currency_invalid", "gdpr_incomplete", "unmapped_event_name",
    "number_not_finite", "value_dropped",
}  # fmt: skip
RESERVED = [
    "network", "source", "fb_campaign", "campaign", "site", "creative", "attribution_type", "integration_type",
    "integration_version", "cracked", "jailbroken",
]  # fmt: skip
ID_KEYS = {"idfa", "idfv", "adid", "android_id", "fire_adid", "udid", "rida"}
PLATFORMS = {
    "ios": {"idfa", "idfv"}, "iPadOS": {"idfa", "idfv"}, "Apple TV": {"idfa", "idfv"}, "watchos": {"idfa", "idfv"},
    "android": {"adid", "android_id"}, "Android TV": {"adid", "android_id"}, "Fire OS": {"fire_adid", "android_id"},
    "roku": {"udid", "rida"}, "web": set(), "": set(),
}  # fmt: skip
APPLE = {"ios", "iPadOS", "Apple TV", "watchos"}

texts = st.one_of(st.none(), st.just(""), st.just(" "), st.text(max_size=12))
ips = st.one_of(
    st.ip_addresses().map(str), st.sampled_from(["0.0.0.0", "::", "fe80::1%1", "1.2.3.4:5"]), st.text(max_size=8)
)
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.decimals(allow_nan=False, allow_infinity=False, places=4, max_value=10**20),
)
events = st.builds(
    InAppEvent,
    app=texts,
    platform=st.sampled_from(sorted(PLATFORMS)),
    name=st.one_of(st.just("Purchase"), texts),
    time_ms=st.one_of(st.none(), st.integers(0, 10**14)),
    install_id=texts,
    ip=st.one_of(st.just("203.0.113.7"), ips, st.none()),
    user_agent=st.one_of(st.just("agent/1 (x)"), texts),
    model=texts,
    os_name=texts,
    os_version=texts,
    app_version=texts,
    currency=st.one_of(st.just("eur"), texts),
    ids=st.dictionaries(
        st.one_of(
            st.sampled_from(["advertising_id", "vendor_id", "android_id", "udid", "rida", *sorted(ID_KEYS)]),
            st.text(max_size=4),
        ),
        st.one_of(st.sampled_from(["a1", "00000000-0000-0000-0000-000000000000", "", " "]), st.text(max_size=8)),
        max_size=6,
    ),
    att_status=st.one_of(texts, st.sampled_from(["authorized", "denied", "notDetermined", "restricted"])),
    att_time_s=st.one_of(st.none(), st.integers(0, 10**11)),
    att_duration_s=st.one_of(st.none(), st.integers(0, 100)),
    gdpr_applies=st.one_of(st.none(), st.booleans()),
    tc_string=texts,
    ad_user_data=st.one_of(st.none(), st.booleans()),
    ad_personalization=st.one_of(st.none(), st.booleans()),
    limit_tracking=st.one_of(st.none(), st.booleans()),
    properties=st.dictionaries(
        st.one_of(st.sampled_from([*RESERVED, "sum"]), st.text(max_size=4)),
        st.one_of(st.none(), st.text(max_size=8), numbers, st.binary(max_size=2), st.lists(st.integers(), max_size=1)),
        max_size=20,
    ),
)
rules = st.builds(
    PayloadRules,
    require_device_id=st.booleans(),
    device_ver=st.sampled_from(["empty", "composed"]),
    device_ua=st.sampled_from(["encoded", "raw"]),
    usertime=st.sampled_from(["seconds", "milliseconds"]),
    reserved_keys=st.sampled_from(["drop", "reject"]),
    max_event_keys=st.sampled_from(["warn", "reject"]),
    default_currency=st.sampled_from([None, "usd"]),
)
GOOD = InAppEvent(platform="ios", name="Purchase", ip="::1", user_agent="a/1", ids={"vendor_id": "v"})


@given(events, rules, st.booleans())
@example(GOOD, PayloadRules(), True)
@example(GOOD, PayloadRules(), False)
def test_any_event_is_refused_or_keeps_the_contract(event: InAppEvent, chosen: PayloadRules, signed: bool) -> None:
    payload = build(event, "guid-1", chosen)
    if isinstance(payload, Rejected):
        assert payload.reason in REASONS
        return
    assert set(payload.warnings) <= WARNINGS
    made = serialise(payload, StrictAuth("k", "s") if signed else None)
    if isinstance(made, Rejected):
        if made.reason == "no_device_identifier":
            assert signed
            assert not payload.body["data"]["device_ids"]
            return
        # nothing else in here can be beyond JSON
        assert made.reason == "not_json"
        assert any(isinstance(value, int) and not -(2**63) <= value < 2**64 for value in event.properties.values())
        return
    raw, headers = made
    body = json.loads(raw, parse_float=Decimal, parse_constant=_no_constant)
    check_top(body, event, chosen, signed)
    check_data(body["data"], event, chosen)
    check_event_data(body["data"].get("event_data", {}), event, chosen)
    names = [name for name, _ in headers]
    assert ("User-Agent" in names) == (body["data"]["device_ua"] == "")
    assert dict(headers).get("User-Agent", "Unknown") == "Unknown"
    assert ("Kochava-Auth-Token" in names) == signed
    if signed:
        assert raw.isascii()
        assert not re.search(rb"(?<!\\)/", raw)
    assert len(raw) < 2 * 1024 * 1024


def _no_constant(name: str) -> Any:
    raise AssertionError(name)


def check_top(body: dict[str, Any], event: InAppEvent, chosen: PayloadRules, signed: bool) -> None:
    assert set(body) == {"action", "kochava_app_id", "kochava_device_id", "data"}
    assert body["action"] == "event"
    assert body["kochava_app_id"] == "guid-1"
    assert isinstance(body["kochava_device_id"], str)
    data = body["data"]
    assert set(data) >= {"event_name", "origination_ip", "device_ver", "device_ua", "device_ids"}
    assert set(data) <= {
        "event_name", "origination_ip", "device_ver", "device_ua", "device_ids", "usertime", "app_version", "currency",
        "app_tracking_transparency", "gdpr_privacy_consent", "device_limit_tracking", "event_data",
    }  # fmt: skip
    assert None not in data.values()
    assert ("event_data" in data) or (signed and not data.get("event_data"))
    if chosen.require_device_id:
        assert data["device_ids"]
    assert data["device_ids"] or (body["kochava_device_id"].strip() and not signed)


def check_data(data: dict[str, Any], event: InAppEvent, chosen: PayloadRules) -> None:
    assert data["event_name"] == event.name
    assert data["event_name"].strip()
    address = ip_address(data["origination_ip"])
    assert not address.is_unspecified
    assert "%" not in data["origination_ip"]
    platform = event.platform or ""
    ids = data["device_ids"]
    assert not (set(ids) & ID_KEYS) - PLATFORMS[platform]
    assert not set(ids) & {"advertising_id", "vendor_id"}
    for value in ids.values():
        assert value == value.strip()
        assert value.strip("0-{}:. ")
    if data["device_ua"]:
        agent = data["device_ua"]
        if chosen.device_ua == "encoded":
            assert re.fullmatch(r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+", agent)
            agent = unquote(agent)
        assert agent == (event.user_agent or "").strip()
    else:
        assert data["device_ver"]
    if data["device_ver"]:
        assert all((event.model, event.os_name, event.os_version))
        assert data["device_ver"].count("-") >= 2
    if "usertime" in data:
        assert type(data["usertime"]) is int
        assert event.time_ms is not None
        per = 1000 if chosen.usertime == "seconds" else 1
        assert 0 <= event.time_ms - data["usertime"] * per < per
    if "currency" in data:
        assert re.fullmatch(r"[A-Z]{3}", data["currency"])
    assert ("app_tracking_transparency" in data) == (platform in APPLE)
    att = data.get("app_tracking_transparency", {"att": False})
    assert set(att) <= {"att", "att_time", "att_duration", "att_detail"}
    assert att["att"] is (att.get("att_detail") == "authorized")
    assert att.get("att_detail", "denied") in {"authorized", "denied", "notDetermined", "restricted"}
    gdpr = data.get("gdpr_privacy_consent")
    if gdpr is not None:
        assert set(gdpr) <= {"gdpr_applies", "tc_string", "ad_user_data", "ad_personalization"}
        assert gdpr.get("tc_string") or {"ad_user_data", "ad_personalization"} <= set(gdpr)
        for key in set(gdpr) - {"tc_string"}:
            assert gdpr[key] == int(getattr(event, key))
            assert type(gdpr[key]) is int


def check_event_data(event_data: dict[str, Any], event: InAppEvent, chosen: PayloadRules) -> None:
    assert not set(event_data) & set(RESERVED)
    assert len(event_data) <= 16 or chosen.max_event_keys == "warn"
    for key, value in event_data.items():
        source = event.properties[key]
        if isinstance(source, float):
            assert float(value) == source
        else:
            assert value == source
            assert isinstance(value, bool) == isinstance(source, bool)
