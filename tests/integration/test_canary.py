"""I10, the canary: a marker in every field, header and secret, through every failure path; none may ever be told.

What is searched: all that the processes print, metrics and probes, the headers that are ours on our own topics, and
what the commands say. How it is searched, and the proof that the search finds things, is in support/canary.py and
unit/test_canary_search.py. Each path proves that it was taken: by its log event or its dead letter's reason.
"""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from confluent_kafka import Producer
from fastavro import parse_schema

from consumer.core.headers import OURS
from consumer.sandbox.events import APPS, PLATFORMS, encode, guid, sample_event
from tests.support.canary import Search
from tests.support.kafka import ROOT
from tests.support.processes import SCHEMA, ConsumerProcess, SandboxProcess, Setup, command, wait_until
from tests.support.registry import Raw, Registry
from tests.support.secure_kafka import SecureKafka

pytestmark = pytest.mark.kafka

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
}
SECRETS = {
    "Kafka password": "s3cret/+canary==9c1e",
    "registry user": "canary-registry-user",
    "registry password": "canary-registry-p4ss",
    "API key": "canary-api-key-9d2f",
    "app secret": "canary-app-secret-9e3a",
    "App GUID": "kocanary-guid-7a",
}
OF_ANSWERS = {"answer": "canary-answer-body-92", "retry after": "canary-retry-after-93", "schema": "CanarySchemaDoc94"}
MARKERS = {**OF_EVENTS, **SECRETS, **OF_ANSWERS}
SEARCH = Search(MARKERS)
ECHO = json.dumps({"echo": MARKERS}, ensure_ascii=False)
HEADERS = {"X-Echo": "canary-answer-body-92", "Set-Cookie": "id=c0ffee11-2222-4333-8444-feedfacecafe"}

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


RULES = (
    {"match": {"app": REFUSED["401"]}, "do": {"status": 401, "body": ECHO, "headers": HEADERS}},
    {"match": {"app": REFUSED["403"]}, "do": {"status": 403, "body": ECHO}},
    {"match": {"id_prefix": "no-"}, "do": {"status": 400, "body": ECHO, "headers": HEADERS}},
    {"match": {"id_prefix": "refused-"}, "do": {"body": '{"success":"0","error":' + json.dumps(ECHO) + "}"}},
    {"match": {"id_prefix": "odd-"}, "do": {"body": ECHO, "accepted": False}},
    {"match": {"id_prefix": "long-"}, "do": {"body": ECHO * 50, "accepted": False}},
    {"match": {"id_prefix": "sick-"}, "do": {"status": 503, "body": ECHO, "headers": HEADERS}},
    {"match": {"id_prefix": "busy-", "first_tries": 1},
     "do": {"status": 429, "body": ECHO, "headers": {"Retry-After": OF_ANSWERS["retry after"]}}},
    {"match": {"id_prefix": "lost-", "first_tries": 1}, "do": {"action": "reset_after"}},
    {"match": {"id_prefix": "cut-", "first_tries": 1}, "do": {"action": "reset_before"}},
    {"match": {"id_prefix": "slow-", "first_tries": 1}, "do": {"action": "hang"}},
    {"match": {"id_prefix": "stuck-"}, "do": {"action": "hang"}},
    {"do": {"body": '{"success":"1","echo":' + json.dumps(ECHO) + "}", "headers": HEADERS, "accepted": True}},
)  # fmt: skip
REDIRECT = {"action": "redirect", "headers": {"Location": f"https://example.com/{OF_EVENTS['android id']}"}}
WELL = ("ok-", "busy-", "lost-", "cut-", "slow-")

MISFIT = {"type": "record", "name": "events.inapp.InAppEvent", "doc": OF_ANSWERS["schema"],
          "fields": [{"name": "event_id", "type": "string", "doc": OF_ANSWERS["schema"]},
                     {"name": "device", "type": "string", "default": OF_EVENTS["advertising id"]}]}  # fmt: skip
