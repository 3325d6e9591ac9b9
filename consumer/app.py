"""The composition root: builds each object once, wires signals, runs, and ends by a deadline. It knows all others."""

import asyncio
import gc
import resource
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random
from typing import Any

from consumer.adapters.admin_server import AdminServer
from consumer.adapters.clock import SystemClock
from consumer.adapters.fast_transport import FastTransport
from consumer.adapters.httpx_transport import HttpxTransport
from consumer.adapters.kafka_config import (
    OUR_PREFETCH_KIB,
    SOURCE_PREFETCH_KIB,
    admin_conf,
    consumer_conf,
    producer_conf,
)
from consumer.adapters.kafka_forwarder import KafkaForwarder
from consumer.adapters.kafka_password import PasswordFile
from consumer.adapters.kafka_positions import StartPositions
from consumer.adapters.kafka_replay import ReplayPositions, is_over
from consumer.adapters.kafka_source import KafkaSource, SourcePolicy
from consumer.adapters.shadow import ShadowForwarder, ShadowTransport
from consumer.adapters.tls import client_context
from consumer.core.assignment import Assignment
from consumer.core.breaker import Breaker, BreakerPolicy
from consumer.core.budget import InFlightBudget
from consumer.core.concurrency import Concurrency, ConcurrencyPolicy
from consumer.core.flood_guard import FloodGuard
from consumer.core.lane import TICK_S, LanePolicy
from consumer.core.parking import Parking
from consumer.core.rate import Rate
from consumer.core.record import Record
from consumer.core.replay import narrowed
from consumer.core.retry import RetryPlan
from consumer.delivery import Delivery, DeliveryPolicy, raise_bug
from consumer.duplicates import Duplicates
from consumer.envelope import Envelope
from consumer.errors import ConsumerError, ExitCode, KafkaFatalError, SettingsError
from consumer.forwarding import Forwarding
from consumer.health import Health
from consumer.key_order import KeyOrder
from consumer.lanes import Lanes
from consumer.parts import app_key, load_spec, make_decoder, make_registry, make_translator, tell_misfit
from consumer.pipeline import Pipeline
from consumer.ports import Forwarder, ForwardProblem, Transport
from consumer.rebalance import Rebalance
from consumer.replay import Replay, ReplayTranslator, Seen, own_topics
from consumer.settings import App as AppSettings, Delivery as DeliverySettings, Settings
from consumer.settlement import Positions, Settlement
from consumer.telemetry import Metrics, Progress, configure_logging, kafka_logger, log, scrub_uncaught
from consumer.translate import Translator
from consumer.watchdog import Watchdog

try:
    from uvloop import new_event_loop
except ImportError:  # stock asyncio works too, slower
    from asyncio import new_event_loop  # type: ignore[assignment]

