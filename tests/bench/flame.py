"""A flame graph of sampled stacks, as one SVG without scripts: hover for the share; and where the time itself went.

The samples are lines of `outer;inner;innermost count`, as py-spy and `sampled.py` write them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from zlib import crc32

WIDTH, ROW, TOP = 1200, 16, 34
CHAR_WIDTH = 6.3
LEAST_WIDTH = 0.4
"""A narrower frame is not drawn; nor is what it called."""


@dataclass(slots=True)
class Frame:
    """A function in one place of the stack, with all samples in it and in what it called."""

    name: str
    count: int = 0
    inner: dict[str, "Frame"] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        return 1 + max((frame.depth for frame in self.inner.values()), default=0)


def parse(lines: Iterable[str]) -> Counter[tuple[str, ...]]:
    """Return how often each stack was seen."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        stack, _, count = line.strip().rpartition(" ")
        if stack and count.isdecimal():
            found[tuple(stack.split(";"))] += int(count)
    return found


def self_time(of: Counter[tuple[str, ...]]) -> list[tuple[str, float]]:
    """Return the share of each function, without what it called, the largest first."""
    alone: Counter[str] = Counter()
    for stack, count in of.items():
        alone[stack[-1]] += count
    total = alone.total()
    return [(name, count / total) for name, count in alone.most_common()]


def svg(of: Counter[tuple[str, ...]], title: str) -> str:
    """Return the graph; the outermost frame at the bottom."""
    root = Frame("all")
    for stack, count in of.items():
        root.count += count
        frame = root
        for name in stack:
            frame = frame.inner.setdefault(name, Frame(name))
            frame.count += count
    height = TOP + ROW * root.depth + 8
    body = "\n".join(_drawn(root, root.count, 0.0, height - ROW - 4))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" '
        f'font-size="10.5">\n<text x="8" y="20" font-size="14">{escape(title)}</text>\n{body}\n</svg>\n'
    )


def _drawn(frame: Frame, total: int, left: float, top: float) -> Iterator[str]:
    width = WIDTH * frame.count / total
    if width < LEAST_WIDTH:
        return
    hue = crc32(frame.name.encode()) % 45 + 10  # the same function has the same colour everywhere
    label = frame.name if len(frame.name) * CHAR_WIDTH < width else frame.name[: int(width / CHAR_WIDTH) - 1]
    text = f'<text x="{left + 2:.1f}" y="{top + 11:.0f}">{escape(label)}</text>' if len(label) > 2 else ""
    yield (
        f'<g><title>{escape(frame.name)}: {frame.count / total:.1%}</title><rect x="{left:.1f}" y="{top:.0f}" '
        f'width="{width:.1f}" height="{ROW - 1}" fill="hsl({hue} 85% 68%)"/>{text}</g>'
    )
    for inner in sorted(frame.inner.values(), key=lambda one: one.name):
        yield from _drawn(inner, total, left, top - ROW)
        left += WIDTH * inner.count / total
