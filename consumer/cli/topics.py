"""`kochava-consumer topics`: which topics are needed, whether they will keep records, and making those that miss."""

import os
from pathlib import Path

import click
from rich.table import Table

from consumer.cli.options import config_option
from consumer.cli.output import console
from consumer.errors import CheckFailedError


@click.command(short_help="Show, check and create the retry, held and dead-letter topics.")
@config_option
@click.option("--create", is_flag=True, help="Create the topics of ours that are missing.")
@click.option("--partitions", type=click.IntRange(1), help="Partitions of new topics.  [default: as the source has]")
@click.option("--replication", type=click.IntRange(1), help="Replicas of new topics.  [default: as the source has]")
def command(config: Path | None, *, create: bool, partitions: int | None, replication: int | None) -> None:
    """Show the topics that settings ask for, and what is wrong with them.

    Checks partitions, retention against the longest tier, cleanup.policy, max.message.bytes and replication, and finds
    retry topics with records that no configured tier reads. Exits with 5 if something is wrong.
    """
    from consumer.adapters.kafka_admin import KafkaAdmin  # noqa: PLC0415 - `--help` must not load Kafka
    from consumer.adapters.kafka_config import admin_conf  # noqa: PLC0415
    from consumer.configuration import load  # noqa: PLC0415
    from consumer.core.retry import RetryPlan  # noqa: PLC0415
    from consumer.core.topic_plan import missing, review  # noqa: PLC0415

    settings = load(config, os.environ)
    out = console()
    plan = RetryPlan.of(settings.topic_prefix, settings.retry.tiers)
    admin = KafkaAdmin(admin_conf(settings, "kochava-consumer"), settings.kafka.group_id)
    names = [*settings.kafka.topics, *plan.topics]
    if create:
        wanted = missing(
            plan, settings.kafka.topics, admin.facts(names), partitions=partitions, replication=replication
        )
        failed = {name: problem for name, problem in admin.create(wanted).items() if problem is not None}
        if failed:
            raise CheckFailedError("\n".join(f"cannot create {name}: {problem}" for name, problem in failed.items()))
        for new in wanted:
            out.print(f"created {new.name}: {new.partitions} partitions, {new.replication} replicas")
    lines = review(
        plan,
        settings.kafka.topics,
        admin.facts(names),
        admin.lag_of_orphans(settings.topic_prefix, plan.topics),
    )
    table = Table(
        "topic", "role", "partitions", "replicas", "retention", "max bytes", "state", box=None, pad_edge=False
    )
    for line in lines:
        facts = line.facts
        state = "; ".join((*line.problems, *(f"note: {text}" for text in line.warnings))) or "ok"
        table.add_row(
            line.name,
            line.role,
            *((str(facts.partitions), str(facts.replication), _days(facts.retention_ms), str(facts.max_message_bytes))
              if facts else ("-", "-", "-", "-")),
            state,
            style="red" if line.problems else None,
        )  # fmt: skip
    out.print(table)
    if wrong := [line.name for line in lines if line.problems]:
        raise CheckFailedError(f"{len(wrong)} of {len(lines)} topics are not as they must be: {', '.join(wrong)}")


def _days(milliseconds: int) -> str:
    if milliseconds < 0:
        return "for ever"
    hours = milliseconds / 3_600_000
    return f"{hours / 24:g} d" if hours >= 48 else f"{hours:g} h"
