"""The metrics: one catalogue, counted in plain integers.

Twenty thousand events a second leave no room for a lock and a dictionary of objects per event, so the hot path adds to
plain dictionaries, and what Prometheus reads is made of them when it asks. Each counter is written by one thread.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

import confluent_kafka
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from consumer import __version__

Labels = tuple[str, ...]

MAX_SERIES = 10_000
"""Label sets of one metric; further ones are counted under `other`, so that no data can fill the memory."""
OTHER = "other"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LONG_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)


class Counter:
    """Only grows. `values` by label values, in the order of `labels`.

    Series that are known beforehand (*known*; the only one, if there are no labels) start at 0: a series that begins
    at 1 hides its first increase from Prometheus.
    """

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str] = (), known: Iterable[Labels] | None = None
    ) -> None:
        self.name = name
        self.help_text = help_text
        self.labels = tuple(labels)
        if known is None:
            known = () if labels else ((),)
        self.values: dict[Labels, int] = dict.fromkeys(known, 0)
        self._read: Callable[[], int] | None = None

    def add(self, labels: Labels, n: int = 1) -> None:
        try:
            self.values[labels] += n
        except KeyError:
            self._begin(labels, n)

    def _begin(self, labels: Labels, n: int) -> None:
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(labels)} of them")
        if len(self.values) >= MAX_SERIES:
            labels = (OTHER,) * len(self.labels)
        self.values[labels] = self.values.get(labels, 0) + n

    def read_from(self, read: Callable[[], int]) -> None:
        """Take the value, which has no labels, from *read* each time somebody looks: it is counted elsewhere."""
        self._read = read

    @property
    def total(self) -> int:
        return sum(self._now().values())

    def _now(self) -> dict[Labels, int]:
        # a copy, since the Kafka thread may add a series meanwhile; copying runs no Python code, so it is one step
        return {(): self._read()} if self._read else self.values.copy()

    def family(self) -> Metric:
        family = CounterMetricFamily(self.name, self.help_text, labels=self.labels)
        for labels, value in self._now().items():
            family.add_metric(labels, value)
        return family


class Gauge:
    """A value that comes and goes. One without labels is 0 until it is set."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help_text = help_text
        self.labels = tuple(labels)
        self.values: dict[Labels, float] = {} if labels else {(): 0}
        self._read: Callable[[], float | Mapping[Labels, float]] | None = None

    def set(self, value: float, labels: Labels = ()) -> None:
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(labels)} of them")
        if labels in self.values or len(self.values) < MAX_SERIES:
            self.values[labels] = value

    def remove(self, labels: Labels) -> None:
        """End a series, such as that of a partition which is no longer ours."""
        self.values.pop(labels, None)

    def read_from(self, read: Callable[[], float | Mapping[Labels, float]]) -> None:
        """Take the value, or all series by their labels, from *read* each time somebody looks."""
        self._read = read

    def family(self) -> Metric:
        family = GaugeMetricFamily(self.name, self.help_text, labels=self.labels)
        now = self._read() if self._read else self.values.copy()
        for labels, value in now.items() if isinstance(now, Mapping) else (((), now),):
            family.add_metric(labels, value)
        return family


class Histogram:
    """Observations in seconds, in fixed buckets."""

    labels: Labels = ()

    def __init__(self, name: str, help_text: str, bounds: tuple[float, ...] = SECONDS) -> None:
        self.name = name
        self.help_text = help_text
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def family(self) -> Metric:
        family = HistogramMetricFamily(self.name, self.help_text)
        names = (*map(str, self.bounds), "+Inf")
        family.add_metric([], list(zip(names, accumulate(self.counts), strict=True)), self.sum)
        return family


