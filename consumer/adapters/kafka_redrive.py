"""Sending dead letters on again: a record on the retry topic and markers on the dead-letter topic, in one transaction.

Both are there or neither, whatever kills us and whenever, so what to do next is read from the dead-letter topic alone:
no committed offset can say less or more than that, and no other selection moves a record twice. All who redrive for
one group share a `transactional.id`: whoever opens later fences who opened earlier, whose transaction is aborted or
complete by then. So after `open` nobody else adds a marker, and what the topic says from then on is final.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.adapters.kafka_client import make_client
from consumer.core.record import Headers
from consumer.errors import KafkaFatalError

OPEN_S = 30.0
"""A transaction of somebody who was killed is aborted meanwhile."""
COMMIT_S = 15.0
ABORT_S = 10.0
COMMIT_TRIES = 3


class Outgoing(NamedTuple):
    """A record to be produced. `partition` is -1 where the key decides."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class TransactionalSender:
    """Produces batches of which each is there as a whole, or not at all."""

    def __init__(self, conf: dict[str, Any]) -> None:
        self._producer = make_client(Producer, conf)
        self._id = conf["transactional.id"]
        self._servers = conf["bootstrap.servers"]

    def open(self) -> None:
        """Fence whoever redrives for this group, and end what they had begun.

        Raises:
            KafkaFatalError: no broker answered, or it refused.
        """
        try:
            self._producer.init_transactions(OPEN_S)
        except KafkaException as error:
            raise KafkaFatalError(self._why(error.args[0])) from None

    def send(self, batch: Sequence[Outgoing]) -> None:
        """Produce *batch*; when this returns, it is there.

        Raises:
            KafkaFatalError: it is not there; or, when the brokers went away during the commit, they decide, and reading
                the topic again tells.
        """
        try:
            self._producer.begin_transaction()
            for each in batch:
                self._producer.produce(
                    each.topic, each.value, each.key, partition=each.partition, headers=list(each.headers)
                )
            self._commit()
        except BaseException as error:
            with suppress(KafkaException):  # a fenced one can't; whoever opens next ends it
                self._producer.abort_transaction(ABORT_S)
            if isinstance(error, KafkaException):
                raise KafkaFatalError(self._why(error.args[0])) from None
            raise

    def _commit(self) -> None:
        for left in reversed(range(COMMIT_TRIES)):
            try:
                return self._producer.commit_transaction(COMMIT_S)
            except KafkaException as error:
                if not left or not error.args[0].retriable():
                    raise
        return None

    def _why(self, error: KafkaError) -> str:
        if error.code() in _FENCED:
            return f"another redrive for this group has begun, so this one ended (transactional.id {self._id})"
        if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return f"the brokers deny transactional.id {self._id}: it needs Write and Describe"
        return f"{self._servers} did not take the transaction: {error.name()}"


_FENCED = frozenset({
    KafkaError._FENCED,  # noqa: SLF001 - the client's own name for it
    KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED,
})  # fmt: skip
