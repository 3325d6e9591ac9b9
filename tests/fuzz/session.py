"""Runs a target for its share of the time, and says what came of it.

The fuzzer (atheris on libFuzzer) writes what it finds into a folder of the session, never into the tree; `keep` chooses
what is worth committing.
"""

import os
import re
import subprocess
import sys
from hashlib import sha1
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.targets import load
from tests.fuzz.worker import GUIDED, MUTATED

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
TIMEOUT_S = 10
"""For one input; the slowest takes milliseconds."""
RSS_LIMIT_MB = 1024
START_S = 120
"""For the process to start and, beyond its time, to end."""


class Finding(NamedTuple):
    """An input that broke a contract."""

    path: Path
    what: str


class Result(NamedTuple):
    """What one run did. `edges` are branches of ours that the corpus reaches."""

    executions: int
    per_second: int
    edges: int
    corpus_files: int
    finding: Finding | None


def is_available() -> bool:
    """Say whether the coverage-guided fuzzer exists for this platform."""
    return find_spec("atheris") is not None


def kept(target: str) -> list[Path]:
    """Return the committed corpus of *target*."""
    return sorted(path for path in (CORPUS / target).glob("*") if path.is_file())


def replay(target: str, path: Path) -> None:
    """Run one input once, without the fuzzer."""
    load(target).check(path.read_bytes())


def fuzz(target: str, seconds: float, folder: Path, *, wrong: str = "none", how: str | None = None) -> Result:
    """Fuzz *target* for *seconds*; what it finds goes to *folder*. Ends early at the first finding."""
    how = how or (GUIDED if is_available() else MUTATED)
    found, seeds = folder / "found", folder / "seeds"
    for path in (found, seeds):
        path.mkdir(parents=True, exist_ok=True)
    module = load(target)
    for data in module.SEEDS:
        write(seeds, data)
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in module.WORDS))
    corpora = [str(path) for path in (found, CORPUS / target, seeds) if path.is_dir()]
    command = [
        sys.executable, "-m", "tests.fuzz.worker", how, target, wrong, f"{seconds:g}", str(folder), *corpora,
        f"-max_total_time={max(1, round(seconds))}", f"-max_len={module.MAX_BYTES}", f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={RSS_LIMIT_MB}", f"-dict={words}", f"-artifact_prefix={folder}/", "-print_final_stats=1",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", check=False,
        timeout=seconds + START_S,
    )  # fmt: skip
    return _read(done, folder, found)


def _read(done: subprocess.CompletedProcess[str], folder: Path, found: Path) -> Result:
    """Read what libFuzzer said last."""
    log = done.stdout + done.stderr
    (folder / "log").write_text(log)
    edges = re.findall(r"\bcov: (\d+)", log)
    runs = re.findall(r"^#(\d+)", log, re.MULTILINE)
    executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", log)
    per_second = re.search(r"stat::average_exec_per_sec:\s*(\d+)", log)
    artifacts = [path for path in folder.iterdir() if re.match(r"(crash|timeout|oom|slow-unit|leak)-", path.name)]
    finding = None
    if artifacts and done.returncode:
        finding = Finding(artifacts[0], _what(done))
    elif done.returncode:
        raise RuntimeError(f"the fuzzer itself failed, exit code {done.returncode}:\n{log[-2000:]}")
    return Result(
        int(executions[1]) if executions else int(runs[-1]) if runs else 0,
        int(per_second[1]) if per_second else 0,
        int(edges[-1]) if edges else 0,
        len([*found.iterdir()]),
        finding,
    )


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _what(done: subprocess.CompletedProcess[str]) -> str:
    """Return the traceback, or the line that says why there is none."""
    uncaught = done.stdout.partition("Uncaught Python exception: ===")[2].strip()
    return uncaught or next(
        (line for line in done.stderr.splitlines() if "ERROR: libFuzzer" in line), "no reason given"
    )


def write(folder: Path, data: bytes) -> Path:
    """Write an input under the name that libFuzzer gives it."""
    path = folder / sha1(data).hexdigest()
    path.write_bytes(data)
    return path
