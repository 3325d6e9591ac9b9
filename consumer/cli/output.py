"""Where commands print tables."""

import sys

from rich.console import Console

PIPE_COLUMNS = 200
"""Nobody's terminal is at the other end of a pipe, so nothing needs to be cut."""


def console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS)
