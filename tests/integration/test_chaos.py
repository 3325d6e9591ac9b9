"""Six short seeds of the chaos suite, and one build with a mistake, so that nobody breaks either unseen."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.__main__ import explain, play
from tests.chaos.oracle import judge
from tests.chaos.privacy import told
from tests.chaos.world import Embedded, OneNode, ThreeNodes, World
from tests.chaos.wrong import LOST

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

SECONDS = 6.0


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Brokers of their own: they are killed and frozen."""
    made = request.param(tmp_path_factory.mktemp("chaos"))
    yield made
    made.close()


# odd seeds use KIP-848
@pytest.mark.parametrize(
    ("world", "seed"),
    [(OneNode, 1), (OneNode, 2), (ThreeNodes, 1), (ThreeNodes, 2), (Embedded, 1), (Embedded, 2)],
    indirect=["world"],
)
def test_nothing_is_lost_and_each_duplicate_is_explained(world: World, tmp_path: Path, seed: int) -> None:
    history = play(world, tmp_path, seed, seconds=SECONDS)
    verdict = judge(history)
    verdict.violations += told(tmp_path)
    assert len(history.commits) > 0
    assert not verdict.violations, explain(history, verdict, tmp_path, seed, SECONDS, world.name)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", [OneNode], indirect=True)
def test_a_wrong_build_is_caught(world: World, tmp_path: Path) -> None:
    """The first of those that `make chaos-oracle` tries all, in as many seeds as that gives each."""
    for seed in range(1, 21):
        verdict = judge(play(world, tmp_path / str(seed), seed, seconds=SECONDS, wrong="commit_before_settle"))
        if any(text[:2] in LOST for text in verdict.violations):
            return
    pytest.fail("not caught")
