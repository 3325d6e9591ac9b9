"""When a client of librdkafka is lost: it knows no broker any more, and never asks again."""

import asyncio
import json
import time

import pytest

from consumer.adapters.kafka_client import FORGOTTEN_S, KnownBrokers
from consumer.adapters.kafka_forwarder import KafkaForwarder
from consumer.core.record import Record
from consumer.sandbox.mock_cluster import MockCluster

COORDINATOR = {"GroupCoordinator": {"source": "logical"}}
"""A name for whichever broker it is: no broker by itself."""


def stats(at_s: float, *sources: str) -> dict[str, object]:
    brokers = {**COORDINATOR, **{f"broker-{source}": {"source": source} for source in sources}}
    return {"ts": round(at_s * 1e6), "brokers": brokers}


@pytest.mark.parametrize("source", ["configured", "learned"])
def test_a_client_that_knows_one_broker_goes_on(source: str) -> None:
    brokers = KnownBrokers()
    assert not any(brokers.are_forgotten(stats(now, source)) for now in range(100))


def test_one_that_knows_none_has_a_while_to_come_back() -> None:
    brokers = KnownBrokers()
    assert not brokers.are_forgotten(stats(100.0))
    assert not brokers.are_forgotten(stats(100.0 + FORGOTTEN_S - 0.1))
    assert brokers.are_forgotten(stats(100.0 + FORGOTTEN_S))


def test_the_while_begins_anew_when_it_has_come_back() -> None:
    brokers = KnownBrokers()
    assert not brokers.are_forgotten(stats(100.0))
    assert not brokers.are_forgotten(stats(104.0, "configured"))
    assert not brokers.are_forgotten(stats(108.0))
    assert brokers.are_forgotten(stats(113.0))


def test_a_producer_is_looked_at_while_it_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Excludes: one that is idle is never polled, so that what it says piles up in memory, and its end isn't seen."""

    class Fake:
        def __init__(self, conf: dict[str, object]) -> None:
            self._tell = conf["stats_cb"]

        def poll(self, _timeout: float) -> None:
            self._tell(json.dumps(stats(time.monotonic())))  # type: ignore[operator]

    monkeypatch.setattr("consumer.adapters.kafka_forwarder.Producer", Fake)
    monkeypatch.setattr("consumer.adapters.kafka_forwarder.IDLE_POLL_S", 0.01)
    monkeypatch.setattr("consumer.adapters.kafka_client.FORGOTTEN_S", 0.05)

    async def reasons() -> list[str]:
        found: list[str] = []
        forwarder = KafkaForwarder({}, asyncio.get_running_loop(), found.append)
        await asyncio.sleep(0.3)
        await forwarder.close(0)
        return found

    assert asyncio.run(reasons()) == [KnownBrokers.ADVICE], "told once, though it is seen again and again"


@pytest.mark.parametrize(("api_key", "code"), [(0, 45), (22, 90)], ids=["Produce", "InitProducerId"])
def test_what_ends_a_producer_is_told_and_not_raised(api_key: int, code: int) -> None:
    """Excludes: the client raises it from `poll`, and the process ends as by a bug of ours."""

    async def reasons(servers: str) -> list[str]:
        found: list[str] = []
        conf = {"bootstrap.servers": servers, "enable.idempotence": True, "log_level": 0}
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: found.append(f"raised: {context['exception']!r}"))
        forwarder = KafkaForwarder(conf, loop, found.append)
        forwarder.forward("held", Record("held", 0, 0, -1, None, b"value"), (), lambda _: None)
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if found:
                break
        await forwarder.close(0)
        return found

    with MockCluster(1) as cluster:
        cluster.create_topic("held", 1)
        cluster.push_errors(api_key, *[code] * 10)
        found = asyncio.run(reasons(cluster.bootstrap_servers))
    assert found
    assert all("restart the process" in text for text in found), found
