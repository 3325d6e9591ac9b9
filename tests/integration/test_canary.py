"""I10, the canary: a marker in every field, header and secret, through every failure path; none may ever be told.

What is searched: all that the processes print, metrics and probes, the headers that are ours on our own topics, and
what the commands say. How it is searched, and the proof that the search finds things, is in support/canary.py and
unit/test_canary_search.py. Each path proves that it was taken: by its log event or its dead letter's reason.
"""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastavro import parse_schema

from consumer.core.headers import OURS
from consumer.sandbox.events import encode
from tests.support.canary_setup import (
    DEVICE,
    ECHO,
    HEADERS,
    MISFIT,
    OF_ANSWERS,
    OF_EVENTS,
    REFUSED,
    SEARCH,
    SECRETS,
    TAKEN,
    event,
    produce,
    told_in,
)
from tests.support.processes import ConsumerProcess, SandboxProcess, Setup, command, wait_until
from tests.support.registry import Raw, Registry

pytestmark = pytest.mark.kafka

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
    TAKEN,
)  # fmt: skip
REDIRECT = {"action": "redirect", "headers": {"Location": f"https://example.com/{OF_EVENTS['android id']}"}}
WELL = ("ok-", "busy-", "lost-", "cut-", "slow-")

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


@pytest.mark.parametrize(
    ("level", "log_format", "transport"), [("debug", "json", "fast"), ("info", "console", "httpx")]
)
def test_no_marker_is_told_on_any_path(
    wired: Setup, kochava: SandboxProcess, registry: Registry, level: str, log_format: str, transport: str
) -> None:
    kochava.set_rules(*RULES)
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
        (0, environment, ("topics",)),
        (5, {**environment, "KOCHAVA_CONSUMER_RETRY__TIERS": '["1s","9h"]'}, ("topics",)),
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
    check, topics, missing, offsets, settings, mapped, broken, refused, mechanism, timeout, wrong = done
    assert [each.returncode for each in done] == [code for code, _, _ in typed], [each.stderr for each in done]
    assert "_AUTHENTICATION" in refused.stdout
    assert "http_401" in refused.stdout
    assert "Unsupported SASL mechanism" in mechanism.stderr
    assert 'property "socket.timeout.ms"' in timeout.stderr
    assert wrong.stderr.count("error:") >= len(WRONG)
    for each in (check, topics, missing, offsets, broken, refused, mechanism, timeout, wrong):
        assert SEARCH(each.stdout + each.stderr) == [], each.args
    # a person asked for these: the settings hold the App GUIDs, the payload what the record holds; secrets neither
    assert told_in(settings.stdout) == {"App GUID", "registry user"}
    assert told_in(mapped.stdout) & SECRETS.keys() == {"App GUID"}
    assert told_in(mapped.stdout) >= {"install id", "advertising id", "address", "user agent", "user id", "App GUID"}
    assert SEARCH(mapped.stderr) == []


WRONG = {
    "KOCHAVA_CONSUMER_KAFKA__GROUP_PROTOCOL", "KOCHAVA_CONSUMER_KOCHAVA__APPS",
    "KOCHAVA_CONSUMER_DELIVERY__CONNECTIONS", "KOCHAVA_CONSUMER_ADMIN__LISTEN", "KOCHAVA_CONSUMER_KAFKA__START",
    "KOCHAVA_CONSUMER_KAFKA__SASL_PASSWORD_FILE", "KOCHAVA_CONSUMER_KOCHAVA__DEFAULT_CURRENCY",
    "KOCHAVA_CONSUMER_KOCHAVA__ENDPOINT", "KOCHAVA_CONSUMER_DELIVERY__MAX_IN_FLIGHT_BYTES",
    "KOCHAVA_CONSUMER_RETRY__TIERS",
}  # fmt: skip
