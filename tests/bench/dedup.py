"""What `[dedup]` costs: the pipeline alone, every outside thing a fake that answers at once, with and without.

Reports us of CPU per event as the least of several runs (others use the machine, too), for events of which none is a
copy and for events of which every second one is, and the bytes that a full window takes.

    python -m tests.bench.dedup [--events 100000] [--runs 7] [--window 100000]
"""

import argparse
import asyncio
import gc
import time
import tracemalloc
from collections.abc import Sequence

from consumer.app import GC_THRESHOLD
from consumer.core.dedup import Dedup, key_of
from consumer.core.outcome import Answer
from consumer.core.record import Record
from consumer.ports import Answered, Request
from tests.support.rig import OK, ManualLoop, Rig

BATCH = 500


class OneRead(list[tuple[Request, float, Answered]]):
    """The requests of one read, answered together: callbacks at once would grow the stack with the queue."""

    def send(self, request: Request, deadline: float, answered: Answered) -> None:
        self.append((request, deadline, answered))

    def answer(self, answer: Answer = OK) -> None:
        requests, self[:] = list(self), []
        for _, _, answered in requests:
            answered(answer)


async def _run(window_records: int, values: Sequence[bytes], loop: ManualLoop) -> float:
    rig = Rig(loop, connections=BATCH * 2, **({"window_records": window_records} if window_records else {}))
    at = rig.assign()
    transport = OneRead()
    rig.delivery._transport = transport  # type: ignore[assignment]
    batches = [
        [
            (at, Record("events", 0, first + index, -1, None, value))
            for index, value in enumerate(values[first:][:BATCH])
        ]
        for first in range(0, len(values), BATCH)
    ]
    gc.collect()
    gc.freeze()  # as in the process
    gc.set_threshold(*GC_THRESHOLD)
    began = time.process_time()
    for batch in batches:
        rig.intake.taken_records += len(batch)
        rig.pipeline.take(batch)
        transport.answer()
    spent = time.process_time() - began
    gc.unfreeze()
    assert rig.count("events_delivered") + rig.count("events_filtered") == len(values)
    return spent / len(values) * 1e6


def _once(window_records: int, values: Sequence[bytes]) -> float:
    loop = ManualLoop()
    try:
        return loop.run_until_complete(_run(window_records, values, loop))
    finally:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def _memory(window_records: int) -> float:
    tracemalloc.start()
    memory: Dedup[int] = Dedup(window_records)
    before = tracemalloc.get_traced_memory()[0]
    for item in range(window_records * 2):
        key = key_of("com.example.game/ios", f"event-{item}")
        memory.enter(key, item, has_waited=False)
        memory.leave(key, item, delivered=True)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return taken / window_records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--window", type=int, default=100_000)
    arguments = parser.parse_args()
    values = [f"game:{index}#{index}-4f1c-8a3e-000000000000".encode() for index in range(arguments.events)]
    doubled = [value for value in values[: arguments.events // 2] for _ in range(2)]
    for what, made in (("no copies", values), ("each twice", doubled)):
        figures = [(_once(0, made), _once(arguments.window, made)) for _ in range(arguments.runs)]
        off, on = (min(column) for column in zip(*figures, strict=True))
        print(f"{what:>10}: off {off:5.2f}  on {on:5.2f} us/event  (+{on - off:.2f}, x{on / off:.2f})", flush=True)
    print(f"    memory: {_memory(arguments.window):.0f} bytes for each record of the window")


if __name__ == "__main__":
    main()
