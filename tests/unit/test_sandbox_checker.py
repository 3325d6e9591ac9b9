"""The sandbox's reading of the contract: the public cases, and one way to break each rule."""

import copy
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from consumer.sandbox.checker import Checker, Contract, Credentials
from consumer.sandbox.findings import FINDINGS, Finding

CASES = json.loads((Path(__file__).parents[1] / "support" / "kochava_cases.json").read_text())
RECOMMENDED = {case["id"]: case for case in CASES["recommended"]}
SAMPLES = {case["id"]: case for case in CASES["kochava_doc_samples"]}
HEADERS = {b"content-type": b"application/json", b"user-agent": b"kochava-consumer/0.1.0"}
KEY, SECRET = "test-api-key", "test-app-secret"
DELETE = object()

GOOD: dict[str, Any] = {
    "action": "event",
    "kochava_app_id": "koexample-ios-1a2b3c",
    "kochava_device_id": "inst-7f3a",
    "data": {
        "event_name": "Purchase",
        "usertime": 1719830400,
        "app_version": "5.6.7",
        "origination_ip": "203.0.113.7",
        "device_ver": "",
        "device_ua": "MyApp%2F5.6.7%20%28iPhone%3B%20iOS%2017.5%29",
        "device_ids": {
            "idfa": "6D92078A-8246-4BA4-AE5B-76104861E7DC",
            "idfv": "599F9C00-92DC-4B5C-9464-7971F01F8370",
        },
        "app_tracking_transparency": {"att": True, "att_time": 1719000000, "att_detail": "authorized"},
        "gdpr_privacy_consent": {"gdpr_applies": 1, "ad_user_data": 1, "ad_personalization": 1},
        "currency": "EUR",
        "event_data": {"order_id": "o-1", "name": "Gold pack", "sum": 12.5},
    },
}


def findings(payload: Any, headers: dict[bytes, bytes] | None = None, contract: Contract | None = None) -> list[str]:
    body = orjson.dumps(payload)
    return [str(finding) for finding in Checker(contract).check(payload, HEADERS if headers is None else headers, body)]


def changed(path: str, value: Any) -> Any:
    payload = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    there = payload
    for key in parents:
        there = there[key]
    if value is DELETE:
        del there[last]
    else:
        there[last] = value
    return payload


def test_the_example_of_the_contract_is_well() -> None:
    assert findings(GOOD) == []


# -- the public cases


@pytest.mark.parametrize(
    "case", [case for case in RECOMMENDED.values() if "expected_body" in case], ids=lambda c: c["id"]
)
def test_recommended_bodies_are_well(case: dict[str, Any]) -> None:
    headers = {name.lower().encode(): value.encode() for name, value in case.get("expected_headers", {}).items()}
    assert findings(case["expected_body"], HEADERS | headers) == []


def test_the_body_without_user_agent_needs_its_header() -> None:
    assert findings(RECOMMENDED["rec-3"]["expected_body"]) == ["user_agent_not_unknown header User-Agent"]


def test_what_must_never_be_sent() -> None:
    assert "no_device_identifier data.device_ids" in findings(changed("data.device_ids", {}))
    assert RECOMMENDED["rec-5"]["expected_rejected"] == "no_device_identifier"
    assert findings(changed("data.origination_ip", DELETE)) == ["missing_key data.origination_ip"]
    assert RECOMMENDED["rec-6"]["expected_rejected"] == "no_origination_ip"