BROKEN = {"type": "record", "name": "Broken", "fields": [{"name": "x", "type": OF_ANSWERS["schema"]}]}
AT_ONCE = {
    "http_400": [event("no-", number) for number in range(4)],
    "refused_by_kochava": [event("refused-", number) for number in range(2)],
    "unconfirmed": [event("odd-"), event("long-", 1)],
    "exhausted_http_503": [event("sick-", number) for number in range(3)],
    "unknown_app": [event("app-", app_id=OF_EVENTS["unknown app"]), event("plat-", platform=OF_EVENTS["platform"])],
    "no_origination_ip": [event("ip-", device={**DEVICE, "ip": OF_EVENTS["wrong address"]})],
    "out_of_range": [event("time-", occurred_at=int(OF_EVENTS["moment"]))],
    "truncated": [event("cut-off-")[:-40], event("cut-off-")[:120]],
    "bad_utf8": [event("utf-").replace(b"Canary-install", b"Canary\xff\xfestall")],
    "trailing_bytes": [event("tail-") + OF_EVENTS["bytes"].encode()],
    "bad_magic": [OF_EVENTS["bytes"].encode(), json.dumps(OF_EVENTS).encode()],
    "mapping_does_not_fit_schema": [
        encode({"event_id": OF_EVENTS["event id"], "device": OF_EVENTS["android id"]}, parse_schema(dict(MISFIT)), 7)
    ],
    "schema_refused": [event("x-", schema_id=8)],
    "schema_unknown": [event("x-", schema_id=999)],
}


class Process:
    """The consumer of one test, and everything that it has told."""

    def __init__(self, setup: Setup, process: ConsumerProcess) -> None:
        self.setup = setup
        self.process = process
        self.pages = ""

    def told(self, event_name: str) -> bool:
        return event_name in self.process.text()

    def keep_pages(self) -> None:
        """Keep what metrics and probes say now."""
        for path in ("/metrics", "/readyz", "/startupz", "/livez"):
            self.pages += self.process.probe(path)[1]


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(basic=(SECRETS["registry user"], SECRETS["registry password"])) as registry:
        for number, schema in ((2, (ROOT / "schemas" / "in_app_event.v2.avsc").read_text()), (7, MISFIT), (8, BROKEN)):
            registry.register("canary", schema, schema_id=number)
        yield registry


@pytest.fixture
def wired(setup: Setup, kafka: SecureKafka, kochava: SandboxProcess, registry: Registry, tmp_path: Path) -> Setup:
    """Settings with a marker for every secret, read from files."""
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
    kochava.set_rules(*RULES)
    return setup


def produce(setup: Setup, values: list[bytes | None]) -> None:
    """Produce with markers for keys and headers, and headers that pretend to be ours."""
    producer = Producer({"bootstrap.servers": setup.kafka.bootstrap_servers})
    for number, value in enumerate(values):
        producer.produce(
            setup.topic, value, key=f"{OF_EVENTS['key']}-{number}".encode(),
            headers=[(OF_EVENTS["header name"], OF_EVENTS["header"].encode()),
                     *((name, OF_EVENTS["user id"].encode()) for name in OURS)],
        )  # fmt: skip
    assert producer.flush(30) == 0


