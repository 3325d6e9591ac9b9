"""`kochava-consumer dead-letters redrive`: send on again what would be delivered now."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consumer.cli.dead_letters_options import selection_of, selection_options
from consumer.cli.options import config_option
from consumer.errors import CheckFailedError

if TYPE_CHECKING:
    from consumer.cli.dead_letters_desk import Desk
    from consumer.dead_letters import Scan
    from consumer.redrive import Plan


@click.command(
    short_help="Send on again what would be delivered now; without --execute, only say what would happen.",
    epilog="""\b
Examples:
  kochava-consumer dead-letters redrive --fingerprint 3f9a0c51d2e7
  kochava-consumer dead-letters redrive --fingerprint 3f9a0c51d2e7 --execute
  kochava-consumer dead-letters redrive --since 2h --execute --yes --rate 100
  kochava-consumer dead-letters redrive --all --least-share 0 --execute    whatever would be sent now

\b
Started again after it was killed, it goes on where it ended: nothing is moved twice, whatever is selected.
Exit codes: 0 well, 2 usage, 3 settings, 4 Kafka, 5 too few would be sent now.""",
)
@config_option
@selection_options
@click.option("--execute", is_flag=True, help="Do it.")
@click.option(
    "--least-share",
    default=0.9,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Refuse if fewer of the selected ones would be sent now.",
)
@click.option(
    "--rate", default=500.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Records per second."
)
@click.option("--yes", is_flag=True, help="Don't ask.")  # fmt: skip
def redrive(config: Path | None, *, execute: bool, least_share: float, rate: float, yes: bool, **options: Any) -> None:
    """Map the selected dead letters again with today's configuration, and move those that would be sent now.

    They go to the first retry topic with their bytes, key and headers, have all their tries again, and are delivered by
    the running consumer. The others stay where they are.
    """
    from consumer.cli.dead_letters_desk import Desk  # noqa: PLC0415 - `--help` must be quick
    from consumer.redrive import plan  # noqa: PLC0415

    selection = selection_of(options)
    if execute and not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: add --yes")
    with Desk(config, options["topic"]) as desk:
        found = desk.scan(selection, judge=True)
        chosen = plan(found)
        _tell(chosen)
        if not chosen.total:
            return
        if not execute:
            click.echo("nothing was moved: add --execute to do it")
            return
        if chosen.share < least_share:
            raise CheckFailedError(
                f"only {len(chosen.movable):,} of {chosen.total:,} would be sent now, less than --least-share "
                f"{least_share:g}: nothing was moved"
            )
        if yes or click.confirm(f"Move {len(chosen.movable):,} to {desk.plan.tiers[0].topic}?", err=True):
            _move(desk, found, chosen, rate)
        else:
            click.echo("nothing was moved")


def _tell(chosen: "Plan") -> None:
    if not chosen.total:
        click.echo(
            "no dead letter is like that; what was redriven is none any more, and a changed mapping may give an event "
            "another name, so another fingerprint: list again"
        )
        return
    click.echo(f"{chosen.total:,} selected, {len(chosen.movable):,} would be sent now")
    for reason, count in chosen.staying.most_common():
        click.echo(f"  {count:,} would not: {reason}")
    if chosen.twice:
        click.echo(
            f"  {chosen.twice:,} of those that would may have reached Kochava before (unconfirmed, a lost answer, or "
            "an earlier try), and would be counted twice"
        )


def _move(desk: "Desk", found: "Scan", chosen: "Plan", rate: float) -> None:
    from consumer.adapters.kafka_config import redrive_conf  # noqa: PLC0415 - `--help` must be quick
    from consumer.adapters.kafka_redrive import TransactionalSender  # noqa: PLC0415
    from consumer.cli.dead_letters_desk import progress  # noqa: PLC0415
    from consumer.redrive import Redrive  # noqa: PLC0415

    retry_topic = desk.plan.tiers[0].topic  # settings refuse to be without a tier
    desk.reader.spans(retry_topic)  # a topic that is missing is said so before anything begins
    sender = TransactionalSender(redrive_conf(desk.settings, "kochava-consumer"))
    work = Redrive(desk.reader, sender, desk.topic, retry_topic)
    left = work.open(chosen, found.spans)
    with progress(f"moving to {retry_topic}", len(left.movable)) as advance:
        work.run(left, rate, advance)
    click.echo(f"{work.moved:,} moved to {retry_topic}, {chosen.staying.total():,} stay")
    if others := len(chosen.movable) - len(left.movable):
        click.echo(f"{others:,} were moved by somebody else meanwhile")
    if gone := len(left.movable) - work.moved:
        click.echo(f"{gone:,} were deleted by retention meanwhile")
