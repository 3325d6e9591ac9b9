"""µs of each step that the consumer does for an event, alone: a regression shows here before it shows in a rate.

    python -m tests.bench.micro [--repeats 15] [--events 2000]

CPU time of this thread. Each step runs over the same events, repeats are interleaved, and the median and the least are
told. The sum of the steps is less than what an event costs in the process: system calls, the event loop and
the Kafka client come on top.
"""

import argparse
import gc
import json
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.table import Table

from consumer.adapters.clock import SystemClock
from consumer.adapters.fast_request import Endpoint, RequestWriter
from consumer.configuration import load
from consumer.core.budget import InFlightBudget
from consumer.core.mapping import CompiledMapping, compile_mapping
from consumer.core.offset_map import decode as decode_map, encode as encode_map
from consumer.core.offsets import OffsetTracker
from consumer.core.outcome import Answer, Rejected, classify
from consumer.core.payload import KochavaPayload, PayloadRules, build, serialise
from consumer.core.record import Record
from consumer.parts import load_spec, make_decoder, make_translator, tell_misfit
from consumer.ports import Decoded, Request
from consumer.sandbox.events import APPS, PLATFORMS, guid
from consumer.settings import Settings
from consumer.translate import Prepared
from tests.support.processes import events

BATCH = 500
GAP_EVERY = 20
"""Of the offset map: every so many records one is not settled."""
OK = Answer(200, b'{"success":"1"}')
Step = Callable[[], object]


def settings(changes: Mapping[str, str] = MappingProxyType({})) -> Settings:
    """Return those of the sample events and *changes*, as the environment would have them; the rest as it comes."""
    apps = {f"{app}/{name}": {"guid": guid(app, name)} for app in APPS for name in PLATFORMS}
    return load(
        None,
        {
            "KOCHAVA_CONSUMER_KAFKA__BOOTSTRAP_SERVERS": "localhost:9092",
            "KOCHAVA_CONSUMER_KAFKA__GROUP_ID": "micro",
            "KOCHAVA_CONSUMER_KAFKA__TOPICS": '["events"]',
            "KOCHAVA_CONSUMER_KAFKA__START": "earliest",
            "KOCHAVA_CONSUMER_KOCHAVA__APPS": json.dumps(apps),
            **changes,
        },
    )


def steps(count: int) -> dict[str, Step]:
    """Return what does each step for *count* events, by name; everything it needs is made before."""
    chosen = settings()
    decoder = make_decoder(chosen, SystemClock(), None)
    translator = make_translator(chosen, decoder, tell_misfit)
    records = [Record("events", 0, at, -1, None, value) for at, (_, value) in enumerate(events(count))]
    decoded = [one for record in records if isinstance(one := decoder.decode(record), Decoded)]
    mapping = compile_mapping(load_spec(chosen), decoder.parsed_schema(decoded[0].schema))
    assert isinstance(mapping, CompiledMapping)
    mapped = [mapping.map(one.datum) for one in decoded]
    rules = PayloadRules()
    payloads = [body for event in mapped if isinstance(body := build(event, "guid", rules), KochavaPayload)]  # type: ignore[arg-type]
    requests = [Request(*made) for body in payloads if not isinstance(made := serialise(body), Rejected)]
    writer = RequestWriter(Endpoint.parse("https://control.example.com/track/json"), "kochava-consumer/0")
    assert len(requests) == count
    assert all(isinstance(translator.translate(record), Prepared) for record in records)
    return {
        "decode": each(decoder.decode, records),
        "map": each(mapping.map, [one.datum for one in decoded]),
        "build payload": each(lambda event: build(event, "guid", rules), mapped),
        "serialise": each(serialise, payloads),
        "translate (the four above)": each(translator.translate, records),
        "write request": each(writer.write, requests),
        "classify answer": each(classify, [OK] * count),
        "track and settle, in order": lambda: track(count, range(count)),
        "track and settle, backwards": lambda: track(count, [*_backwards(count)]),
        "budget": lambda: spend(count),
    }


def each(function: Callable[[Any], object], items: Sequence[Any]) -> Step:
    """Return what calls *function* with each of *items* and drops what it returns."""
    return lambda: deque(map(function, items), maxlen=0)


def track(count: int, order: Sequence[int]) -> int:
    """Read *count* records in batches and settle them in *order*, batch by batch."""
    tracker = OffsetTracker(0)
    for first in range(0, count, BATCH):
        for offset in range(first, min(first + BATCH, count)):
            tracker.track(offset)
        for offset in order[first : first + BATCH]:
            tracker.settle(offset)
    assert tracker.committable == count
    return tracker.committable


def _backwards(count: int) -> Iterator[int]:
    for first in range(0, count, BATCH):
        yield from reversed(range(first, min(first + BATCH, count)))


def spend(count: int) -> int:
    """Take and release a record at a time, and look for room as the reader does."""
    budget = InFlightBudget(1024, 32 << 20)
    intake = budget.new_intake()
    for _ in range(count):
        intake.taken_records += 1
        intake.taken_bytes += 300
        assert budget.room
        budget.released_records += 1
        budget.released_bytes += 300
    return budget.records


def offset_map_steps() -> dict[str, Step]:
    """Return writing and reading one map of the commit's metadata, with about 100 gaps."""
    tracker = OffsetTracker(0)
    count = 100 * GAP_EVERY
    for offset in range(count):
        tracker.track(offset)
    for offset in range(count):
        if offset % GAP_EVERY:
            tracker.settle(offset)
    text, _ = encode_map(0, tracker.settled_runs())
    return {
        "offset map, write (100 gaps)": lambda: encode_map(0, tracker.settled_runs()),
        "offset map, read (100 gaps)": lambda: decode_map(text, 0, count),
    }


def measure(of: dict[str, tuple[Step, int]], repeats: int) -> dict[str, list[float]]:
    """Return the µs of one call in each repeat; a step's calls a run are beside it. Repeats are interleaved."""
    found: dict[str, list[float]] = {name: [] for name in of}
    for step, _ in of.values():
        step()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for _ in range(repeats):
            for name, (step, calls) in of.items():
                began = time.thread_time_ns()  # others use the machine, too
                step()
                found[name].append((time.thread_time_ns() - began) / calls / 1000)
    finally:
        gc.enable()
        gc.unfreeze()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--events", type=int, default=2000)
    given = parser.parse_args()
    timed = {name: (step, given.events) for name, step in steps(given.events).items()}
    timed |= {name: (step, 1) for name, step in offset_map_steps().items()}
    table = Table("step", box=None)
    for title in ("median, µs", "least, µs"):
        table.add_column(title, justify="right")
    for name, values in measure(timed, given.repeats).items():
        table.add_row(name, f"{statistics.median(values):.2f}", f"{min(values):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
