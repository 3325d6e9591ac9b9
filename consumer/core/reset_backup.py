"""The backup that a reset leaves, so that it can be taken back: one JSON object, for people and for `offsets undo`.

It is on the disk before anything is changed. A reset that died half-way leaves each partition either as it was or as
the reset wrote it, and both are told from here; anything else was committed by somebody since, and undoing that would
lose it.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Any, NamedTuple

import orjson

from consumer.core.offset_map import UnreadableMapError, decode
from consumer.core.record import Partition
from consumer.core.reset import Move, name
from consumer.core.standing import Commit

VERSION = 1
END_OF_ALL = 2**63 - 1


class UnreadableBackupError(Exception):
    """The file is no backup of a reset; `str` says why."""


class Saved(NamedTuple):
    """One partition: what was committed before the reset, and the offset that the reset wrote, without metadata."""

    partition: Partition
    before: Commit
    after: int


class Backup(NamedTuple):
    """What one reset of `group` was about to change, `at` a moment in ISO 8601."""

    group: str
    at: str
    saved: tuple[Saved, ...]


class Verdict(Enum):
    """What undoing a reset means for one partition; the value is said to people."""

    RESTORE = "goes back"
    AS_BEFORE = "as before the reset: nothing to do"
    NOT_REMOVABLE = "had no commit before; one can't be taken away: stays"
    MOVED = "neither as before nor as the reset wrote it"


def backup_of(group: str, at: str, moves: Iterable[Move]) -> Backup:
    """Return what to save before *moves* are made."""
    return Backup(group, at, tuple(Saved(move.partition, move.before.commit, move.to) for move in moves))


def dump(backup: Backup) -> bytes:
    """Write *backup* as a file's content."""
    lines = [
        {
            "topic": one.partition.topic,
            "partition": one.partition.number,
            "offset": one.before.offset,
            "metadata": one.before.metadata,
            "foreign_metadata": one.before.is_foreign,
            "reset_to": one.after,
        }
        for one in backup.saved
    ]
    whole = {"version": VERSION, "group": backup.group, "at": backup.at, "partitions": lines}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def load(content: bytes) -> Backup:
    """Read a file's content, believing nothing: what it says is committed.

    Raises:
        UnreadableBackupError: it isn't what `dump` writes.
    """
    try:
        whole = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise UnreadableBackupError("it is not JSON") from None
    match whole:
        case {"version": int(version)} if version != VERSION:
            raise UnreadableBackupError(f"its version is {version}, this program reads {VERSION}")
        case {"version": int(), "group": str(group), "at": str(at), "partitions": [_, *_] as lines}:
            saved = tuple(map(_saved, lines))
        case _:
            raise UnreadableBackupError("it lacks version, group, at or partitions")
    if len({one.partition for one in saved}) < len(saved):
        raise UnreadableBackupError("it names a partition twice")
    return Backup(group, at, saved)


def _saved(line: Any) -> Saved:
    match line:
        case {
            "topic": str(topic),
            "partition": int(number),
            "offset": int() | None as offset,
            "metadata": str(metadata),
            "foreign_metadata": bool(is_foreign),
            "reset_to": int(after),
        } if topic and min(number, after, 0 if offset is None else offset) >= 0:
            saved = Saved(Partition(topic, number), Commit(offset, metadata, is_foreign), after)
        case _:
            raise UnreadableBackupError("one of its partitions is not as a reset writes it")
    if metadata:
        _must_be_a_map(saved)
    return saved


def _must_be_a_map(saved: Saved) -> None:
    """What is no good map would be committed and then ignored by every member: the file was changed."""
    try:
        decode(saved.before.metadata, saved.before.offset or 0, END_OF_ALL)
    except UnreadableMapError as error:
        raise UnreadableBackupError(f"the metadata of {name(saved.partition)} is damaged ({error})") from None


def judge(saved: Saved, now: Commit) -> Verdict:
    """Say what undoing means where the group has committed *now*."""
    if now == saved.before:
        return Verdict.AS_BEFORE
    if now != Commit(saved.after):  # a map at the very offset is a member's: it has settled something since
        return Verdict.MOVED
    return Verdict.NOT_REMOVABLE if saved.before.offset is None else Verdict.RESTORE