@pytest.mark.parametrize(
    ("level", "log_format", "transport"), [("debug", "json", "fast"), ("info", "console", "httpx")]
)
def test_no_marker_is_told_on_any_path(
    wired: Setup, kochava: SandboxProcess, registry: Registry, level: str, log_format: str, transport: str
) -> None:
    wired.create_topics()
    registry.answer_with(*[Raw(status, ECHO.encode()) for status in (500, 401, 404)], Raw(200, ECHO.encode()[1:]))
    well = [event(prefix, number) for prefix in WELL for number in range(4)]
    refused = [event("app-", number, app_id=f"refused.{name}") for name in REFUSED for number in range(8)]
    produce(wired, [*well, *refused, None, b"", *(value for values in AT_ONCE.values() for value in values)])
    environment = {
        "KOCHAVA_CONSUMER_LOG__LEVEL": level,
        "KOCHAVA_CONSUMER_LOG__FORMAT": log_format,
        "KOCHAVA_CONSUMER_DELIVERY__TRANSPORT": transport,
    }
    with wired.consumer(**environment) as process:
        told = Process(wired, process)
        dead = {reason: len(values) for reason, values in AT_ONCE.items()} | {"too_short": 1}
        metric, bad = process.metric, sum(dead.values())
        wait_until(lambda: metric("kochava_events_dead_lettered_total") == bad, "all that is bad is given up")
        wait_until(lambda: len(kochava.accepted()) == len(well), "all that is well is delivered")
        wait_until(lambda: metric("kochava_events_held_total") > 0, "the refused apps are held")
        told.keep_pages()
        _open_the_breaker(told, kochava)
        _refuse_the_tier(told)
        kochava.set_rules(*RULES[2:])
        wait_until(lambda: told.told("lane.opened"), "the refused apps go out")
        _end_by_force(told)
    topics = wired.tier("1s"), wired.held, wired.dead_letter
    stored = [each for topic in topics for each in wired.kafka.read_all(topic)]
    assert told_in(b"".join(each.value or b"" for each in stored)) >= {"install id", "address", "user agent", "bytes"}
    ours = [{name: text for name, text in each.headers.items() if name in OURS} for each in stored]
    for what, text in {"log": process.text(), "pages": told.pages, "headers": json.dumps(ours)}.items():
        assert SEARCH(text) == [], what
    assert {each.headers["kochava-reason"] for each in wired.kafka.read_all(wired.dead_letter)} == set(dead)
    expected = EXPECTED if level == "debug" else EXPECTED - {"event.retried", "event.held", "delivery.rejected"}
    assert {name for name in EXPECTED if told.told(name)} == expected


EXPECTED = {
    "event.retried", "event.held", "event.dead_lettered", "delivery.rejected", "delivery.unconfirmed",
    "breaker.opened", "breaker.closed", "lane.closed", "lane.opened", "schema.unavailable", "schema.fetched",
    "mapping.misfit", "forward.failed", "forward.recovered", "shutdown.started", "shutdown.forced", "progress",
}  # fmt: skip


def _open_the_breaker(told: Process, kochava: SandboxProcess) -> None:
    kochava.set_rules({"do": {"status": 404, "body": ECHO, "headers": HEADERS}})
    produce(told.setup, [event("ok-", number) for number in range(50, 54)])
    wait_until(lambda: told.told("breaker.opened"), "404 opens the breaker")
    told.keep_pages()
    kochava.set_rules({"do": REDIRECT})
    asked = kochava.requests
    wait_until(lambda: kochava.requests > asked, "it was redirected")
    kochava.set_rules(*RULES)
    wait_until(lambda: told.told("breaker.closed"), "the endpoint works again")


def _refuse_the_tier(told: Process) -> None:
    topic = told.setup.tier("1s")
    told.setup.kafka.configure_topic(topic, max_message_bytes="100")
    produce(told.setup, [event("sick-", 60)])
    wait_until(lambda: told.told("forward.failed"), "the tier takes nothing")
    wait_until(lambda: "forwarder" in told.process.probe("/readyz")[1], "and it says so")
    told.keep_pages()
    told.setup.kafka.configure_topic(topic, max_message_bytes="2000000")
    wait_until(lambda: told.told("forward.recovered"), "the tier takes records again")


def _end_by_force(told: Process) -> None:
    produce(told.setup, [event("stuck-", number) for number in range(70, 74)])
    wait_until(lambda: told.process.metric("kochava_events_in_flight") > 0, "some are on their way")
    told.process.signal(signal.SIGTERM)
    wait_until(lambda: told.told("shutdown.started"), "it drains")
    told.keep_pages()
    told.process.signal(signal.SIGTERM)
    assert told.process.wait() == 6
    assert told.told("Current thread 0x"), "it says where it was"


@pytest.mark.parametrize("place", ["loop", "thread"])
def test_a_bug_of_ours_tells_where_and_not_what(wired: Setup, place: str) -> None:
    wired.create_topics()
    produce(wired, [event("ok-")])
    process = ConsumerProcess(wired, "buggy", (), wired.environment)
    process.module = ("tests.support.buggy", place)
    process.start()
    try:
        assert process.wait(60) == 1
    finally:
        process.kill()
    assert "_explode" in process.text(), "where"
    assert {line["where"] for line in process.logged("exception.uncaught")} == (
        {"thread", "unraisable", "event loop"} if place == "loop" else set()
    )
    assert SEARCH(process.text()) == []


