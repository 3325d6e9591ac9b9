"""Options and words that several of the `dead-letters` commands share."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from consumer.core.duration import parse_duration_s

if TYPE_CHECKING:
    from consumer.core.dead_letters import Place, Selection


def moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Return epoch milliseconds, from a date and time or from how long ago it was."""
    if value is None:
        return None
    ago_s = parse_duration_s(value)
    if ago_s is not None:
        return round((time.time() - ago_s) * 1000)
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither a time, such as 2026-11-01T12:00, nor an age, such as 2h"
        ) from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def address(_ctx: click.Context, _param: click.Parameter, value: str | None) -> "Place | None":
    """Return the place that TOPIC/PARTITION/OFFSET names."""
    from consumer.core.dead_letters import Place  # noqa: PLC0415 - `--help` must be quick

    place = None if value is None else Place.parse(value)
    if value is not None and place is None:
        raise click.BadParameter(f"{value!r} is not TOPIC/PARTITION/OFFSET, such as in-app-events/0/1234")
    return place


def addresses(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> "frozenset[Place]":
    return frozenset(place for value in values if (place := address(ctx, param, value)) is not None)


TOPICS = ("dead-letter", "replay", "held")
"""The running group's dead letters, those of replays, and what waits for its app's lane."""
_SELECTION = (
    click.option("--topic", type=click.Choice(TOPICS[:2]), default=TOPICS[0], show_default=True,
                 help="Those of the running group, or of replays."),
    click.option("--fingerprint", "fingerprints", multiple=True, metavar="F", help="Of `list`. Repeatable."),
    click.option("--origin", "origins", multiple=True, callback=addresses, metavar="TOPIC/PARTITION/OFFSET",
                 help="Where the record came from. Repeatable."),
    click.option("--since", callback=moment, metavar="T", help="Given up then or later: a time (UTC) or an age (2h)."),
    click.option("--until", callback=moment, metavar="T", help="Given up before then."),
    click.option("--all", "everything", is_flag=True, help="All dead letters."),
)  # fmt: skip


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SELECTION):
        command = option(command)
    return command


def selection_of(options: dict[str, Any]) -> "Selection":
    """Take the options of `selection_options` out of *options*.

    Raises:
        click.UsageError: nothing is selected, or all and yet not all.
    """
    from consumer.core.dead_letters import Selection  # noqa: PLC0415 - `--help` must be quick

    everything = options.pop("everything")
    fingerprints, origins = frozenset(options.pop("fingerprints")), options.pop("origins")
    since, until = options.pop("since"), options.pop("until")
    is_narrowed = bool(fingerprints or origins or since is not None or until is not None)
    if everything == is_narrowed:
        raise click.UsageError("say which: --fingerprint, --origin, --since, --until, or --all alone")
    return Selection(fingerprints, origins, since, until)


def iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(max(0, milliseconds) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def printable(text: str) -> str:
    """Return *text* of an event so that it can do nothing to a terminal."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:80])
