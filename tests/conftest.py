"""Fixtures that several kinds of tests share."""

from collections.abc import Iterator

import pytest

from tests.support.kafka import RealKafka

BROKER = pytest.StashKey[RealKafka]()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RealKafka]:
    """A real Apache Kafka for the whole session; each test makes topics and groups of its own."""
    broker = RealKafka(tmp_path_factory.mktemp("kafka"))
    request.config.stash[BROKER] = broker
    try:
        yield broker.start()
    finally:
        broker.kill()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Say beside a failure where the broker's side of the story is."""
    report = yield
    broker = item.config.stash.get(BROKER, None)
    if report.failed and broker is not None and "kafka" in getattr(item, "fixturenames", ()):
        report.sections.append(("Apache Kafka", f"its log: {broker.log}"))
    return report