GC_THRESHOLD = (50_000, 20, 50)
"""Collect less often: what an event makes is freed by counting. Brought 10 % of the CPU per event (83 for 93 us)."""
COLLECT_S = 20.0
"""Collect all, this often: what failed events leave in cycles would otherwise pile up to the threshold, tens of MiB."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
IDLE_LOOK_S = 5.0
"""How often a member of a replay that was given nothing looks whether the others are done."""
TELL_S = 1.0
"""How often gauges that cost something are looked at."""


def run(settings: Settings, *, shadow: bool = False, replay: Replay | None = None) -> "Member":
    """Run one group member until SIGTERM or SIGINT, or a bounded *replay* until its end.

    Returns:
        The member that has ended.

    Raises:
        ConsumerError: it could not start or go on; the exit code is its own.
    """
    configure_logging(settings.log.level, settings.log.format, sys.stdout)
    scrub_uncaught()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold people's data
    loop = new_event_loop()  # a Runner starts it again in order to close it: there may be no descriptor left for that
    member = None
    try:
        asyncio.set_event_loop(loop)
        member = Member(settings, loop, shadow=shadow, replay=replay)
        loop.run_until_complete(member.run())
    finally:
        asyncio.set_event_loop(None)
        loop.close()  # waits for name lookups that nobody waits for any more
        if member is not None:
            member.watchdog.cancel()
        for number in SIGNALS:  # all is done: one more must not end it otherwise
            signal.signal(number, signal.SIG_IGN)
    return member


class Member:
    """One group member: its objects, and the order in which they start and end."""

    def __init__(
        self, settings: Settings, loop: asyncio.AbstractEventLoop, *, shadow: bool, replay: Replay | None = None
    ) -> None:
        self._settings = settings
        self._replay = replay
        self._loop = loop
        self._clock = SystemClock()
        self.metrics = self._metrics = Metrics()
        self._health = Health(stuck_after_s=settings.delivery.drain_timeout_s + settings.kafka.committed_budget_s + 30)
        self.watchdog = Watchdog(settings.watchdog_s)
        self._ended: asyncio.Future[None] = loop.create_future()
        self._failure: BaseException | None = None
        self._was_told = False
        self._idle_since = 0.0
        self.is_replayed = False
        """A bounded replay has come to its end."""
        self._progress = Progress(self._metrics, settings.log.progress_interval_s)
        self._client_id = socket.gethostname()
        self._is_shadow = shadow or (replay is not None and replay.is_dry)
        secret = settings.kafka.password_file
        self._password = None if secret is None else PasswordFile(secret, self._clock)
        self._password_users: list[Callable[[str], None]] = []
        delivery = settings.delivery
        plan = (
            RetryPlan.of(settings.topic_prefix, settings.retry.tiers)
            if replay is None
            else own_topics(settings.topic_prefix)
        )
        self._budget = InFlightBudget(delivery.max_in_flight_records, delivery.max_in_flight_bytes)
        self._registry = make_registry(settings, self._clock)
        self._decoder = make_decoder(settings, self._clock, self._registry)
        self.translator = self._make_translator()
        self._transport = self._make_transport()
        self._forwarder = self._make_forwarder()
        self._events = self._make_source(plan, settings.kafka.topics, SOURCE_PREFETCH_KIB)
        has_returns = replay is None and not shadow
        self._returns = self._make_source(plan, plan.read_topics, OUR_PREFETCH_KIB) if has_returns else None
        self._sources = [source for source in (self._events, self._returns) if source is not None]
        self._running = len(self._sources)
        settlement = Settlement(
            budget=self._budget,
            guard=FloodGuard(
                settings.dead_letter.max_share,
                settings.dead_letter.window_records,
                settings.dead_letter.min_dead_letters,
            ),
            metrics=self._metrics,
            clock=self._clock,
            publish=self._publish,
            wake_readers=self._wake_readers,
        )
        forwarding = Forwarding(
            forwarder=self._forwarder, plan=plan, settlement=settlement, metrics=self._metrics, clock=self._clock
        )
        breaker = Breaker(BreakerPolicy(**settings.breaker.model_dump()))
        random = Random()  # noqa: S311 - jitter
        self._delivery = Delivery(
            transport=self._transport,
            breaker=breaker,
            concurrency=self._make_concurrency(),
            rate=_rate(delivery),
            lanes=Lanes(
                LanePolicy(
                    waiting_records=settings.lane.waiting_records,
                    waiting_s=settings.lane.waiting_s,
                    probe_initial_s=settings.lane.probe_initial_s,
                    probe_max_s=settings.lane.probe_max_s,
                    slow_share=delivery.slow_app_share,
                    retry_share=delivery.retry_share,
                ),
                switched_off=frozenset(app_key(key) for key, app in settings.kochava.apps.items() if not app.enabled),
                rates={app_key(key): rate for key, app in settings.kochava.apps.items() if (rate := _rate(app))},
                breaker=breaker,
                forwarding=forwarding,
                settlement=settlement,
                metrics=self._metrics,
                clock=self._clock,
                random=random,
                requeue=self._requeue,
                sweep_held=self._sweep_held,
            ),
            forwarding=forwarding,
            settlement=settlement,
            policy=DeliveryPolicy(
                request_timeout_s=delivery.request_timeout_s,
                retry_budget_s=delivery.retry_budget_s,
                max_attempts=delivery.max_attempts,
                backoff_initial_s=delivery.backoff_initial_s,
                backoff_max_s=delivery.backoff_max_s,
                retry_after_cap_s=delivery.retry_after_cap_s,
            ),
            metrics=self._metrics,
            clock=self._clock,
            random=random,
            resume=self._resume,
        )
        duplicates = None
        if settings.dedup.window_records:
            duplicates = Duplicates(
                settings.dedup.window_records, delivery=self._delivery, settlement=settlement, requeue=self._requeue
            )
        self._pipeline = Pipeline(
            decoder=self._decoder,
            translator=self.translator,
            delivery=self._delivery,
            forwarding=forwarding,
            settlement=settlement,
            our_topics=frozenset(plan.topics),
            max_span_records=delivery.max_span_records,
            metrics=self._metrics,
            clock=self._clock,
            duplicates=duplicates,
            order=KeyOrder(settlement=settlement, requeue=self._requeue) if delivery.order == "key" else None,
        )

    # -- parts

    def _make_translator(self) -> Translator:
        replay, settings = self._replay, self._settings
        if replay is None:
            return make_translator(settings, self._decoder, tell_misfit)
        spec = narrowed(load_spec(settings), replay.selection)
        return make_translator(settings, self._decoder, tell_misfit, spec=spec, kind=partial(ReplayTranslator, replay))

    def _make_transport(self) -> Transport:
        delivery, kochava = self._settings.delivery, self._settings.kochava
        if self._is_shadow:
            return ShadowTransport(self._loop)
        context = client_context(kochava.ca_file) if kochava.endpoint.startswith("https:") else None
        if delivery.transport == "httpx" or delivery.proxy is not None:
            return HttpxTransport(
                kochava.endpoint,
                connections=delivery.connections,
                connect_timeout_s=delivery.connect_timeout_s,
                idle_timeout_s=delivery.idle_timeout_s,
                ssl_context=context,
                user_agent=kochava.user_agent,
                clock=self._clock,
                loop=self._loop,
                proxy=delivery.proxy,
            )
        return FastTransport(
            kochava.endpoint,
            connections=delivery.connections,
            connect_timeout_s=delivery.connect_timeout_s,
            idle_timeout_s=delivery.idle_timeout_s,
            max_connection_age_s=delivery.max_connection_age_s,
            ssl_context=context,
            user_agent=kochava.user_agent,
            clock=self._clock,
            loop=self._loop,
        )

    def _make_concurrency(self) -> Concurrency:
        delivery = self._settings.delivery
        floor = min(delivery.min_connections, delivery.connections)
        return Concurrency(
            ConcurrencyPolicy(floor if delivery.adaptive_concurrency else delivery.connections, delivery.connections)
        )

    def _make_forwarder(self) -> Forwarder:
        if self._is_shadow:
            return ShadowForwarder(self._loop)
        conf = {**producer_conf(self._settings, self._client_id), "logger": kafka_logger()}
        forwarder = KafkaForwarder(conf, self._loop, self._producer_failed)
        self._password_users.append(forwarder.set_password)
        return forwarder

    def _make_source(self, plan: RetryPlan, topics: Sequence[str], prefetch_kib: int) -> KafkaSource:
        kafka, replay = self._settings.kafka, self._replay
        group_id = f"{kafka.group_id}-shadow" if self._is_shadow else kafka.group_id
        conf = consumer_conf(self._settings, self._client_id, prefetch_kib=prefetch_kib)
        kind: Callable[..., StartPositions] = StartPositions
        if replay is not None:
            group_id = replay.group_id
            conf["enable.partition.eof"] = True  # what was compacted or aborted before the end never comes
            kind = partial(ReplayPositions, digest=replay.digest)
        source = KafkaSource(
            conf={**conf, "group.id": group_id, "logger": kafka_logger()},
            policy=SourcePolicy(
                topics=tuple(topics),
                batch_max_records=kafka.batch_max_records,
                batch_max_wait_s=kafka.batch_max_wait_ms / 1000,
                drain_timeout_s=self._settings.delivery.drain_timeout_s,
                held_sweep_s=self._settings.lane.held_sweep_s,
                digest=None if replay is None else replay.digest,
            ),
            positions=kind(
                group_id=group_id,
                source_topics=kafka.topics,
                our_topics=() if self._is_shadow else plan.topics,
                start=kafka.start,
                budget_s=kafka.committed_budget_s,
                clock=self._clock,
                pause=time.sleep,
                admin_conf={**admin_conf(self._settings, self._client_id), "logger": kafka_logger()},
                max_span_records=self._settings.delivery.max_span_records,
                metrics=self._metrics,
            ),
            parking=Parking(plan),
            budget=self._budget,
            metrics=self._metrics,
            clock=self._clock,
            ending=self.watchdog.start,
            first_start=partial(self._call_on_loop, self._leave_a_mark, plan.held_topic),
        )
        self._password_users.append(source.set_password)
        return source

    def _call_on_loop(self, callback: Callable[[str], None], argument: str) -> None:
        self._loop.call_soon_threadsafe(callback, argument)

    def _leave_a_mark(self, topic: str) -> None:
        """Put a tombstone on the held topic, until it is there: by it a group is known that the broker has forgotten.

        Even if no record ever fails, and long after it has expired: what counts is that the topic had one.
        """
        headers = (("kochava-stage", b"first-start"),)

        def reported(problem: ForwardProblem | None) -> None:
            if problem is not None:
                self._loop.call_later(TELL_S, self._leave_a_mark, topic)

        self._forwarder.forward(topic, Record(topic, 0, 0, -1, None, None), headers, reported)

    # -- between the two sides

    def _publish(self, positions: Positions) -> None:
        for source in self._sources:  # each stores what it owns
            source.publish(positions)

    def _wake_readers(self) -> None:
        for source in self._sources:
            source.wake()

    def _sweep_held(self, limit: int | None) -> None:
        if self._returns is not None:
            self._returns.sweep_held(limit)

    def _resume(self) -> None:
        self._pipeline.pump_soon()

    def _requeue(self, envelopes: Iterable[Envelope]) -> None:
        self._pipeline.requeue(envelopes)

    # -- running

    async def run(self) -> None:
        """Run until the Kafka thread has ended.

        Raises:
            ConsumerError: what ended it, if a signal did not.
        """
        self._watch()
        self._loop.set_exception_handler(self._on_bug)
        admin = AdminServer(self._settings.admin.listen, self._health, self._metrics, self._clock)
        try:
            await admin.start()
        except SettingsError:
            if self._replay is None:
                raise
            log.warning("admin.not_listening")  # the running member has the port; who watches a replay sees its bar
        for number in SIGNALS:
            self._loop.add_signal_handler(number, self._on_signal)
        replay = self._replay
        group_id = self._settings.kafka.group_id if replay is None else replay.group_id
        log.info("consumer.started", group=group_id, shadow=self._is_shadow)
        if replay is not None:
            log.info("replay.planned", group=replay.group_id, partitions=replay.partitions, records=replay.records,
                     rule=str(replay.span))  # fmt: skip
            self._metrics.replaying.set(1)
        if insecure := self._settings.kafka.insecure:
            log.warning("kafka.insecure", properties=",".join(insecure))
        rebalance = Rebalance(self._loop, self._pipeline, self._clock)
        for source in self._sources:
            threading.Thread(target=self._read, args=(source, rebalance), name="kafka", daemon=True).start()
        gc.collect()
        gc.freeze()  # what the start made lives as long as the process
        gc.set_threshold(*GC_THRESHOLD)
        ticking = self._loop.create_task(self._tick())
        ticking.add_done_callback(raise_bug)
        try:
            await self._ended
        finally:
            ticking.cancel()
            await self._pipeline.close()
            await self._forwarder.close(self._settings.delivery.close_timeout_s)
            await self._transport.close()
            await self._decoder.close()
            if self._registry is not None:
                await self._registry.close()
            await admin.close()
        log.info("shutdown.finished")

    def _read(self, source: KafkaSource, rebalance: Rebalance) -> None:
        """Be the body of one Kafka thread."""
        failure: BaseException | None = None
        try:
            source.run(rebalance)
        except BaseException as error:  # noqa: BLE001 - carried to the main thread, which ends the process with it
            failure = error
        self._loop.call_soon_threadsafe(self._has_ended, failure)

    def _producer_failed(self, reason: str) -> None:
        """Only a new process has a producer that works: what it didn't take is read again."""
        self._fail(KafkaFatalError(f"the producer to our own topics cannot go on: {reason}"))

    def _on_bug(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Nobody caught this on the event loop. A record may hang because of it, so the process ends."""
        error = context.get("exception")
        if error is None or isinstance(error, OSError):  # the loop's own remarks, and broken connections
            log.warning("library.log", logger="asyncio", place=type(error).__name__, count=1)
            return
        log.error("exception.uncaught", where="event loop", exc_info=error)
        self._fail(error)

    def _fail(self, failure: BaseException) -> None:
        """End the process in an orderly way, because of *failure*."""
        self._failure = self._failure or failure
        self.watchdog.start(failure.exit_code if isinstance(failure, ConsumerError) else ExitCode.BUG)
        for source in self._sources:
            source.stop()

    def _has_ended(self, failure: BaseException | None) -> None:
        """One reader has ended: so does the other, and with both the process."""
        self._failure = self._failure or failure
        self._running -= 1
        for source in self._sources:
            source.stop()
        if self._running == 0 and not self._ended.done():
            if self._failure is None:
                self._ended.set_result(None)
            else:
                code = self._failure.exit_code if isinstance(self._failure, ConsumerError) else ExitCode.BUG
                log.error("consumer.failed", exit_code=int(code), exc_info=self._failure)
                self._ended.set_exception(self._failure)

    def _on_signal(self) -> None:
        if self._was_told:
            self.watchdog.bite("second signal")
        self._was_told = True
        log.info("shutdown.started", in_flight=self._budget.records)
        self._health.not_ready("shutdown", "draining")
        self.watchdog.start()
        for source in self._sources:
            source.stop()

    async def _tick(self) -> None:
        told_at = 0.0
        collected_at = self._clock.monotonic()
        while True:
            expected = self._clock.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            now = self._clock.monotonic()
            self._metrics.event_loop_lag.set(max(0.0, now - expected))
            self._health.beat_loop(now)
            if None not in (beats := [source.heartbeat for source in self._sources]):
                self._health.beat_kafka(min(beat for beat in beats if beat is not None))
            if all(source.has_joined for source in self._sources):
                self._health.set_started()
            self._pipeline.tick()
            stop, go = self._pipeline.over_span()
            if stop or go:
                for source in self._sources:
                    source.set_span_paused(stop, go)
            if now - told_at >= TELL_S:
                told_at = now
                self._tell(now)
                self._follow_password()
            if self._replay is not None:
                await self._look_at_replay(self._replay, now)
            if now - collected_at >= COLLECT_S:
                collected_at = now
                gc.collect()

    async def _look_at_replay(self, replay: Replay, now: float) -> None:
        """Tell how far it is, and end the process when all of it is done that this one was given."""
        metrics = self._metrics
        read = metrics.events_consumed.total + metrics.settled_before_skipped.total
        dead = metrics.events_dead_lettered.total + metrics.events_held.total
        replay.watch(Seen(read, metrics.events_delivered.total, dead))
        if self._pipeline.assignments:
            self._idle_since = now
            is_done = all(of.end is not None and of.tracker.committable >= of.end for of in self._pipeline.assignments)
        else:  # none were given to us; the others may still fail
            is_idle = self._events.has_joined and now - self._idle_since > IDLE_LOOK_S
            self._idle_since = now if is_idle else self._idle_since
            is_done = is_idle and await asyncio.to_thread(self._is_over_for_all, replay)
        if is_done and not (self._was_told or self.is_replayed):
            self.is_replayed = True
            log.info("replay.finished", group=replay.group_id, delivered=metrics.events_delivered.total, dead=dead)
            self.watchdog.start()
            for source in self._sources:
                source.stop()

    def _is_over_for_all(self, replay: Replay) -> bool:
        conf = {**admin_conf(self._settings, self._client_id), "logger": kafka_logger()}
        return is_over(conf, replay.group_id, self._settings.kafka.topics)

    def _tell(self, now: float) -> None:
        """Bring up to date what the probes and the progress line say."""
        for reason, why in _NOT_READY.items():
            if reason in self._budget.closed_for:
                self._health.not_ready(reason, why)
            else:
                self._health.ready_again(reason)
        self._progress.tell(
            now,
            in_flight=sum(assignment.tracker.in_flight for assignment in self._pipeline.assignments),
            lag_records=sum(lag for source in self._sources for lag in source.lag.values()),
            connections=getattr(self._transport, "open", 0),
            reading=",".join(sorted(self._budget.closed_for)) or "yes",
        )

    def _follow_password(self) -> None:
        """Give a password that has changed to every client, before it has to connect again."""
        password = self._password.look() if self._password is not None else None
        if password is not None:
            for set_password in self._password_users:
                set_password(password)
            log.info("credentials.rotated")

    def _watch(self) -> None:
        """Let the gauges read what they tell when somebody asks."""
        metrics, budget, pipeline = self._metrics, self._budget, self._pipeline
        metrics.in_flight_limit.set(budget.max_records)
        metrics.concurrency_limit.read_from(lambda: {(): self._delivery.concurrency.limit})
        metrics.in_flight_events.read_from(lambda: {(): budget.records})
        metrics.events_in_flight.read_from(lambda: {(): sum(of.tracker.in_flight for of in pipeline.assignments)})
        metrics.assigned_partitions.read_from(
            lambda: {
                (topic,): count for topic, count in Counter(of.partition.topic for of in pipeline.assignments).items()
            }
        )
        metrics.connections_open.read_from(lambda: {(): getattr(self._transport, "open", 0)})
        metrics.connections_opened.read_from(lambda: getattr(self._transport, "connections_opened", 0))
        metrics.event_loop_tasks.read_from(lambda: len(asyncio.all_tasks(self._loop)))
        metrics.poll_loop.read_from(
            lambda: (
                {}
                if self._health.kafka_heartbeat is None
                else {(): self._clock.monotonic() - self._health.kafka_heartbeat}
            )
        )
        metrics.consumer_lag_records.read_from(
            lambda: {(at.topic, str(at.number)): lag for source in self._sources for at, lag in [*source.lag.items()]}
        )
        metrics.consumer_lag_seconds.read_from(lambda: {_labels(of): self._lag_s(of) for of in pipeline.assignments})
        metrics.commit_stall.read_from(
            lambda: {
                _labels(of): self._clock.monotonic() - of.advanced_at if of.tracker.in_flight else 0.0
                for of in pipeline.assignments
            }
        )
        metrics.settled_beyond_commit.read_from(
            lambda: {_labels(of): of.tracker.settled_beyond for of in pipeline.assignments}
        )

    def _lag_s(self, assignment: Assignment) -> float:
        """Age of the record at the commit position; 0 at the end of the log, or with only a control marker left."""
        found = (source.high_watermarks.get(assignment.partition) for source in self._sources)
        high = next((high for high in found if high is not None), None)
        if high is None or high - assignment.tracker.committable <= 1 or assignment.settled_timestamp_ms < 0:
            return 0.0
        return max(0.0, (self._clock.wall_ms() - assignment.settled_timestamp_ms) / 1000)


_NOT_READY = {
    "breaker": "the endpoint fails, nothing is read; it is probed and reading resumes by itself",
    "dead_letter_guard": "too many dead letters; look at the dead-letter topic, mend the cause, restart",
    "forwarder": "a retry, held or dead-letter topic takes no records; they are tried again",
}


def _labels(assignment: Assignment) -> tuple[str, str]:
    return assignment.partition.topic, str(assignment.partition.number)


def _rate(limited: DeliverySettings | AppSettings) -> Rate | None:
    """Return the rate that these settings allow, if they limit it."""
    if limited.max_per_s is None:
        return None
    return Rate(limited.max_per_s, limited.burst or max(1, round(limited.max_per_s / 10)))
