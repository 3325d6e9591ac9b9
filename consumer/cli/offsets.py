"""`kochava-consumer offsets`: where the group stands, and what holds it up."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from consumer.cli.options import config_option
from consumer.cli.output import console

if TYPE_CHECKING:
    from consumer.adapters.kafka_offsets import Standing


@click.group(short_help="Show where the group stands on each partition, and what holds it up.")
def command() -> None:
    """Look at the offsets of the consumer group. Works beside a running group and changes nothing."""


@command.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per partition and line.")
def show(config: Path | None, *, as_json: bool) -> None:
    """Show, for each partition of the source topics and of ours, the commit and what is settled beyond it.

    \b
    lag       records from the commit to the end that are not settled yet
    settled   records beyond the commit that are done; a restart doesn't send them again
    blocking  the offset that holds the commit, and since when the commit has stood there
    """  # noqa: D301 - click wants the backspace itself
    import orjson  # noqa: PLC0415 - `--help` must not load what it doesn't use

    from consumer.adapters.kafka_config import admin_conf  # noqa: PLC0415
    from consumer.adapters.kafka_offsets import standing  # noqa: PLC0415
    from consumer.configuration import load  # noqa: PLC0415
    from consumer.core.retry import RetryPlan  # noqa: PLC0415

    settings = load(config, os.environ)
    plan = RetryPlan.of(settings.topic_prefix, settings.retry.tiers)
    topics = [*settings.kafka.topics, *plan.read_topics]
    found = standing(admin_conf(settings, "kochava-consumer"), settings.kafka.group_id, topics)
    now_s = time.time()
    if as_json:
        for one in found:
            click.echo(orjson.dumps(_as_json(one, now_s)).decode())
    else:
        console().print(_table(found, now_s))


def _table(found: Sequence["Standing"], now_s: float) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("topic")
    for name in ("partition", "start", "committed", "end", "lag", "settled", "blocking", "for"):
        table.add_column(name, justify="right")
    table.add_column("note")
    for one in found:
        seen = _as_json(one, now_s)
        table.add_row(
            *("-" if seen[key] is None else str(seen[key])
              for key in ("topic", "partition", "start", "committed", "end", "lag", "settled", "blocking")),
            "-" if one.blocking is None else _span(seen["blocking_s"]),
            f"metadata ignored: {one.map_problem}" if one.map_problem else "",
            style="yellow" if one.blocking is not None else None,
        )  # fmt: skip
    return table


def _as_json(one: "Standing", now_s: float) -> dict[str, Any]:
    return {
        "topic": one.partition.topic,
        "partition": one.partition.number,
        "start": one.low,
        "committed": one.committed,
        "end": one.high,
        "lag": one.lag,
        "settled": one.settled,
        "blocking": one.blocking,
        "blocking_s": None if one.blocking is None else max(0, round(now_s - one.map.since_s)),
        "metadata_ignored": one.map_problem,
    }


def _span(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
