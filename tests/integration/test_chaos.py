"""Six short seeds of the chaos suite, and one build with a mistake, so that nobody breaks either unseen."""

from pathlib import Path

import pytest

from tests.chaos.__main__ import explain, play
from tests.chaos.oracle import judge
from tests.chaos.privacy import told
from tests.support.kafka import RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

SECONDS = 6.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> RealKafka:
    """One of their own: it is killed and frozen."""
    kafka = RealKafka(tmp_path_factory.mktemp("chaos-kafka")).start()
    yield kafka
    kafka.kill()


@pytest.mark.parametrize("seed", range(1, 7))
def test_nothing_is_lost_and_each_duplicate_is_explained(broker: RealKafka, tmp_path: Path, seed: int) -> None:
    history = play(broker, tmp_path, seed, seconds=SECONDS)
    verdict = judge(history)
    verdict.violations += told(tmp_path)
    assert len(history.commits) > 0
    assert not verdict.violations, explain(history, verdict, tmp_path, seed, SECONDS)


def test_a_wrong_build_is_caught(broker: RealKafka, tmp_path: Path) -> None:
    """The first of those that `make chaos-oracle` tries all."""
    verdict = judge(play(broker, tmp_path, 1, seconds=SECONDS, wrong="commit_before_settle"))
    assert verdict.lost or verdict.violations
