"""The measures over time as one figure: faults as bands, quiet windows marked, their medians as dots."""

import io
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl

mpl.use("Agg")  # no screen is needed, nor there

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from tests.soak.judge import Finding
from tests.soak.run import BROKER, Run

COLOURS = {"sink": "#f0a848", "broker": "#d86a6a", "member": "#8a7fd0", "coming back": "#d9d9d9"}
QUIET = "#4a9d5b"
MAX_LABELS = 60
"""Of more nobody could read one; the bands and the table of faults still tell."""
INK = ("#1f5fa8", "#c2571a", "#2d8a57")


class Panel(NamedTuple):
    """One plot: its title and its lines, by label."""

    title: str
    lines: dict[str, str]
    is_log: bool = False


PANELS = (
    Panel("per second", {"delivered": "delivered_per_s", "requests": "requests_per_s"}),
    Panel("one request, ms", {"p50": "request_p50_ms", "p99": "request_p99_ms"}, is_log=True),
    Panel("read to settled, ms", {"p50": "settled_p50_ms", "p99": "settled_p99_ms"}, is_log=True),
    Panel("event age when settled, ms", {"p50": "age_p50_ms", "p99": "age_p99_ms"}, is_log=True),
    Panel("lag, records", {"lag": "lag"}),
    Panel("records in flight", {"in flight": "in_flight"}),
    Panel("resident memory, MiB", {"RSS": "rss_mib"}),
    Panel("CPU, % of one core", {"CPU": "cpu_percent"}),
    Panel("file descriptors, connections", {"descriptors": "fds", "connections": "connections", "other": "other_fds"}),
    Panel("threads, event loop tasks", {"threads": "threads", "tasks": "tasks"}),
)


def draw(run: Run, findings: Sequence[Finding]) -> Figure:
    """Return the figure. Everything is placed by seconds since the steady rate began."""
    figure, panels = plt.subplots(len(PANELS), 1, figsize=(15, 1.75 * len(PANELS)), sharex=True, squeeze=False)
    figure.subplots_adjust(left=0.045, right=0.99, top=0.925, bottom=0.045, hspace=0.42)
    for panel, (axes,) in zip(PANELS, panels, strict=True):
        _bands(axes, run)
        _lines(axes, panel, run, findings)
    top: Axes = panels[0][0]
    for card in run.recoveries if len(run.recoveries) <= MAX_LABELS else ():
        label = card.kind.removeprefix("Kochava: ").removeprefix("second member ")
        top.annotate(label, (_s(run, card.at_ms), 1.3), xycoords=("data", "axes fraction"), rotation=50, fontsize=7)
    legend = [Patch(color=colour, alpha=0.45, label=kind) for kind, colour in COLOURS.items()]
    legend.append(Patch(color=QUIET, alpha=0.12, label="quiet, judged"))
    figure.legend(handles=legend, loc="lower center", ncols=len(legend), frameon=False)
    last: Axes = panels[-1][0]
    last.set_xlabel("seconds since the steady rate began")
    last.set_xlim(0, max((_s(run, sample.at_ms) for sample in run.samples), default=1))
    return figure


def svg(figure: Figure) -> str:
    """Return *figure* as an `svg` element that fits into a page."""
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text: small, sharp, searchable
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    element = text[text.index("<svg") :]
    head, rest = element.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", head) + ">" + rest  # as wide as the page


def _s(run: Run, at_ms: float) -> float:
    return (at_ms - run.started_ms) / 1000


def family(kind: str) -> str:
    """Return whom a fault was done to."""
    return "broker" if kind in BROKER else "member" if "member" in kind or kind == "SIGKILL" else "sink"


def _bands(axes: Axes, run: Run) -> None:
    for card in run.recoveries:
        axes.axvspan(_s(run, card.at_ms), _s(run, card.ended_ms), color=COLOURS[family(card.kind)], alpha=0.45, lw=0)
        axes.axvspan(_s(run, card.ended_ms), _s(run, card.recovered_ms), color=COLOURS["coming back"], alpha=0.45, lw=0)
    for window in run.judged:
        axes.axvspan(_s(run, window.at_ms), _s(run, window.until_ms), color=QUIET, alpha=0.12, lw=0)
    axes.axvline(_s(run, run.warm_ms), color="#888888", lw=1, ls=":")


def _lines(axes: Axes, panel: Panel, run: Run, findings: Sequence[Finding]) -> None:
    by_key = {finding.measure.key: finding for finding in findings}
    for (label, key), ink in zip(panel.lines.items(), INK, strict=False):
        times = [_s(run, sample.at_ms) for sample in run.samples]
        axes.plot(times, [sample.values.get(key, math.nan) for sample in run.samples], color=ink, lw=1, label=label)
        if key in by_key:
            points = [(_s(run, point.at_ms), point.value) for point in by_key[key].points]
            axes.plot(*zip(*points, strict=True) if points else ([], []), "o", color=ink, ms=5, mec="white", mew=0.6)
    axes.set_title(panel.title, loc="left", fontsize=10, pad=3)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif "RSS" not in panel.lines:
        axes.set_ylim(bottom=0)
    if len(panel.lines) > 1:
        axes.legend(loc="upper right", ncols=len(panel.lines), bbox_to_anchor=(1.0, 1.22), frameon=False, fontsize=9)
