"""The public cases of Kochava's contract, from Avro bytes of the project's own schema to the bytes that are posted."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from consumer.adapters.mapping_file import load
from consumer.core.event import InAppEvent
from consumer.core.mapping import CompiledMapping, compile_mapping
from consumer.core.outcome import Answer, Delivered, Fault, Misconfigured, Rejected, Retryable, Unconfirmed, classify
from consumer.core.payload import KochavaPayload, PayloadRules, StrictAuth, build, serialise, sign
from consumer.ports import Decoded
from tests.support.avro import builtin, encode, plain_decoder, record_of

CASES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "support" / "kochava_cases.json").read_text())
RULES = PayloadRules()
DEVICE = {"ip": "203.0.113.7", "user_agent": "agent/1", "android_id": "a1"}


def by_id(group: str) -> dict[str, Any]:
    return {case["id"]: case for case in CASES[group]}


def datum_of(given: dict[str, Any], version: int) -> dict[str, Any]:
    """Put a case's plain names where the project's schema has them."""
    device = {"user_agent": given.get("user_agent"), "ip": given.get("ip"), "install_id": given.get("install_id")}
    datum = {
        "event_id": "",
        "app_id": "shop",
        "platform": given.get("platform", "android"),
        "event_name": given.get("event_name", "View"),
        "occurred_at": datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=given.get("event_time_ms", 0)),
        "app_version": given.get("app_version"),
        "currency": given.get("currency"),
        "amount": None,
        "device": {**device, **given.get("device", {})},
        "consent": {"att_status": given["att_status"]} if "att_status" in given else None,
        "properties": given.get("properties", {}),
    }
    return datum if version == 1 else {**datum, "session_id": "s"}


def sent(given: dict[str, Any], version: int) -> tuple[KochavaPayload, dict[str, Any]] | Rejected:
    """Do what the pipeline does, without the event id, which the cases don't have."""
    schema = builtin(version)
    decoder = plain_decoder(schema)
    decoded = decoder.decode(record_of(encode(schema, datum_of(given, version))))
    assert isinstance(decoded, Decoded)
    mapping = compile_mapping(load(None), decoder.parsed_schema(decoded.schema))
    assert isinstance(mapping, CompiledMapping)
    event = mapping.map(decoded.datum)
    assert isinstance(event, InAppEvent)
    del event.properties["event_id"]
    payload = build(event, given.get("app_guid", "koapp-1"), RULES)
    if isinstance(payload, Rejected):
        return payload
    made = serialise(payload)
    assert not isinstance(made, Rejected)
    return payload, orjson.loads(made[0])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("case", by_id("recommended").values(), ids=lambda case: case["id"])
def test_recommended(case: dict[str, Any], version: int) -> None:
    given = case["input"]
    if "app_guid" not in given:  # a case about a part of an event: the rest is a good one
        given = {**DEVICE, "device": {"android_id": "a1"}, **given}
    result = sent(given, version)
    if "expected_rejected" in case:
        assert result == Rejected(case["expected_rejected"])
        return
    assert not isinstance(result, Rejected)
    payload, body = result
    assert payload.headers == tuple(case.get("expected_headers", {}).items())
    if "expected_body" in case:
        assert body == case["expected_body"]
    if "expected_event_data" in case:
        assert body["data"]["event_data"] == case["expected_event_data"]
    if "expected_event_name" in case:
        assert body["data"]["event_name"] == case["expected_event_name"]


def test_each_recommended_case_expects_something() -> None:
    assert all(any(key.startswith("expected_") for key in case) for case in CASES["recommended"])


@pytest.mark.parametrize("key", CASES["recommended"][6]["what"].partition("(")[2].rstrip(")").split(", "))
def test_each_reserved_key_is_left_out(key: str) -> None:
    result = sent({**DEVICE, "device": {"android_id": "a1"}, "properties": {key: "x", "sum": 1}}, 1)
    assert not isinstance(result, Rejected)
    assert result[1]["data"]["event_data"] == {"sum": 1}
    assert "reserved_key_dropped" in result[0].warnings


