"""`kochava-consumer offsets`: where the group stands, what holds it up, and moving it."""

import click

from consumer.cli.offsets_reset import reset
from consumer.cli.offsets_show import show
from consumer.cli.offsets_undo import undo


@click.group(
    short_help="Show where the group stands and what holds it up; reset its offsets, and undo that.",
    epilog="""\b
Examples:
  kochava-consumer offsets show --watch
  kochava-consumer offsets reset --to-datetime 2026-11-01T09:30:00Z
  kochava-consumer offsets undo kochava-offsets-mygroup-20261101T101500Z.json""",
)
def command() -> None:
    """Look at the offsets of the consumer group, and move them.

    `show` works beside a running group and changes nothing. `reset` and `undo` change nothing either without
    --execute, and never while the group has members.
    """


for each in (show, reset, undo):
    command.add_command(each)