class Metrics(Collector):
    """Every metric of the process. Labels are bounded: topics, configured apps, known words."""

    def __init__(self) -> None:
        c, g, h = Counter, Gauge, Histogram
        self.events_consumed = c("kochava_events_consumed", "Records read and taken on.", ["topic"])
        self.events_delivered = c(
            "kochava_events_delivered", "Events that Kochava accepted.", ["topic", "event", "app"]
        )
        self.events_filtered = c(
            "kochava_events_filtered", "Records that a rule leaves out; `duplicate` is the rule of [dedup].", ["reason"]
        )
        self.events_retried = c("kochava_events_retried", "Records put on a retry tier.", ["reason", "app"])
        self.events_held = c("kochava_events_held", "Records put on the held topic.", ["app"])
        self.events_dead_lettered = c(
            "kochava_events_dead_lettered", "Records given up to a person.", ["reason", "app"]
        )
        self.events_abandoned = c(
            "kochava_events_abandoned", "Records left unsettled to the next owner of their partition.", ["reason"],
            known=[("revoked",), ("lost",), ("shutdown",)],
        )  # fmt: skip
        self.events_in_flight = g("kochava_events_in_flight", "Records taken on and not ended.")
        self.in_flight_events = g("kochava_in_flight_events", "Records in memory.")
        self.in_flight_limit = g("kochava_in_flight_limit", "The most records that may be in memory.")
        self.redelivered_skipped = c(
            "kochava_redelivered_skipped", "Records that came again while we had them, and were not sent again."
        )
        self.replaying = g("kochava_replaying", "1 in a process of a bounded replay: what it sends, it sends again.")
        self.replay_expired = c(
            "kochava_replay_expired", "Records of a bounded replay that retention removed before they were read."
        )
        self.settled_before_skipped = c(
            "kochava_settled_before_skipped",
            "Records that an earlier owner had settled beyond its commit position, and that were not sent again.",
        )
        self.offset_maps_ignored = c(
            "kochava_offset_maps_ignored",
            "Metadata of commits that we did not believe, so that what it may have covered is sent again.",
            ["reason"],
            known=[(word,) for word in ("foreign", "truncated", "damaged", "checksum", "span", "unreadable")],
        )
        self.stale_answers = c("kochava_stale_answers", "Ends that came after their partition had gone.")
        self.delivery_attempts = c(
            "kochava_delivery_attempts", "Requests by what came of them.", ["outcome", "status_class"]
        )
        self.delivery_duration = h("kochava_delivery_duration_seconds", "One request, from send to answer.")
        self.consume_to_settled = h(
            "kochava_consume_to_settled_seconds", "From the read of a record to its end.", (*SECONDS, 60.0, 300.0)
        )
        self.event_age = h("kochava_event_age_seconds", "From the user's act to the end of its record.", LONG_SECONDS)
        self.payload_warnings = c(
            "kochava_payload_warnings", "Payloads sent although something of them was left out.", ["warning"]
        )
        self.decode_errors = c("kochava_decode_errors", "Records that cannot be decoded.", ["kind"])
        self.forward_failures = c(
            "kochava_forward_failures", "Records that a topic of ours did not take, and are tried again.",
            ["topic", "reason"],
        )  # fmt: skip
        self.dead_letter_guard_tripped = g(
            "kochava_dead_letter_guard_tripped", "1: too many dead letters, reading stopped until a restart."
        )
        self.concurrency_limit = g("kochava_concurrency_limit", "Requests that may be on the wire now.")
        self.concurrency_moves = c("kochava_concurrency_moves", "Moves of that limit, by their reason.", ["reason"])
        self.circuit_state = g("kochava_circuit_state", "0 closed, 1 open: nothing is read.")
        self.lane_closed = g("kochava_lane_closed", "1: this app's events wait or are held.", ["app"])
        self.connections_open = g("kochava_connections_open", "Connections to the endpoint.")
        self.connections_opened = c("kochava_connections_opened", "Connections opened since the start.")
        self.consumer_lag_records = g(
            "kochava_consumer_lag_records", "Records behind the end of the log.", ["topic", "partition"]
        )
        self.consumer_lag_seconds = g(
            "kochava_consumer_lag_seconds", "Age of the record at the commit position; 0 at the end of the log.",
            ["topic", "partition"],
        )  # fmt: skip
        self.commit_stall = g(
            "kochava_commit_stall_seconds", "How long the commit position stands still with work in flight.",
            ["topic", "partition"],
        )  # fmt: skip
        self.settled_beyond_commit = g(
            "kochava_settled_beyond_commit", "Ended records beyond the commit position: its map tells the next owner.",
            ["topic", "partition"],
        )  # fmt: skip
        self.offset_commits = c("kochava_offset_commits", "Commits by what came of them.", ["outcome"], [("ok",)])
        self.last_commit_timestamp = g(
            "kochava_last_commit_timestamp_seconds", "When a commit last succeeded, epoch seconds; 0 before the first."
        )
        self.rebalances = c(
            "kochava_rebalances", "Assignments, revocations, losses.", ["kind"],
            known=[("assign",), ("revoke",), ("lost",)],
        )  # fmt: skip
        self.assigned_partitions = g("kochava_assigned_partitions", "Partitions that are ours.", ["topic"])
        self.drain_duration = h("kochava_drain_seconds", "Waiting for what was on its way when partitions left.")
        self.callback_errors = c(
            "kochava_callback_errors", "Bugs of ours inside the client's callbacks.", ["callback"],
            known=[("assign",), ("revoke",), ("lost",), ("commit",), ("stats",), ("error",)],
        )  # fmt: skip
        self.schema_cache_misses = c("kochava_schema_cache_misses", "Records that had to wait for their schema.")
        self.poll_loop = g("kochava_poll_loop_seconds_since_last", "Since the Kafka thread last went round.")
        self.event_loop_lag = g("kochava_event_loop_lag_seconds", "How late the event loop's last tick was.")
        self.event_loop_tasks = g("kochava_event_loop_tasks", "Tasks of the event loop: retries, probes, the servers'.")
        self.build_info = g("kochava_build_info", "1; the labels say what runs.", ["version", "librdkafka"])
        self.build_info.set(1, (__version__, confluent_kafka.libversion()[0]))
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def all(self) -> Iterator[Counter | Gauge | Histogram]:
        return (metric for metric in vars(self).values() if isinstance(metric, Counter | Gauge | Histogram))

    def collect(self) -> Iterator[Metric]:
        return (metric.family() for metric in self.all())

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their content type: OpenMetrics if *accept*, the request's header, names it."""
        if "application/openmetrics-text" in accept:
            body: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]  # theirs
            return body, openmetrics.CONTENT_TYPE_LATEST
        return self.text(), CONTENT_TYPE_PLAIN_0_0_4