SAMPLE = InAppEvent(
    app="a",
    platform="ios",
    name="SubscriptionTest",
    time_ms=1521574016000,
    install_id="<CUSTOM VALUE>",
    ip="104.219.46.66",
    app_version="1.0.0",
    currency="USD",
    properties={"id": "123", "name": "Skis", "sum": 150},
)


def test_kochavas_sample() -> None:
    wanted = by_id("kochava_doc_samples")["kochava-sample-event"]["body"]
    event = replace(
        SAMPLE,
        user_agent="<raw, not URL-encoded, user agent>",
        ids={"advertising_id": "{idfa}"},
        gdpr_applies=True,
        tc_string="some example string",
        ad_user_data=True,
        ad_personalization=True,
    )
    payload = build(event, "<APP GUID HERE>", PayloadRules(device_ua="raw"))
    assert isinstance(payload, KochavaPayload)
    # later than the sample: the block is always there on Apple platforms
    assert payload.body["data"].pop("app_tracking_transparency") == {"att": False}
    assert payload.body == wanted


def test_kochavas_sample_without_user_agent() -> None:
    case = by_id("kochava_doc_samples")["kochava-sample-event-no-ua"]
    ids = {"advertising_id": "kochava-test-idfa-2015-12-09-12", "vendor_id": "333BA75-FE08-AAA4-9EF0-98A6AD293FEC"}
    event = replace(SAMPLE, model="iPhone", os_name="iOS", os_version="13.6.0", ids=ids)
    payload = build(event, "<APP GUID HERE>", RULES)
    assert isinstance(payload, KochavaPayload)
    wanted = case["body"]
    wanted["data"]["usertime"] = int(wanted["data"]["usertime"])  # a text in this sample, a number in the other
    wanted["data"]["device_ids"] = {key: value for key, value in wanted["data"]["device_ids"].items() if value}
    assert payload.body["data"].pop("app_tracking_transparency") == {"att": False}
    assert payload.body == wanted
    assert dict(payload.headers) == case["headers"]


def test_strict_authentication_signs_the_bytes_that_are_sent() -> None:
    (vector,) = CASES["strict_auth"]["vectors"]
    body = vector["body_sent"].encode()
    auth = StrictAuth(vector["api_key"], vector["app_secret"])
    assert hashlib.sha1(body).hexdigest() == vector["sha1_hex"]
    assert dict(sign(body, auth)) == vector["headers"]
    payload = KochavaPayload({**json.loads(body), "data": {"event_name": "Purchase", "event_data": {}}})
    assert serialise(payload, auth) == (body, tuple(vector["headers"].items()))


CLASSES = {
    "delivered": Delivered,
    "permanent": Rejected,
    "unconfirmed": Unconfirmed,
    "configuration": Misconfigured,
    "retry": Retryable,
}


@pytest.mark.parametrize("case", CASES["response_classification"], ids=lambda c: f"{c['status']} {c.get('body', '')}")
def test_answers(case: dict[str, Any]) -> None:
    status = case["status"]
    faults = [Fault.TIMEOUT, Fault.RESET]
    answers = faults if status is None else [Answer(status, case.get("body", "").encode(), "7")]
    word = case["class"].replace(":", " ").replace(",", " ").split()[0]
    for answer in answers:
        outcome = classify(answer)
        assert type(outcome) is CLASSES[word]
        if isinstance(outcome, Misconfigured):
            assert outcome.scope == ("app" if "app's lane" in case["class"] else "endpoint")
        if isinstance(outcome, Retryable):
            assert outcome.retry_after == ("7" if status is not None else None)
            assert outcome.may_duplicate == ("may duplicate" in case["class"] or status in {500, 503})


def test_the_known_good_answer_keeps_its_status() -> None:
    """Found by the fuzzer: the shortcut for it said 200 of every 2xx."""
    assert classify(Answer(201, b'{"success":"1"}')) == Delivered(201)
