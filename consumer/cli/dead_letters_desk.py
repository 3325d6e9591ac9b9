"""What the `dead-letters` commands share: settings, a reader, the appraiser, a progress bar on a terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn, TimeRemainingColumn

from consumer.adapters.kafka_config import reader_conf
from consumer.adapters.kafka_dead_letters import Progress, Span, TopicReader
from consumer.appraisal import Appraiser, Verdict
from consumer.configuration import load
from consumer.core.dead_letters import Selection
from consumer.core.retry import RetryPlan
from consumer.dead_letters import Examiner, Scan
from consumer.errors import MappingError
from consumer.ports import Decoded, Undecodable
from consumer.replay import own_topics
from consumer.telemetry import configure_logging


class Desk:
    """One topic of ours, open for reading."""

    def __init__(self, config: Path | None, topic: str = "dead-letter", *, decode: bool = True) -> None:
        configure_logging("warning", "console", sys.stderr)  # what we print on standard output is data
        self.settings = load(config, os.environ)
        self.plan = RetryPlan.of(self.settings.topic_prefix, self.settings.retry.tiers)
        of_replays = own_topics(self.settings.topic_prefix).dead_letter_topic
        named = {"held": self.plan.held_topic, "replay": of_replays}
        self.topics = (self.plan.dead_letter_topic, *named.values())
        self.topic = named.get(topic, self.plan.dead_letter_topic)
        self._decode = decode
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.reader = self._stack.enter_context(TopicReader(reader_conf(self.settings, "kochava-consumer")))
        self.appraiser = self._stack.enter_context(Appraiser(self.settings, _print_misfit)) if self._decode else None
        self.examiner = Examiner(self.appraiser, self.settings.schemas.wire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def judge(self, decoded: Decoded | Undecodable) -> Verdict:
        """Say what `run` would do with it now."""
        assert self.appraiser is not None
        return self.appraiser.judge(decoded)

    def scan(self, selection: Selection, *, judge: bool = False, decode: bool = True) -> Scan:
        """Read the topic; of the held one, what the group has not taken since."""
        examiner = self.examiner if decode else Examiner(None, self.settings.schemas.wire)
        spans = self.reader.spans(self.topic)
        if self.topic == self.plan.held_topic:
            taken = self.reader.committed(self.topic, list(spans))
            spans = {number: Span(max(span.start, taken.get(number, 0)), span.end) for number, span in spans.items()}
        with progress(
            f"reading {self.topic}", sum(max(0, span.end - span.start) for span in spans.values())
        ) as advance:
            return examiner.scan(self.reader, self.topic, selection, advance, spans=spans, judge=judge)


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress]:
    """Show a bar on standard error while the block runs, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = (TextColumn(escape(what)), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def _print_misfit(error: MappingError) -> None:
    for problem in error.problems:
        click.echo(f"note: {problem}", err=True)
