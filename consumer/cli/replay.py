"""`kochava-consumer replay`: send again what stood on the topics between two moments, beside the running group."""

import dataclasses
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from consumer.cli.options import config_option
from consumer.cli.output import console
from consumer.errors import CheckFailedError, ConsumerError, ExitCode, SettingsError

if TYPE_CHECKING:
    from consumer.adapters.kafka_replay import Plan
    from consumer.replay import Notes, Reconciliation, Replay, Seen
    from consumer.settings import Settings

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,40}")


class StoppedError(ConsumerError):
    """The replay was told to stop before its end."""

    exit_code = ExitCode.FORCED


class _Rate(click.ParamType):  # type: ignore[type-arg]
    name = "N/s"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/s)?", str(value))
        if found is None or not float(found[1]):
            self.fail(f"{value}: write events a second, such as 500/s", param, ctx)
        return float(found[1])


class _Moment(click.ParamType):  # type: ignore[type-arg]
    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from consumer.core.reset import UnusableResetError  # noqa: PLC0415 - `--help` must be quick
        from consumer.core.reset_arguments import to_datetime  # noqa: PLC0415

        try:
            return to_datetime(str(value)).at_ms
        except UnusableResetError as error:
            self.fail(str(error), param, ctx)


@click.command(
    short_help="Send again what stood on the topics between two moments, beside the running group.",
    epilog="""\b
Examples:
  kochava-consumer replay --from 2026-11-01T00:00Z --to 2026-11-02T00:00Z --dry-run
  kochava-consumer replay --from ... --to ... --app com.example.puzzle --event Purchase --rate 500/s
  kochava-consumer replay --from ... --to ... --where '{path = "amount", above = 100}' --id refund-check

\b
Exit codes: 0 all of it is done, 2 usage, 3 settings, 4 Kafka or another plan, 5 records are missing or
dead letters were made, 6 stopped before the end: start again with the same --id.""",
)
@config_option
@click.option("--from", "from_ms", type=_Moment(), required=True, help="First record timestamp, inclusive.")
@click.option("--to", "to_ms", type=_Moment(), required=True, help="Last record timestamp, exclusive.")
@click.option("--topic", "topics", multiple=True, help="Only this source topic; may be repeated.")
@click.option("--app", "apps", multiple=True, help="Only this app id, or app id/platform; may be repeated.")
@click.option("--event", "events", multiple=True, help="Only events of this name; may be repeated.")
@click.option("--where", help="Only where this condition of the mapping language holds.")
@click.option("--only-missing", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Leave out event ids that FILE lists: a CSV's first column, or the sandbox's ledger.")  # fmt: skip
@click.option("--rate", type=_Rate(), help="At most so many requests a second.  [default: as settings say]")
@click.option("--max-in-flight", type=click.IntRange(1), help="At most so many requests at once.")
@click.option(
    "--warn-before", type=_Moment(), help="Count events that say they are older.  [default: --from, less a day]"
)
@click.option(
    "--id", "replay_id", help="The replay's name; with the same one it goes on.  [default: made of the times]"
)
@click.option("--dry-run", is_flag=True, help="Read and map all of it, send nothing, show samples.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--json", "as_json", is_flag=True, help="The reconciliation as one line of JSON.")
def command(config: Path | None, *, as_json: bool, yes: bool, **asked: Any) -> None:
    """Send again the events whose records have timestamps from --from to before --to.

    A group of its own, NAME-replay-ID, reads them: the running group's offsets stay untouched. Kochava doesn't know
    an event again: what was delivered before counts twice. Killed and started with the same --id it goes on; further
    processes with the same options share the work.
    """
    from consumer.adapters.kafka_config import admin_conf  # noqa: PLC0415
    from consumer.adapters.kafka_offsets import KafkaOffsets  # noqa: PLC0415
    from consumer.adapters.kafka_replay import keep, plan as make_plan  # noqa: PLC0415
    from consumer.app import run  # noqa: PLC0415
    from consumer.configuration import load  # noqa: PLC0415
    from consumer.replay import ReplayTranslator, reconcile  # noqa: PLC0415

    settings = _narrowed(load(config, os.environ), asked)
    replay = _replay(settings, asked)
    conf = admin_conf(settings, "kochava-consumer")
    if not replay.is_dry:
        _make_topic(settings)
    with KafkaOffsets(conf, replay.group_id) as offsets:
        plan = make_plan(offsets, settings.kafka.topics, replay.span, replay.digest)
        if not replay.is_dry:
            _confirm(plan, replay, yes=yes)
            # a person may think for long: another process may have begun it, or be through with it by now
            plan = make_plan(offsets, settings.kafka.topics, replay.span, replay.digest)
        if plan.is_new:
            keep(offsets, plan, replay.digest)
    with _progress(plan.left) as watch:
        parts = len(plan.parts)
        member = run(settings, replay=dataclasses.replace(replay, partitions=parts, records=plan.left, watch=watch))
    found = reconcile(member.metrics)
    notes = member.translator.notes if isinstance(member.translator, ReplayTranslator) else None
    _tell(found, notes, replay, as_json=as_json)
    if replay.is_dry:
        _forget(conf, replay.group_id)
    if not found.adds_up:
        raise CheckFailedError("the numbers do not add up: this is a bug, please report the table above")
    if not member.is_replayed:
        raise StoppedError(f"stopped before the end: start again with --id {replay.replay_id}, and it goes on")
    if found.dead or found.expired:
        raise CheckFailedError("not every event was sent: see dead and expired above")


def _narrowed(settings: "Settings", asked: dict[str, Any]) -> "Settings":
    """Return *settings* with what the options change."""
    changes: dict[str, dict[str, Any]] = {"delivery": {}, "kafka": {}, "dead_letter": {"max_share": 1.0}}
    if asked["rate"] is not None:
        changes["delivery"]["max_per_s"] = asked["rate"]
    if asked["max_in_flight"] is not None:
        most = asked["max_in_flight"]
        changes["delivery"] |= {"connections": min(most, settings.delivery.connections),
                                "min_connections": min(most, settings.delivery.min_connections)}  # fmt: skip
    if asked["topics"]:
        if unknown := set(asked["topics"]) - set(settings.kafka.topics):
            raise SettingsError([f"--topic {name}: not among kafka.topics" for name in sorted(unknown)])
        changes["kafka"]["topics"] = tuple(asked["topics"])
    return settings.model_copy(
        update={section: getattr(settings, section).model_copy(update=update) for section, update in changes.items()}
    )


def _replay(settings: "Settings", asked: dict[str, Any]) -> "Replay":
    from consumer.core.replay import Selection, Span, digest_of  # noqa: PLC0415
    from consumer.parts import load_spec  # noqa: PLC0415
    from consumer.replay import Replay  # noqa: PLC0415

    span = Span(asked["from_ms"], asked["to_ms"])
    if span.from_ms >= span.to_ms:
        raise click.UsageError("--to must be later than --from")
    selection = Selection(asked["apps"], asked["events"], _condition(asked["where"]))
    replay_id = asked["replay_id"] or f"{_short(span.from_ms)}-{_short(span.to_ms)}"
    if not _ID.fullmatch(replay_id):
        raise click.UsageError("--id: lower case letters, digits, dots, dashes, at most 41")
    is_dry = asked["dry_run"]
    suffix = f"{replay_id}-dry-{time.time_ns() // 1000:x}" if is_dry else replay_id
    spec = load_spec(settings)
    facts = {
        "span": span, "selection": selection, "topics": settings.kafka.topics, "missing": str(asked["only_missing"]),
        "types": spec.types, "lookups": spec.lookups, "event_id": settings.mapping.event_id,
        "endpoint": settings.kochava.endpoint, "apps": {key: app.guid for key, app in settings.kochava.apps.items()},
    }  # fmt: skip
    day_ms = 86_400_000
    return Replay(
        replay_id,
        f"{settings.kafka.group_id}-replay-{suffix}",
        span,
        selection,
        digest_of(facts),
        is_dry=is_dry,
        known=_known(asked["only_missing"]),
        warn_before_ms=span.from_ms - day_ms if asked["warn_before"] is None else asked["warn_before"],
    )


def _short(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y%m%dt%H%M%S")


def _condition(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        condition = tomllib.loads(f"where = {text}")["where"]
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"""--where: write '{{path = "platform", equals = "ios"}}' ({error})""") from None
    if not isinstance(condition, dict):
        raise click.UsageError("""--where: a condition is a table, such as '{path = "platform", equals = "ios"}'""")
    return condition


def _known(path: Path | None) -> Any:
    from consumer.core.known_ids import KnownIds  # noqa: PLC0415

    return None if path is None else KnownIds(_ids(path))


def _ids(path: Path) -> Iterator[str]:
    import csv  # noqa: PLC0415

    import orjson  # noqa: PLC0415

    with path.open(encoding="utf-8", newline="") as file:
        first = file.read(1)
        file.seek(0)
        if first == "{":
            for line in file:
                entry = orjson.loads(line)
                if entry.get("accepted", 1):
                    yield entry["id"]
        else:
            for row in csv.reader(file):
                if row and row[0] not in {"event_id", "id"}:
                    yield row[0]


def _make_topic(settings: "Settings") -> None:
    """Make the topic for a replay's failures, if it isn't there."""
    from consumer.adapters.kafka_admin import KafkaAdmin  # noqa: PLC0415
    from consumer.adapters.kafka_config import admin_conf  # noqa: PLC0415
    from consumer.core.topic_plan import missing  # noqa: PLC0415
    from consumer.replay import own_topics  # noqa: PLC0415

    plan = own_topics(settings.topic_prefix)
    admin = KafkaAdmin(admin_conf(settings, "kochava-consumer"), settings.kafka.group_id)
    facts = admin.facts([*settings.kafka.topics, plan.dead_letter_topic])
    wanted = {new.name: new for new in missing(plan, settings.kafka.topics, facts, partitions=None, replication=None)}
    for name, problem in admin.create([*wanted.values()]).items():
        if problem not in {None, "TOPIC_ALREADY_EXISTS"}:  # another process of this replay was quicker
            raise CheckFailedError(f"cannot create {name}: {problem}")


def _confirm(plan: "Plan", replay: "Replay", *, yes: bool) -> None:
    table = Table("topic", "partition", "from", "to", "records left", box=None, pad_edge=False)
    for part in plan.parts:
        table.add_row(part.partition.topic, *map(str, (part.partition.number, part.at, part.end, part.left)))
    out = Console(stderr=True)
    out.print(table)
    begun = "" if plan.is_new else "It was begun before and goes on. "
    out.print(
        f"{begun}Up to {plan.left:,} records are read, and those from {replay.span} that are selected are sent again. "
        "Kochava doesn't know an event again: what was delivered before counts twice."
    )
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to confirm: add --yes, or --dry-run to look first")
    click.confirm("Send them?", abort=True, err=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[["Seen"], None]]:
    """Show a bar on a terminal; elsewhere the log's progress line says the same."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    bar = Progress(
        TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[per_s]:,.0f}/s"),
        TimeRemainingColumn(), console=Console(stderr=True),
    )  # fmt: skip
    with bar:
        task = bar.add_task("replay", total=total, per_s=0.0)
        began = time.monotonic()

        def watch(seen: "Seen") -> None:
            passed = time.monotonic() - began
            bar.update(task, completed=seen.read, per_s=seen.read / passed if passed else 0.0)

        yield watch


def _tell(found: "Reconciliation", notes: "Notes | None", replay: "Replay", *, as_json: bool) -> None:
    if as_json:
        import orjson  # noqa: PLC0415

        click.echo(orjson.dumps({"replay": replay.replay_id, "dry_run": replay.is_dry, **found.as_json()}).decode())
        return
    out = console()
    table = Table("what became of them", "app or reason", "event", "records", box=None, pad_edge=False)
    table.columns[3].justify = "right"
    sent = "would be sent" if replay.is_dry else "sent"
    for (app, event), count in sorted(found.sent.items()):
        table.add_row(sent, app, event, f"{count:,}")
    for reason, count in sorted(found.filtered.items()):
        table.add_row("filtered", reason, "", f"{count:,}")
    for (reason, app), count in sorted(found.dead.items()):
        table.add_row("dead", f"{reason} {app}", "", f"{count:,}")
    for word, count in (
        ("outside of the times", found.outside), ("not selected", found.not_selected), ("known already", found.known),
        ("settled before", found.skipped), ("expired", found.expired), ("left to whoever goes on", found.unsettled),
    ):  # fmt: skip
        if count:
            table.add_row(word, "", "", f"{count:,}")
    table.add_row("read", "", "", f"{found.read:,}", style="bold")
    out.print(table)
    if notes is not None and notes.old:
        out.print(
            f"{notes.old:,} events say that they are older than --warn-before: Kochava may not take them for recent"
        )
    if notes is not None and replay.is_dry:
        _show_samples(notes)


def _show_samples(notes: "Notes") -> None:
    import orjson  # noqa: PLC0415

    for app, payload in notes.samples:
        click.echo(f"{app}: {orjson.dumps(payload).decode()}")


def _forget(conf: dict[str, Any], group_id: str) -> None:
    """Delete the group of a dry run; one that stays expires by itself."""
    from confluent_kafka import KafkaException  # noqa: PLC0415
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    admin = AdminClient(conf)  # kept: without it nobody answers its futures
    for future in admin.delete_consumer_groups([group_id], request_timeout=10).values():
        try:
            future.result(15)
        except (KafkaException, TimeoutError):
            click.echo(f"the group {group_id} could not be deleted; it expires by itself", err=True)
