"""What is fuzzed: each module is one surface that bytes of strangers reach.

Its docstring is the contract, `check` raises when the contract is broken, `SEEDS` are well-formed inputs to begin with,
`WORDS` tokens that chance would not find, `MAX_BYTES` the longest input. No module needs the fuzzer itself, so that a
kept corpus replays anywhere.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

NAMES = ("decode", "translate", "hops", "frames", "offset_map", "retry_after", "answers", "connection")


class Target(Protocol):
    """A module of this package."""

    SEEDS: Sequence[bytes]
    WORDS: Sequence[bytes]
    MAX_BYTES: int
    check: Callable[[bytes], None]


def load(name: str) -> Target:
    """Import the target *name*; under instrumentation, where that is wanted."""
    return cast("Target", import_module(f"{__name__}.{name}"))
