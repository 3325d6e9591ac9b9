"""The real clock."""

import time


class SystemClock:
    """`ports.Clock` over the operating system."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def wall_ms() -> int:
        return time.time_ns() // 1_000_000
