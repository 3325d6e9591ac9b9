"""`kochava-consumer`, wronged: killed at an exact moment, or built with a mistake. Only the tests start it so.

python -m tests.chaos.member --kill-at answered:137 run --config FILE
python -m tests.chaos.member --wrong no_drain run --config FILE

SIGUSR1 blocks its event loop for ten seconds, SIGUSR2 lets its wall clock be wrong by what the file of `--clock` says
(milliseconds). `--journal` names the file to which it writes which partitions it owns, since when, and what it sends.
`--producer-in-flight` is how many requests its producer may have under way.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from consumer import app, delivery, forwarding, settlement
from consumer.__main__ import main
from consumer.adapters import fast_connection, kafka_commits
from consumer.adapters.clock import SystemClock
from consumer.adapters.kafka_source import KafkaSource
from consumer.core.outcome import Fault
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


def _keep_journal(path: str) -> None:
    """Write down each partition that comes and goes, and each try: handed over, written, given up."""
    own, disown, send = KafkaSource._own, KafkaSource._disown, delivery.Delivery._send
    ask, answer = fast_connection.Connection.ask, delivery.Delivery._answer
    file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)  # kept: later there may be no descriptors left

    def note(what: str, topic: str, partition: int, offset: int = -1) -> None:  # of two threads
        os.write(file, json.dumps([time.time_ns() // 1_000_000, what, topic, partition, offset]).encode() + b"\n")

    def owning(self: Any, assignment: Any, **how: Any) -> None:
        own(self, assignment, **how)
        note("owns", *assignment.partition)

    def disowning(self: Any, partitions: Any) -> Any:
        gone = disown(self, partitions)
        for assignment in gone:
            note("leaves", *assignment.partition)
        return gone

    def sending(self: Any, envelope: Any, *rest: Any, **how: Any) -> None:
        note("sends", *envelope.assignment.partition, envelope.record.offset)
        send(self, envelope, *rest, **how)

    def asking(self: Any, request: bytes, deadline: float, answered: Any) -> None:
        envelope = answered.args[0]  # of a partial of `answering`, made by `_send`
        note("writes", *envelope.assignment.partition, envelope.record.offset)
        ask(self, request, deadline, answered)

    def answering(self: Any, envelope: Any, *rest: Any) -> None:
        if rest[-1] is Fault.TIMEOUT:
            note("gives up", *envelope.assignment.partition, envelope.record.offset)
        answer(self, envelope, *rest)

    fast_connection.Connection.ask = asking  # type: ignore[method-assign]
    delivery.Delivery._answer = answering  # type: ignore[method-assign]
    KafkaSource._own, KafkaSource._disown = owning, disowning  # type: ignore[method-assign]
    delivery.Delivery._send = sending  # type: ignore[method-assign]


def _jump_on_request(path: str) -> None:
    """Let the injected wall clock follow a file, which is read at SIGUSR2."""
    offset_ms = 0
    file = Path(path).open("a+")  # noqa: SIM115 - kept: later there may be no descriptors left

    def jump(*_: object) -> None:
        nonlocal offset_ms
        file.seek(0)
        if text := file.read():  # else it is written just now, and we are told again
            offset_ms = int(text)

    SystemClock.wall_ms = staticmethod(lambda: time.time_ns() // 1_000_000 + offset_ms)  # type: ignore[method-assign]
    signal.signal(signal.SIGUSR2, jump)


def _limit_producer(requests: int) -> None:
    original = app.producer_conf

    def conf(*args: Any) -> dict[str, Any]:
        return {**original(*args), "max.in.flight.requests.per.connection": requests}

    app.producer_conf = conf  # type: ignore[attr-defined]


def _block_on_request() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(BLOCKED_S))  # handlers run on the event loop's thread


if __name__ == "__main__":
    _block_on_request()
    while len(sys.argv) > 2 and sys.argv[1] in {"--kill-at", "--wrong", "--journal", "--clock", "--producer-in-flight"}:
        option, text = sys.argv[1:3]
        del sys.argv[1:3]
        if option == "--wrong":
            BUILDS[text][0]()
        elif option == "--journal":
            _keep_journal(text)
        elif option == "--producer-in-flight":
            _limit_producer(int(text))
        elif option == "--clock":
            _jump_on_request(text)
        else:
            moment, _, number = text.partition(":")
            owner, method, after = MOMENTS[moment]
            _kill_at(owner, method, int(number), after=after)
    main()
