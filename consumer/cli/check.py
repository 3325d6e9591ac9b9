"""`kochava-consumer check`: would `run` work? A line for each part, and what to do about those that fail."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import click
from rich.table import Table

from consumer.cli.options import config_option
from consumer.cli.output import console
from consumer.configuration import load
from consumer.errors import CheckFailedError, ConsumerError
from consumer.settings import Settings

REGISTRY_S = 10.0
ENDPOINT_S = 5.0


class Finding(NamedTuple):
    """What one check saw. `fix` is empty when it is well."""

    what: str
    seen: str
    fix: str = ""


@click.command(short_help="Check settings, brokers, topics, registry, mapping and endpoint.")
@config_option
def command(config: Path | None) -> None:
    """Check everything that `run` needs, without reading, sending or changing anything.

    Exits with 3 if the settings are wrong, with 5 if something else is.
    """
    settings = load(config, os.environ)
    findings = [Finding("settings", "well-formed")]
    for what, check in _CHECKS:
        try:
            findings += check(settings)
        except ConsumerError as error:
            findings.append(Finding(what, "failed", str(error)))
    table = Table("check", "seen", "what to do", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(finding.what, finding.seen, finding.fix or "-", style="red" if finding.fix else "green")
    console().print(table)
    if failed := [finding.what for finding in findings if finding.fix]:
        raise CheckFailedError(f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}")


def _check_kafka(settings: Settings) -> Iterator[Finding]:
    from consumer.adapters.kafka_admin import KafkaAdmin  # noqa: PLC0415 - the others work without it
    from consumer.adapters.kafka_config import admin_conf  # noqa: PLC0415
    from consumer.core.retry import RetryPlan  # noqa: PLC0415
    from consumer.core.topic_plan import review  # noqa: PLC0415

    admin = KafkaAdmin(admin_conf(settings, "kochava-consumer"), settings.kafka.group_id)
    plan = RetryPlan.of(settings.topic_prefix, settings.retry.tiers)
    yield Finding("brokers", f"{len(admin.topic_names())} topics visible at {settings.kafka.bootstrap_servers}")
    facts = admin.facts([*settings.kafka.topics, *plan.topics])
    orphans = admin.lag_of_orphans(settings.topic_prefix, plan.topics)
    for line in review(plan, settings.kafka.topics, facts, orphans):
        yield Finding(f"topic {line.name}", f"{line.facts.partitions} partitions" if line.facts else "missing",
                      "; ".join(line.problems))  # fmt: skip


def _check_registry(settings: Settings) -> Iterator[Finding]:
    url = settings.schemas.registry_url
    if url is None:
        yield Finding("schema registry", "none configured, schemas come from files")
        return
    reason = asyncio.run(_ask_registry(settings))
    fix = "" if reason is None else "check schemas.registry_url, user and password or token, and schemas.ca_file"
    yield Finding("schema registry", "answers" if reason is None else reason, fix)


async def _ask_registry(settings: Settings) -> str | None:
    from consumer.adapters.clock import SystemClock  # noqa: PLC0415
    from consumer.parts import make_registry  # noqa: PLC0415

    registry = make_registry(settings, SystemClock())
    assert registry is not None
    try:
        return await registry.probe()
    finally:
        await registry.close()


def _check_mapping(settings: Settings) -> Iterator[Finding]:
    """Hold the mapping against every schema that is known without a registry."""
    from consumer.parts import known_schemas, load_spec  # noqa: PLC0415

    load_spec(settings)
    if settings.schemas.registry_url is not None:
        yield Finding("mapping", "well-formed; held against each schema of the registry when it first comes")
    else:
        yield Finding("mapping", f"fits the {len({*known_schemas(settings).values()})} schemas of the folder")


def _check_endpoint(settings: Settings) -> Iterator[Finding]:
    """Connect, and for https shake hands; nothing is posted."""
    url = urlsplit(settings.kochava.endpoint)
    port = url.port or (443 if url.scheme == "https" else 80)
    place = f"{url.hostname}:{port}"
    if settings.delivery.proxy is not None:
        yield Finding("endpoint", f"{place}, through a proxy: not tried")
        return
    from consumer.adapters.tls import client_context  # noqa: PLC0415

    try:
        with socket.create_connection((url.hostname or "", port), timeout=ENDPOINT_S) as plain:
            if url.scheme == "https":
                with client_context(settings.kochava.ca_file).wrap_socket(plain, server_hostname=url.hostname) as tls:
                    yield Finding("endpoint", f"{place}, {tls.version()}")
                    return
            yield Finding("endpoint", f"{place}, without TLS")
    except OSError as error:
        reason = type(error).__name__ if not isinstance(error, socket.gaierror) else "name not found"
        yield Finding("endpoint", f"{place}: {reason}", "check kochava.endpoint, DNS, the firewall and kochava.ca_file")


_CHECKS: tuple[tuple[str, Callable[[Settings], Iterator[Finding]]], ...] = (
    ("brokers", _check_kafka),
    ("schema registry", _check_registry),
    ("mapping", _check_mapping),
    ("endpoint", _check_endpoint),
)
