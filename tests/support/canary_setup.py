"""What the canary is made of: markers for all that is somebody's or secret, and events and settings full of them.

How the markers are searched for is in canary.py.
"""

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from confluent_kafka import Producer

from consumer.core.headers import OURS
from consumer.sandbox.events import APPS, PLATFORMS, encode, guid, sample_event
from tests.support.canary import Search
from tests.support.kafka import ROOT
from tests.support.processes import SCHEMA, Setup
from tests.support.registry import Registry
from tests.support.secure_kafka import SecureKafka

OF_EVENTS = {
    "install id": "Canary-install-7f3a9c",
    "advertising id": "c0ffee11-2222-4333-8444-feedfacecafe",
    "vendor id": "deadbee5-5555-4666-8777-0ddba11cafe0",
    "android id": "ca9a71a2d01dc0de",
    "udid": "Canary/roku+udid=77",
    "custom id": "canary custom id 3e9f",
    "user agent": 'Canary/1.0 (X11; "quoted" Ünïx) Käfer\\5d2e',
    "address": "198.51.100.77",
    "address 6": "2001:db8:ca:a2::77",
    "wrong address": "canary.not.an.address",
    "model": "Canary-Model-81",
    "system": "CanaryOS-82",
    "system version": "82.canary.83",
    "app version": "84.canary.85",
    "currency": "CANARY-DOLLAR",
    "consent": "CPcanaryTCSTRINGxx.YAAAAA",
    "user id": "canary-user@example.com",
    "property": "canary property <&> 86",
    "property name": "canary_property_name",
    "session": "canary-session-87",
    "event id": "canary-event-88",
    "event name": "Canary Event Name",
    "unknown app": "com.canary.unknown.app",
    "platform": "canaryplatform",
    "moment": "877000111222333",
    "amount": "87712345.6789",
    "key": "canary-record-key-89",
    "header": "canary-record-header-90",
    "header name": "x-canary-header-name",
    "bytes": "canary-garbage-91",
    "commit metadata": "canary-commit-metadata-95",
}
SECRETS = {
    "Kafka password": "s3cret/+canary==9c1e",
    "registry user": "canary-registry-user",
    "registry password": "canary-registry-p4ss",
    "API key": "canary-api-key-9d2f",
    "app secret": "canary-app-secret-9e3a",
    "App GUID": "kocanary-guid-7a",
    "registry token": "canary-registry-token-9f4b",
    "key password": "canary-key-password-9a5c",
    "proxy password": "canary-proxy-p4ss-9b6d",
}
OF_ANSWERS = {"answer": "canary-answer-body-92", "retry after": "canary-retry-after-93", "schema": "CanarySchemaDoc94"}
MARKERS = {**OF_EVENTS, **SECRETS, **OF_ANSWERS}
SEARCH = Search(MARKERS)
ECHO = json.dumps({"echo": MARKERS}, ensure_ascii=False)
HEADERS = {"X-Echo": "canary-answer-body-92", "Set-Cookie": "id=c0ffee11-2222-4333-8444-feedfacecafe"}

TAKEN = {"do": {"body": '{"success":"1","echo":' + json.dumps(ECHO) + "}", "headers": HEADERS, "accepted": True}}
"""A rule of the sandbox: it would not take such events by itself."""

REFUSED = {app: f"{SECRETS['App GUID']}-{number}" for number, app in enumerate(("401", "403"))}
DEVICE = {
    "install_id": OF_EVENTS["install id"],
    "advertising_id": OF_EVENTS["advertising id"],
    "vendor_id": OF_EVENTS["vendor id"],
    "android_id": OF_EVENTS["android id"],
    "udid": OF_EVENTS["udid"],
    "user_agent": OF_EVENTS["user agent"],
    "ip": OF_EVENTS["address"],
    "model": OF_EVENTS["model"],
    "os_name": OF_EVENTS["system"],
    "os_version": OF_EVENTS["system version"],
    "custom_ids": {"email": OF_EVENTS["custom id"]},
    "limit_ad_tracking": None,
}
MISFIT = {"type": "record", "name": "events.inapp.InAppEvent", "doc": OF_ANSWERS["schema"],
          "fields": [{"name": "event_id", "type": "string", "doc": OF_ANSWERS["schema"]},
                     {"name": "device", "type": "string", "default": OF_EVENTS["advertising id"]}]}  # fmt: skip
BROKEN = {"type": "record", "name": "Broken", "fields": [{"name": "x", "type": OF_ANSWERS["schema"]}]}


