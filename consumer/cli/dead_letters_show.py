"""`kochava-consumer dead-letters show`: one dead letter, and what today's configuration makes of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from consumer.cli.dead_letters_options import TOPICS, address, iso, printable
from consumer.cli.options import config_option
from consumer.cli.output import console
from consumer.errors import CheckFailedError

if TYPE_CHECKING:
    from rich.console import Console

    from consumer.cli.dead_letters_desk import Desk
    from consumer.core.dead_letters import Place
    from consumer.core.record import Record
    from consumer.dead_letters import Seen


@click.command(
    short_help="Show one, values masked, and what today's configuration makes of it.",
    epilog="""\b
Examples:
  kochava-consumer dead-letters show in-app-events.kochava.dead-letter/0/17
  kochava-consumer dead-letters show --origin in-app-events/0/1234
  kochava-consumer dead-letters show --origin in-app-events/0/1234 --topic held
  kochava-consumer dead-letters show --origin in-app-events/0/1234 --reveal    with all it holds: personal data""",
)
@config_option
@click.argument("place", callback=address, required=False, metavar="[TOPIC/PARTITION/OFFSET]")
@click.option("--origin", callback=address, metavar="TOPIC/PARTITION/OFFSET", help="Where the record came from.")
@click.option(
    "--topic",
    type=click.Choice(TOPICS),
    default="dead-letter",
    show_default=True,
    help="Where --origin is looked for.",
)
@click.option("--reveal", is_flag=True, help="Show the values, device ids included.")  # fmt: skip
def show(config: Path | None, place: "Place | None", origin: "Place | None", topic: str, *, reveal: bool) -> None:
    """Show a record of the dead-letter or held topic: where it came from, why it is here, and what it holds.

    Every value is masked but event name, app, platform and time; what is missing shows as null. With --origin, all that
    came from there and were not redriven.
    """
    from consumer.cli.dead_letters_desk import Desk  # noqa: PLC0415 - `--help` must be quick

    if (place is None) == (origin is None):
        raise click.UsageError("say which: TOPIC/PARTITION/OFFSET on the topic, or --origin")
    with Desk(config, topic) as desk:
        records = [_at(desk, place)] if place is not None else _from(desk, origin)
        out = console()
        for seen in desk.examiner.examine(records, decode_all=True):
            _print(out, desk, seen, reveal=reveal)


def _at(desk: "Desk", place: "Place") -> "Record":
    from consumer.dead_letters import read_places  # noqa: PLC0415 - `--help` must be quick

    if place.topic not in desk.topics:
        raise click.UsageError(
            f"{place.topic} is neither {' nor '.join(desk.topics)}; --origin looks for what came from there"
        )
    span = desk.reader.spans(place.topic).get(place.partition)
    found = span is not None and span.start <= place.offset < span.end
    record = next(read_places(desk.reader, place.topic, {place}), None) if found else None
    if record is None:
        raise CheckFailedError(f"{place}: there is no record")
    if record.value is None:
        raise CheckFailedError(f"{place}: a marker of ours, no event")
    return record


def _from(desk: "Desk", origin: "Place | None") -> "list[Record]":
    from consumer.core.dead_letters import Selection  # noqa: PLC0415 - `--help` must be quick
    from consumer.dead_letters import read_places  # noqa: PLC0415

    assert origin is not None
    found = desk.scan(Selection(origins=frozenset({origin})), decode=False)
    if not found.letters:
        raise CheckFailedError(f"nothing on {desk.topic} came from {origin}, or it was redriven")
    return list(read_places(desk.reader, desk.topic, {letter.place for letter in found.letters}))


def _print(out: "Console", desk: "Desk", seen: "Seen", *, reveal: bool) -> None:
    from consumer.appraisal import why_not  # noqa: PLC0415 - `--help` must be quick
    from consumer.cli.dead_letters_content import event_of, headers_of, payload_of  # noqa: PLC0415

    letter = seen.letter
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("record", Text(str(letter.place), style="bold"))
    facts.add_row("given up", iso(letter.time_ms))
    facts.add_row("origin", Text(str(letter.origin)))
    facts.add_row("fingerprint", letter.cause.fingerprint)
    for name, value in headers_of(seen.record, reveal=reveal):
        facts.add_row(Text(printable(name)), Text(printable(value)))
    out.print(facts)
    _print_part(out, "the event", event_of(desk, seen, reveal=reveal), "cannot be decoded")
    verdict = None if seen.decoded is None else desk.judge(seen.decoded)
    reason = letter.cause.reason if verdict is None else why_not(verdict)
    _print_part(out, "today it would be sent as", payload_of(desk, seen, verdict, reveal=reveal), f"not sent: {reason}")
    out.print()


def _print_part(out: "Console", title: str, content: Any, otherwise: str) -> None:
    if content is None:
        out.print(Text(f"{title}: ", style="bold").append(otherwise, style="red"))
        return
    import orjson  # noqa: PLC0415 - `--help` must not load what it doesn't use

    out.print(Text(title, style="bold"))
    out.print_json(orjson.dumps(content).decode())
