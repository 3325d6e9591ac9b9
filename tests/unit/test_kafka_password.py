"""A new password and the Kafka thread: it is shown between two steps and before the end, never within a callback."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.adapters import kafka_source
from consumer.adapters.clock import SystemClock
from consumer.adapters.kafka_positions import StartPositions
from consumer.adapters.kafka_source import KafkaSource, SourcePolicy
from consumer.core.budget import InFlightBudget
from consumer.core.parking import Parking
from consumer.core.retry import RetryPlan
from consumer.errors import ExitCode, KafkaFatalError
from consumer.telemetry import Metrics

HERE = [TopicPartition("events", 0)]


class FakeConsumer:
    """A client whose connections are refused; `do` is what happens within its poll."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.in_callback = False
        self.do: Any = None

    def subscribe(self, _topics: list[str], on_assign: Any, **_: Any) -> None:
        self.on_assign = on_assign

    def poll(self, _timeout: float) -> None:
        self.in_callback = True
        self.do()
        self.in_callback = False

    def set_sasl_credentials(self, user: str, password: str) -> None:
        assert not self.in_callback, "the next callback of the same poll would abort the process"
        self.calls.append(f"{user} {password}")

    def committed(self, *_: object, **__: object) -> None:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.calls.append(f"assign {len(partitions)}")

    def close(self) -> None:
        self.calls.append("close")


class NoSink:
    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: []


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> FakeConsumer:
    """The one client that a source makes."""
    fake = FakeConsumer()
    monkeypatch.setattr(kafka_source, "make_client", lambda _kind, _conf: fake)
    return fake


def source(positions: StartPositions) -> KafkaSource:
    plan = RetryPlan.of("events.kochava", ("30s",))
    return KafkaSource(
        conf={"auto.commit.interval.ms": 1000, "sasl.username": "me", "group.id": "g", "group.protocol": "classic"},
        policy=SourcePolicy(("events",), 10, 0.01, 1.0, 60.0), positions=positions, parking=Parking(plan),
        budget=InFlightBudget(10, 1000), metrics=Metrics(), clock=SystemClock(), ending=lambda _code: None,
        first_start=lambda: None,
    )  # fmt: skip


def waiting(pause: Any) -> StartPositions:
    return StartPositions(
        group_id="g", source_topics=("events",), our_topics=(), start="earliest", budget_s=0.5, clock=SystemClock(),
        pause=pause, admin_conf={"sasl.password": "old"}, max_span_records=10, metrics=Metrics(),
    )  # fmt: skip


def test_it_is_shown_once_between_two_steps(client: FakeConsumer) -> None:
    positions = waiting(lambda _: None)
    reader = source(positions)
    polls = iter([lambda: reader.set_password("first"), lambda: None, lambda: reader.set_password("second"),
                  lambda: None, reader.stop])  # fmt: skip

    def happen() -> None:
        next(polls)()

    client.do = happen
    reader.run(NoSink())
    assert client.calls == ["me first", "me second", "close"]
    assert positions._admin_conf == {"sasl.password": "second"}, "whoever asks for offsets next shows it, too"


def test_one_that_comes_with_the_end_is_shown_before_close(client: FakeConsumer) -> None:
    """Or the broker would refuse the last commit, and close() would wait until the watchdog bites."""
    reader = source(waiting(lambda _: None))

    def end() -> None:
        reader.set_password("late")
        reader.stop()

    client.do = end
    reader.run(NoSink())
    assert client.calls == ["me late", "close"]


def test_who_waits_for_offsets_with_the_old_one_ends_the_process(client: FakeConsumer) -> None:
    """In the callback it can't be shown, and without it no answer comes: no reason to use up the budget."""
    reader = source(waiting(lambda _: reader.set_password("late")))
    client.do = lambda: client.on_assign(client, HERE)
    with pytest.raises(KafkaFatalError, match="the Kafka password has changed meanwhile") as failed:
        reader.run(NoSink())
    assert failed.value.exit_code is ExitCode.KAFKA
    assert client.calls == ["assign 0", "me late", "close"]
