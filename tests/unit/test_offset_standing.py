"""What `offsets show` makes of a commit's metadata, whoever wrote it."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from consumer.adapters import kafka_offsets
from consumer.adapters.kafka_offsets import standing
from consumer.core.offset_map import Run, encode

TOPIC = "in-app-events"
MAP, _ = encode(100, [Run(101, 150)])


class Committed:
    """A client whose group stands at 100 of 200; an exception for *metadata* is raised when somebody looks at it."""

    def __init__(self, metadata: object) -> None:
        self._metadata = metadata

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> Sequence[Any]:
        metadata = self._metadata

        class Answer(SimpleNamespace):
            @property
            def metadata(self) -> object:
                if isinstance(metadata, Exception):
                    raise metadata
                return metadata

        return [Answer(topic=at.topic, partition=at.partition, offset=100, error=None) for at in partitions]

    def get_watermark_offsets(self, at: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        return 0, 200

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("metadata", "settled", "problem"),
    [
        (None, 0, None),
        (MAP, 49, None),
        ("node-17", 0, "foreign"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 0, "unreadable"),
        (SystemError("bad argument to internal function"), 0, "unreadable"),
        (MemoryError(), 0, "unreadable"),
    ],
)
def test_metadata_is_a_map_or_is_ignored_and_said(
    metadata: object, settled: int, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_offsets, "make_client", lambda _kind, _conf: Committed(metadata))
    (shown,) = standing({"bootstrap.servers": "nowhere"}, "group", [TOPIC])
    assert (shown.committed, shown.settled, shown.map_problem) == (100, settled, problem)
    assert shown.lag == 100 - settled