def test_reserved_properties_and_free_names() -> None:
    rec7, rec8 = RECOMMENDED["rec-7"], RECOMMENDED["rec-8"]
    assert findings(changed("data.event_data", rec7["input"]["properties"])) == [
        "reserved_key data.event_data.campaign"
    ]
    assert findings(changed("data.event_data", rec7["expected_event_data"])) == []
    assert findings(changed("data.event_name", rec8["expected_event_name"])) == []
    for key in rec7["what"].partition("(")[2].rstrip(")").split(", "):
        assert findings(changed("data.event_data", {key: "x"})) == [f"reserved_key data.event_data.{key}"]
        assert findings(changed("data.event_data", {key.upper(): "x"})) == [], "exact match only"


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (
            "kochava-sample-event",
            ["device_ua_not_encoded data.device_ua", "att_missing data.app_tracking_transparency"],
        ),
        (
            "kochava-sample-event-no-ua",
            [
                "wrong_type data.usertime",
                "empty_device_id data.device_ids.adid",
                "empty_device_id data.device_ids.android_id",
                "mixed_platforms data.device_ids",
            ],
        ),
        (
            "kochava-sample-install",
            [
                "missing_key kochava_device_id",
                "unknown_key app_ver",
                "wrong_action action",
                "missing_key data.device_ua",
                "missing_key data.event_name",
                "invalid_ip data.origination_ip",
                "empty_device_id data.device_ids.adid",
                "empty_device_id data.device_ids.android_id",
                "mixed_platforms data.device_ids",
            ],
        ),
        (
            "kochava-sample-identitylink",
            [
                "missing_key action",
                "missing_key kochava_device_id",
                "unknown_key device_id",
                "missing_key data.device_ids",
                "missing_key data.device_ua",
                "missing_key data.device_ver",
                "missing_key data.event_name",
                "missing_key data.origination_ip",
                "unknown_key data.SGID",
            ],
        ),
    ],
)
def test_old_samples_are_not_what_we_send(sample: str, expected: list[str]) -> None:
    case = SAMPLES[sample]
    headers = {name.lower().encode(): value.encode() for name, value in case.get("headers", {}).items()}
    assert findings(case["body"], HEADERS | headers) == expected


def signed(vector: dict[str, Any]) -> dict[bytes, bytes]:
    return HEADERS | {name.lower().encode(): value.encode() for name, value in vector["headers"].items()}


@pytest.mark.parametrize("vector", CASES["strict_auth"]["vectors"], ids=lambda vector: vector["id"])
def test_strict_authentication(vector: dict[str, Any]) -> None:
    checker = Checker(Contract(credentials=Credentials(vector["api_key"], vector["app_secret"])))
    body = vector["body_sent"].encode()

    def auth(headers: dict[bytes, bytes], body: bytes) -> list[str]:
        found = checker.check(orjson.loads(body), headers, body)
        return [str(finding) for finding in found if finding.code.startswith("auth")]

    assert auth(signed(vector), body) == []
    assert auth(signed(vector), body.replace(b"Purchase", b"purchase")) == ["auth_wrong header Kochava-Auth-Token"]
    assert auth(HEADERS, body) == ["auth_missing header Kochava-Api-Key", "auth_missing header Kochava-Auth-Token"]
    other = signed(vector) | {b"kochava-api-key": b"other"}
    assert auth(other, body) == ["auth_wrong header Kochava-Api-Key"]
    # The form of a signed body, whatever the token: slashes, ASCII, no empty objects.
    token = "auth_wrong header Kochava-Auth-Token"
    assert auth(signed(vector), body.replace(b"Purchase", b"a/b")) == [token, "auth_slash"]
    assert auth(signed(vector), body.replace(b"Purchase", b"a\\/b")) == [token]
    assert auth(signed(vector), body.replace(b"Purchase", b"a\\\\/b")) == [token, "auth_slash"]
    assert auth(signed(vector), body.replace(b"Purchase", "é".encode())) == [token, "auth_not_ascii"]
    assert auth(signed(vector), body.replace(b"}}", b',"event_data":{}}}')) == [
        token,
        "auth_empty_object data.event_data",
    ]
    assert auth(signed(vector), body.replace(b"Purchase", b"{}")) == [token], "braces inside a string are no object"


# -- each rule, broken

