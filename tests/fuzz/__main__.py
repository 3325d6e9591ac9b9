"""`make fuzz SECONDS=300`: every surface that bytes of strangers reach, fuzzed by coverage, each with an oracle.

A finding leaves its input behind and says how to run it again. `--keep` puts what is new into the kept corpus.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.fuzz.keep import keep
from tests.fuzz.session import Finding, Result, fuzz, is_available, kept, replay
from tests.fuzz.targets import NAMES
from tests.fuzz.wrong import BUILDS


def explain(target: str, finding: Finding) -> str:
    """Say what was found, and how to see it again."""
    return f"{target}: {finding.what}\n  again: python -m tests.fuzz {target} --replay {finding.path}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(NAMES)}; by default all")
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--keep", action="store_true", help="merge what is new into tests/fuzz/corpus, minimised")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input through one target")
    parser.add_argument("--wrong", choices=[*BUILDS, "all"], help="builds with a mistake: each must be found")
    given = parser.parse_args()
    unknown = sorted({*given.targets} - {*NAMES})
    if unknown or (given.replay and len(given.targets) != 1):
        parser.error(f"no target: {', '.join(unknown)}" if unknown else "--replay needs one target")
    if given.replay:
        replay(given.targets[0], given.replay)
        return
    out = Console(width=120, highlight=False)
    if not is_available():
        out.print("no coverage-guided fuzzer for this platform (atheris): mutations of the corpus instead")
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    if given.wrong:
        sys.exit(_catch([*BUILDS] if given.wrong == "all" else [given.wrong], given.seconds, root, out))
    sys.exit(_prove(given.targets or list(NAMES), given.seconds, root, out, is_keeping=given.keep))


def _prove(targets: list[str], seconds: float, root: Path, out: Console, *, is_keeping: bool) -> int:
    table = Table("target", "executions", "per second", "edges", "new inputs", "kept", "finding", box=None)
    findings = 0
    for target in targets:
        result = fuzz(target, seconds / len(targets), root / target)
        if result.finding is not None:
            findings += 1
            out.print(explain(target, result.finding), markup=False, soft_wrap=True)
        elif is_keeping:
            keep(target, root / target / "found")
        _add_row(table, target, result)
    out.print(table)
    out.print(f"logs, inputs and findings: {root}", soft_wrap=True)
    return 5 if findings else 0


def _add_row(table: Table, target: str, result: Result) -> None:
    numbers = (result.executions, result.per_second, result.edges, result.corpus_files, len(kept(target)))
    table.add_row(target, *(f"{number:,}" for number in numbers), "FOUND" if result.finding else "none")


def _catch(builds: list[str], seconds: float, root: Path, out: Console) -> int:
    missed = 0
    for name in builds:
        target = BUILDS[name].target
        finding = fuzz(target, seconds, root / name, wrong=name).finding
        missed += finding is None
        what = finding.what.splitlines()[-1] if finding else f"NOT found in {seconds:g} s"
        out.print(f"{name}: {target}: {what}", markup=False)
    return 5 if missed else 0


if __name__ == "__main__":
    main()
