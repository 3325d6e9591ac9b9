"""I10, the canary, on the paths beside the delivery: a dead decoder, starts that are refused, no endpoint, a flood.

What is searched and how: see test_canary.py.
"""

import json
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from consumer.core.headers import OURS
from tests.support.canary_setup import OF_EVENTS, SEARCH, SECRETS, TAKEN, event, make_registry, produce, told_in
from tests.support.certificates import self_signed
from tests.support.kafka import free_port
from tests.support.processes import ConsumerProcess, SandboxProcess, Setup, command, wait_until
from tests.support.recursive import RECURSIVE_ID, recursive_schema, screens
from tests.support.registry import Registry

pytestmark = pytest.mark.kafka

PAGES = ("/metrics", "/readyz", "/startupz", "/livez")


def assert_nothing_told(process: ConsumerProcess) -> None:
    """Look at all that the process told until now."""
    told = process.text() + "".join(process.probe(path)[1] for path in PAGES)
    assert SEARCH(told) == []


def test_a_decoder_that_dies_tells_nothing(wired: Setup, kochava: SandboxProcess, registry: Registry) -> None:
    """Neither when the kernel ends it nor by the traceback of its own end, which holds the record."""
    registry.register("canary", recursive_schema(), schema_id=RECURSIVE_ID)
    kochava.set_rules(TAKEN)
    wired.create_topics()

    def deep(prefix: str, depth: int) -> bytes:
        return event(prefix, schema_id=RECURSIVE_ID) + screens(depth)

    produce(wired, [deep("ok-", 3), deep("deep-", 20_000), deep("spill-", 1)])
    process = ConsumerProcess(
        wired, "fragile", (), {**wired.environment, "KOCHAVA_CONSUMER_SCHEMAS__ALLOW_RECURSIVE": "true"}
    )
    process.module = ("tests.support.fragile_member",)
    process.start()
    try:
        wait_until(lambda: len(kochava.accepted()) == 1, "the good one is delivered")
        wait_until(lambda: process.metric("kochava_events_dead_lettered_total") == 2, "the others are given up")
        deaths = {line["reason"] for line in process.logged("decoder.died")}
        assert_nothing_told(process)
        assert process.terminate() == 0
    finally:
        process.kill()
    assert deaths <= {"signal_11", "exit_1"}
    assert deaths
    dead = wired.kafka.read_all(wired.dead_letter)
    assert {each.headers["kochava-reason"] for each in dead} == {"killed_decoder"}
    assert told_in(b"".join(each.value or b"" for each in dead)) >= {"install id", "user agent"}
    ours = [{name: text for name, text in each.headers.items() if name in OURS} for each in dead]
    assert SEARCH(json.dumps(ours)) == []
    assert SEARCH(process.text()) == []


def test_metadata_of_others_and_a_start_that_is_refused_tell_nothing(wired: Setup, kochava: SandboxProcess) -> None:
    kochava.set_rules(TAKEN)
    wired.create_topics(partitions=1)
    produce(wired, [OF_EVENTS["bytes"].encode(), *(event("ok-", number) for number in range(4))])
    marked = [TopicPartition(wired.topic, 0, 0, OF_EVENTS["commit metadata"])]
    wired.kafka.alter_offsets(wired.group, marked)
    shown = command(wired, "offsets", "show", **wired.environment)
    assert "metadata ignored" in " ".join(shown.stdout.split())
    assert SEARCH(shown.stdout + shown.stderr) == []
    with wired.consumer() as process:
        wait_until(lambda: len(kochava.accepted()) == 4, "all are delivered")
        wait_until(lambda: process.metric("kochava_events_in_flight") == 0, "all are settled")
        assert process.logged("offset.map_ignored")
        assert_nothing_told(process)
        assert process.terminate() == 0
    wired.kafka.alter_offsets(wired.group, [TopicPartition(wired.topic, 0, 500, OF_EVENTS["commit metadata"])])
    with wired.consumer("beyond") as beyond:
        assert beyond.wait(60) == 4
    assert "outside the log" in beyond.text()
    wired.kafka.delete_group(wired.group)
    with wired.consumer("forgotten") as forgotten:
        assert forgotten.wait(60) == 4
    assert "kochava-consumer offsets reset" in forgotten.text()
    for ended in (process, beyond, forgotten):
        assert SEARCH(ended.text()) == [], ended.name


def test_copies_and_a_flood_of_dead_letters_tell_nothing(wired: Setup, kochava: SandboxProcess) -> None:
    kochava.set_rules(TAKEN)
    wired.create_topics(partitions=1)
    environment = {
        "KOCHAVA_CONSUMER_DEDUP__WINDOW_RECORDS": "100",
        "KOCHAVA_CONSUMER_DEAD_LETTER__MAX_SHARE": "0.1",
        "KOCHAVA_CONSUMER_DEAD_LETTER__MIN_DEAD_LETTERS": "5",
    }
    with wired.consumer(**environment) as process:
        produce(wired, [event("ok-", number) for number in range(4)] * 2)
        filtered = "kochava_events_filtered_total"
        wait_until(lambda: process.metric(filtered, reason="duplicate") == 4, "the copies are filtered")
        produce(wired, [event("cut-off-", number)[:-40] for number in range(6)])
        wait_until(lambda: process.logged("guard.tripped"), "too many dead letters")
        wait_until(lambda: process.probe("/readyz")[0] == 503, "and it says so")
        assert_nothing_told(process)
        assert process.terminate() == 0
    assert SEARCH(process.text()) == []


