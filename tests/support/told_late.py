"""`kochava-consumer`, told to end once more when Python has let go of its signal handlers. Only tests start it so."""

import builtins
import os
import signal
from typing import Any

from consumer.__main__ import main


class _Last:
    """Is deleted nearly at the end."""

    def __del__(self, kill: Any = os.kill, pid: int = os.getpid(), number: int = signal.SIGTERM) -> None:
        kill(pid, number)


if __name__ == "__main__":
    builtins.last = _Last()  # type: ignore[attr-defined]
    main()
