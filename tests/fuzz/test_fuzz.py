"""The kept corpus holds, a minute of fuzzing finds nothing, and builds with a mistake are found."""

import warnings
from pathlib import Path

import pytest

from tests.fuzz.__main__ import explain
from tests.fuzz.keep import MAX_BYTES, MAX_FILES, choose
from tests.fuzz.session import fuzz, is_available, kept, replay
from tests.fuzz.targets import NAMES, load
from tests.fuzz.worker import MUTATED
from tests.fuzz.wrong import BUILDS

SECONDS = 60.0
"""For all targets together."""
QUICK = ("map_without_limit", "negative_schema_id", "second_answer_unseen")
"""Those that are found at once; `python -m tests.fuzz --wrong all` tries every one."""


@pytest.mark.parametrize("target", NAMES)
def test_the_kept_corpus_holds(target: str) -> None:
    paths = kept(target)
    assert 0 < len(paths) <= MAX_FILES
    module = load(target)
    for data in (*module.SEEDS, b"", b"\0", b"\xff" * module.MAX_BYTES):
        module.check(data)
    for path in paths:
        assert path.stat().st_size <= MAX_BYTES
        replay(target, path)


@pytest.mark.parametrize("target", NAMES)
def test_a_share_of_a_minute_finds_nothing(target: str, tmp_path: Path) -> None:
    if not is_available():
        warnings.warn("no coverage-guided fuzzer for this platform: mutations of the corpus instead", stacklevel=1)
    result = fuzz(target, SECONDS / len(NAMES), tmp_path)
    assert result.finding is None, explain(target, result.finding)
    assert result.executions > len(load(target).SEEDS) + len(kept(target))


@pytest.mark.parametrize("build", QUICK)
def test_a_wrong_build_is_found(build: str, tmp_path: Path) -> None:
    target = BUILDS[build].target
    finding = fuzz(target, 60, tmp_path, wrong=build).finding
    assert finding is not None
    replay(target, finding.path)  # nothing is wrong with the right build


def test_where_there_is_no_fuzzer_mutations_find_it_too(tmp_path: Path) -> None:
    assert fuzz("hops", 0, tmp_path / "right", how=MUTATED).finding is None
    finding = fuzz("hops", 5, tmp_path / "wrong", wrong="headers_that_grow", how=MUTATED).finding
    assert finding is not None
    assert "it never grows" in finding.what
    replay("hops", finding.path)


def test_each_target_has_a_wrong_build() -> None:
    assert {build.target for build in BUILDS.values()} == {*NAMES}


def test_what_is_kept_adds_something() -> None:
    def arcs(*numbers: int) -> frozenset[tuple[object, int, int]]:
        return frozenset((None, 0, number) for number in numbers)

    inputs = {b"same": arcs(1, 2), b"s": arcs(1, 2), b"more": arcs(1, 2, 3), b"own": arcs(4), b"known": arcs(0)}
    assert choose(inputs, arcs(0), most=9) == [b"more", b"own"]
    assert choose({b"same": arcs(1), b"s": arcs(1)}, arcs(0), most=9) == [b"s"]
    assert choose(inputs, arcs(0), most=1) == [b"more"]
