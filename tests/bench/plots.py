"""The bars of docs/performance.md: rate, cost and age, by contender; the same file for the same numbers."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # no screen is needed, nor there

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.bench.figures import Figures, select, spread
from tests.bench.report import NAMES
from tests.bench.scenarios import BY_NAME, CONTENDERS, Scenario

COLOURS = {"consumer": "#1f5fa8", "floor": "#9a9a9a", "httpx": "#c2571a", "aiohttp": "#f0a848", "mq-bridge": "#7a4fa0",
           "faststream": "#2d8a57"}  # fmt: skip


def draw(of: Sequence[Figures], folder: Path) -> list[Path]:
    """Write the plots that *of* has numbers for into *folder*, and return their paths."""
    made = []
    measured = [one for one in BY_NAME.values() if any(figures.scenario == one.name for figures in of)]
    for name, measure, label, is_steady in (
        ("bench-rate", "events_per_s", "events/s", False),
        ("bench-cpu", "cpu_us_per_event", "µs of CPU an event", False),
        ("bench-age", "age_p99_ms", "age when answered, p99, ms", True),
    ):
        scenarios = [one for one in measured if bool(one.rate_per_s) == is_steady]
        if scenarios:
            folder.mkdir(parents=True, exist_ok=True)
            made.append(folder / f"{name}.svg")
            _draw(of, scenarios, measure, label, made[-1])
    return made


def _draw(of: Sequence[Figures], scenarios: Sequence[Scenario], measure: str, label: str, path: Path) -> None:
    """Draw a group of bars for each scenario, on a log scale: what is compared differs by factors."""
    present = [one for one in CONTENDERS if any(figures.contender == one for figures in of)]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bench"}):  # text stays text; ids stay the same
        figure, axes = plt.subplots(figsize=(1.6 + 1.7 * len(scenarios), 3.2), layout="constrained")
        for place, contender in enumerate(present):
            _bars(axes, of, scenarios, measure, contender, (place - (len(present) - 1) / 2) * 0.8 / len(present),
                  0.8 / len(present))  # fmt: skip
        axes.set_xticks(range(len(scenarios)), [one.name for one in scenarios])
        axes.set_yscale("log")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        figure.savefig(path, format="svg", metadata={"Date": None})
        plt.close(figure)


def _bars(
    axes: Axes, of: Sequence[Figures], scenarios: Sequence[Scenario], measure: str, contender: str, shift: float,
    width: float,
) -> None:  # fmt: skip
    found = [(at, spread(select(of, scenario.name, contender), measure)) for at, scenario in enumerate(scenarios)]
    there = [(at, one) for at, one in found if one is not None]
    axes.bar(
        [at + shift for at, _ in there],
        [one.median for _, one in there],
        width=width * 0.92,
        yerr=([one.median - one.low for _, one in there], [one.high - one.median for _, one in there]),
        error_kw={"linewidth": 0.8},
        color=COLOURS[contender],
        label=NAMES[contender],
    )