def event(prefix: str, number: int = 0, *, schema_id: int = 2, **changes: Any) -> bytes:
    """Return an event that is full of markers; *prefix* says what the sandbox does to it."""
    made: dict[str, Any] = {
        **sample_event(number, Random(number), f"{prefix}{OF_EVENTS['event id']}-{number}"),
        "event_name": OF_EVENTS["event name"],
        "app_version": OF_EVENTS["app version"],
        "currency": OF_EVENTS["currency"],
        "amount": Decimal(OF_EVENTS["amount"]),
        "device": {**DEVICE, "ip": OF_EVENTS["address 6"] if number % 2 else OF_EVENTS["address"]},
        "properties": {"user_id": OF_EVENTS["user id"], OF_EVENTS["property name"]: OF_EVENTS["property"]},
        "session_id": OF_EVENTS["session"],
        **changes,
    }
    consent = {"att_status": "denied", "gdpr_applies": True, "tc_string": OF_EVENTS["consent"]}
    return encode({**made, "consent": consent}, SCHEMA, schema_id)


def make_registry(*, bearer: str | None = None) -> Registry:
    """Return a registry, with schemas good and bad, that asks for *bearer* or the markers' user and password."""
    basic = None if bearer else (SECRETS["registry user"], SECRETS["registry password"])
    registry = Registry(basic=basic, bearer=bearer)
    for number, schema in ((2, (ROOT / "schemas" / "in_app_event.v2.avsc").read_text()), (7, MISFIT), (8, BROKEN)):
        registry.register("canary", schema, schema_id=number)
    return registry


def wire(setup: Setup, kafka: SecureKafka, registry: Registry, tmp_path: Path) -> None:
    """Give *setup* a marker for every secret, read from files."""
    kafka.set_password(setup.topic, SECRETS["Kafka password"])
    for name, secret in SECRETS.items():
        (tmp_path / name.replace(" ", "-")).write_text(secret)
    client = {
        "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": setup.topic,
        "ssl.ca.location": str(kafka.ca_file), "sasl.password_file": str(tmp_path / "Kafka-password"),
    }  # fmt: skip
    strict = {"api_key_file": str(tmp_path / "API-key"), "app_secret_file": str(tmp_path / "app-secret")}
    setup.tiers = ("1s",)
    setup.apps = {
        f"{app}/{name}": {"guid": guid(app, name).replace("koexample", SECRETS["App GUID"]), **strict}
        for app in APPS
        for name in PLATFORMS
    }
    for name, refused in REFUSED.items():
        setup.apps[f"refused.{name}"] = {"guid": refused, **strict}
    setup.environment = {
        "KOCHAVA_CONSUMER_KAFKA__BOOTSTRAP_SERVERS": kafka.secure_servers,
        "KOCHAVA_CONSUMER_KAFKA__CLIENT": json.dumps(client),
        "KOCHAVA_CONSUMER_SCHEMAS__REGISTRY_URL": registry.url,
        "KOCHAVA_CONSUMER_SCHEMAS__REGISTRY_USERNAME": SECRETS["registry user"],
        "KOCHAVA_CONSUMER_SCHEMAS__REGISTRY_PASSWORD_FILE": str(tmp_path / "registry-password"),
        "KOCHAVA_CONSUMER_SCHEMAS__UNKNOWN_ID_CONFIRM_S": "0.5",
        "KOCHAVA_CONSUMER_DELIVERY__REQUEST_TIMEOUT_S": "1",
        "KOCHAVA_CONSUMER_DELIVERY__CONNECT_TIMEOUT_S": "1",
        "KOCHAVA_CONSUMER_DELIVERY__MAX_ATTEMPTS": "2",
        "KOCHAVA_CONSUMER_BREAKER__FAILING_SHARE": "1",
        "KOCHAVA_CONSUMER_BREAKER__UNCONFIRMED_SHARE": "1",
        "KOCHAVA_CONSUMER_BREAKER__MIN_ANSWERS": "100",
    }


def produce(setup: Setup, values: Sequence[bytes | None]) -> None:
    """Produce with markers for keys and headers, and headers that pretend to be ours."""
    producer = Producer({"bootstrap.servers": setup.kafka.bootstrap_servers})
    for number, value in enumerate(values):
        producer.produce(
            setup.topic, value, key=f"{OF_EVENTS['key']}-{number}".encode(),
            headers=[(OF_EVENTS["header name"], OF_EVENTS["header"].encode()),
                     *((name, OF_EVENTS["user id"].encode()) for name in OURS)],
        )  # fmt: skip
    assert producer.flush(30) == 0


def told_in(text: str | bytes) -> set[str]:
    return {what.partition(",")[0] for what in SEARCH(text)}
