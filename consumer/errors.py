"""Exceptions: what stops the process, and with which exit code.

A remote fault is a value (`core.outcome`), never an exception. What is left is this tree::

    Exception
    ├── ConsumerError            a person can mend it; printed without a traceback
    │   ├── SettingsError        exit 3: every problem of the settings, listed at once
    │   ├── MappingError         exit 3: the mapping file doesn't fit itself or a schema
    │   ├── KafkaFatalError      exit 4: the client cannot go on
    │   │   ├── OutOfRangeError  exit 4: the committed offset no longer exists
    │   │   ├── OffsetsLostError exit 4: our topics have records, the group has no offsets
    │   │   └── ReplayRefusedError exit 4: the replay's group works under another plan
    │   └── CheckFailedError     exit 5: a check or a reconciliation did not hold
    └── anything else            exit 1: our bug
"""

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller; documented in the README, people script against it."""

    OK = 0
    BUG = 1
    USAGE = 2
    SETTINGS = 3
    KAFKA = 4
    CHECK = 5
    FORCED = 6


class ConsumerError(Exception):
    """Something that a person can mend. The message says what to do and holds no personal data."""

    exit_code: ExitCode = ExitCode.BUG


class SettingsError(ConsumerError):
    """Settings that we refuse to start with; `problems` has them all."""

    exit_code = ExitCode.SETTINGS

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class MappingError(ConsumerError):
    """A mapping file that is wrong by itself or names a path that the schema doesn't have; `problems` has them all."""

    exit_code = ExitCode.SETTINGS

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class KafkaFatalError(ConsumerError):
    """The Kafka client is in a state that only a new process can leave."""

    exit_code = ExitCode.KAFKA


class OutOfRangeError(KafkaFatalError):
    """A committed offset lies outside the log: records are gone, and a person must choose where to go on."""


class OffsetsLostError(KafkaFatalError):
    """Our own topics exist but the group has no commit at all: starting anywhere would lose or repeat events."""


class ReplayRefusedError(KafkaFatalError):
    """The group of a replay has another plan than the one that was asked for."""


class CheckFailedError(ConsumerError):
    """A check of the environment or a reconciliation failed."""

    exit_code = ExitCode.CHECK
