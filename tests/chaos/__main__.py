"""`make chaos SEEDS=200`: schedules of faults against real members and a real Apache Kafka, each judged by the oracle.

A failing seed leaves its history and a timeline behind and says how to run it again.
"""

import argparse
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.chaos.faults import CATALOGUE
from tests.chaos.history import History
from tests.chaos.oracle import Verdict, judge
from tests.chaos.picture import draw
from tests.chaos.privacy import told
from tests.chaos.results import Result, append, read, table, write_into
from tests.chaos.scenario import Scenario
from tests.chaos.world import WORLDS, World
from tests.chaos.wrong import BUILDS, SIMULATED
from tests.support.kafka import ROOT

PROTOCOLS = ("classic", "consumer")
PAGE = ROOT / "docs" / "reliability.md"
MIX = ("one", "one", "three", "embedded")
"""Which worlds seeds are played in by turns, pairs of seeds each, so that both protocols meet each."""


def play(world: World, folder: Path, seed: int, *, seconds: float, wrong: str | None = None) -> History:
    """Run one seed; even seeds use the classic protocol, odd ones KIP-848."""
    return Scenario(world, folder, seed, protocol=PROTOCOLS[seed % 2], seconds=seconds, wrong=wrong).play()


def explain(history: History, verdict: Verdict, folder: Path, seed: int, seconds: float, world: str = "one") -> str:
    """Write down what happened, and say what is wrong and where to look."""
    history.write(folder / "history.json")
    if history.produced:
        draw(history, folder / "picture.svg")
    (folder / "timeline.txt").write_text("\n".join(history.timeline()) + "\n")
    shown = "\n".join(f"  {text}" for text in verdict.violations[:10])
    return (
        f"seed {seed}: {len(verdict.violations)} violations\n{shown}\n  history, timeline and picture: {folder}\n"
        f"  again: python -m tests.chaos --first {seed} --seeds 1 --seconds {seconds:g} --world {world}"
    )


def world_of(seed: int) -> str:
    return MIX[seed // 2 % len(MIX)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20, help="how long faults are injected, for each seed")
    parser.add_argument("--world", choices=[*WORLDS, "mix"], default="mix", help="the brokers (default: by turns)")
    parser.add_argument("--jobs", type=int, default=1, help="so many seeds at a time, each on brokers of its own")
    parser.add_argument("--results", type=Path, help="append a line for each seed to this file")
    parser.add_argument("--write", action="store_true", help="write the table of --results into docs/reliability.md")
    parser.add_argument("--wrong", choices=[*BUILDS, "all"], help="builds with a mistake: each must be caught")
    parser.add_argument("--judge", type=Path, metavar="HISTORY", help="judge a history.json again")
    parser.add_argument("--list", action="store_true", help="show the catalogue of faults and the worlds they run in")
    given = parser.parse_args()
    out = Console(width=120)
    if given.list:
        _list(out)
        return
    if given.judge:
        sys.exit("\n".join(judge(History.read(given.judge)).violations) or 0)
    seeds = [
        (seed, given.world if given.world != "mix" else world_of(seed))
        for seed in range(given.first, given.first + given.seeds)
    ]
    if given.wrong:
        builds = [*BUILDS] if given.wrong == "all" else [given.wrong]
        sys.exit(_catch(builds, seeds, given.seconds, given.jobs, out))
    sys.exit(_prove(seeds, given, out))


def _prove(seeds: Sequence[tuple[int, str]], given: argparse.Namespace, out: Console) -> int:
    results: list[Result] = []
    for result, explanation in _results(seeds, given.seconds, given.jobs):
        results.append(result)
        out.print(result.line(), highlight=False)
        if explanation:
            out.print(explanation, highlight=False)
        if given.results:
            append(given.results, result)
    shown = Table("measure", "value", box=None)
    for name, value in table(results):
        shown.add_row(name.strip("*"), value)
    out.print(shown)
    if given.results and given.write:
        write_into(PAGE, read(given.results))
    return 5 if any(result.violations for result in results) else 0


def _results(seeds: Sequence[tuple[int, str]], seconds: float, jobs: int) -> Iterator[tuple[Result, str]]:
    """Play *seeds*, world by world: brokers take long to start, and a process of the pool keeps those it has."""
    with ProcessPoolExecutor(jobs) as pool:
        played = [pool.submit(_play_one, *each, seconds) for each in sorted(seeds, key=lambda each: each[1])]
        for one in track(as_completed(played), "schedules", total=len(played), console=Console(stderr=True)):
            yield one.result()


_WORLD: dict[str, World] = {}
"""The world of this process, and the folder of its runs."""


def _play_one(seed: int, name: str, seconds: float) -> tuple[Result, str]:
    """Play a seed in a process of the pool; an explanation comes with what failed."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-{name}-"))
    try:
        history = play(_world(name), folder, seed, seconds=seconds)
        verdict = judge(history)
        verdict.violations += told(folder)
    except Exception as error:
        history, verdict = History("", "", 0, 0), Verdict([f"not judged: {error!r}", traceback.format_exc()])
        _WORLD.popitem()[1].close()
    explanation = explain(history, verdict, folder, seed, seconds, name) if verdict.violations else ""
    return Result.of(seed, name, PROTOCOLS[seed % 2], history, verdict), explanation


def _world(name: str) -> World:
    if name not in _WORLD:
        for other in [*_WORLD.values()]:
            other.close()
        _WORLD.clear()
        _WORLD[name] = WORLDS[name](Path(tempfile.mkdtemp(prefix=f"chaos-{name}-")))
    return _WORLD[name]


def _catch(builds: Sequence[str], seeds: Sequence[tuple[int, str]], seconds: float, jobs: int, out: Console) -> int:
    missed = []
    with ProcessPoolExecutor(jobs) as pool:
        hunts = {pool.submit(_hunt, build, seeds, seconds): build for build in builds}
        for hunt in as_completed(hunts):
            found = hunt.result()
            out.print(f"{hunts[hunt]}: {found or f'NOT caught by {len(seeds)} seeds'}", highlight=False)
            if not found:
                missed.append(hunts[hunt])
    return 5 if missed else 0


def _hunt(build: str, seeds: Sequence[tuple[int, str]], seconds: float) -> str:
    """Play *seeds* in a process of the pool until one shows that *build* is wrong; say which, and how."""
    if build in SIMULATED:
        return _hunt_in_simulation(build, first=seeds[0][0], count=len(seeds) * SIMULATED_FOR_ONE)
    _, caught_as = BUILDS[build]
    for seed, name in seeds:
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{build}-{seed}-"))
        try:
            verdict = judge(play(_world(name), folder, seed, seconds=seconds, wrong=build))
        except Exception:  # the suite's own: no proof of anything
            _WORLD.popitem()[1].close()
            continue
        if found := [text for text in verdict.violations if text[:2] in caught_as]:
            return f"caught by seed {seed}: {found[0]}"
    return ""


SIMULATED_FOR_ONE = 100
"""Schedules of the simulation for a seed of ours, which has 5,000 records and not forty."""


def _hunt_in_simulation(build: str, *, first: int, count: int) -> str:
    command = [sys.executable, "-m", "tests.simulation", "--wrong", build, "--first", str(first), "--seeds", str(count)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    return next((f"caught in the simulation by {line}" for line in told if line.startswith("seed ")), "")


def _list(out: Console) -> None:
    shown = Table("fault", "worlds", "excuses", "lane", box=None)
    for kind in CATALOGUE.values():
        shown.add_row(kind.name, ", ".join(sorted(kind.worlds)), kind.excuse, kind.lane)
    out.print(shown)


if __name__ == "__main__":
    main()
