"""The benchmark from end to end, too small to tell anything about speed: it must count right and leave no field out."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from tests.bench.figures import Figures
from tests.support.kafka import ROOT, RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

AGES = {"age_p50_ms", "age_p99_ms", "age_p999_ms", "age_max_ms"}


def test_every_contender_that_must_sends_every_event_once_and_says_what_it_cost(
    kafka: RealKafka, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--kafka", kafka.bootstrap_servers, "--scenarios",
         "http-0ms,https-20ms,steady", "--contenders", "consumer,floor", "--events", "500", "--runs", "1",
         "--connections", "8", "--steady-s", "0.5", "--results", str(results)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    machine, *runs = map(json.loads, results.read_text().splitlines())
    assert machine["machine"]["confluent-kafka"]
    assert [(run["scenario"], run["contender"]) for run in runs] == [
        (scenario, contender)
        for scenario in ("http-0ms", "https-20ms", "steady")
        for contender in ("consumer", "floor")
    ]
    for run in runs:
        assert set(run) == {field.name for field in fields(Figures)}
        assert run["is_complete"], run
        assert run["answers"] == run["committed"] == run["events"], run
        assert run["new_connections"] >= 1
        measured = {name for name in run if run[name] is not None}
        assert set(run) - measured == (set() if run["scenario"] == "steady" else AGES), run
    for contender in ("kochava-consumer", "bare floor"):
        assert contender in done.stdout


def test_a_bound_is_measured_from_end_to_end() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bounds", "--groups", "schemas", "--events", "600", "--runs", "1"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stdout + done.stderr  # 1: so few events tell nothing of the cost
    assert "not complete" not in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.lstrip().startswith(("1 ", "100 "))]
    assert [row[0] for row in rows] == ["1", "100"], done.stdout


def test_what_a_process_costs_is_measured_from_end_to_end() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.standing", "--only", "start", "--runs", "1"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stdout + done.stderr  # 1: a busy machine starts slowly
    assert "to the first poll" in done.stdout
