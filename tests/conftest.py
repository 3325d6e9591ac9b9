"""Fixtures that several kinds of tests share."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.kafka import RealKafka
from tests.support.secure_kafka import SecureKafka

settings.register_profile("shared machine", deadline=None)  # how long an example takes is nobody's promise
settings.load_profile("shared machine")

LINES = 60
LINE_CHARS = 400

BROKER = pytest.StashKey[RealKafka]()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[SecureKafka]:
    """A real Apache Kafka for the whole session; each test makes topics and groups of its own."""
    broker = SecureKafka(tmp_path_factory.mktemp("kafka"))
    request.config.stash[BROKER] = broker
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Tell beside a failure what the processes of the test said last, and where the broker's side of the story is."""
    report = yield
    broker = item.config.stash.get(BROKER, None)
    if report.failed and broker is not None and "kafka" in getattr(item, "fixturenames", ()):
        report.sections.append(("Apache Kafka", f"its log: {broker.log}"))
    if report.failed:
        folder = getattr(item, "funcargs", {}).get("tmp_path")
        for log in sorted(folder.glob("*.log")) if folder is not None else ():
            lines = [line for line in log.read_text(errors="replace").splitlines() if '"level":"debug"' not in line]
            report.sections.append((log.name, "\n".join(line[:LINE_CHARS] for line in lines[-LINES:])))
    return report
