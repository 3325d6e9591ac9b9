"""Fixtures that several kinds of tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kafka import RealKafka


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKafka]:
    """A real Apache Kafka for the whole session; each test makes topics and groups of its own."""
    broker = RealKafka(Path(tmp_path_factory.mktemp("kafka"))).start()
    yield broker
    broker.kill()
