"""Our own topics, written by one idempotent producer (`ports.Forwarder`).

The producer is thread-safe, so it lives on the event loop: a timer takes delivery reports, and what else the client
says.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.adapters.kafka_client import KnownBrokers, make_client
from consumer.core.record import Headers, Record
from consumer.ports import ForwardProblem
from consumer.telemetry import log

POLL_S = 0.005
"""How often reports are looked for while some are outstanding."""
IDLE_POLL_S = 1.0
"""How often otherwise: what a client says, and nobody takes, it keeps."""

Reported = Callable[[ForwardProblem | None], None]


class KafkaForwarder:
    """Produces with the bytes unchanged and reports what the broker said."""

    def __init__(self, conf: dict[str, Any], loop: asyncio.AbstractEventLoop, failed: Callable[[str], None]) -> None:
        """Make the producer; *failed* is called with the reason, and what to do, when it can never work again."""
        self._brokers = KnownBrokers()
        self._is_lost = False
        self._producer = make_client(Producer, {**conf, "stats_cb": self._on_stats})
        self._user = conf.get("sasl.username", "")
        self._loop = loop
        self._failed = failed
        self._outstanding = 0
        self._timer = loop.call_later(IDLE_POLL_S, self._poll)
        self._is_idle = True

    @property
    def outstanding(self) -> int:
        """Records that the broker has not answered for."""
        return self._outstanding

    def set_password(self, password: str) -> None:
        """Let connections that are made from now on show *password*."""
        self._producer.set_sasl_credentials(self._user, password)

    def forward(self, topic: str, record: Record, headers: Headers, reported: Reported) -> None:
        self._outstanding += 1
        try:
            self._producer.produce(
                topic,
                value=record.value,
                key=record.key,
                headers=list(headers),
                on_delivery=partial(self._delivered, reported),
            )
        except BufferError:  # the local queue is full: back-pressure, to be tried again
            self._loop.call_soon(self._report, reported, ForwardProblem("_QUEUE_FULL"))
        except KafkaException as error:
            self._delivered(reported, error.args[0], None)
        self._arm()

    def _delivered(self, reported: Reported, error: Any, _message: object) -> None:
        # runs inside poll: an exception here would surface from it, so it is only noted
        if error is not None:
            self._note_fatal(error)
        self._loop.call_soon(self._report, reported, ForwardProblem(error.name()) if error is not None else None)

    def _report(self, reported: Reported, problem: ForwardProblem | None) -> None:
        self._outstanding -= 1
        reported(problem)

    def _note_fatal(self, error: KafkaError) -> None:
        """Let the process end if *error* is one that the producer doesn't outlive."""
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 - the client's own name for it
            self._loop.call_soon(self._failed, f"{error.name()}, restart the process")

    def _on_stats(self, text: str) -> None:
        if not self._is_lost and self._brokers.are_forgotten(orjson.loads(text)):
            self._is_lost = True
            log.error("kafka.brokers_forgotten", client="producer")
            self._loop.call_soon(self._failed, KnownBrokers.ADVICE)

    def _arm(self) -> None:
        """Poll often from now on."""
        if self._is_idle:
            self._is_idle = False
            self._timer.cancel()
            self._timer = self._loop.call_later(POLL_S, self._poll)

    def _poll(self) -> None:
        try:
            self._producer.poll(0)
        except KafkaException as error:  # so the client tells what ends it, once, whatever callbacks it has
            self._note_fatal(error.args[0])
        finally:  # a bug in a callback ends the process in order: with the reports that a drain waits for
            self._is_idle = self._outstanding == 0
            self._timer = self._loop.call_later(IDLE_POLL_S if self._is_idle else POLL_S, self._poll)

    async def close(self, timeout_s: float) -> None:
        deadline = self._loop.time() + timeout_s
        while self._outstanding and self._loop.time() < deadline:  # noqa: ASYNC110 - the reports come from polling
            await asyncio.sleep(POLL_S)
        self._timer.cancel()
        if self._outstanding:
            self._producer.purge()
            with suppress(KafkaException):  # it ends anyway
                self._producer.poll(0)
