"""`make soak MINUTES=60`: does anything grow, is anything lost, in a long life with faults? Writes a page with plots.

One member lives through all of it, a second comes and goes, events arrive at a steady rate on a real Apache Kafka. Ends
with 5 if a measure grows, an event is lost or sent again without a reason, or the system does not come back.
"""

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.oracle import Verdict, judge
from tests.chaos.world import OneNode
from tests.soak.judge import Finding, judge_all
from tests.soak.page import HEADS, account, facts, page, problems, recovery_rows, verdict_rows
from tests.soak.plots import draw, svg
from tests.soak.run import BROKER_SESSION_MS, Run, Soak

LINE_EVERY_S = 30


def play(
    folder: Path, *, seconds: float, rate: float, seed: int, protocol: str, tell: Callable[[float, str], None]
) -> Run:
    """Run it on a broker of its own, which it hurts."""
    world = OneNode(folder, {"broker.session.timeout.ms": BROKER_SESSION_MS})
    try:
        return Soak(world, folder / "run", seed, seconds=seconds, rate=rate, protocol=protocol, tell=tell).soak()
    finally:
        world.close()


def write(run: Run, verdict: Verdict, findings: list[Finding], folder: Path) -> Path:
    """Write the page, its picture, and the samples; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw(run, findings)
    figure.savefig(folder / "soak.png", dpi=90)
    path = folder / "soak.html"
    path.write_text(page(run, verdict, findings, svg(figure)))
    names = sorted({name for sample in run.samples for name in sample.values})
    with (folder / "samples.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["at_ms", *names])
        rows.writeheader()
        rows.writerows({"at_ms": sample.at_ms, **sample.values} for sample in run.samples)
    if verdict.violations:
        run.history.write(folder / "history.json")
        (folder / "timeline.txt").write_text("\n".join(run.history.timeline()) + "\n")
    return path


@contextmanager
def progress(out: Console, seconds: float) -> Iterator[Callable[[float, str], None]]:
    """Show how far it is: a bar on a terminal, else a line now and then."""
    if not out.is_terminal:
        told = -float(LINE_EVERY_S)

        def line(passed: float, text: str) -> None:
            nonlocal told
            if passed - told >= LINE_EVERY_S:
                told = passed
                out.print(f"{passed:5.0f} of {seconds:.0f} s  {text}", highlight=False)

        yield line
        return
    columns = (BarColumn(30), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=out) as bar:
        task = bar.add_task("starting", total=seconds)
        yield lambda passed, text: bar.update(task, completed=passed, description=text)


def show(out: Console, run: Run, verdict: Verdict, findings: list[Finding]) -> None:
    """Print the verdict table, the account, and the faults."""
    table = Table(*HEADS, box=None, title="does anything grow?", title_justify="left")
    for row in verdict_rows(findings):
        table.add_row(*row)
    out.print(table)
    table = Table("", "", box=None, show_header=False, title="what became of the events", title_justify="left")
    for name, value in {**account(run, verdict), **facts(run)}.items():
        table.add_row(name, value)
    out.print(table)
    table = Table("fault", "times", "took", "back after, median", "at most", box=None)
    for row in recovery_rows(run):
        table.add_row(*row)
    out.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=500, help="events per second")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule of faults")
    parser.add_argument("--protocol", choices=["classic", "consumer"], default="classic")
    parser.add_argument("--out", type=Path, help="where the page is written; a new temporary folder by default")
    given = parser.parse_args()
    out = Console(width=None if sys.stdout.isatty() else 120)
    folder = given.out or Path(tempfile.mkdtemp(prefix="soak-"))
    seconds = given.minutes * 60
    with tempfile.TemporaryDirectory(prefix="soak-run-") as scratch, progress(out, seconds) as tell:
        run = play(Path(scratch), seconds=seconds, rate=given.rate, seed=given.seed, protocol=given.protocol, tell=tell)
    began = time.monotonic()
    verdict = judge(run.history)
    findings = judge_all(run.samples, run.judged)
    path = write(run, verdict, findings, folder)
    show(out, run, verdict, findings)
    wrong = problems(run, verdict, findings)
    for text in wrong[:20]:
        out.print(f"[red]{text}", highlight=False)
    out.print(f"judged in {time.monotonic() - began:.0f} s; the page: {path}", highlight=False, soft_wrap=True)
    sys.exit(5 if wrong else 0)


if __name__ == "__main__":
    main()
