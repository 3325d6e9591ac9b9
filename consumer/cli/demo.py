"""`kochava-consumer demo`: see the whole job, with a crash in it."""

import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from consumer.errors import CheckFailedError

if TYPE_CHECKING:
    from consumer.sandbox.demo import Account, Now


@click.command(short_help="The whole job in a minute: embedded broker, sandbox, a crash, a ledger.")
@click.option("--events", default=20_000, show_default=True, type=click.IntRange(100, 200_000), help="How many.")
@click.option("--kafka", metavar="HOST:PORT", help="Use this broker, topics of its own.  [default: an embedded one]")
@click.option("--seed", default=1, show_default=True, help="Of everything random.")
def command(events: int, kafka: str | None, seed: int) -> None:
    """Produce in-app events, deliver them to a stand-in Kochava, kill the consumer in the middle, and count.

    Some events cannot be decoded or mapped, some are refused, some succeed only on a second try. Exits with 0 only if
    every event was delivered or is a dead letter; else with 5.
    """
    from consumer.sandbox.demo import Demo  # noqa: PLC0415 - `--help` must not load Kafka

    console = Console()
    broker = kafka or "an embedded broker"
    console.print(f"{events:,} events of three apps on four platforms, on {broker}; seed {seed}")
    if sys.stdout.isatty():
        with Live(console=console, refresh_per_second=8, transient=True) as live:
            account = Demo(events, kafka, seed, lambda now: live.update(_view(now, events))).run()
    else:
        told: list[str] = []

        def tell(now: "Now") -> None:
            if now.state not in told:
                told.append(now.state)
                console.print(f"  {now.state}: {now.delivered:,} delivered, {now.dead_letters:,} dead letters")

        account = Demo(events, kafka, seed, tell).run()
    _print(console, account)
    if not account.balances:
        raise CheckFailedError(f"the ledger does not balance: {_first(account)}")
    if account.exit_code != 0:
        raise CheckFailedError(f"the consumer ended with exit code {account.exit_code}")


def _view(now: "Now", events: int) -> Table:
    view = Table.grid(padding=(0, 2))
    view.add_row("consumer", now.state)
    view.add_row("produced", f"{now.produced:,}", ProgressBar(events, now.produced, width=40))
    view.add_row("delivered", f"{now.delivered:,}", ProgressBar(events, now.delivered, width=40))
    view.add_row("dead letters", f"{now.dead_letters:,}")
    view.add_row("duplicates", f"{now.duplicates:,}")
    return view


def _print(console: Console, account: "Account") -> None:
    console.print()
    ledger = Table(box=None, show_header=False, pad_edge=False)
    ledger.add_column(justify="right")
    ledger.add_column()
    ledger.add_row(f"{account.produced:,}", "produced")
    ledger.add_row(f"{account.delivered:,}", "delivered")
    ledger.add_row(f"{account.dead:,}", "dead letters")
    ledger.add_row(f"{len(account.lost):,}", "lost")
    ledger.add_row(f"{account.duplicates:,}", "duplicates" + _explain(account))
    console.print(ledger)
    console.print()
    reasons = Table("stage", "reason", "count", "for example", box=None, pad_edge=False)
    for (stage, reason), (count, first) in sorted(account.reasons.items()):
        reasons.add_row(stage, reason, str(count), first)
    console.print(reasons)
    console.print(f"\n{account.seconds:.0f} s, with one SIGKILL in the middle")


def _explain(account: "Account") -> str:
    parts = [f"{count:,} {why}" for why, count in account.explained.most_common()]
    return f" ({', '.join(parts)})" if parts else ""


def _first(account: "Account") -> str:
    for what, ids in (("lost", account.lost), ("both", account.both), ("not where it belongs", account.unexpected)):
        if ids:
            return f"{len(ids)} {what}, such as {ids[0]}"
    return f"{account.produced} produced, {account.delivered} delivered and {account.dead} dead letters"