BROKEN = [
    ("action", "install", ["wrong_action action"]),
    ("action", None, ["null_value action"]),
    ("action", DELETE, ["missing_key action"]),
    ("kochava_app_id", "", ["empty_value kochava_app_id"]),
    ("kochava_app_id", 7, ["wrong_type kochava_app_id"]),
    ("kochava_device_id", None, ["null_value kochava_device_id"]),
    ("kochava_device_id", DELETE, ["missing_key kochava_device_id"]),
    ("data", DELETE, ["missing_key data"]),
    ("data", [], ["wrong_type data"]),
    ("device_ids", {}, ["unknown_key device_ids"]),
    ("data.event_name", " ", ["empty_value data.event_name"]),
    ("data.event_name", DELETE, ["missing_key data.event_name"]),
    ("data.sdk_version", "1", ["unknown_key data.sdk_version"]),
    ("data.app_version", "", ["empty_value data.app_version"]),
    ("data.usertime", "1719830400", ["wrong_type data.usertime"]),
    ("data.usertime", 1719830400.5, ["wrong_type data.usertime"]),
    ("data.usertime", True, ["wrong_type data.usertime"]),
    ("data.usertime", 1719830400123, ["usertime_unit data.usertime"]),
    ("data.usertime", -1, ["negative_value data.usertime"]),
    ("data.origination_ip", "", ["invalid_ip data.origination_ip"]),
    ("data.origination_ip", "203.0.113.7, 10.0.0.1", ["invalid_ip data.origination_ip"]),
    ("data.origination_ip", "203.0.113.007", ["invalid_ip data.origination_ip"]),
    ("data.origination_ip", "203.0.113.7\x00", ["invalid_ip data.origination_ip"]),
    ("data.origination_ip", "fe80::1%eth0", ["invalid_ip data.origination_ip"]),
    ("data.origination_ip", "[2001:db8::1]", ["invalid_ip data.origination_ip"]),
    ("data.origination_ip", "0.0.0.0", ["unspecified_ip data.origination_ip"]),
    ("data.origination_ip", "::", ["unspecified_ip data.origination_ip"]),
    ("data.origination_ip", ["203.0.113.7"], ["wrong_type data.origination_ip"]),
    ("data.device_ver", DELETE, ["missing_key data.device_ver"]),
    ("data.device_ver", "17.5", ["device_ver_not_composed data.device_ver"]),
    ("data.device_ver", "iPhone-17.5", ["device_ver_not_composed data.device_ver"]),
    ("data.device_ver", "-iOS-17.5", ["device_ver_not_composed data.device_ver"]),
    ("data.device_ver", "iPhone--17.5", ["device_ver_not_composed data.device_ver"]),
    ("data.device_ver", None, ["null_value data.device_ver"]),
    ("data.device_ua", None, ["null_value data.device_ua"]),
    ("data.device_ua", "", ["device_ver_missing data.device_ver", "user_agent_not_unknown header User-Agent"]),
    ("data.device_ua", "MyApp/5.6.7", ["device_ua_not_encoded data.device_ua"]),
    ("data.device_ua", "MyApp+5", ["device_ua_not_encoded data.device_ua"]),
    ("data.device_ua", "MyApp%2f5", ["device_ua_not_encoded data.device_ua"]),
    ("data.device_ua", "MyApp(5)", ["device_ua_not_encoded data.device_ua"]),
    ("data.device_ua", "MyApp%4F5", ["device_ua_not_encoded data.device_ua"]),
    ("data.device_ua", "MyApp%2", ["device_ua_not_encoded data.device_ua"]),
    ("data.device_ua", "MyApp%FF", ["device_ua_not_encoded data.device_ua"]),
    ("data.device_ua", "x" * 5000 + "/", ["device_ua_not_encoded data.device_ua"]),
    ("data.device_ids", ["a"], ["wrong_type data.device_ids"]),
    ("data.device_ids.idvf", "a", ["unknown_device_id data.device_ids.idvf"]),
    ("data.device_ids.IDFA", "a", ["device_id_case data.device_ids.IDFA"]),
    ("data.device_ids.idfa", "", ["empty_device_id data.device_ids.idfa"]),
    ("data.device_ids.idfa", 7, ["wrong_type data.device_ids.idfa"]),
    ("data.device_ids.idfa", None, ["null_value data.device_ids.idfa"]),
    ("data.device_ids.idfa", " a", ["untrimmed_device_id data.device_ids.idfa"]),
    ("data.device_ids.idfa", "00000000-0000-0000-0000-000000000000", ["zero_device_id data.device_ids.idfa"]),
    ("data.device_ids.adid", "a", ["mixed_platforms data.device_ids"]),
    ("data.device_ids", {"udid": "a"}, ["att_not_apple data.app_tracking_transparency"]),
    ("data.device_ids", {"fire_adid": "a", "android_id": "b"}, ["att_not_apple data.app_tracking_transparency"]),
    ("data.currency", "eur", ["invalid_currency data.currency"]),
    ("data.currency", "EURO", ["invalid_currency data.currency"]),
    ("data.currency", 978, ["wrong_type data.currency"]),
    ("data.device_limit_tracking", 1, ["wrong_type data.device_limit_tracking"]),
    ("data.device_limit_tracking", {}, ["wrong_type data.device_limit_tracking"]),
    ("data.app_tracking_transparency", DELETE, ["att_missing data.app_tracking_transparency"]),
    ("data.app_tracking_transparency", True, ["wrong_type data.app_tracking_transparency"]),
    ("data.app_tracking_transparency", {}, ["missing_key data.app_tracking_transparency.att"]),
    ("data.app_tracking_transparency.att", 1, ["wrong_type data.app_tracking_transparency.att"]),
    ("data.app_tracking_transparency.att", False, ["att_contradiction data.app_tracking_transparency.att"]),
    ("data.app_tracking_transparency.att_detail", "not_determined",
     ["att_detail data.app_tracking_transparency.att_detail"]),
    ("data.app_tracking_transparency.att_detail", "denied", ["att_contradiction data.app_tracking_transparency.att"]),
    ("data.app_tracking_transparency.att_time", 1719000000000,
     ["usertime_unit data.app_tracking_transparency.att_time"]),
    ("data.app_tracking_transparency.att_duration", -1,
     ["negative_value data.app_tracking_transparency.att_duration"]),
    ("data.app_tracking_transparency.status", 3, ["unknown_key data.app_tracking_transparency.status"]),
    ("data.gdpr_privacy_consent", "1", ["wrong_type data.gdpr_privacy_consent"]),
    ("data.gdpr_privacy_consent", {"gdpr_applies": 1}, ["gdpr_incomplete data.gdpr_privacy_consent"]),
    ("data.gdpr_privacy_consent.ad_user_data", DELETE, ["gdpr_incomplete data.gdpr_privacy_consent"]),
    ("data.gdpr_privacy_consent.ad_user_data", True, ["gdpr_flag data.gdpr_privacy_consent.ad_user_data"]),
    ("data.gdpr_privacy_consent.gdpr_applies", 2, ["gdpr_flag data.gdpr_privacy_consent.gdpr_applies"]),
    ("data.gdpr_privacy_consent.tc_string", "", ["empty_value data.gdpr_privacy_consent.tc_string"]),
    ("data.gdpr_privacy_consent.consent", 1, ["unknown_key data.gdpr_privacy_consent.consent"]),
    ("data.event_data", '{"sum":1}', ["wrong_type data.event_data"]),
    ("data.event_data", {"items": [1]}, ["nested_value data.event_data.items"]),
    ("data.event_data", {"item": {"id": 1}}, ["nested_value data.event_data.item"]),
    ("data.event_data", {"sum": None}, ["null_value data.event_data.sum"]),
    ("data.event_data", {"campaign": "x"}, ["reserved_key data.event_data.campaign"]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "expected"), BROKEN)
