"""Counting in plain integers, and what Prometheus reads of it."""

import io
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, strategies as st
from prometheus_client import openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from consumer.telemetry import Counter, Gauge, Histogram, Metrics, Progress, configure_logging
from consumer.telemetry.metrics import MAX_SERIES

AWKWARD = 'a"b\\c\nd ü'


def samples(text: str, parse=parse_text) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = [sample for family in parse(text) for sample in family.samples]
    named = {(of.name, frozenset(of.labels.items())): of.value for of in found}
    assert len(named) == len(found), "a series that comes twice makes Prometheus refuse the whole scrape"
    return named


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


def busy_metrics() -> Metrics:
    metrics = Metrics()
    for metric in metrics.all():
        labels = (AWKWARD,) * len(metric.labels)
        match metric:
            case Counter():
                metric.add(labels, 3)
            case Gauge():
                metric.set(0.25, labels)
            case Histogram():
                metric.observe(0.02)
    return metrics


@pytest.mark.parametrize(
    ("accept", "parse", "kind"),
    [
        ("", parse_text, "text/plain"),
        ("application/openmetrics-text;version=1.0.0,*/*;q=0.5", parse_openmetrics, "application/openmetrics-text"),
    ],
)
def test_both_formats_are_valid_and_hold_every_metric(accept: str, parse, kind: str) -> None:
    metrics = busy_metrics()
    body, content_type = metrics.render(accept)
    text = body.decode()
    found = samples(text, parse)
    assert content_type.startswith(kind)
    for metric in metrics.all():
        labels = frozenset(dict.fromkeys(metric.labels, AWKWARD).items())
        suffix = {Counter: "_total", Gauge: "", Histogram: "_count"}[type(metric)]
        assert (metric.name + suffix, labels) in found
        assert metric.name.startswith("kochava_")
        assert metric.help_text.endswith(".") or metric.name == "kochava_build_info"


def test_an_unused_process_exposes_valid_text_with_its_known_series_at_zero() -> None:
    """A series that begins at 1 has no increase that `rate` could see, so the first failure would raise no alert."""
    metrics = Metrics()
    text = metrics.text().decode()
    assert value(text, "kochava_callback_errors_total", callback="revoke") == 0
    assert value(text, "kochava_rebalances_total", kind="lost") == 0
    assert value(text, "kochava_stale_answers_total") == 0
    assert value(text, "kochava_dead_letter_guard_tripped") == 0
    assert list(parse_openmetrics(metrics.render(openmetrics.exposition.CONTENT_TYPE_LATEST)[0].decode()))


def test_a_counter_counts_by_labels() -> None:
    counter = Counter("kochava_x", "X.", ["reason", "app"])
    counter.add(("a", "b"))
    counter.add(("a", "b"), 4)
    counter.add(("a", "c"), 2)
    assert counter.values == {("a", "b"): 5, ("a", "c"): 2}
    assert counter.total == 7


def test_more_series_than_the_bound_are_counted_under_other_and_none_is_lost() -> None:
    counter = Counter("kochava_x", "X.", ["reason", "app"])
    for number in range(MAX_SERIES + 50):
        counter.add((str(number), "app"))
    counter.add(("3", "app"))
    assert len(counter.values) == MAX_SERIES + 1
    assert counter.values["other", "other"] == 50
    assert counter.values["3", "app"] == 2
    assert counter.total == MAX_SERIES + 51


def test_a_gauge_takes_no_more_series_than_the_bound() -> None:
    gauge = Gauge("kochava_x", "X.", ["partition"])
    for number in range(MAX_SERIES + 50):
        gauge.set(1, (str(number),))
    gauge.set(2, ("3",))
    assert len(gauge.values) == MAX_SERIES
    assert gauge.values["3",] == 2


@pytest.mark.parametrize("labels", [(), ("a",), ("a", "b", "c")])
def test_a_wrong_number_of_labels_is_a_bug_and_says_so(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="kochava_x has the labels"):
        Counter("kochava_x", "X.", ["reason", "app"]).add(labels)
    with pytest.raises(ValueError, match="kochava_x has the labels"):
        Gauge("kochava_x", "X.", ["reason", "app"]).set(1, labels)


