"""`kochava-consumer dead-letters`: what was given up and why; showing it, sending it on again, exporting it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from consumer.cli.dead_letters_export import export
from consumer.cli.dead_letters_options import TOPICS, iso, printable
from consumer.cli.dead_letters_redrive import redrive
from consumer.cli.dead_letters_show import show
from consumer.cli.options import config_option
from consumer.cli.output import console

if TYPE_CHECKING:
    from consumer.core.dead_letters import Group


@click.group(
    short_help="List, show, redrive and export what was given up.",
    epilog="""\b
From the alert to the repair:
  kochava-consumer dead-letters list                                  what was given up, by cause
  kochava-consumer dead-letters show --origin in-app-events/0/1234    one of them, values masked
  kochava-consumer dead-letters redrive --fingerprint 3f9a0c51d2e7    would they be delivered now?
  kochava-consumer dead-letters redrive --fingerprint 3f9a0c51d2e7 --execute""",
)
def command() -> None:
    """Look at the dead-letter topic, and send on again what would be delivered now.

    Joins no group, works beside a running one, and shows nobody's data unless it is told --reveal.
    """


command.add_command(show)
command.add_command(redrive)
command.add_command(export)


@command.command(
    "list",
    epilog="""\b
Examples:
  kochava-consumer dead-letters list
  kochava-consumer dead-letters list --json | jq 'select(.reason == "unknown_app")'
  kochava-consumer dead-letters list --topic held     what waits for its app's lane""",
)
@config_option
@click.option("--topic", type=click.Choice(TOPICS), default="dead-letter", show_default=True)
@click.option("--no-decode", is_flag=True, help="Don't look into the events: no app, no event, other fingerprints.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per group and line.")
def list_(config: Path | None, topic: str, *, no_decode: bool, as_json: bool) -> None:
    """Count dead letters by cause, the most frequent first.

    Those with the same stage, reason, status, schema, app and event have the same fingerprint, which `redrive` and
    `export` take. What could not be decoded or mapped has no app and no event. What was redriven is left out.
    """
    import orjson  # noqa: PLC0415 - `--help` must not load what it doesn't use

    from consumer.cli.dead_letters_desk import Desk  # noqa: PLC0415
    from consumer.core.dead_letters import Selection, group  # noqa: PLC0415

    with Desk(config, topic, decode=not no_decode) as desk:
        found = group(desk.scan(Selection()).letters)
    if as_json:
        for each in found:
            click.echo(orjson.dumps(_as_json(each)).decode())
        return
    if found:
        console().print(_table(found))
    click.echo(f"{sum(each.count for each in found):,} on {desk.topic}", err=True)


def _as_json(of: "Group") -> dict[str, Any]:
    return {
        "fingerprint": of.cause.fingerprint,
        "count": of.count,
        **of.cause._asdict(),
        "first": iso(of.first_ms),
        "last": iso(of.last_ms),
        "example": str(of.example.place),
        "example_origin": str(of.example.origin),
    }


def _table(groups: Sequence["Group"]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("fingerprint", no_wrap=True)
    table.add_column("count", justify="right")
    for name in ("stage", "reason", "status", "schema", "app", "event", "first", "last", "for example, from"):
        table.add_column(name, overflow="fold")
    for each in groups:
        table.add_row(
            each.cause.fingerprint,
            f"{each.count:,}",
            *(Text("-" if part is None else printable(str(part))) for part in each.cause),
            iso(each.first_ms),
            iso(each.last_ms),
            str(each.example.origin),
        )
    return table