def test_a_broken_rule_is_named_with_its_place(path: str, value: Any, expected: list[str]) -> None:
    assert findings(changed(path, value)) == expected


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kochava_device_id", ""),
        ("data.usertime", DELETE),
        ("data.app_version", DELETE),
        ("data.currency", DELETE),
        ("data.event_data", DELETE),
        ("data.event_data", {}),
        ("data.event_data", {"a": True, "b": 1, "c": 0.5, "d": "", "event_value": "x", "currency": "eur"}),
        ("data.event_data", {f"key_{number}": 1 for number in range(40)}),
        ("data.gdpr_privacy_consent", DELETE),
        ("data.gdpr_privacy_consent", {"tc_string": "some"}),
        ("data.app_tracking_transparency", {"att": False}),
        ("data.app_tracking_transparency", {"att": False, "att_detail": "notDetermined", "att_duration": 3}),
        ("data.origination_ip", "2001:db8::1"),
        ("data.origination_ip", "::ffff:203.0.113.7"),
        ("data.device_ver", "SM-J727A-Android-7.0.0"),
        ("data.device_ua", "My%2520App%2F3-._~"),
        ("data.device_ua", "%C3%A9"),
        ("data.device_ids.custom", "x"),
        ("data.device_ids", {"custom": "x"}),
        ("data.device_limit_tracking", True),
        ("data.device_limit_tracking", "false"),
    ],
)
def test_what_the_contract_allows(path: str, value: Any) -> None:
    assert findings(changed(path, value)) == []


