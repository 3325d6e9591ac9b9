"""`make chaos SEEDS=200`: schedules of faults against real members and a real Apache Kafka, each judged by the oracle.

A failing seed leaves its history and a timeline behind and says how to run it again.
"""

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.history import History
from tests.chaos.oracle import Verdict, judge
from tests.chaos.picture import draw
from tests.chaos.privacy import told
from tests.chaos.scenario import Scenario
from tests.chaos.wrong import BUILDS
from tests.support.kafka import RealKafka

PROTOCOLS = ("classic", "consumer")


def play(kafka: RealKafka, folder: Path, seed: int, *, seconds: float, wrong: str | None = None) -> History:
    """Run one seed; even seeds use the classic protocol, odd ones KIP-848."""
    return Scenario(kafka, folder, seed, protocol=PROTOCOLS[seed % 2], seconds=seconds, wrong=wrong).play()


def explain(history: History, verdict: Verdict, folder: Path, seed: int, seconds: float) -> str:
    """Write down what happened, and say what is wrong and where to look."""
    history.write(folder / "history.json")
    draw(history, folder / "picture.svg")
    (folder / "timeline.txt").write_text("\n".join(history.timeline()) + "\n")
    shown = "\n".join(f"  {text}" for text in verdict.violations[:10])
    return (
        f"seed {seed}: {len(verdict.violations)} violations\n{shown}\n  history, timeline and picture: {folder}\n"
        f"  again: python -m tests.chaos --first {seed} --seeds 1 --seconds {seconds:g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20, help="how long faults are injected, for each seed")
    parser.add_argument("--wrong", choices=[*BUILDS, "all"], help="builds with a mistake: each must be caught")
    given = parser.parse_args()
    out = Console(width=120)
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    seeds = range(given.first, given.first + given.seeds)
    kafka = RealKafka(root / "kafka").start()
    try:
        if given.wrong:
            builds = [*BUILDS] if given.wrong == "all" else [given.wrong]
            sys.exit(_catch(builds, kafka, root, seeds, given.seconds, out))
        sys.exit(_prove(kafka, root, seeds, given.seconds, out))
    finally:
        kafka.kill()


def _prove(kafka: RealKafka, root: Path, seeds: range, seconds: float, out: Console) -> int:
    produced = accepted = lost = bad = 0
    explained: Counter[str] = Counter()
    per_crash: list[int] = []
    for seed in seeds:
        folder = root / f"seed-{seed}"
        history = play(kafka, folder, seed, seconds=seconds)
        verdict = judge(history)
        verdict.violations += told(folder)
        produced += len(history.produced)
        accepted += sum(post.accepted for post in history.posts)
        lost += verdict.lost
        explained += verdict.explained
        per_crash += verdict.per_crash
        out.print(
            f"seed {seed:4} {PROTOCOLS[seed % 2]:8} events {len(history.produced):6} commits {len(history.commits):5} "
            f"faults {len(history.faults):3} twice {sum(verdict.explained.values()):5} violations "
            f"{len(verdict.violations)}", highlight=False,
        )  # fmt: skip
        if verdict.violations:
            bad += 1
            out.print(explain(history, verdict, folder, seed, seconds), highlight=False)
    table = Table("measure", "value", box=None, title=f"{len(seeds)} seeds, {seeds.start} to {seeds.stop - 1}")
    for name, value in {"events produced": produced, "POSTs accepted": accepted, "lost": lost, "seeds that failed": bad,
                        "crashes": len(per_crash)}.items():  # fmt: skip
        table.add_row(name, str(value))
    if per_crash:
        table.add_row("sent twice per crash, p50 / max", f"{statistics.median(per_crash):g} / {max(per_crash)}")
    for reason, count in explained.most_common():
        table.add_row(f"sent twice: {reason}", str(count))
    out.print(table)
    return 5 if bad else 0


def _catch(builds: list[str], kafka: RealKafka, root: Path, seeds: range, seconds: float, out: Console) -> int:
    missed = []
    for build in builds:
        for seed in seeds:
            verdict = judge(play(kafka, root / f"{build}-{seed}", seed, seconds=seconds, wrong=build))
            if verdict.violations:
                out.print(f"{build}: caught by seed {seed}: {verdict.violations[0]}", highlight=False)
                break
        else:
            missed.append(build)
            out.print(f"{build}: NOT caught by {len(seeds)} seeds", highlight=False)
    return 5 if missed else 0


if __name__ == "__main__":
    main()
