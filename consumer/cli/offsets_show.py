"""`kochava-consumer offsets show`: the group, its members, and each partition; once or again and again."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from consumer.cli.options import config_option
from consumer.cli.output import console
from consumer.errors import KafkaFatalError

if TYPE_CHECKING:
    from consumer.core.standing import GroupFacts, Standing

COLUMNS = ("topic", "partition", "start", "committed", "end", "lag", "behind", "settled", "blocking", "for", "note")


class View(NamedTuple):
    """What one look saw."""

    group: "GroupFacts"
    partitions: Sequence["Standing"]
    at_s: float


@click.command(
    short_help="Show the group, its members, and how far each partition is.",
    epilog="""\b
Examples:
  kochava-consumer offsets show --watch --interval 5
  kochava-consumer offsets show --json | jq 'select(.lag_s > 600) | {topic, partition, lag, lag_s}'""",
)
@config_option
@click.option("--watch", is_flag=True, help="Look again and again, until ^C.")
@click.option(
    "--interval", "interval_s", type=click.FloatRange(0.1), default=2.0, show_default=True, metavar="SECONDS",
    help="How often --watch looks.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object per partition and line, each with its group.")
def show(config: Path | None, *, watch: bool, interval_s: float, as_json: bool) -> None:
    """Show the group's state and members and, for each partition of the source topics and of ours, how far it is.

    \b
    start     where the log begins
    lag       records from the commit to the end that are not settled yet
    behind    the lag in time: how old the first record from the commit on is; - if that is not known
    settled   records beyond the commit that are done; a restart doesn't send them again
    blocking  the offset that holds the commit, and since when the commit has stood there

    In JSON "behind" is lag_s, "for" is blocking_s (both in seconds, null if unknown), and each line repeats the group:
    its id, state, and members with client_id, host and number of partitions.
    """  # noqa: D301 - click wants the backspace itself
    from consumer.adapters.kafka_config import admin_conf  # noqa: PLC0415 - `--help` must not load what it doesn't use
    from consumer.adapters.kafka_offsets import KafkaOffsets  # noqa: PLC0415
    from consumer.configuration import load  # noqa: PLC0415
    from consumer.core.retry import RetryPlan  # noqa: PLC0415

    settings = load(config, os.environ)
    topics = [*settings.kafka.topics, *RetryPlan.of(settings.topic_prefix, settings.retry.tiers).read_topics]

    def look() -> Iterator[View]:
        """Look as often as asked, with one client until it fails: it keeps what it has found out."""
        with KafkaOffsets(admin_conf(settings, "kochava-consumer"), settings.kafka.group_id) as offsets:
            while True:
                group = offsets.group()
                yield View(group, offsets.standing(topics, with_ages=True), time.time())

    if not watch:
        _print(next(look()), as_json=as_json)
        return
    with suppress(KeyboardInterrupt):  # how people end it
        _watch(look, interval_s, as_json=as_json)


def _watch(look: Callable[[], Iterator[View]], interval_s: float, *, as_json: bool) -> None:
    """Show views until the process is told to end. The first must succeed; brokers may be away later."""
    views = look()
    view = next(views)
    if as_json or not sys.stdout.isatty():
        while True:
            _print(view, as_json=as_json, is_one_of_many=True)
            view, views = _next(look, views, interval_s, lambda error: click.echo(f"error: {error}", err=True))
    with Live(_picture(view, is_one_of_many=True), console=console(), auto_refresh=False) as live:
        while True:
            live.update(_picture(view, is_one_of_many=True), refresh=True)
            view, views = _next(look, views, interval_s, lambda error: live.update(Text(error, "red"), refresh=True))


def _next(
    look: Callable[[], Iterator[View]], views: Iterator[View], interval_s: float, failed: Callable[[str], None]
) -> tuple[View, Iterator[View]]:
    """Return the view of the next interval in which brokers answer; after a failure by a new client."""
    while True:
        time.sleep(interval_s)
        try:
            return next(views), views
        except KafkaFatalError as error:
            failed(str(error))
            views = look()


def _print(view: View, *, as_json: bool, is_one_of_many: bool = False) -> None:
    if not as_json:
        console().print(_picture(view, is_one_of_many=is_one_of_many))
    else:
        import orjson  # noqa: PLC0415 - tables do without

        for one in view.partitions:
            click.echo(orjson.dumps({**_as_json(one, view.at_s), **_shared(view)}).decode())
    sys.stdout.flush()


def _picture(view: View, *, is_one_of_many: bool) -> RenderableType:
    when = [f"{datetime.fromtimestamp(view.at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"] if is_one_of_many else []
    end = [""] if is_one_of_many else []
    return Group(*when, Text(group_line(view.group)), *_members(view.group), "", _table(view), *end)


def group_line(group: "GroupFacts") -> str:
    """Return the group's state in a line."""
    count = len(group.members)
    state = "unknown to the brokers (dead)" if group.state == "dead" else group.state
    return f"group {group.name}: {state}, {count} member{'' if count == 1 else 's'}"


def _members(group: "GroupFacts") -> Iterator[Table]:
    if group.members:
        table = Table("client id", "host", box=None, pad_edge=False)
        table.add_column("partitions", justify="right")
        for member in group.members:
            table.add_row(Text(member.client_id), Text(member.host), str(member.partitions))
        yield table


def _table(view: View) -> Table:
    table = Table(box=None, pad_edge=False)
    columns = [name for name in COLUMNS if name != "note" or any(one.map_problem for one in view.partitions)]
    for name in columns:
        table.add_column(
            name, justify="left" if name in {"topic", "note"} else "right", no_wrap=name in {"behind", "for"}
        )
    for one in view.partitions:
        seen = _as_json(one, view.at_s)
        shown = {
            **{key: str(value) for key, value in seen.items() if value is not None},
            "behind": _span(seen["lag_s"]),
            "for": _span(seen["blocking_s"]),
            "note": f"metadata ignored: {one.map_problem}" if one.map_problem else "",
        }
        table.add_row(*(shown.get(name, "-") for name in columns), style="yellow" if one.blocking is not None else None)
    return table


def _as_json(one: "Standing", now_s: float) -> dict[str, Any]:
    return {
        "topic": one.partition.topic,
        "partition": one.partition.number,
        "start": one.low,
        "committed": one.committed,
        "end": one.high,
        "lag": one.lag,
        "lag_s": None if one.lag_s is None else round(one.lag_s),
        "settled": one.settled,
        "blocking": one.blocking,
        "blocking_s": None if one.blocking is None else max(0, round(now_s - one.map.since_s)),
        "metadata_ignored": one.map_problem,
    }


def _shared(view: View) -> dict[str, Any]:
    """Return what each line of a look repeats, so that each can be read alone."""
    members = [member._asdict() for member in view.group.members]
    return {
        "at": datetime.fromtimestamp(view.at_s, UTC).isoformat(timespec="milliseconds"),
        "group": {"id": view.group.name, "state": view.group.state, "members": members},
    }


def _span(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