def test_headers() -> None:
    assert findings(GOOD, {}) == ["content_type header Content-Type", "user_agent_missing header User-Agent"]
    assert findings(GOOD, HEADERS | {b"user-agent": b"Unknown"}) == ["user_agent_unknown header User-Agent"]
    assert findings(GOOD, HEADERS | {b"content-type": b"application/json; charset=UTF-8"}) == []
    assert findings(GOOD, HEADERS | {b"content-type": b"text/json"}) == ["content_type header Content-Type"]


def test_where_the_consumer_has_a_setting_so_has_the_checker() -> None:
    raw = changed("data.device_ua", "MyApp/5 (iPhone)")
    assert findings(raw, contract=Contract(device_ua="raw")) == []
    milliseconds = changed("data.usertime", 1719830400123)
    assert findings(milliseconds, contract=Contract(usertime="milliseconds")) == []
    assert findings(GOOD, contract=Contract(usertime="milliseconds")) == ["usertime_unit data.usertime"]
    nobody = changed("data.device_ids", {})
    del nobody["data"]["app_tracking_transparency"]
    assert findings(nobody, contract=Contract(require_device_id=False)) == []
    assert findings(nobody | {"kochava_device_id": ""}, contract=Contract(require_device_id=False)) == [
        "no_device_identifier data.device_ids"
    ]
    agreed = changed("data.device_ids.account_id", "x")
    assert findings(agreed, contract=Contract(custom_ids=frozenset({"account_id"}))) == []


@pytest.mark.parametrize("payload", [None, [], "x", 1, True])
def test_a_body_that_is_no_object(payload: Any) -> None:
    assert findings(payload) == ["not_object"]


def test_every_code_is_explained_and_can_occur() -> None:
    occurring = {line.partition(" ")[0] for *_, expected in BROKEN for line in expected}
    elsewhere = {"not_json", "not_object", "content_type", "user_agent_missing", "user_agent_unknown",
                 "no_device_identifier"}  # fmt: skip
    auth = {code for code in FINDINGS if code.startswith("auth_")}
    assert occurring | elsewhere | auth == FINDINGS.keys()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = sorted({path for path, *_ in BROKEN if "sdk" not in path})


@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), JSON), max_size=4))
def test_any_json_is_judged_with_known_codes_and_without_values(changes: list[tuple[str, Any]]) -> None:
    payload = copy.deepcopy(GOOD)
    for path, value in changes:
        *parents, last = path.split(".")
        there: Any = payload
        for key in parents:
            there = there.get(key) if isinstance(there, dict) else None
        if isinstance(there, dict):
            there[last] = value
    found = Checker().check(payload, HEADERS, b"")
    assert all(isinstance(finding, Finding) and finding.code in FINDINGS for finding in found)
    assert not any("6D92078A" in finding.path or "203.0.113.7" in finding.path for finding in found)
