"""The page: the verdict, what became of the events, the plots, the faults, the machine. One file, without script."""

import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import groupby
from pathlib import Path
from statistics import median

import confluent_kafka

from consumer import __version__
from tests.chaos.oracle import Verdict
from tests.soak.judge import Finding
from tests.soak.run import Run
from tests.support.kafka import ROOT

CONNECTIONS = 64
"""As `Setup` sets them."""
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1240px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; } th, td { padding: .25rem .9rem .25rem 0; text-align: left; }
th { border-bottom: 1px solid #999; font-weight: 600; } td { border-bottom: 1px solid #eee; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: #1d6f35; font-weight: 600; } .bad { color: #b3261e; font-weight: 600; } .dim { color: #777; }
svg { width: 100%; height: auto; }
"""
NOTES = """Measured in quiet windows only: nothing was done to the system, and it had come back from what was done
before. The warm-up, until every kind of fault had happened once, does not count. A window is one point, its median.
Growth is the larger of two: the robust slope (Theil-Sen) over the whole time, and the last third of the windows against
the first."""


def facts(run: Run) -> dict[str, str]:
    """Return what a reader needs to know of the run, the machine and the versions."""
    librdkafka = confluent_kafka.libversion()[0]
    return {
        "run": f"{run.seconds / 60:g} minutes at {run.rate:g} events/s, seed {run.seed}, {run.protocol} protocol",
        "looked at": f"{len(run.recoveries)} faults, {len(run.judged)} quiet windows after the warm-up",
        "kochava-consumer": f"{__version__}, Python {platform.python_version()}, librdkafka {librdkafka}",
        "Apache Kafka": _kafka_version(),
        "machine": f"{os.cpu_count()} cores ({_cpu()}), {platform.system()} {platform.release()}",
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def account(run: Run, verdict: Verdict) -> dict[str, str]:
    """Return what became of the events, by id."""
    history = run.history
    accepted = [post.id for post in history.posts if post.accepted]
    dead = {move.origin for move in history.moved if move.place[0] == history.dead_letter}
    broken = sum(not one.id for one in history.produced)
    crashes = sum(fault.kind == "SIGKILL" for fault in history.faults)
    rows = {
        "records produced": f"{len(history.produced):,} ({broken:,} of them no events)",
        "events accepted": f"{len(set(accepted)):,}",
        "records dead-lettered": f"{len(dead):,}",
        "lost": f"{verdict.lost:,}",
        "accepted again": f"{len(accepted) - len(set(accepted)):,}",
    }
    rows |= {f"accepted again: {reason}": f"{count:,}" for reason, count in verdict.explained.most_common()}
    rows["accepted again: unexplained"] = f"{sum(text.startswith('C3') for text in verdict.violations):,}"
    rows["second members killed"] = f"{crashes}, sent again because of each: {_listed(verdict.per_crash)}"
    left = "unknown" if run.left_at_rest is None else f"{run.left_at_rest:g}"
    rows["connections, at most, and left at rest"] = f"{_most(run, 'connections')}, and {left}"
    rows["commits looked at"] = f"{len(history.commits):,}"
    return rows


def _most(run: Run, key: str) -> str:
    return f"{max((sample.values.get(key, 0) for sample in run.samples), default=0):.0f}"


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts)) or "-"


def problems(run: Run, verdict: Verdict, findings: Iterable[Finding]) -> list[str]:
    """Return everything that is wrong; empty is good."""
    found = [_sentence(one) for one in findings if one.verdict == "GROWS"]
    short = next((one for one in findings if one.verdict == "TOO SHORT"), None)
    if short is not None:
        found.append(f"{len(short.points)} quiet windows after the warm-up say nothing of growth: run longer")
    if any(sample.values.get("connections", 0) > CONNECTIONS for sample in run.samples):
        found.append(f"{_most(run, 'connections')} connections were open, and {CONNECTIONS} are allowed")
    return [*run.problems, *verdict.violations, *found]


def _sentence(of: Finding) -> str:
    unit = f" {of.measure.unit}" if of.measure.unit else ""
    return f"{of.measure.name} grows by {of.growth:.3g}{unit}, from {of.first:.4g} to {of.last:.4g}"


def verdict_rows(findings: Iterable[Finding]) -> list[tuple[str, ...]]:
    """Return the verdict table: measure, first third, last third, growth, tolerance, verdict."""
    return [
        (
            of.measure.name, _number(of.first, of.measure.unit), _number(of.last, of.measure.unit), _signed(of.growth),
            "" if of.measure.tolerance is None else f"{of.measure.tolerance:g}", of.verdict,
        )
        for of in findings
    ]  # fmt: skip


HEADS = ("measure", "first third", "last third", "growth", "may grow by", "verdict")


def _number(value: float, unit: str) -> str:
    if math.isnan(value):
        return "-"
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{shown}{'' if unit.startswith('/') else ' '}{unit}".strip()


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.2f}"


def recovery_rows(run: Run) -> list[tuple[str, ...]]:
    """Return for each kind of fault how often it came, how long it took, and how long until all was as before."""
    rows = []
    cards = sorted(run.recoveries, key=lambda card: card.kind)
    for kind, group in groupby(cards, key=lambda card: card.kind):
        of_kind = list(group)
        back = [card.seconds for card in of_kind]
        took = median((card.ended_ms - card.at_ms) / 1000 for card in of_kind)
        rows.append((kind, str(len(of_kind)), f"{took:.1f} s", f"{median(back):.1f} s", f"{max(back):.1f} s"))
    return rows


def page(run: Run, verdict: Verdict, findings: Sequence[Finding], picture: str) -> str:
    """Return the page as HTML; *picture* is an `svg` element."""
    wrong = problems(run, verdict, findings)
    kind, word = ("bad", f"{len(wrong)} wrong") if wrong else ("good", "nothing grows, nothing is lost")
    listed = "".join(f"<li>{escape(text)}</li>" for text in wrong[:50])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Soak of kochava-consumer</title><style>{STYLE}</style></head><body>
<h1>Soak: <span class="{kind}">{word}</span></h1>
<p class="dim">{escape(facts(run)["run"])}; {escape(facts(run)["looked at"])}</p>
{f'<ul class="bad">{listed}</ul>' if listed else ""}
<h2>Does anything grow?</h2>
{_table(HEADS, verdict_rows(findings), numbers={1, 2, 3, 4})}
<p class="dim">{NOTES}</p>
<h2>What became of the events</h2>
{_pairs(account(run, verdict))}
<h2>Over time</h2>
{picture}
<p class="dim">Dots are the medians that are judged. The dotted line ends the warm-up.</p>
<h2>Faults</h2>
{_table(("fault", "times", "took, median", "back after, median", "at most"), recovery_rows(run), numbers={1, 2, 3, 4})}
<h2>Machine and versions</h2>
{_pairs(facts(run))}
</body></html>
"""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: set[int]) -> str:
    def cell(tag: str, index: int, text: str) -> str:
        kind = "n" if index in numbers else {"flat": "good", "GROWS": "bad", "TOO SHORT": "bad"}.get(text, "")
        return f'<{tag} class="{kind}">{escape(text)}</{tag}>'

    lines = [("th", heads), *(("td", row) for row in rows)]
    body = "\n".join(
        "<tr>" + "".join(cell(tag, index, text) for index, text in enumerate(row)) + "</tr>" for tag, row in lines
    )
    return f"<table>{body}</table>"


def _pairs(rows: Mapping[str, str]) -> str:
    return _table((), [(name, value) for name, value in rows.items()], numbers=set()).replace("<tr></tr>", "")


def _kafka_version() -> str:
    pom = (ROOT / "tests" / "support" / "pom.xml").read_text()
    found = re.search(r"<artifactId>kafka_[^<]*</artifactId>\s*<version>([^<]+)", pom)
    return found[1] if found else "unknown"


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