def test_the_series_of_a_lost_partition_ends() -> None:
    metrics = Metrics()
    metrics.commit_stall.set(4.5, ("events", "0"))
    metrics.commit_stall.set(1.5, ("events", "1"))
    metrics.commit_stall.remove(("events", "0"))
    metrics.commit_stall.remove(("events", "7"))
    text = metrics.text().decode()
    assert 'kochava_commit_stall_seconds{partition="1",topic="events"} 1.5' in text
    assert 'partition="0"' not in text


def test_what_is_counted_elsewhere_is_read_at_each_scrape() -> None:
    metrics = Metrics()
    now = {"opened": 1, "open": 1}
    lag = {("events", "0"): 7.0}
    metrics.connections_opened.read_from(lambda: now["opened"])
    metrics.connections_open.read_from(lambda: now["open"])
    metrics.consumer_lag_records.read_from(lambda: lag)
    metrics.text()
    now.update(opened=12, open=5)
    lag["events", "1"] = 9.0
    text = metrics.text().decode()
    assert value(text, "kochava_connections_opened_total") == 12
    assert metrics.connections_opened.total == 12
    assert value(text, "kochava_connections_open") == 5
    assert value(text, "kochava_consumer_lag_records", topic="events", partition="1") == 9


@given(st.lists(st.floats(0, 1000), max_size=50))
def test_a_histogram_counts_each_observation_in_every_bucket_above_it(observed: list[float]) -> None:
    histogram = Histogram("kochava_x_seconds", "X.", (0.01, 0.5, 10.0))
    for each in observed:
        histogram.observe(each)
    found = {sample.labels.get("le", sample.name): sample.value for sample in histogram.family().samples}
    for bound in ("0.01", "0.5", "10.0", "+Inf"):
        assert found[bound] == sum(each <= float(bound) for each in observed)
    assert found["kochava_x_seconds_count"] == len(observed)
    assert found["kochava_x_seconds_sum"] == pytest.approx(sum(observed))


def test_bounds_rise() -> None:
    """bisect on anything else would count at random."""
    histograms = [metric for metric in Metrics().all() if isinstance(metric, Histogram)]
    assert histograms
    for histogram in histograms:
        assert all(low < high for low, high in pairwise(histogram.bounds))


class TestProgress:
    def tell(self, progress: Progress, now: float, **changes: object) -> bool:
        told = {"in_flight": 3, "lag_records": 40, "connections": 2, "reading": "yes"}
        return progress.tell(now, **(told | changes))

    def test_a_line_per_interval_with_rates_since_the_last_and_totals(self) -> None:
        stream = io.StringIO()
        configure_logging("info", "json", stream, strict=True)
        metrics = Metrics()
        progress = Progress(metrics, interval_s=10.0)
        metrics.events_consumed.add(("events",), 700)  # before the first look: part of no rate's interval
        assert not self.tell(progress, 100.0)
        metrics.events_consumed.add(("events",), 300)
        metrics.events_delivered.add(("events", "Purchase", "app"), 250)
        metrics.events_delivered.add(("events", "custom", "app"), 5)
        metrics.events_dead_lettered.add(("truncated", "unknown"), 7)
        assert not self.tell(progress, 109.9)
        assert self.tell(progress, 112.5)
        metrics.events_delivered.add(("events", "custom", "app"), 50)
        metrics.events_held.add(("app",), 2)
        assert not self.tell(progress, 122.4)
        assert self.tell(progress, 122.5, reading="breaker")

        first, second = (orjson.loads(line) for line in stream.getvalue().splitlines())
        assert first.items() >= {
            "event": "progress", "interval_s": 12.5, "consumed": 1000, "consumed_per_s": 24, "delivered": 255,
            "delivered_per_s": 20.4, "dead_lettered": 7, "held": 0, "in_flight": 3, "lag_records": 40, "connections": 2,
            "reading": "yes",
        }.items()  # fmt: skip
        assert second.items() >= {
            "interval_s": 10.0, "consumed_per_s": 0, "delivered": 305, "delivered_per_s": 5, "held": 2,
            "reading": "breaker",
        }.items()  # fmt: skip