def test_no_command_tells_a_secret_or_an_id_that_it_was_not_asked_for(
    wired: Setup, registry: Registry, tmp_path: Path
) -> None:
    wired.create_topics()
    (tmp_path / "record").write_bytes(event("ok-"))
    (tmp_path / "broken").write_bytes(event("ok-")[:-40])
    (tmp_path / "wrong").write_text(f"{SECRETS['Kafka password']}-wrong")
    environment = wired.environment
    client = json.loads(environment["KOCHAVA_CONSUMER_KAFKA__CLIENT"])

    def changed(**properties: str) -> dict[str, str]:
        return {**environment, "KOCHAVA_CONSUMER_KAFKA__CLIENT": json.dumps({**client, **properties})}

    refusing = {**changed(**{"sasl.password_file": str(tmp_path / "wrong")}),
                "KOCHAVA_CONSUMER_SCHEMAS__REGISTRY_PASSWORD_FILE": str(tmp_path / "wrong")}  # fmt: skip
    proxy = f"http://user:{SECRETS['registry password']}@127.0.0.1:9"
    proxied = {**environment, "KOCHAVA_CONSUMER_DELIVERY__PROXY": proxy}
    typed: list[tuple[int, dict[str, str], tuple[str, ...]]] = [
        (0, environment, ("check",)),
        (0, environment, ("offsets", "show")),
        (0, proxied, ("settings",)),
        (0, environment, ("map", str(tmp_path / "record"))),
        (5, environment, ("map", str(tmp_path / "broken"))),
        (5, refusing, ("check",)),
        (3, changed(**{"sasl.mechanism": SECRETS["Kafka password"]}), ("run",)),
        (3, changed(**{"socket.timeout.ms": SECRETS["Kafka password"]}), ("run",)),
        (3, {**environment, **dict.fromkeys(WRONG, SECRETS["API key"])}, ("run",)),
    ]
    with ThreadPoolExecutor(4) as pool:
        done = [*pool.map(lambda one: command(wired, *one[2], **one[1]), typed)]
    check, offsets, settings, mapped, broken, refused, mechanism, timeout, wrong = done
    assert [each.returncode for each in done] == [code for code, _, _ in typed], [each.stderr for each in done]
    assert "_AUTHENTICATION" in refused.stdout
    assert "http_401" in refused.stdout
    assert "Unsupported SASL mechanism" in mechanism.stderr
    assert 'property "socket.timeout.ms"' in timeout.stderr
    assert wrong.stderr.count("error:") >= len(WRONG)
    for each in (check, offsets, broken, refused, mechanism, timeout, wrong):
        assert SEARCH(each.stdout + each.stderr) == [], each.args
    # a person asked for these: the settings hold the App GUIDs, the payload what the record holds; secrets neither
    assert told_in(settings.stdout) == {"App GUID", "registry user"}
    assert told_in(mapped.stdout) & SECRETS.keys() == {"App GUID"}
    assert told_in(mapped.stdout) >= {"install id", "advertising id", "address", "user agent", "user id", "App GUID"}
    assert SEARCH(mapped.stderr) == []


def told_in(text: str | bytes) -> set[str]:
    return {what.partition(",")[0] for what in SEARCH(text)}


WRONG = {
    "KOCHAVA_CONSUMER_KAFKA__GROUP_PROTOCOL", "KOCHAVA_CONSUMER_KOCHAVA__APPS",
    "KOCHAVA_CONSUMER_DELIVERY__CONNECTIONS", "KOCHAVA_CONSUMER_ADMIN__LISTEN", "KOCHAVA_CONSUMER_KAFKA__START",
    "KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD_FILE", "KOCHAVA_CONSUMER_KOCHAVA__DEFAULT_CURRENCY",
    "KOCHAVA_CONSUMER_KOCHAVA__ENDPOINT", "KOCHAVA_CONSUMER_DELIVERY__MAX_IN_FLIGHT_BYTES",
    "KOCHAVA_CONSUMER_RETRY__TIERS",
}  # fmt: skip
