"""Which inputs are worth committing: few, small, and each reaches something that the others and the seeds don't."""

import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeAlias

from tests.fuzz.session import CORPUS, ROOT, kept, write
from tests.fuzz.targets import Target, load

MAX_FILES = 40
MAX_BYTES = 2048
OURS = str(ROOT / "consumer")

Arcs: TypeAlias = frozenset[tuple[CodeType, int, int]]


def reached(target: Target, data: bytes) -> Arcs:
    """Return the steps from line to line of ours that *data* takes, generated code included."""
    arcs: set[tuple[CodeType, int, int]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith((OURS, "<")):
            return None
        last = 0

        def step(inner: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                arcs.add((code, last, inner.f_lineno))
                last = inner.f_lineno
            return step

        return step

    sys.settrace(trace)
    try:
        target.check(data)
    finally:
        sys.settrace(None)
    return frozenset(arcs)


def choose(inputs: dict[bytes, Arcs], covered: Arcs, most: int) -> list[bytes]:
    """Choose greedily: next comes whatever adds most, of equal ones the smallest."""
    chosen: list[bytes] = []
    left = dict(inputs)
    while left and len(chosen) < most:
        best = max(left, key=lambda data: (len(left[data] - covered), -len(data), data))
        gained = left.pop(best) - covered
        if not gained:
            break
        chosen.append(best)
        covered |= gained
    return chosen


def keep(name: str, found: Path) -> int:
    """Let the kept corpus of *name* be the best of itself and of what was *found*; return how many inputs it has."""
    target = load(name)
    paths = [*kept(name), *(path for path in found.iterdir() if path.is_file())]
    inputs = {data for path in paths if len(data := path.read_bytes()) <= MAX_BYTES}
    for data in target.SEEDS:  # caches are warm after one round, so that each input is judged alike
        target.check(data)
    covered: Arcs = frozenset().union(*(reached(target, data) for data in target.SEEDS))
    chosen = choose({data: reached(target, data) for data in sorted(inputs)}, covered, MAX_FILES)
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in kept(name):
        path.unlink()
    for data in chosen:
        write(folder, data)
    return len(chosen)
