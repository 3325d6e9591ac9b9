"""docs/telemetry.md, made of the two catalogues: `python -m consumer.telemetry.reference > docs/telemetry.md`."""

from collections.abc import Iterator

from consumer.telemetry.events import EVENTS
from consumer.telemetry.metrics import MAX_SERIES, Counter, Gauge, Histogram, Metrics

HEAD = f"""\
# What the process tells

This page is made of the code's catalogues by `python -m consumer.telemetry.reference`; a test compares.

## Probes

On `admin.listen`, plain text, one reason a line, 200 or 503:

| path | well means |
|---|---|
| `/startupz` | the process has joined its group |
| `/readyz` | it has joined, reads, and isn't ending; else it says why it doesn't |
| `/livez` | the Kafka thread and the event loop move; brokers, endpoint and lag don't count: a restart mends none |
| `/metrics` | Prometheus' text format, or OpenMetrics if asked for |

## Metrics

No label comes out of a record: topics, configured apps (or `unknown`), standard event names (or `custom`), known
words. A metric has at most {MAX_SERIES:,} series; what would be more is counted under `other`. Every record read ends
as exactly one of these, which an alert can check for each process:

```
sum(kochava_events_consumed_total)
  = sum(kochava_events_delivered_total) + sum(kochava_events_filtered_total) + sum(kochava_events_retried_total)
  + sum(kochava_events_held_total) + sum(kochava_events_dead_lettered_total) + sum(kochava_events_abandoned_total)
  + kochava_events_in_flight
```
"""

LOG_HEAD = """\
## Log events

One JSON object a line, with `ts` (ISO 8601, UTC), `level`, `event`, `service`, `version` and the fields below; on a
terminal, text for people. A field that isn't listed is left out, a value that is neither text nor a number nor a
boolean is `[redacted]`. An error comes as `error_type` (with its cause's) and `frames` (file:line:function), never with
its text.
Repeated warnings: the first, then one per 10 s with a `count`.
"""


def reference() -> str:
    """Return the page."""
    return "\n".join([HEAD, *_metric_rows(), "", LOG_HEAD, *_event_rows(), ""])


def _metric_rows() -> Iterator[str]:
    yield from ("| metric | type | labels | meaning |", "|---|---|---|---|")
    for metric in Metrics().all():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{_exposed_name(metric)}` | {type(metric).__name__.lower()} | {labels} | {metric.help_text} |"


def _exposed_name(metric: Counter | Gauge | Histogram) -> str:
    return f"{metric.name}_total" if isinstance(metric, Counter) else metric.name


def _event_rows() -> Iterator[str]:
    yield from ("| event | level | fields | meaning |", "|---|---|---|---|")
    for name, event in EVENTS.items():
        fields = ", ".join(f"`{name}`" for name in event.fields)
        yield f"| `{name}` | {event.level} | {fields} | {event.meaning} |"


if __name__ == "__main__":
    print(reference(), end="")
