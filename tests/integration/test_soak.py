"""Twenty seconds of the soak, so that nobody breaks it unseen: too short for a judgement, long enough for a fault."""

from pathlib import Path

import pytest

from tests.chaos.oracle import judge
from tests.soak.__main__ import play
from tests.soak.judge import MEASURES, medians

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def test_a_member_lives_through_it_and_every_measure_is_seen(tmp_path: Path) -> None:
    told: list[str] = []
    run = play(tmp_path, seconds=20, rate=100, seed=1, protocol="classic", tell=lambda _, text: told.append(text))
    verdict = judge(run.history)
    assert run.problems == []
    assert verdict.violations == []
    assert len(run.history.produced) > 1000
    assert run.recoveries
    assert told
    for measure in MEASURES:
        assert medians(run.samples, run.quiet, measure.key), f"{measure.name} was not seen in a quiet window"
    (resident,) = [one for one in run.history.exits if one.who == "member-1"]
    assert resident.code == 0
