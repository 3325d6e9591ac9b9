"""`kochava-consumer offsets reset`: move the group, after showing what that does to events."""

import os
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from consumer.cli.offsets_write import (
    commit,
    confirm,
    end_dry_run,
    execute_options,
    refuse_members,
    refuse_without_terminal,
    write_new,
)
from consumer.cli.options import config_option
from consumer.cli.output import console
from consumer.errors import CheckFailedError

if TYPE_CHECKING:
    from consumer.adapters.kafka_offsets import KafkaOffsets
    from consumer.core.reset import Move, Target
    from consumer.core.reset_arguments import Choice
    from consumer.core.standing import Standing
    from consumer.settings import Settings

TARGETS = {
    "to_datetime": "--to-datetime",
    "to_offset": "--to-offset",
    "shift_by": "--shift-by",
    "by_duration": "--by-duration",
    "to_earliest": "--to-earliest",
    "to_latest": "--to-latest",
    "from_file": "--from-file",
}


@click.command(
    short_help="Move the group's commits, after showing what that does.",
    epilog="""\b
Examples:
  kochava-consumer offsets reset --to-datetime 2026-11-01T09:30:00Z
  kochava-consumer offsets reset --by-duration 2h --execute
  kochava-consumer offsets reset --shift-by -1000 --partition in-app-events:0,1
  kochava-consumer offsets reset --to-latest --topic in-app-events --execute --yes
  kochava-consumer offsets reset --from-file offsets.csv --backup before.json --execute""",
)
@config_option
@click.option("--to-datetime", metavar="T", help="The first record of this time or later: 2026-11-01T09:30:00Z.")
@click.option("--to-offset", type=click.IntRange(0), metavar="N", help="This offset, on each partition.")
@click.option("--shift-by", type=int, metavar="N",
              help="N records on from the commit; back if N is negative.")  # fmt: skip
@click.option("--by-duration", metavar="D", help="The first record of this long ago or later: 90m, 2h, 1d.")
@click.option("--to-earliest", is_flag=True, help="The start of the log.")
@click.option("--to-latest", is_flag=True, help="The end of the log.")
@click.option("--from-file", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
              help="Lines of topic,partition,offset, as kafka-consumer-groups --export writes them.")  # fmt: skip
@click.option("--topic", "topics", multiple=True, metavar="TOPIC",
              help="Only this topic, also a retry or held one; repeatable.  [default: the source topics]")  # fmt: skip
@click.option("--partition", "limits", multiple=True, metavar="[TOPIC:]N[,N...]",
              help="Only these partitions; repeatable: in-app-events:0,1.")  # fmt: skip
