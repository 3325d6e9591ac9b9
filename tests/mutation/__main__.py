"""Small mistakes put into the code that must not have any: `python -m tests.mutation`, and the tests must see each.

mutmut makes and tries the mutants (pyproject.toml says of which files, and by which tests), in a copy outside the tree.
Those that no test can see stand in survivors.toml, each with its reason; whatever else survives fails the run, and so
does an entry that no longer survives.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
KNOWN = Path(__file__).with_name("survivors.toml")
LEAST_SHARE = 0.95
COPIED = ("consumer", "schemas", "tests", "pyproject.toml")
SEEN = "killed"
"""An endless loop too: pytest-timeout ends its test. mutmut's own "timeout" says only that the machine was slow."""


class Mutant(NamedTuple):
    """One change: the lines of `file` that went and those that came."""

    file: str
    was: str
    now: str


def mutmut(folder: Path, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    done = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout[-5000:]}\nmutmut {arguments[0]} ended with {done.returncode}")
    return done.stdout


def shown(folder: Path, name: str) -> Mutant:
    """Tell a mutant by what it changes: mutmut's numbers move with every edit of a function."""
    lines = mutmut(folder, "show", name).splitlines()
    was, now = ("\n".join(line[1:].strip() for line in lines if line[:1] == sign != line[1:2]) for sign in "-+")
    return Mutant(name.partition(".x")[0].replace(".", "/") + ".py", was, now)


def try_all(folder: Path) -> tuple[Counter[tuple[str, str]], dict[Mutant, str]]:
    """Return how many mutants of each file ended how, and those that no test saw."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    mutmut(folder, "run", "--max-children", str(os.cpu_count() or 1))
    ends: Counter[tuple[str, str]] = Counter()
    unseen: dict[Mutant, str] = {}
    for line in mutmut(folder, "results", "--all", "true").splitlines():
        name, _, end = line.strip().rpartition(": ")
        ends[name.partition(".x")[0], end] += 1
        if end != SEEN:
            unseen[shown(folder, name)] = f"{end}: {name}"
    return ends, unseen


def report(ends: Counter[tuple[str, str]]) -> None:
    print("| file | mutants | killed | survived |\n|---|---|---|---|")
    for module in sorted({module for module, _ in ends}):
        total = sum(count for (name, _), count in ends.items() if name == module)
        killed = ends[module, SEEN]
        print(f"| `{module.replace('.', '/')}.py` | {total} | {killed} | {total - killed} |")


def main() -> int:
    known = {
        Mutant(entry["file"], entry["was"], entry["now"]): entry["reason"]
        for entry in tomllib.loads(KNOWN.read_text())["survivor"]
    }
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        ends, unseen = try_all(Path(folder))
    report(ends)
    share = 1 - len(unseen) / ends.total()
    print(f"{share:.1%} of {ends.total()} killed")
    new, gone = unseen.keys() - known.keys(), known.keys() - unseen.keys()
    for mutant in sorted(new):
        print(f"\n{unseen[mutant]}\n  - {mutant.was}\n  + {mutant.now}\nwrite a test that sees it, or list it")
    for mutant in sorted(gone):
        print(f"\n{mutant.file}\n  + {mutant.now}\nis listed in {KNOWN.name} and doesn't survive: take it out")
    return int(share < LEAST_SHARE or bool(new or gone))


if __name__ == "__main__":
    sys.exit(main())
