"""`kochava-consumer dead-letters export`: the selected ones as a file, for people and programs of your own."""

import os
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from consumer.cli.dead_letters_options import iso, selection_of, selection_options
from consumer.cli.options import config_option
from consumer.errors import CheckFailedError

if TYPE_CHECKING:
    from consumer.cli.dead_letters_desk import Desk
    from consumer.core.dead_letters import DeadLetter, Place
    from consumer.core.record import Record
    from consumer.dead_letters import Seen

AVRO_SCHEMA: dict[str, Any] = {
    "type": "record", "name": "DeadLetter", "namespace": "kochava.consumer",
    "fields": [
        *({"name": name, "type": kind} for name, kind in (
            ("topic", "string"), ("partition", "int"), ("offset", "long"),
            ("timestamp", {"type": "long", "logicalType": "timestamp-millis"}),
            ("origin_topic", "string"), ("origin_partition", "int"), ("origin_offset", "long"),
            ("fingerprint", "string"), ("stage", "string"), ("reason", "string"), ("status", ["null", "int"]),
            ("key", ["null", "bytes"]), ("value", "bytes"))),
        {"name": "headers", "type": {"type": "array", "items": {
            "type": "record", "name": "Header",
            "fields": [{"name": "name", "type": "string"}, {"name": "value", "type": ["null", "bytes"]}]}}},
    ],
}  # fmt: skip
"""Of `--format avro`; `value` has the bytes of the event as the producer wrote them."""


@click.command(
    short_help="Write the selected ones to a file, masked unless --reveal.",
    epilog="""\b
Examples:
  kochava-consumer dead-letters export --all -                              JSON lines, masked
  kochava-consumer dead-letters export --fingerprint 3f9a0c51d2e7 some.jsonl
  kochava-consumer dead-letters export --all --format avro --reveal all.avro  bytes, keys and headers: personal data""",
)
@config_option
@selection_options
@click.option("--format", "file_format", type=click.Choice(["jsonl", "avro"]), default="jsonl", show_default=True)
@click.option("--reveal", is_flag=True, help="With all they hold, device ids included; the file is for its owner only.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), metavar="FILE|-")
def export(config: Path | None, *, file_format: str, reveal: bool, file: Path, **options: Any) -> None:
    """Write dead letters as JSON lines, or as an Avro container file with the bytes of each record.

    Masked as `show` masks. With --reveal, a JSON line has key, value and headers in base64, too. FILE appears when it
    is complete.
    """
    from consumer.cli.dead_letters_desk import Desk  # noqa: PLC0415 - `--help` must be quick

    selection = selection_of(options)
    if file_format == "avro" and not reveal:
        raise click.UsageError("--format avro holds the bytes of the events, which cannot be masked: add --reveal")
    with Desk(config, options["topic"]) as desk:
        found = {letter.place: letter for letter in desk.scan(selection).letters}
        with _opened(file) as out:
            if file_format == "avro":
                _write_avro(desk, found, out)
            else:
                _write_lines(desk, found, out, reveal=reveal)
    click.echo(f"{len(found):,} exported", err=True)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open *file*, for its owner only, under another name until all is in it."""
    if str(file) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    fresh = file.with_name(f"{file.name}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            yield out
        fresh.replace(file)
    except OSError as error:
        raise CheckFailedError(f"cannot write {file}: {error.strerror}") from None
    finally:
        with suppress(OSError):  # nothing is left of one that ended in the middle
            fresh.unlink(missing_ok=True)


def _records(desk: "Desk", found: "dict[Place, DeadLetter]") -> "Iterator[Record]":
    from consumer.cli.dead_letters_desk import progress  # noqa: PLC0415 - `--help` must be quick
    from consumer.dead_letters import read_places  # noqa: PLC0415

    with progress("exporting", len(found)) as advance:
        for record in read_places(desk.reader, desk.topic, found.keys()):
            yield record
            advance(1)


def _write_avro(desk: "Desk", found: "dict[Place, DeadLetter]", out: BinaryIO) -> None:
    from fastavro import parse_schema, writer  # noqa: PLC0415 - `--help` must be quick

    def datum(record: "Record") -> dict[str, Any]:
        letter = found[record.topic, record.partition, record.offset]  # type: ignore[index] # a place is such a tuple
        origin, cause = letter.origin, letter.cause
        return {
            "topic": record.topic, "partition": record.partition, "offset": record.offset,
            "timestamp": record.timestamp_ms, "origin_topic": origin.topic, "origin_partition": origin.partition,
            "origin_offset": origin.offset, "fingerprint": cause.fingerprint, "stage": cause.stage,
            "reason": cause.reason, "status": cause.status, "key": record.key, "value": record.value,
            "headers": [{"name": name, "value": value} for name, value in record.headers],
        }  # fmt: skip

    writer(out, parse_schema(AVRO_SCHEMA), map(datum, _records(desk, found)), codec="deflate")


def _write_lines(desk: "Desk", found: "dict[Place, DeadLetter]", out: BinaryIO, *, reveal: bool) -> None:
    import orjson  # noqa: PLC0415 - `--help` must not load what it doesn't use

    for record in _records(desk, found):
        for seen in desk.examiner.examine([record], decode_all=True):
            line = _line(desk, seen, reveal=reveal)
            out.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def _line(desk: "Desk", seen: "Seen", *, reveal: bool) -> dict[str, Any]:
    from consumer.cli.dead_letters_content import event_of  # noqa: PLC0415 - `--help` must be quick

    letter, record = seen.letter, seen.record
    line = {
        "record": str(letter.place),
        "given_up": iso(letter.time_ms),
        "origin": str(letter.origin),
        "fingerprint": letter.cause.fingerprint,
        **letter.cause._asdict(),
        "redrive_count": letter.redrive_count,
        "may_count_twice": letter.may_count_twice,
        "datum": event_of(desk, seen, reveal=reveal),
    }
    if reveal:
        line["key"] = None if record.key is None else b64encode(record.key).decode()
        line["value"] = b64encode(record.value or b"").decode()
        line["headers"] = [
            [name, None if value is None else b64encode(value).decode()] for name, value in record.headers
        ]
    return line
