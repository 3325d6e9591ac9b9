"""The judge of the soak and its page: a leak is found, noise is none, and everything that is wrong is said first."""

import math
import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from consumer.sandbox.events import APPS, PLATFORMS, guid
from consumer.telemetry import Metrics
from consumer.telemetry.metrics import Histogram
from tests.chaos.faults import SINK_RULES
from tests.chaos.history import Exit, Fault, History, Moved, Post, Produced
from tests.chaos.oracle import judge as judge_history
from tests.soak.__main__ import write
from tests.soak.judge import MEASURES, MIN_WINDOWS, Finding, Measure, Point, Span, judge, judge_all, medians
from tests.soak.page import page, problems, recovery_rows
from tests.soak.plots import PANELS, draw, svg
from tests.soak.run import DECK, FAULTS, SINK, Recovery, Run
from tests.soak.sample import Looker, Sample, Scrape, quantile

MINUTES = 10
WINDOW_S = 5
MEMORY = Measure("rss_mib", "resident memory", "MiB", 4.0)


def points(value, minutes: int = MINUTES, every_s: int = 15) -> list[Point]:
    """Return quiet windows of *value* by seconds since the start."""
    return [Point(second * 1000.0, value(second)) for second in range(0, minutes * 60, every_s)]


def verdict(value, measure: Measure = MEMORY) -> str:
    return judge(measure, points(value)).verdict


