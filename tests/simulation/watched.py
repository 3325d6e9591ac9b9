"""The product's own parts, watched: the oracle learns whose a partition is, and what is copied."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from consumer.adapters.kafka_forwarder import KafkaForwarder
from consumer.core.assignment import Assignment
from consumer.core.headers import ORIGIN_TOPIC
from consumer.core.record import Headers, Record
from consumer.pipeline import Batch, Pipeline
from consumer.ports import ForwardProblem
from consumer.rebalance import Rebalance
from consumer.settlement import Positions

if TYPE_CHECKING:
    from tests.simulation.bench import Bench


def watched_pipeline(bench: "Bench") -> type[Pipeline]:
    """Return the real one, watched: the oracle learns until when a member has a partition."""

    class Watched(Pipeline):
        def __init__(self, **parts: Any) -> None:
            self.member = bench.owner
            super().__init__(**parts)

        def take(self, batch: Batch) -> None:
            self.member.moves += 1
            super().take(batch)

        async def drain(self, assignments: Sequence[Assignment], *, timeout_s: float, reason: str) -> Positions:
            bench.oracle.drains(assignments, bench.world.now + timeout_s)
            return await super().drain(assignments, timeout_s=timeout_s, reason=reason)

        def fence(self, assignments: Sequence[Assignment], *, reason: str) -> Positions:
            bench.oracle.ended(assignments, reason)
            self.member.moves += 1
            return super().fence(assignments, reason=reason)

    return Watched


def watched_rebalance(bench: "Bench") -> type[Rebalance]:
    """Return the real one, watched: a partition is its member's from when the Kafka thread takes it."""

    class Watched(Rebalance):
        def __init__(self, loop: Any, pipeline: Any, clock: Any) -> None:
            self._member = pipeline.member
            super().__init__(loop, pipeline, clock)

        def assigned(self, assignments: Sequence[Assignment]) -> None:
            bench.oracle.began(self._member.name, assignments)
            super().assigned(assignments)

    return Watched


def watched_forwarder(bench: "Bench") -> type[KafkaForwarder]:
    """Return the real one, watched: the oracle learns for which place a copy is made."""

    class Watched(KafkaForwarder):
        def __init__(self, conf: dict[str, Any], loop: Any, failed: Callable[[str], None]) -> None:
            self._member = bench.owner
            super().__init__(conf, loop, failed)

        def forward(
            self, topic: str, record: Record, headers: Headers, reported: Callable[[ForwardProblem | None], None]
        ) -> None:
            copy = None
            if any(name == ORIGIN_TOPIC for name, _ in headers):  # the mark of a first start is no copy
                copy = bench.oracle.copies(self._member.name, record)

            def heard(problem: ForwardProblem | None) -> None:
                if problem is None and copy is not None:
                    copy.told_at = bench.world.now
                reported(problem)

            self._member.producer.carries = copy
            super().forward(topic, record, headers, heard)

    return Watched
