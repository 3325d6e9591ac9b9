"""The Kafka thread and an event loop that does not answer it in time."""

import asyncio
import concurrent.futures
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from consumer.adapters.clock import SystemClock
from consumer.core.assignment import Assignment
from consumer.core.record import Partition
from consumer.rebalance import MARGIN_S, Rebalance

if TYPE_CHECKING:
    from consumer.pipeline import Pipeline


class Recorder:
    """A pipeline that notes what it is asked."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def drain(self, assignments: Sequence[Assignment], *, timeout_s: float, reason: str) -> list[object]:
        self.heard.append(f"drain {reason}")
        await asyncio.sleep(3600)
        raise AssertionError("it was given up")

    def fence(self, assignments: Sequence[Assignment], *, reason: str) -> list[object]:
        self.heard.append(f"fence {reason} {len(assignments)}")
        return []


def test_a_drain_that_nobody_waits_for_any_more_still_ends_the_epochs() -> None:
    """Else records of a partition that has gone would go on being sent (found by the simulation, seed 308)."""
    loop, pipeline = asyncio.new_event_loop(), Recorder()
    try:
        rebalance = Rebalance(loop, cast("Pipeline", pipeline), SystemClock())
        # nobody runs the loop, and no time is left: as if it were blocked for longer than a drain and its margin
        positions = rebalance.revoked([Assignment(Partition("events", 0), 1, 0)], timeout_s=-MARGIN_S, reason="revoked")
        assert positions == []
        loop.run_until_complete(asyncio.sleep(0.01))
        assert "fence revoked 1" in pipeline.heard
    finally:
        loop.close()


class Brisk(Recorder):
    """Notes how long it may drain."""

    left_s = -1.0

    async def drain(self, assignments: Sequence[Assignment], *, timeout_s: float, reason: str) -> list[object]:
        self.left_s = timeout_s
        return [*assignments]


def test_a_drain_that_begins_late_ends_in_time() -> None:
    """Else what is settled is not stored, and sent again by the next owner (found by the simulation)."""
    loop, pipeline = asyncio.new_event_loop(), Brisk()
    rebalance = Rebalance(loop, cast("Pipeline", pipeline), SystemClock())
    assignment = Assignment(Partition("events", 0), 1, 0)
    with concurrent.futures.ThreadPoolExecutor(1) as kafka_thread:
        revoked = kafka_thread.submit(rebalance.revoked, [assignment], timeout_s=0.3, reason="revoked")
        time.sleep(0.5)  # the event loop is blocked
        loop.run_until_complete(asyncio.wait_for(asyncio.wrap_future(revoked, loop=loop), 20))
    loop.close()
    assert pipeline.left_s == 0, "whoever asked for it waits for no other 0.3 s"
    assert revoked.result() == [assignment]