@pytest.mark.parametrize("seed", range(20))
class TestGrowth:
    """Memory of 80 MiB that wanders by half a MiB from window to window, and what may be on top of it."""

    def noise(self, seed: int):
        random = Random(seed)
        wandering = {second: random.gauss(80, 0.5) for second in range(MINUTES * 60)}
        return wandering.__getitem__

    def test_noise_is_flat(self, seed: int) -> None:
        assert verdict(self.noise(seed)) == "flat"

    def test_a_steady_leak_grows(self, seed: int) -> None:
        """20 bytes of each of 500 events a second: 6 MiB in ten minutes."""
        noise = self.noise(seed)
        assert verdict(lambda second: noise(second) + second * 500 * 20 / 2**20) == "GROWS"

    def test_a_step_that_stays_grows(self, seed: int) -> None:
        noise = self.noise(seed)
        assert verdict(lambda second: noise(second) + 6 * (second > 420)) == "GROWS"

    def test_a_staircase_of_faults_grows(self, seed: int) -> None:
        noise = self.noise(seed)
        assert verdict(lambda second: noise(second) + 0.4 * (second // 30)) == "GROWS"

    def test_peaks_that_go_away_are_flat(self, seed: int) -> None:
        noise, random = self.noise(seed), Random(seed)
        wild = set(random.sample(range(0, MINUTES * 60, 15), 6))
        assert verdict(lambda second: noise(second) + 50 * (second in wild)) == "flat"

    def test_what_shrinks_is_flat(self, seed: int) -> None:
        noise = self.noise(seed)
        assert verdict(lambda second: noise(second) - second / 60) == "flat"


def test_one_leaked_descriptor_in_four_minutes_grows() -> None:
    descriptors = next(measure for measure in MEASURES if measure.key == "other_fds")
    assert verdict(lambda second: 35 + second // 240, descriptors) == "GROWS"
    assert verdict(lambda _: 35.0, descriptors) == "flat"


def test_few_windows_are_not_called_flat() -> None:
    few = points(lambda _: 80.0)[: MIN_WINDOWS - 1]
    assert judge(MEMORY, few).verdict == "TOO SHORT"
    assert judge(MEMORY._replace(tolerance=None), few).verdict == "shown"


def test_growth_says_by_how_much() -> None:
    found = judge(MEMORY, points(lambda second: 80 + second / 60))
    assert found.growth == pytest.approx(585 / 60)
    assert (found.first, found.last) == (pytest.approx(81.5, abs=0.2), pytest.approx(88.2, abs=0.3))


def test_only_what_lies_in_a_window_counts() -> None:
    samples = [
        Sample(second * 1000, {"rss_mib": 80.0 if second % 10 < 5 else 1000.0 + second}) for second in range(100)
    ]
    windows = [Span(second * 1000, second * 1000 + 5000) for second in range(0, 100, 10)]
    assert {point.value for point in medians(samples, windows, "rss_mib")} == {80.0}
    assert medians(samples, windows, "never seen") == []


# -- samples


@given(st.lists(st.floats(0.0001, 29), min_size=1, max_size=200), st.sampled_from([0.5, 0.99]))
def test_a_quantile_of_a_histogram_lies_in_the_bucket_of_the_true_one(observed: list[float], share: float) -> None:
    histogram, bounds = Histogram("kochava_x_seconds", "X."), [0.0, *Histogram("kochava_x", "X.").bounds]
    histogram.observe(0.003)
    before = buckets(histogram)
    for value in observed:
        histogram.observe(value)
    true = sorted(observed)[math.ceil(share * len(observed)) - 1]
    index = next(index for index, bound in enumerate(bounds) if true <= bound)
    assert bounds[index - 1] <= quantile(before, buckets(histogram), share) <= bounds[index]


def buckets(histogram: Histogram) -> dict[float, float]:
    return {float(sample.labels["le"]): sample.value for sample in histogram.family().samples if "le" in sample.labels}


def test_no_observation_has_no_quantile_and_one_beyond_all_bounds_has_the_last() -> None:
    histogram = Histogram("kochava_x_seconds", "X.")
    before = buckets(histogram)
    assert math.isnan(quantile(before, buckets(histogram), 0.5))
    histogram.observe(1000)
    assert quantile(before, buckets(histogram), 0.5) == 30.0


def test_a_scrape_sums_series_and_keeps_buckets_apart() -> None:
    metrics = Metrics()
    metrics.events_delivered.add(("events", "Level Complete", 'a"b'), 3)
    metrics.events_delivered.add(("events", "Purchase", "b"), 4)
    metrics.delivery_duration.observe(0.02)
    scrape = Scrape.read(metrics.text().decode())
    assert scrape.sums["kochava_events_delivered_total"] == 7
    assert scrape.buckets["kochava_delivery_duration_seconds"][0.025] == 1
    assert scrape.buckets["kochava_delivery_duration_seconds"][math.inf] == 1
    assert scrape.series == sum(not line.startswith("#") for line in metrics.text().decode().splitlines())
    delivered = {
        (label, value) for name, label, value in scrape.label_values if name == "kochava_events_delivered_total"
    }
    assert delivered == {("topic", "events"), ("event", "Level Complete"), ("event", "Purchase"),
                         ("app", 'a\\"b'), ("app", "b")}  # fmt: skip


def test_every_measure_and_every_line_of_the_plots_is_looked_at() -> None:
    metrics = Metrics()

    def probe(path: str) -> tuple[int, str]:
        metrics.events_delivered.add(("events", "Purchase", "a"), 10)
        for histogram in (metrics.delivery_duration, metrics.consume_to_settled, metrics.event_age):
            histogram.observe(0.02)
        return 200, metrics.text().decode()

    looker = Looker(SimpleNamespace(process=SimpleNamespace(pid=os.getpid()), probe=probe))
    looker.look()
    values = looker.look().values
    assert values["rss_mib"] > 10
    assert values["threads"] >= 1
    assert values["fds"] >= 3
    assert values["delivered_per_s"] > 0
    assert {measure.key for measure in MEASURES} <= {*values}
    assert {key for panel in PANELS for key in panel.lines.values()} <= {*values}


def test_a_member_that_has_ended_gives_an_empty_sample() -> None:
    looker = Looker(SimpleNamespace(process=SimpleNamespace(pid=2**22 + 1), probe=lambda _: (0, "")))
    assert looker.look().values == {}


# -- the schedule


def test_each_rule_for_one_app_names_an_app_that_the_events_have() -> None:
    """A rule for an app that never comes would be a fault that never happens."""
    guids = {guid(app, platform) for app in APPS for platform in PLATFORMS}
    named = {rule["match"]["app"] for _, rule in SINK_RULES.values() if "app" in rule.get("match", {})}
    assert named
    assert named <= guids
    assert {*SINK} < {*FAULTS} < {*DECK}


def test_the_warm_up_is_not_judged() -> None:
    run = replace(RUN, quiet=[Span(0, 5000), Span(9000, 14_000), Span(20_000, 25_000)], warm_ms=9000)
    assert run.judged == [Span(9000, 14_000), Span(20_000, 25_000)]


# -- the page

SOURCE = "events"
HISTORY = History(
    SOURCE, "events.dead", request_timeout_ms=3000, commit_interval_ms=1000,
    produced=[Produced((SOURCE, 0, 0), "a"), Produced((SOURCE, 0, 1), ""), Produced((SOURCE, 0, 2), "c")],
    posts=[Post(1000, "a", "200", True, 1020), Post(1010, "c", "200", True, 1030)],
    moved=[Moved(1100, ("events.dead", 0, 0), (SOURCE, 0, 1), 0)],
    faults=[Fault(2000, 2500, "SIGKILL", "member-2")],
    exits=[Exit(9900, "member-1", 0, 0.5, 20.0)],
)  # fmt: skip
RUN = Run(
    HISTORY, rate=500, seconds=600, protocol="classic", seed=1, warm_ms=60_000,
    samples=[Sample(second * 1000, {measure.key: 10.0 for measure in MEASURES}) for second in range(600)],
    quiet=[Span(second * 1000, second * 1000 + 5000) for second in range(0, 600, 20)],
    recoveries=[Recovery("broker killed", 6000, 9000, 12_000), Recovery("sink answers <503>", 26_000, 29_000, 30_500),
                Recovery("broker killed", 46_000, 49_000, 50_000)],
)  # fmt: skip


def findings(run: Run) -> list[Finding]:
    return judge_all(run.samples, run.judged)


def test_a_good_run_has_a_page_that_says_so() -> None:
    text = page(RUN, judge_history(HISTORY), findings(RUN), "<svg></svg>")
    assert "nothing grows, nothing is lost" in text
    assert text.index("resident memory") < text.index("<svg"), "the verdict comes before the pictures"
    assert "sink answers &lt;503&gt;" in text
    assert "<503>" not in text


def test_what_is_wrong_is_listed_first_and_its_facts_are_kept(tmp_path: Path) -> None:
    leaking = [Sample(at_ms, {**values, "other_fds": at_ms / 1000, "connections": 65}) for at_ms, values in RUN.samples]
    lost = replace(HISTORY, posts=HISTORY.posts[:1])
    run = replace(RUN, history=lost, samples=leaking, problems=["not back 60 s after: broker killed"])
    judged = findings(run)
    wrong = problems(run, judge_history(lost), judged)
    assert [text.split(",")[0].split(":")[0] for text in wrong] == [
        "not back 60 s after", "C1 lost", "file descriptors beside connections grows by 520",
        "65 connections were open",
    ]  # fmt: skip
    text = write(run, judge_history(lost), judged, tmp_path / "out").read_text()
    assert "4 wrong" in text
    assert text.index("C1 lost") < text.index("<table") < text.index("<svg")
    for name in ("soak.png", "samples.csv", "history.json", "timeline.txt"):
        assert (tmp_path / "out" / name).stat().st_size > 0


def test_a_run_that_is_too_short_is_no_good_run() -> None:
    run = replace(RUN, quiet=RUN.quiet[:5])
    assert len(problems(run, judge_history(HISTORY), findings(run))) == 1


def test_the_picture_is_an_svg_element_with_every_panel_and_fits_the_page() -> None:
    picture = svg(draw(RUN, findings(RUN)))
    root = ET.fromstring(picture)
    assert root.tag.endswith("svg")
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib
    for panel in PANELS:
        assert panel.title in picture
    assert "coming back" in picture


def test_a_run_without_a_single_sample_still_has_a_page() -> None:
    run = replace(RUN, samples=[], quiet=[], recoveries=[])
    assert "1 wrong" in page(run, judge_history(HISTORY), findings(run), svg(draw(run, findings(run))))


def test_faults_are_summed_up_by_kind() -> None:
    assert recovery_rows(RUN)[0] == ("broker killed", "2", "3.0 s", "2.0 s", "3.0 s")
