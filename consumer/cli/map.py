"""`kochava-consumer map`: one record in, the payload or the reason out."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from consumer.cli.options import config_option
from consumer.errors import CheckFailedError, MappingError

if TYPE_CHECKING:
    from consumer.core.record import Record
    from consumer.settings import Settings


@click.command(
    short_help="Show what becomes of one record: the payload, or why there is none.",
    epilog="""\b
Examples:
  kochava-consumer map in-app-events/0/1234        a record of the configured brokers
  kochava-consumer map event.avro                  the bytes of one record's value
  kochava-consumer map - < event.avro""",
)
@config_option
@click.argument("record", metavar="FILE|-|TOPIC/PARTITION/OFFSET")
def command(config: Path | None, record: str) -> None:
    """Decode and map one RECORD as `run` would, and print the request.

    The output holds what the record holds, device ids included. Exits with 5 if the record would not be sent.
    """
    from consumer.adapters.clock import SystemClock  # noqa: PLC0415 - `--help` must be quick
    from consumer.configuration import load  # noqa: PLC0415
    from consumer.core.record import Record  # noqa: PLC0415
    from consumer.parts import make_decoder, make_registry, make_translator  # noqa: PLC0415
    from consumer.ports import Apart, SchemaNeeded  # noqa: PLC0415
    from consumer.translate import Filtered, Held, Prepared, Refused, Step  # noqa: PLC0415

    settings = load(config, os.environ)
    path = Path(record)
    if record == "-":
        source = Record("-", 0, 0, -1, None, sys.stdin.buffer.read())
    elif path.is_file():
        source = Record(path.name, 0, 0, -1, None, path.read_bytes())
    else:
        source = _fetch_record(settings, record)

    async def translate() -> Step:
        clock = SystemClock()
        registry = make_registry(settings, clock)
        decoder = make_decoder(settings, clock, registry)
        translator = make_translator(settings, decoder, _print_misfit)
        try:
            step = translator.translate(source)
            if isinstance(step, SchemaNeeded):
                click.echo("waiting for the schema registry ...", err=True)
                await decoder.fetch(step.reference)
                step = translator.translate(source)
            if isinstance(step, Apart):
                step = translator.go_on(await decoder.decode_apart(step.work))
        finally:
            await decoder.close()
            if registry is not None:
                await registry.close()
        return step

    step = asyncio.run(translate())
    match step:
        case Prepared():
            console = Console()
            for name, value in step.request.headers:
                console.print(f"{name}: {'********' if name.lower().startswith('kochava-') else value}", markup=False)
            console.print_json(step.request.body.decode())
            for warning in step.warnings:
                click.echo(f"note: {warning}", err=True)
            click.echo(f"would be sent for app {step.app}", err=True)
        case Filtered():
            raise CheckFailedError(f"filtered: {step.reason}")
        case Refused():
            raise CheckFailedError(f"dead letter at stage {step.stage}: {step.reason}")
        case Held():
            raise CheckFailedError(f"held: {step.reason}")
        case SchemaNeeded() | Apart():
            raise CheckFailedError("the schema is still not here")


def _print_misfit(error: MappingError) -> None:
    for problem in error.problems:
        click.echo(f"note: {problem}", err=True)


def _fetch_record(settings: "Settings", address: str) -> "Record":
    from consumer.adapters.kafka_admin import KafkaAdmin  # noqa: PLC0415
    from consumer.adapters.kafka_config import admin_conf  # noqa: PLC0415

    match address.rsplit("/", 2):
        case [topic, partition, offset] if partition.isdecimal() and offset.isdecimal():
            admin = KafkaAdmin(admin_conf(settings, "kochava-consumer"), settings.kafka.group_id)
            return admin.fetch(topic, int(partition), int(offset))
    raise click.BadParameter(
        f"{address!r} is neither a file nor TOPIC/PARTITION/OFFSET, such as in-app-events/0/1234", param_hint="RECORD"
    )