@click.option("--backup", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where to write what `undo` needs.  [default: a file named by group and time, here]")  # fmt: skip
@execute_options
def reset(
    config: Path | None,
    *,
    topics: tuple[str, ...],
    limits: tuple[str, ...],
    backup: Path | None,
    execute: bool,
    yes: bool,
    **target: Any,
) -> None:
    """Move the group's commits, and so what its members read next; exactly one target must be given.

    Without --execute it only shows, for each partition, from where to where, how many records will be read again or
    skipped, and what that means. An offset outside the log becomes its start or end; times are the records' own
    timestamps, a time after the last record means the end. Offsets are counted: gaps in the log count as records.

    With --execute the group must have no members, and you are asked to type its name. What was committed is written to
    a backup first (see `undo`); then all partitions are committed in one request. What is known of records that are
    settled beyond the commit is dropped, on purpose: all from the new offset on will be sent.
    """
    from consumer.adapters.kafka_config import admin_conf  # noqa: PLC0415 - `--help` must not load Kafka
    from consumer.adapters.kafka_offsets import KafkaOffsets  # noqa: PLC0415
    from consumer.configuration import load  # noqa: PLC0415
    from consumer.core.reset import UnusableResetError  # noqa: PLC0415

    refuse_without_terminal(execute=execute, yes=yes)
    try:
        to = _target(target)
        settings = load(config, os.environ)
        choice = _choice(settings, to, topics, limits)
        with KafkaOffsets(admin_conf(settings, "kochava-consumer"), settings.kafka.group_id) as offsets:
            moves = _plan(offsets, choice, to)
            _show(moves)
            if execute:
                _execute(offsets, choice, moves, backup, yes=yes)
            else:
                end_dry_run(offsets.group())
    except UnusableResetError as error:
        raise click.UsageError(f"{error}.") from None


def _target(given: dict[str, Any]) -> "Target":
    from consumer.core import reset as core, reset_arguments as arguments  # noqa: PLC0415 - `--help` does without

    chosen = [name for name in TARGETS if given[name] is not None and given[name] is not False]
    if len(chosen) != 1:
        said = " and ".join(TARGETS[name] for name in chosen) or "none"
        raise click.UsageError(f"give exactly one of {', '.join(TARGETS.values())}; {said} was given.")
    value = given[chosen[0]]
    match chosen[0]:
        case "to_datetime":
            return arguments.to_datetime(value)
        case "by_duration":
            return arguments.before_now(value, time.time_ns() // 1_000_000)
        case "to_offset":
            return core.ToOffset(value)
        case "shift_by":
            return core.ShiftBy(value)
        case "to_earliest":
            return core.ToEarliest()
        case "to_latest":
            return core.ToLatest()
    try:
        return arguments.from_csv(value.read_text("utf-8"))
    except core.UnusableResetError as error:
        raise core.UnusableResetError(f"{value}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {value}: {type(error).__name__}.") from None


def _choice(settings: "Settings", to: "Target", topics: Sequence[str], limits: Sequence[str]) -> "Choice":
    from consumer.core.reset import ToEach  # noqa: PLC0415 - `--help` does without
    from consumer.core.reset_arguments import choose, choose_each  # noqa: PLC0415
    from consumer.core.retry import RetryPlan  # noqa: PLC0415

    read = [*settings.kafka.topics, *RetryPlan.of(settings.topic_prefix, settings.retry.tiers).read_topics]
    if not isinstance(to, ToEach):
        return choose(topics, limits, settings.kafka.topics, read)
    if topics or limits:
        raise click.UsageError("--from-file names the partitions itself: leave --topic and --partition out.")
    return choose_each(to.offsets, read)


def _plan(offsets: "KafkaOffsets", choice: "Choice", to: "Target") -> "list[Move]":
    from consumer.core.reset import ToTime, plan  # noqa: PLC0415 - `--help` does without

    found = _look(offsets, choice)
    first_at = offsets.first_at([one.partition for one in found], to.at_ms) if isinstance(to, ToTime) else {}
    return plan(found, to, first_at)


def _look(offsets: "KafkaOffsets", choice: "Choice") -> "list[Standing]":
    return choice.select(offsets.standing([*choice.numbers]))


def _show(moves: "Sequence[Move]") -> None:
    from consumer.core.reset import meaning  # noqa: PLC0415 - `--help` does without

    table = Table(box=None, pad_edge=False)
    table.add_column("topic")
    for name in ("partition", "start", "end", "from", "to", "again", "skipped"):
        table.add_column(name, justify="right")
    table.add_column("note")
    for move in moves:
        now = move.before
        offsets = (now.low, now.high, "-" if now.committed is None else now.committed, move.to)
        note = move.note or ("" if move.changes_something else "stays")
        cells = (now.partition.number, *offsets, move.again, move.skipped, note)
        table.add_row(now.partition.topic, *map(str, cells), style=None if move.changes_something else "dim")
    out = console()
    out.print(table)
    for sentence in meaning(moves):
        out.print(sentence, highlight=False)


def _execute(
    offsets: "KafkaOffsets", choice: "Choice", moves: "Sequence[Move]", backup: Path | None, *, yes: bool
) -> None:
    from consumer.adapters.kafka_offsets import Write  # noqa: PLC0415 - `--help` must not load Kafka
    from consumer.core.reset import partitions  # noqa: PLC0415
    from consumer.core.reset_backup import backup_of, dump  # noqa: PLC0415

    group = offsets.group()
    refuse_members(group)
    moves = [move for move in moves if move.changes_something]
    if not moves:
        return
    confirm(group.name, yes=yes)
    _refuse_news(moves, _look(offsets, choice))
    now = datetime.now(UTC)
    path = backup or Path(f"kochava-offsets-{re.sub(r'[^A-Za-z0-9._-]', '_', group.name)}-{now:%Y%m%dT%H%M%SZ}.json")
    write_new(path, dump(backup_of(group.name, now.isoformat(timespec="seconds"), moves)))
    click.echo(f"The backup is {path}.")
    commit(offsets, [Write(move.partition, move.to) for move in moves], path)
    click.echo(
        f"Done: {partitions(len(moves))} moved. Until members have committed again, "
        f"`kochava-consumer offsets undo {path} --execute` takes it back."
    )


def _refuse_news(moves: "Sequence[Move]", found: "Sequence[Standing]") -> None:
    """Refuse what was confirmed if it was about other commits: a person may think for long."""
    from consumer.core.reset import name  # noqa: PLC0415 - `--help` does without

    commits = {one.partition: one.commit for one in found}
    if moved := [move.partition for move in moves if commits[move.partition] != move.before.commit]:
        names = ", ".join(map(name, moved))
        raise CheckFailedError(f"{names}: committed meanwhile, by a member or a tool; nothing was changed, look again")
