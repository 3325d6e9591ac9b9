"""`kochava-consumer`, wronged: killed at an exact moment, or built with a mistake. Only the tests start it so.

python -m tests.chaos.member --kill-at answered:137 run --config FILE
python -m tests.chaos.member --wrong no_drain run --config FILE

SIGUSR1 blocks its event loop for ten seconds, SIGUSR2 lets its wall clock be wrong by what the file of `--clock` says
(milliseconds). `--owned` names the file to which it writes which partitions it owns, and since when.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from consumer import forwarding, settlement
from consumer.__main__ import main
from consumer.adapters import kafka_commits
from consumer.adapters.clock import SystemClock
from consumer.adapters.kafka_source import KafkaSource
from tests.chaos.wrong import BUILDS

BLOCKED_S = 10.0


def _kill_at(owner: type, name: str, call: int, *, after: bool) -> None:
    """Let the process end as by the kernel's hand at the *call*-th call of a method, before or after it works."""
    original = getattr(owner, name)
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


MOMENTS: dict[str, tuple[type, str, bool]] = {
    "answered": (settlement.Settlement, "end", False),  # Kochava has it, we have not noted it
    "settled": (settlement.Settlement, "_flush", False),  # noted, not yet stored
    "stored": (kafka_commits.Commits, "_store", True),  # stored, not yet committed
    "mapped": (kafka_commits.Commits, "_commit_maps", True),  # the map is on its way to the broker
    "acknowledged": (forwarding.Forwarding, "_reported", False),  # on our topic, not yet settled at its source
}


def _write_owned(path: str) -> None:
    """Write down each partition that comes and goes."""
    own, disown = KafkaSource._own, KafkaSource._disown
    file = Path(path).open("a", buffering=1)  # noqa: SIM115 - kept: later there may be no descriptors left

    def note(partition: Any, is_owned: bool) -> None:
        file.write(json.dumps([time.time_ns() // 1_000_000, partition.topic, partition.number, is_owned]) + "\n")

    def owning(self: Any, assignment: Any, **how: Any) -> None:
        own(self, assignment, **how)
        note(assignment.partition, is_owned=True)

    def disowning(self: Any, partitions: Any) -> Any:
        gone = disown(self, partitions)
        for assignment in gone:
            note(assignment.partition, is_owned=False)
        return gone

    KafkaSource._own, KafkaSource._disown = owning, disowning  # type: ignore[method-assign]


def _jump_on_request(path: str) -> None:
    """Let the injected wall clock follow a file, which is read at SIGUSR2."""
    offset_ms = 0

    def jump(*_: object) -> None:
        nonlocal offset_ms
        offset_ms = int(Path(path).read_text())

    SystemClock.wall_ms = staticmethod(lambda: time.time_ns() // 1_000_000 + offset_ms)  # type: ignore[method-assign]
    signal.signal(signal.SIGUSR2, jump)


def _block_on_request() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(BLOCKED_S))  # handlers run on the event loop's thread


if __name__ == "__main__":
    _block_on_request()
    while len(sys.argv) > 2 and sys.argv[1] in {"--kill-at", "--wrong", "--owned", "--clock"}:
        option, text = sys.argv[1:3]
        del sys.argv[1:3]
        if option == "--wrong":
            BUILDS[text]()
        elif option == "--owned":
            _write_owned(text)
        elif option == "--clock":
            _jump_on_request(text)
        else:
            moment, _, number = text.partition(":")
            owner, method, after = MOMENTS[moment]
            _kill_at(owner, method, int(number), after=after)
    main()
