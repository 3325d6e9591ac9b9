"""What people read: a table on the terminal, JSON lines, and the part of docs/performance.md between two markers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from tests.bench.figures import Figures, Spread, ratio, select, spread
from tests.bench.scenarios import BY_NAME, CONTENDERS

BEGIN = "<!-- begin: written by make bench ARGS=--write -->"
END = "<!-- end: written by make bench ARGS=--write -->"
NAMES = {
    "consumer": "kochava-consumer",
    "floor": "bare floor",
    "httpx": "naive httpx",
    "aiohttp": "naive aiohttp",
    "mq-bridge": "mq-bridge",
    "faststream": "FastStream",
}
RATE_COLUMNS = (
    ("events/s", "events_per_s", 0),
    ("CPU, µs/event", "cpu_us_per_event", 1),
    ("cores", "cores", 2),
    ("peak RSS, MiB", "peak_rss_mib", 0),
    ("connections", "new_connections", 0),
)
AGE_COLUMNS = (
    ("p50, ms", "age_p50_ms", 1),
    ("p99, ms", "age_p99_ms", 1),
    ("p99.9, ms", "age_p999_ms", 1),
    ("max, ms", "age_max_ms", 1),
    ("CPU, µs/event", "cpu_us_per_event", 1),
    ("peak RSS, MiB", "peak_rss_mib", 0),
)


def tables(of: Sequence[Figures]) -> Iterable[tuple[str, list[str], list[list[str]]]]:
    """Return title, head and rows for each scenario that was measured."""
    for scenario in BY_NAME.values():
        here = [one for one in of if one.scenario == scenario.name]
        if not here:
            continue
        columns = AGE_COLUMNS if scenario.rate_per_s else RATE_COLUMNS
        measure = "age_p99_ms" if scenario.rate_per_s else "events_per_s"
        head = ["contender", *(title for title, _, _ in columns)]
        head.append("p99, consumer ÷ this" if scenario.rate_per_s else "consumer ÷ this, events/s")
        rows = []
        for contender in CONTENDERS:
            runs = select(here, scenario.name, contender)
            if not runs:
                continue
            name = NAMES[contender] + ("" if all(one.is_complete for one in runs) else " *")
            rows.append([name, *(shown(spread(runs, field), digits) for _, field, digits in columns),
                         "" if contender == "consumer"
                         else shown(ratio(here, scenario.name, measure, "consumer", contender), 2)])  # fmt: skip
        yield f"{scenario.name}: {scenario.about}", head, rows


def shown(of: Spread | None, digits: int) -> str:
    """Write the median, and low to high where they differ as written."""
    if of is None:
        return ""
    median, low, high = (f"{value:,.{digits}f}" for value in of)
    return median if low == high else f"{median} ({low} to {high})"


def rich_tables(of: Sequence[Figures]) -> list[Table]:
    return [rich_table(title, head, rows) for title, head, rows in tables(of)]


def rich_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(head[0], title=title, title_justify="left", title_style="bold", box=None)
    for column in head[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def markdown_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"**{title}**", "", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |".replace(" *", r" \*") for row in rows)])


def shown_facts(machine: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {text}" if name != "processor" else text for name, text in machine.items())


def markdown(of: Sequence[Figures], machine: Mapping[str, str], day: str, plots: Sequence[str]) -> str:
    """Return the measured part of the page."""
    runs = max((one.run for one in of), default=0)
    legend = "An asterisk: it was stopped before it had sent every event, or sent one twice."
    parts = [f"Measured on {day}: {shown_facts(machine)}. Medians of {runs} (low to high). {legend}"]
    parts += [f"![{Path(plot).stem}]({plot})" for plot in plots]
    parts += [markdown_table(*table) for table in tables(of)]
    busy = sorted({one.scenario for one in of if one.sink_cores > 0.9})
    if busy:
        parts.append(f"In {', '.join(busy)} the sink used more than 0.9 cores at times: it may have been the limit.")
    return "\n\n".join(parts)


def write_between(page: str, text: str, begin: str = BEGIN, end: str = END) -> str:
    """Return *page* with *text* between the markers.

    Raises:
        ValueError: a marker is missing.
    """
    before, has_begin, rest = page.partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        raise ValueError(f"the page has no {begin} and {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def json_lines(of: Iterable[Figures], machine: Mapping[str, str]) -> str:
    """Return one line of facts and one for each run."""
    lines = [json.dumps({"machine": dict(machine)}), *(json.dumps(one.as_json()) for one in of)]
    return "".join(f"{line}\n" for line in lines)
