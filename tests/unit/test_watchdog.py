"""The deadline of the end: begun once, whichever thread comes first, and what a forced end exits with."""

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from consumer import watchdog
from consumer.errors import ExitCode
from consumer.watchdog import Watchdog
from tests.support.kafka import ROOT

HANGS = """
import threading
from consumer.errors import ExitCode
from consumer.watchdog import Watchdog

watchdog = Watchdog(0.1)
watchdog.start(ExitCode.{first})
watchdog.start(ExitCode.{second})
threading.Event().wait()
"""


@pytest.mark.parametrize(("first", "second"), [("KAFKA", "FORCED"), ("FORCED", "KAFKA"), ("BUG", "FORCED")])
def test_a_process_that_hangs_ends_with_what_its_end_began_with(first: str, second: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS.format(first=first, second=second)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == ExitCode[first]
    assert "in <module>" in done.stderr, "where it hung"


def test_two_threads_begin_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Excludes: a second timer beside the first, with another code, that `cancel` doesn't reach."""
    made: list[Any] = []
    second_goes_on = threading.Event()

    class Timer(SimpleNamespace):
        """Is made slowly: by the time it is there, another thread is past the look for it, or waits for its turn."""

        def __init__(self, _deadline_s: float, _bite: object, args: list[object]) -> None:
            made.append(args)
            if len(made) > 1:
                second_goes_on.set()
            else:
                other.start()
                assert second_goes_on.wait(60)
            super().__init__(start=lambda: None)

    class Lock:
        """Says when it is being waited for."""

        def __init__(self) -> None:
            self._lock = threading.Lock()

        def __enter__(self) -> None:
            if not self._lock.acquire(blocking=False):
                second_goes_on.set()
                self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    monkeypatch.setattr(watchdog, "threading", SimpleNamespace(Timer=Timer, Lock=Lock))
    dog = Watchdog(60)
    other = threading.Thread(target=dog.start, args=[ExitCode.FORCED])
    dog.start(ExitCode.KAFKA)
    other.join(60)
    assert made == [["deadline", ExitCode.KAFKA]]