@pytest.mark.parametrize("transport", ["fast", "httpx"])
@pytest.mark.parametrize("host", ["refused", "unknown"])
def test_an_endpoint_that_is_not_there_tells_nothing(wired: Setup, host: str, transport: str) -> None:
    wired.endpoint = (
        f"http://127.0.0.1:{free_port()}/track/json" if host == "refused" else "https://canary.invalid/track/json"
    )
    wired.create_topics()
    produce(wired, [event("ok-", number) for number in range(20)])
    environment = {
        "KOCHAVA_CONSUMER_DELIVERY__TRANSPORT": transport,
        "KOCHAVA_CONSUMER_BREAKER__MIN_ANSWERS": "10",
        "KOCHAVA_CONSUMER_BREAKER__FAILING_SHARE": "0.5",
    }
    with wired.consumer(**environment) as process:
        wait_until(lambda: process.logged("breaker.opened"), "the breaker opens")
        probed = process.metric("kochava_delivery_attempts_total")
        wait_until(lambda: process.metric("kochava_delivery_attempts_total") > probed, "it is probed")
        assert_nothing_told(process)
        assert process.terminate() == 0
    assert SEARCH(process.text()) == []


def secret_client(setup: Setup, folder: Path, password: str) -> str:
    """Return the client's properties with a key of our own, and *password* as the one that opens it."""
    from cryptography.hazmat.primitives import serialization as to

    both = self_signed("canary")
    key = to.load_pem_private_key(both, None).private_bytes(
        to.Encoding.PEM,
        to.PrivateFormat.PKCS8,
        to.BestAvailableEncryption(SECRETS["key password"].encode()),
    )
    (folder / "client.key").write_bytes(key)
    (folder / "client.pem").write_bytes(both[both.index(b"-----BEGIN CERTIFICATE") :])
    (folder / "key-password-shown").write_text(password)
    return json.dumps({
        **json.loads(setup.environment["KOCHAVA_CONSUMER_KAFKA__CLIENT"]),
        "ssl.key.location": str(folder / "client.key"),
        "ssl.certificate.location": str(folder / "client.pem"),
        "ssl.key.password_file": str(folder / "key-password-shown"),
    })  # fmt: skip


def with_token(setup: Setup, registry: Registry, folder: Path) -> dict[str, str]:
    """Return the environment of *setup* with a token, and no password, for *registry*."""
    mine = {name: text for name, text in setup.environment.items() if "REGISTRY" not in name}
    return {
        **mine,
        "KOCHAVA_CONSUMER_SCHEMAS__REGISTRY_URL": registry.url,
        "KOCHAVA_CONSUMER_SCHEMAS__REGISTRY_TOKEN_FILE": str(folder / "registry-token"),
    }


@pytest.mark.parametrize("is_right", [True, False])
def test_token_key_password_and_proxy_password_are_told_neither_right_nor_wrong(
    wired: Setup, kochava: SandboxProcess, tmp_path: Path, is_right: bool
) -> None:
    kochava.set_rules(TAKEN)
    wired.create_topics()
    produce(wired, [event("ok-")])
    token = SECRETS["registry token"]
    proxy = f"http://user:{SECRETS['proxy password']}@{kochava.url.removeprefix('http://')}"
    with make_registry(bearer=token if is_right else f"not {token}") as registry:
        wired.environment = {
            **with_token(wired, registry, tmp_path),
            "KOCHAVA_CONSUMER_DELIVERY__PROXY": proxy if is_right else f"{proxy.rpartition(':')[0]}:{free_port()}",
            "KOCHAVA_CONSUMER_KAFKA__CLIENT": secret_client(wired, tmp_path, SECRETS["key password"]),
        }
        with wired.consumer() as process:
            if is_right:
                wait_until(lambda: process.logged("breaker.opened"), "it has asked the sandbox, which is no proxy")
                assert {line["reason"] for line in process.logged("breaker.opened")} == {"http_404"}
            else:
                wait_until(lambda: process.logged("schema.unavailable"), "the registry refuses it")
            assert_nothing_told(process)
            assert process.terminate() == 0
        assert SEARCH(process.text()) == []
        wrong = secret_client(wired, tmp_path, f"{SECRETS['key password']}-wrong")
        with wired.consumer("locked", KOCHAVA_CONSUMER_KAFKA__CLIENT=wrong) as locked:
            assert locked.wait(60) in {3, 4}
        assert "ssl.key" in locked.text()
        assert SEARCH(locked.text()) == []
