"""Kochava's rules, one by one. docs/kochava.md says them in words."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import orjson
import pytest

from consumer.core.apps import choose_app
from consumer.core.event import InAppEvent
from consumer.core.identity import KEYS, device_ip, family_of
from consumer.core.mapping_values import BadValueError, number
from consumer.core.outcome import Rejected
from consumer.core.payload import (
    MAX_BODY_BYTES,
    STANDARD_EVENT_NAMES,
    KochavaPayload,
    PayloadRules,
    StrictAuth,
    build,
    percent_encode,
    serialise,
)

RULES = PayloadRules()
EVENT = InAppEvent(
    app="a", platform="android", name="Purchase", ip="203.0.113.7", user_agent="agent/1", ids={"android_id": "a1"}
)


def built(rules: PayloadRules = RULES, **changes: Any) -> KochavaPayload:
    payload = build(replace(EVENT, **changes), "guid", rules)
    assert isinstance(payload, KochavaPayload)
    return payload


def data(rules: PayloadRules = RULES, **changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = built(rules, **changes).body["data"]
    return content


def refused(rules: PayloadRules = RULES, **changes: Any) -> str:
    payload = build(replace(EVENT, **changes), "guid", rules)
    assert isinstance(payload, Rejected)
    return payload.reason


def sent(**changes: Any) -> bytes:
    made = serialise(built(**changes))
    assert not isinstance(made, Rejected)
    return made[0]


# -- the eight keys, and nothing that isn't known


def test_the_least_that_can_be_sent() -> None:
    assert built().body == {
        "action": "event",
        "kochava_app_id": "guid",
        "kochava_device_id": "",
        "data": {
            "event_name": "Purchase",
            "origination_ip": "203.0.113.7",
            "device_ver": "",
            "device_ua": "agent%2F1",
            "device_ids": {"android_id": "a1"},
            "event_data": {},
        },
    }
    assert built().headers == built().warnings == ()


@pytest.mark.parametrize("name", [None, "", "  "])
def test_an_event_without_a_name(name: str | None) -> None:
    assert refused(name=name) == "no_event_name"


def test_a_name_that_kochava_does_not_know_is_sent_and_counted() -> None:
    payload = built(name="purchase ")
    assert payload.body["data"]["event_name"] == "purchase "
    assert payload.warnings == ("unmapped_event_name",)
    assert all(built(name=name).warnings == () for name in STANDARD_EVENT_NAMES)
    assert len(STANDARD_EVENT_NAMES) == 19


def test_usertime_is_rounded_down_or_left_out() -> None:
    assert data(time_ms=1719830400999)["usertime"] == 1719830400
    assert data(PayloadRules(usertime="milliseconds"), time_ms=1719830400999)["usertime"] == 1719830400999
    assert "usertime" not in data()


def test_limited_tracking_only_if_the_mapping_gives_it() -> None:
    assert "device_limit_tracking" not in data()
    assert data(limit_tracking=False)["device_limit_tracking"] is False


# -- ids

IDS = {"advertising_id": "ad", "vendor_id": "ve", "android_id": "an", "udid": "ud", "rida": "ri", "custom": "cu"}


@pytest.mark.parametrize(
    ("platforms", "wanted"),
    [
        (
            "ios iOS iPadOS tvOS watchOS visionOS macOS|iPhone OS|Apple TV|apple_tv|Mac OS X",
            {"idfa": "ad", "idfv": "ve"},
        ),
        ("android Android ANDROID_TV|Android TV|Wear OS", {"adid": "ad", "android_id": "an"}),
        ("fireos fire_tv|Fire OS|Amazon Fire TV|kindle", {"fire_adid": "ad", "android_id": "an"}),
        ("roku Roku|Roku OS", {"udid": "ud", "rida": "ri"}),
        ("web windows tizen", {}),
    ],
)
def test_the_platform_decides_which_ids_are_sent_under_which_key(platforms: str, wanted: dict[str, str]) -> None:
    first, *rest = platforms.split("|")
    for platform in (*first.split(), *rest):
        assert data(platform=platform, ids=IDS)["device_ids"] == {**wanted, "custom": "cu"}, platform


def test_a_key_of_another_platform_is_not_sent_wherever_it_comes_from() -> None:
    everything = {key: "x" for keys in KEYS.values() for key in keys.values()}
    assert data(platform="ios", ids=everything)["device_ids"] == {"idfa": "x", "idfv": "x"}
    for family, platform in (("android", "android"), ("roku", "roku"), ("fire", "fireos")):
        found = data(platform=platform, ids={**everything, "custom": "c"})["device_ids"]
        assert set(found) - {"custom"} <= set(KEYS[family].values())
    assert refused(platform="web", ids=everything) == "no_device_identifier"


ZERO = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("nothing", ["", "  ", "0", ZERO, f"{{{ZERO}}}", f" {ZERO} ", "00:00:00:00:00:00", "--"])
def test_an_id_that_says_nothing_does_not_count(nothing: str) -> None:
    assert refused(ids={"advertising_id": nothing}) == "no_device_identifier"
    assert data(ids={"advertising_id": nothing, "android_id": " a1 "})["device_ids"] == {"android_id": "a1"}


def test_an_install_id_stands_in_only_if_settings_say_so() -> None:
    lenient = PayloadRules(require_device_id=False)
    assert refused(ids={}, install_id="i") == "no_device_identifier"
    assert data(lenient, ids={}, install_id="i")["device_ids"] == {}
    for missing in (None, "", " "):
        assert refused(lenient, ids={}, install_id=missing) == "no_device_identifier"
    assert built(install_id=" ").body["kochava_device_id"] == ""


# -- address


@pytest.mark.parametrize(
    "text",
    [
        "203.0.113.7",
        " 203.0.113.7\n",
        "255.255.255.255",
        "2001:db8::1",
        "::1",
        "2001:DB8:0:0:0:0:0:1",
        "::ffff:192.0.2.1",
    ],
)
def test_addresses(text: str) -> None:
    assert device_ip(text) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "", "0.0.0.0", "::", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0", "fe80::1%eth0", "203.0.113.7:80", "[2001:db8::1]",
        "256.1.1.1", "1.2.3", "01.2.3.4", "1.2.3.4, 5.6.7.8", "1.2.3.4/32", "localhost", "3405803783", "\u0661.2.3.4",
        "1.2.3.4\n5.6.7.8", "x" * 9999,
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    assert device_ip(text) is None
    assert refused(ip=text) == "no_origination_ip"
    assert refused(ip=None) == "no_origination_ip"


# -- user agent and device_ver

MODEL = {"model": "SM-J727A", "os_name": "Android", "os_version": "7.0.0"}


def test_a_user_agent_is_encoded_once_by_rfc_3986() -> None:
    agent = "Größe/1.0 (a; b) ~-_.!*' 100%"
    encoded = data(user_agent=f" {agent} ")["device_ua"]
    assert set(encoded) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~%")
    assert unquote(encoded) == agent
    assert percent_encode("a b/(c)!") == "a%20b%2F%28c%29%21"
    assert data(PayloadRules(device_ua="raw"), user_agent=agent)["device_ua"] == agent


@pytest.mark.parametrize("agent", [None, "", "  "])
def test_without_a_user_agent_the_device_is_named(agent: str | None) -> None:
    payload = built(user_agent=agent, **MODEL)
    assert payload.body["data"]["device_ua"] == ""
    assert payload.body["data"]["device_ver"] == "SM-J727A-Android-7.0.0"
    assert payload.headers == (("User-Agent", "Unknown"),)
    for part in MODEL:
        assert refused(user_agent=agent, **{**MODEL, part: None}) == "no_device_ua"
        assert refused(user_agent=agent, **{**MODEL, part: " "}) == "no_device_ua"


def test_device_ver_is_empty_or_composed() -> None:
    composed = PayloadRules(device_ver="composed")
    assert data(**MODEL)["device_ver"] == ""
    assert data(composed, **MODEL)["device_ver"] == "SM-J727A-Android-7.0.0"
    assert data(composed, **{**MODEL, "model": None})["device_ver"] == ""


# -- consent


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        ("authorized", {"att": True, "att_time": 5, "att_duration": 2, "att_detail": "authorized"}),
        ("denied", {"att": False, "att_time": 5, "att_duration": 2, "att_detail": "denied"}),
        ("notDetermined", {"att": False, "att_time": 5, "att_duration": 2, "att_detail": "notDetermined"}),
        ("restricted", {"att": False, "att_time": 5, "att_duration": 2, "att_detail": "restricted"}),
        ("Authorized", {"att": False}),
        (None, {"att": False}),
    ],
)
def test_tracking_transparency_on_apple_only(status: str | None, wanted: dict[str, Any]) -> None:
    known = {"att_status": status, "att_time_s": 5, "att_duration_s": 2, "ids": IDS}
    assert data(platform="ios", **known)["app_tracking_transparency"] == wanted
    assert data(platform="Apple TV", **known)["app_tracking_transparency"] == wanted
    for platform in ("android", "roku", "web", "fireos", None):
        assert "app_tracking_transparency" not in data(platform=platform, **known)


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ({}, None),
        ({"gdpr_applies": True, "tc_string": "T"}, {"gdpr_applies": 1, "tc_string": "T"}),
        ({"tc_string": "T", "ad_user_data": True}, {"tc_string": "T"}),
        ({"ad_user_data": True, "ad_personalization": False}, {"ad_user_data": 1, "ad_personalization": 0}),
        (
            {"gdpr_applies": False, "ad_user_data": False, "ad_personalization": False, "tc_string": "T"},
            {"gdpr_applies": 0, "tc_string": "T", "ad_user_data": 0, "ad_personalization": 0},
        ),
        ({"gdpr_applies": True}, "incomplete"),
        ({"ad_user_data": True}, "incomplete"),
        ({"ad_personalization": False}, "incomplete"),
        ({"gdpr_applies": False, "tc_string": "", "ad_user_data": True}, "incomplete"),
    ],
)
def test_consent_is_complete_or_left_out(known: dict[str, Any], wanted: Any) -> None:
    payload = built(**known)
    found = payload.body["data"].get("gdpr_privacy_consent")
    assert found == (None if wanted == "incomplete" else wanted)
    assert payload.warnings == (("gdpr_incomplete",) if wanted == "incomplete" else ())
    assert all(type(value) in {int, str} for value in (found or {}).values())


# -- event_data


def test_properties_that_event_data_cannot_hold() -> None:
    payload = built(
        properties={"campaign": "x", "Campaign": "y", "n": None, "f": float("inf"), "b": b"x", "l": [1], "d": {}}
    )
    assert payload.body["data"]["event_data"] == {"Campaign": "y"}
    assert payload.warnings == ("reserved_key_dropped", "number_not_finite", *["value_dropped"] * 3)
    assert refused(PayloadRules(reserved_keys="reject"), properties={"site": 1}) == "reserved_key"


def test_more_than_sixteen_keys_counted_after_dropping() -> None:
    sixteen = {f"k{n}": n for n in range(16)}
    strict = PayloadRules(max_event_keys="reject")
    assert data(strict, properties={**sixteen, "source": "x"})["event_data"] == sixteen
    payload = built(properties={**sixteen, "more": 1})
    assert len(payload.body["data"]["event_data"]) == 17
    assert payload.warnings == ("more_than_16_keys",)
    assert refused(strict, properties={**sixteen, "more": 1}) == "more_than_16_keys"


def test_currency() -> None:
    assert data(currency=" eur ")["currency"] == "EUR"
    assert "currency" not in data(currency="  ")
    for invalid in ("EURO", "€", "E1R", "ÄÖÜ"):
        payload = built(currency=invalid)
        assert "currency" not in payload.body["data"]
        assert payload.warnings == ("currency_invalid",)
    default = PayloadRules(default_currency="usd")
    assert "currency" not in data(default)  # what has no money needs none
    assert data(default, properties={"sum": 1})["currency"] == "USD"
    assert data(default, properties={"price": 1}, currency="EUR")["currency"] == "EUR"
    assert "currency" not in data(default, properties={"sum": 1}, currency="EURO")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (Decimal("19.9900"), b"19.99"),
        (Decimal("12.0000"), b"12"),
        (Decimal("0E-20"), b"0"),
        (Decimal("-0.10"), b"-0.1"),
        (Decimal("12345678901234.5678"), b"12345678901234.5678"),
        (Decimal("0.1000000000000000055511151231257827"), b"0.1000000000000000055511151231257827"),
        (Decimal(2**63), b"9223372036854775808"),
        (Decimal("1E+2"), b"100"),
        ("7.50", b"7.5"),
        (12.0, b"12"),
        (0.1 + 0.2, b"0.30000000000000004"),
    ],
)
def test_money_keeps_every_digit(given: Any, written: bytes) -> None:
    assert b'"event_data":{"sum":' + written + b"}" in sent(properties={"sum": number(given)})


@pytest.mark.parametrize(
    "given", ["", "1_0", "NaN", "0x10", "1,5", "1e999", True, None, b"1", Decimal("NaN"), float("inf"), []]
)
def test_what_is_no_number(given: Any) -> None:
    with pytest.raises(BadValueError):
        number(given)


# -- bytes

AUTH = StrictAuth("key", "secret")


def test_compact_utf_8() -> None:
    body = sent(properties={"name": "Größe/1"})
    assert b'"name":"Gr\xc3\xb6\xc3\x9fe/1"' in body
    assert b": " not in body


def test_signed_bodies_are_ascii_and_escape_slashes() -> None:
    properties = {"a/b": 'x\\/"ö', "emoji": "😀", "sum": Decimal("12345678901234.5678"), "del": "\x7f\x00"}
    made = serialise(built(properties=properties), AUTH)
    assert not isinstance(made, Rejected)
    body, headers = made
    assert body.isascii()
    assert body.count(b"/") == body.count(b"\\/")
    assert b"\\ud83d\\ude00" in body
    assert json.loads(body, parse_float=Decimal)["data"]["event_data"] == properties
    assert [name for name, _ in headers] == ["Kochava-Api-Key", "Kochava-Auth-Token"]
    assert "secret" not in repr(AUTH) + repr(headers)


def test_signed_bodies_leave_an_empty_event_data_out() -> None:
    payload = built(user_agent=None, **MODEL)
    made = serialise(payload, AUTH)
    assert not isinstance(made, Rejected)
    assert "event_data" not in orjson.loads(made[0])["data"]
    assert payload.body["data"]["event_data"] == {}
    assert made[1][0] == ("User-Agent", "Unknown")


def test_a_body_stays_under_two_mebibytes() -> None:
    room = MAX_BODY_BYTES - len(sent(properties={"a": ""}))
    assert len(sent(properties={"a": "x" * (room - 1)})) == MAX_BODY_BYTES - 1
    assert serialise(built(properties={"a": "x" * room})) == Rejected("body_too_large")


@pytest.mark.parametrize("value", [2**70, "\ud800", Decimal("NaN")])
@pytest.mark.parametrize("auth", [None, AUTH])
def test_what_json_cannot_hold(value: Any, auth: StrictAuth | None) -> None:
    assert serialise(built(properties={"a": value}), auth) == Rejected("not_json")


# -- apps


def test_app_and_platform_beat_the_app_alone() -> None:
    apps = {"shop": 1, "shop/ios": 2, "game/android": 3}
    assert choose_app(apps, "shop", "iOS") == ("shop/ios", 2)
    assert choose_app(apps, "shop", "android") == ("shop", 1)
    assert choose_app(apps, "shop", None) == ("shop", 1)
    for app, platform in (("game", "ios"), ("game", None), ("", "ios"), (None, "ios"), ("Shop", None)):
        assert choose_app(apps, app, platform) is None


def test_families_are_known_for_any_spelling() -> None:
    assert family_of(None) == family_of("") == family_of("playstation") == "other"


def test_a_signed_event_needs_a_device_id_whatever_settings_say() -> None:
    """Found by the fuzzer: an empty object in a signed body, whose 401 would hold the whole app."""
    payload = built(PayloadRules(require_device_id=False), ids={}, install_id="KA1")
    assert isinstance(serialise(payload), tuple)
    assert serialise(payload, AUTH) == Rejected("no_device_identifier")
