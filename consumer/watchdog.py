"""The last word: a process that was told to end does end, even if a library hangs in its close.

Ending by force costs duplicates and never loss: nothing is committed that did not settle.
"""

import faulthandler
import os
import threading

from consumer.errors import ExitCode
from consumer.telemetry import log


class Watchdog:
    """Ends the process by a deadline. `start` it once, when the end begins."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def start(self, code: ExitCode = ExitCode.FORCED) -> None:
        """Begin to count, on any thread; *code* is what a forced end exits with. Later calls change nothing."""
        with self._lock:
            if self._timer is not None:
                return
            self._timer = threading.Timer(self._deadline_s, self.bite, ["deadline", code])
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @staticmethod
    def bite(reason: str, code: ExitCode = ExitCode.FORCED) -> None:
        """End the process now."""
        log.error("shutdown.forced", reason=reason, exit_code=int(code))
        faulthandler.dump_traceback(all_threads=True)  # where it hangs: file names and lines, no values
        os._exit(code)
