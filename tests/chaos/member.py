"""`kochava-consumer`, wronged: killed at an exact moment, or built with a mistake. Only the tests start it so.

python -m tests.chaos.member --kill-at answered:137 run --config FILE
python -m tests.chaos.member --wrong no_fence run --config FILE
"""

import os
import signal
import sys
from typing import Any

from consumer import forwarding, settlement
from consumer.__main__ import main
from consumer.adapters import kafka_commits
from tests.chaos.wrong import BUILDS


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


if __name__ == "__main__":
    while len(sys.argv) > 2 and sys.argv[1] in {"--kill-at", "--wrong"}:
        option, text = sys.argv[1:3]
        del sys.argv[1:3]
        if option == "--wrong":
            BUILDS[text]()
        else:
            moment, _, number = text.partition(":")
            owner, method, after = MOMENTS[moment]
            _kill_at(owner, method, int(number), after=after)
    main()
