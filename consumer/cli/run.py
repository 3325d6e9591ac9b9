"""`kochava-consumer run`: be a member of the group."""

import faulthandler
import os
from pathlib import Path

import click

from consumer.cli.options import config_option


@click.command(
    short_help="Read, map, deliver, commit: be a member of the consumer group.",
    epilog="""\b
Signals:
  SIGTERM, SIGINT   stop reading, let what is on its way end, commit, leave (exit 0)
  a second one      end at once (exit 6); events on their way are sent again later

\b
Exit codes: 0 well, 1 our bug, 3 settings, 4 Kafka or out of range, 6 forced.""",
)
@config_option
@click.option(
    "--shadow",
    is_flag=True,
    help="Rehearse: read and map under the group NAME-shadow, post nothing, write to no topic.",
)
def command(config: Path | None, *, shadow: bool) -> None:
    """Run one member of the consumer group until it is told to stop.

    Start as many as the source topics have partitions; they share the work. Watch /readyz and /metrics on the admin
    address.
    """
    from consumer.app import run  # noqa: PLC0415 - `--help` must not load Kafka
    from consumer.configuration import load  # noqa: PLC0415

    faulthandler.enable()  # a native crash tells where, too; frames hold no values
    run(load(config, os.environ), shadow=shadow)
