"""Schedules of faults in virtual time, each judged by the oracle; and proofs that the judge would see a mistake."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.chaos.wrong import BUILDS, TRIES
from tests.simulation.__main__ import explain
from tests.simulation.faults import FAULTS
from tests.simulation.schedule import play
from tests.support.kafka import ROOT

BLOCK = 100
REASONS = {
    "no clear answer", "died, in flight", "died, not yet committed", "lost, in flight", "lost, not yet committed",
    "commit did not arrive",
}  # fmt: skip


@pytest.mark.parametrize("first", range(1, 1501, BLOCK))
def test_nothing_is_lost_and_nothing_is_sent_twice_without_a_reason(first: int) -> None:
    for seed in range(first, first + BLOCK):
        if play(seed).violation:
            pytest.fail(explain(seed), pytrace=False)


def test_the_schedules_reach_what_they_claim() -> None:
    """Excludes a simulation in which nothing happens."""
    faults: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    commits = records = 0
    for seed in range(1, 301):
        played = play(seed)
        faults += played.faults
        reasons += played.explained
        commits += played.commits
        records += played.records
    assert set(faults) == set(FAULTS)
    assert set(reasons) >= REASONS
    assert records > 300 * 15
    assert commits > 300 * 5


def test_the_same_seed_gives_the_same_history() -> None:
    """In another process, too, where addresses and the hashes of strings differ."""
    told = [_run("--first", "1", "--seeds", "12", "--trace", hash_seed=hash_seed)[1] for hash_seed in ("1", "2")]
    stories = [text[: text.index("12 schedules in")] for text in told]
    assert stories[0] == stories[1]
    assert len(stories[0].splitlines()) > 500
    assert "\n".join(play(12, tracing=True).trace) in stories[0]


@pytest.mark.parametrize("build", [name for name, (_, caught_as) in BUILDS.items() if caught_as != TRIES])
def test_a_wrong_build_is_caught(build: str) -> None:
    """Each is a mistake that others have shipped; see tests/chaos/wrong.py. Headers are judged there alone."""
    code, told = _run("--wrong", build, "--seeds", "1000")
    assert code == 5, told
    assert "seed " in told


def _run(*arguments: str, hash_seed: str = "0") -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 5}, done.stderr
    return done.returncode, done.stdout
