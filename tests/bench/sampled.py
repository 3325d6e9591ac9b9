"""The consumer with a sampler inside, for machines where no process may look into another (no ptrace).

    python -m tests.bench.sampled FILE run --config ...

A timer of CPU time interrupts the process; the handler notes the stack of the main thread. So the CPU that the threads
of librdkafka take is charged to whatever the event loop does at the time, and a long call into C to whoever made it.
"""

import atexit
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from consumer.__main__ import main

INTERVAL_S = 0.004
START_S = 1.5
"""CPU seconds before the first sample: importing is over then."""
ROOT = Path(__file__).resolve().parents[2]

_found: Counter[tuple[str, ...]] = Counter()
_names: dict[object, str] = {}


def _note(_signal: int, frame: FrameType | None) -> None:
    stack = []
    while frame is not None:
        code = frame.f_code
        if code not in _names:
            path = Path(code.co_filename)
            where = path.relative_to(ROOT) if path.is_relative_to(ROOT / "consumer") else path.name
            _names[code] = f"{code.co_qualname} ({where})"
        stack.append(_names[code])
        frame = frame.f_back
    _found[tuple(reversed(stack))] += 1


def _write(path: Path) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    path.write_text("".join(f"{';'.join(stack)} {count}\n" for stack, count in _found.items()))


if __name__ == "__main__":
    atexit.register(_write, Path(sys.argv.pop(1)))
    signal.signal(signal.SIGPROF, _note)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, START_S, INTERVAL_S)
    main()
