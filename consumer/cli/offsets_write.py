"""What `offsets reset` and `offsets undo` share: nobody in the group, a person's yes, one commit, and plain words."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from consumer.errors import CheckFailedError, KafkaFatalError

if TYPE_CHECKING:
    from consumer.adapters.kafka_offsets import KafkaOffsets, Write
    from consumer.core.standing import GroupFacts

C = TypeVar("C", bound=Callable[..., object])

STOP = (
    "stop all of them first (in Kubernetes: kubectl scale --replicas=0); one that was killed stays a member until its "
    "session has timed out"
)


def execute_options(command: C) -> C:
    """Add --execute and --yes."""
    command = click.option("--yes", is_flag=True, help="With --execute: don't ask for the group's name.")(command)
    return click.option("--execute", is_flag=True, help="Do it.  [default: only show what would be done]")(command)


def refuse_without_terminal(*, execute: bool, yes: bool) -> None:
    """Refuse early what could not be confirmed."""
    if execute and not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to confirm on: add --yes to --execute, if you are sure")


def members_in_words(group: "GroupFacts") -> str:
    """Name who is in the group, a line each, and what to do about it."""
    if not group.members:
        return f"group {group.name!r} is {group.state}: {STOP}"
    lines = [
        f"  {member.client_id} on {member.host}, {member.partitions} partition{'' if member.partitions == 1 else 's'}"
        for member in group.members
    ]
    have = "has 1 member" if len(lines) == 1 else f"has {len(lines)} members"
    return "\n".join([f"group {group.name!r} ({group.state}) {have}: {STOP}", *lines])


def refuse_members(group: "GroupFacts") -> None:
    """Stop if somebody is in the group: their next commit would overwrite ours, or ours theirs."""
    if not group.is_stopped:
        raise CheckFailedError(f"nothing was changed: {members_in_words(group)}")


def end_dry_run(group: "GroupFacts") -> None:
    """Say that nothing was done, and what would hinder it."""
    if not group.is_stopped:
        click.echo(f"--execute would be refused now: {members_in_words(group)}")
    click.echo("Dry run: nothing was changed. --execute does it.")


def confirm(group_id: str, *, yes: bool) -> None:
    """Ask a person to type the group's name."""
    if not yes and click.prompt(f"Type the group's name ({group_id}) to do it", default="", show_default=False) != (
        group_id
    ):
        raise CheckFailedError("that is not the group's name: nothing was changed")


def commit(offsets: "KafkaOffsets", writes: Sequence["Write"], backup: Path) -> None:
    """Commit, and say what is known if that fails."""
    from consumer.adapters.kafka_offsets import HasMembersError  # noqa: PLC0415 - `--help` must not load Kafka

    try:
        offsets.commit(writes)
    except HasMembersError:  # somebody came between our look and the commit
        who = members_in_words(offsets.group())
        raise CheckFailedError(f"the broker refused it, nothing was changed: {who}") from None
    except KafkaFatalError as error:
        raise KafkaFatalError(
            f"{error}\nWhether the commit was made is not known. `kochava-consumer offsets show` says where the group "
            f"stands; `kochava-consumer offsets undo {backup}` puts back what was changed, whichever part that is."
        ) from None


def write_new(path: Path, content: bytes) -> None:
    """Write a file that isn't there yet, and be sure that it is on the disk.

    Raises:
        click.UsageError: it is there, or can't be written.
    """
    try:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise click.UsageError(f"{path} exists: name another file by --backup; nothing was changed") from None
    except OSError as error:
        raise click.UsageError(
            f"cannot write the backup {path}: {error.strerror}; name another place by --backup; nothing was changed"
        ) from None
    with suppress(OSError):  # not every file system lets us
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
