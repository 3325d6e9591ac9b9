"""`kochava-consumer offsets undo`: put back what a reset has changed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from consumer.cli.offsets_write import (
    commit,
    confirm,
    end_dry_run,
    execute_options,
    refuse_members,
    refuse_without_terminal,
)
from consumer.cli.options import config_option
from consumer.cli.output import console
from consumer.errors import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.adapters.kafka_offsets import KafkaOffsets
    from consumer.core.reset_backup import Backup, Saved, Verdict
    from consumer.core.standing import Standing

    Judged = tuple[Saved, Standing, Verdict]


@click.command(
    short_help="Put back what a reset has changed.",
    epilog="""\b
Example:
  kochava-consumer offsets undo kochava-offsets-mygroup-20261101T101500Z.json --execute""",
)
@config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE")
@execute_options
def undo(config: Path | None, file: Path, *, execute: bool, yes: bool) -> None:
    """Put back the commits that a `reset` saved in FILE: the offsets, and what is settled beyond them.

    Each partition must stand as the reset wrote it, or as before (nothing to do there, as after a reset that did not
    come to its end). If any was committed since, nothing is changed: undoing that would lose it. Without --execute it
    only shows what it would do.

    A first commit can't be taken away by this client. A partition that had none before the reset stays where the reset
    put it; `kafka-consumer-groups --delete-offsets --group G --topic T` removes the commits of a whole topic.
    """
    from consumer.adapters.kafka_config import admin_conf  # noqa: PLC0415 - `--help` must not load Kafka
    from consumer.adapters.kafka_offsets import KafkaOffsets  # noqa: PLC0415
    from consumer.configuration import load  # noqa: PLC0415

    refuse_without_terminal(execute=execute, yes=yes)
    backup = _read(file)
    settings = load(config, os.environ)
    if backup.group != settings.kafka.group_id:
        raise CheckFailedError(f"{file} is of group {backup.group!r}, but the settings say {settings.kafka.group_id!r}")
    with KafkaOffsets(admin_conf(settings, "kochava-consumer"), backup.group) as offsets:
        judged = _judge(offsets, backup)
        click.echo(f"The reset of {backup.at}:")
        _show(judged)
        _refuse_moved(judged)
        if execute:
            _execute(offsets, backup, file, yes=yes)
        else:
            end_dry_run(offsets.group())


def _read(file: Path) -> "Backup":
    from consumer.core.reset_backup import UnreadableBackupError, load  # noqa: PLC0415 - `--help` does without

    try:
        return load(file.read_bytes())
    except OSError as error:
        raise click.UsageError(f"cannot read {file}: {error.strerror}.") from None
    except UnreadableBackupError as error:
        raise click.UsageError(f"{file} is no backup of `offsets reset`: {error}.") from None


def _judge(offsets: "KafkaOffsets", backup: "Backup") -> "list[Judged]":
    from consumer.core.reset import name  # noqa: PLC0415 - `--help` does without
    from consumer.core.reset_backup import judge  # noqa: PLC0415

    topics = dict.fromkeys(one.partition.topic for one in backup.saved)
    found = {one.partition: one for one in offsets.standing([*topics])}
    if gone := [one.partition for one in backup.saved if one.partition not in found]:
        names = ", ".join(map(name, gone))
        raise CheckFailedError(f"nothing was changed: {names} does not exist any more")
    return [(one, found[one.partition], judge(one, found[one.partition].commit)) for one in backup.saved]


def _show(judged: "Sequence[Judged]") -> None:
    from consumer.core.reset_backup import Verdict  # noqa: PLC0415 - `--help` does without

    table = Table(box=None, pad_edge=False)
    table.add_column("topic")
    for name in ("partition", "reset to", "now", "back to"):
        table.add_column(name, justify="right")
    table.add_column("what becomes of it")
    for saved, now, verdict in judged:
        offsets = (saved.after, now.committed, saved.before.offset)
        words = [verdict.value]
        if verdict is Verdict.RESTORE and saved.before.metadata:
            words.append("with its map of what is settled beyond it")
        if verdict is Verdict.RESTORE and saved.before.is_foreign:
            words.append("without the metadata of another tool")
        if verdict is Verdict.RESTORE and not now.low <= (saved.before.offset or 0) <= now.high:
            words.append(f"outside the log, {now.low} to {now.high}: `run` will refuse to start there")
        table.add_row(
            saved.partition.topic,
            str(saved.partition.number),
            *("-" if offset is None else str(offset) for offset in offsets),
            ", ".join(words),
            style="red" if verdict is Verdict.MOVED else None,
        )
    console().print(table)


def _refuse_moved(judged: "Sequence[Judged]") -> None:
    from consumer.core.reset import name  # noqa: PLC0415 - `--help` does without
    from consumer.core.reset_backup import Verdict  # noqa: PLC0415

    if moved := [saved.partition for saved, _, verdict in judged if verdict is Verdict.MOVED]:
        names = ", ".join(map(name, moved))
        raise CheckFailedError(
            f"nothing was changed: the commits of {names} are neither as before the reset nor as it wrote them. A "
            "member or a tool has committed since, or the broker has forgotten the group; going back would send again "
            "or skip what was done meanwhile. `offsets reset` moves them from where they are."
        )


def _execute(offsets: "KafkaOffsets", backup: "Backup", file: Path, *, yes: bool) -> None:
    from consumer.adapters.kafka_offsets import Write  # noqa: PLC0415 - `--help` must not load Kafka
    from consumer.core.reset import partitions  # noqa: PLC0415
    from consumer.core.reset_backup import Verdict  # noqa: PLC0415

    group = offsets.group()
    refuse_members(group)
    if not any(verdict is Verdict.RESTORE for *_, verdict in _judge(offsets, backup)):
        click.echo("There is nothing to put back.")
        return
    confirm(group.name, yes=yes)
    judged = _judge(offsets, backup)  # a person may think for long
    _refuse_moved(judged)
    writes = [
        Write(saved.partition, saved.before.offset, saved.before.metadata)
        for saved, _, verdict in judged
        if verdict is Verdict.RESTORE and saved.before.offset is not None
    ]
    commit(offsets, writes, file)
    click.echo(f"Done: {partitions(len(writes))} put back.")
