"""Our own topics, written by one idempotent producer (`ports.Forwarder`).

The producer is thread-safe, so it lives on the event loop: delivery reports are served by a timer that runs only while
some are outstanding.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.adapters.kafka_client import make_client
from consumer.core.record import Headers, Record
from consumer.ports import ForwardProblem

POLL_S = 0.005
"""How often reports are looked for while some are outstanding."""

Reported = Callable[[ForwardProblem | None], None]


class KafkaForwarder:
    """Produces with the bytes unchanged and reports what the broker said."""

    def __init__(self, conf: dict[str, Any], loop: asyncio.AbstractEventLoop, failed: Callable[[str], None]) -> None:
        """Make the producer; *failed* is called with the reason when it can never work again."""
        self._producer = make_client(Producer, conf)
        self._user = conf.get("sasl.username", "")
        self._loop = loop
        self._failed = failed
        self._outstanding = 0
        self._timer: asyncio.TimerHandle | None = None

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
        if error is not None and (error.fatal() or error.code() == KafkaError._FATAL):  # noqa: SLF001 - its own name
            self._loop.call_soon(self._failed, error.name())
        self._loop.call_soon(self._report, reported, ForwardProblem(error.name()) if error is not None else None)

    def _report(self, reported: Reported, problem: ForwardProblem | None) -> None:
        self._outstanding -= 1
        reported(problem)

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(POLL_S, self._poll)

    def _poll(self) -> None:
        self._timer = None
        self._producer.poll(0)
        if self._outstanding:
            self._arm()

    async def close(self, timeout_s: float) -> None:
        deadline = self._loop.time() + timeout_s
        while self._outstanding and self._loop.time() < deadline:  # noqa: ASYNC110 - the reports come from polling
            await asyncio.sleep(POLL_S)
        if self._timer is not None:
            self._timer.cancel()
        if self._outstanding:
            self._producer.purge()
            self._producer.poll(0)
