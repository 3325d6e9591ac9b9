"""What many seeds came to: one line each in a file, and the table that docs/reliability.md shows."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.chaos.history import History
from tests.chaos.oracle import Verdict

BEGIN, END = "<!-- results: made by tests.chaos --write -->\n", "<!-- end of results -->\n"


@dataclass
class Result:
    """One seed."""

    seed: int
    world: str
    protocol: str
    events: int
    accepted: int
    commits: int
    faults: dict[str, int]
    lost: int
    explained: dict[str, int]
    per_crash: list[int]
    violations: list[str]
    slowest_end_s: float
    peak_rss_mib: float

    @classmethod
    def of(cls, seed: int, world: str, protocol: str, history: History, verdict: Verdict) -> "Result":
        return cls(
            seed,
            world,
            protocol,
            events=len(history.produced),
            accepted=sum(post.accepted for post in history.posts),
            commits=len(history.commits),
            faults=dict(Counter(fault.kind for fault in history.faults)),
            lost=verdict.lost,
            explained=dict(verdict.explained),
            per_crash=verdict.per_crash,
            violations=verdict.violations,
            slowest_end_s=max((one.seconds for one in history.exits if one.code == 0), default=0.0),
            peak_rss_mib=max(history.peak_rss_mib.values(), default=0.0),
        )

    def line(self) -> str:
        return (
            f"seed {self.seed:4} {self.world:8} {self.protocol:8} events {self.events:5} commits {self.commits:4} "
            f"faults {sum(self.faults.values()):3} twice {sum(self.explained.values()):4} lost {self.lost} "
            f"violations {len(self.violations)}"
        )


def append(path: Path, result: Result) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def read(path: Path) -> list[Result]:
    """Return the results of *path*; of a seed that was played twice in a world, the last."""
    found = [Result(**json.loads(line)) for line in path.read_text().splitlines()]
    return [*{(one.seed, one.world): one for one in found}.values()]


def table(results: list[Result]) -> Iterable[tuple[str, str]]:
    """Return what the results come to, as rows of a name and a text."""
    per_crash = [count for one in results for count in one.per_crash]
    explained = sum((Counter(one.explained) for one in results), Counter[str]())
    yield "schedules", str(len(results))
    for world in sorted({one.world for one in results}):
        of_world = [one for one in results if one.world == world]
        protocols = Counter(one.protocol for one in of_world)
        seeds = f"seeds {_runs(sorted(one.seed for one in of_world))}"
        yield f"- {world}", f"{', '.join(f'{n} {name}' for name, n in sorted(protocols.items()))}: {seeds}"
    yield "events produced", f"{sum(one.events for one in results):,}"
    yield "POSTs accepted", f"{sum(one.accepted for one in results):,}"
    yield "commits judged", f"{sum(one.commits for one in results):,}"
    yield "faults", f"{sum(sum(one.faults.values()) for one in results):,}"
    yield "**lost**", str(sum(one.lost for one in results))
    yield "**violations of C1 to C10**", str(sum(len(one.violations) for one in results))
    yield "**sent twice, unexplained**", str(sum("C3" in text for one in results for text in one.violations))
    for reason, count in explained.most_common():
        yield f"sent twice: {reason}", f"{count:,}"
    if per_crash:
        yield "sent twice per SIGKILL: p50 / max", f"{statistics.median(per_crash):g} / {max(per_crash)}"
    yield "slowest orderly end after SIGTERM", f"{max(one.slowest_end_s for one in results):.1f} s"
    yield "most memory of a member", f"{max(one.peak_rss_mib for one in results):.0f} MiB"


def _runs(numbers: list[int]) -> str:
    """Write 1, 2, 3, 7 as `1-3, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def write_into(page: Path, results: list[Result]) -> None:
    """Put the table between the two marks of *page*."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    faults = sum((Counter(one.faults) for one in results), Counter[str]())
    rows = "".join(f"| {name} | {text} |\n" for name, text in table(results))
    how_often = ", ".join(f"{name} {count}" for name, count in faults.most_common())
    page.write_text(f"{before}{BEGIN}| | |\n|---|---|\n{rows}\nFaults, and how often: {how_often}.\n{END}{after}")
