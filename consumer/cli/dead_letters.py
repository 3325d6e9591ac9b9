"""`kochava-consumer dead-letters`: what was given up, why, and sending it on again."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from consumer.cli.options import config_option
from consumer.cli.output import console

if TYPE_CHECKING:
    from consumer.core.dead_letters import Group


@click.group(short_help="List, show, redrive and export what was given up.")
def command() -> None:
    """Look at the dead-letter topic, and send on again what would be delivered now."""


@command.command("list")
@config_option
@click.option("--topic", type=click.Choice(["dead-letter", "held"]), default="dead-letter", show_default=True)
@click.option("--no-decode", is_flag=True, help="Don't look into the events: no app, no event, other fingerprints.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per group and line.")
def list_(config: Path | None, topic: str, *, no_decode: bool, as_json: bool) -> None:
    """Count dead letters by what they have in common."""
    import orjson  # noqa: PLC0415 - `--help` must not load what it doesn't use

    from consumer.cli.dead_letters_desk import Desk  # noqa: PLC0415
    from consumer.core.dead_letters import Selection, group  # noqa: PLC0415

    with Desk(config, topic, decode=not no_decode) as desk:
        found = group(desk.scan(Selection()).letters)
    if as_json:
        for each in found:
            click.echo(orjson.dumps(_as_json(each)).decode())
        return
    console().print(_table(found))
    total = sum(each.count for each in found)
    click.echo(f"{total:,} on {desk.topic}", err=True)


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
        cause = each.cause
        table.add_row(
            cause.fingerprint,
            f"{each.count:,}",
            *("-" if part is None else printable(str(part)) for part in cause),
            iso(each.first_ms),
            iso(each.last_ms),
            str(each.example.origin),
        )
    return table


def iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(max(0, milliseconds) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def printable(text: str) -> str:
    """Return *text* of an event so that it can do nothing to a terminal."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:80])
