"""What the brokers say of our topics, and making those that are missing. For the commands; `run` never creates."""

from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from consumer.adapters.kafka_client import make_client, without
from consumer.adapters.kafka_record import to_record
from consumer.core.record import Record
from consumer.core.topic_plan import NewTopicPlan, TopicFacts, tier_delay_of
from consumer.errors import CheckFailedError, KafkaFatalError
from consumer.settings import SECRET_PROPERTIES

TIMEOUT_S = 10.0
SOON_S = 3.0
"""By then a broker that refuses us has said so."""
_CAUSES = {
    "_AUTHENTICATION": "The broker refuses user, password or mechanism: check sasl.username, sasl.mechanism and "
    "kafka.sasl_password.",
    "_SSL": "TLS failed: check ssl.ca.location, and that the broker's certificate is for the names in "
    "kafka.bootstrap_servers.",
}
_NO_CAUSE = "Check kafka.bootstrap_servers, the network, security.protocol, user and password."


class KafkaAdmin:
    """Looks at a cluster through the admin client."""

    def __init__(self, conf: dict[str, Any], group_id: str) -> None:
        self._problems: dict[str, str] = {}
        # a wrong password and a wrong CA both come out of calls as _TRANSPORT: the cause is told only to this callback
        self._conf = {**conf, "error_cb": self._note, "log_level": 0}
        self._group_id = group_id
        self._admin = make_client(AdminClient, self._conf)

    def _note(self, error: KafkaError) -> None:
        secrets = [value for name, value in self._conf.items() if name in SECRET_PROPERTIES]
        self._problems.setdefault(error.name(), without(secrets, error.str()).partition(" (after ")[0])

    def _refuse(self, error: KafkaException) -> KafkaFatalError:
        self._admin.poll(0)  # nothing else calls the callback
        names = dict.fromkeys([error.args[0].name(), *self._problems])
        said = [self._problems[name] for name in names if name in _CAUSES and name in self._problems]
        fix = next((_CAUSES[name] for name in names if name in _CAUSES), _NO_CAUSE)
        return KafkaFatalError(
            f"no answer from {self._conf['bootstrap.servers']}: {', '.join(names)}. {fix}"
            + "".join(f" The client says: {text}" for text in said)
        )

    def topic_names(self) -> list[str]:
        """Return every topic that we may see.

        Raises:
            KafkaFatalError: no broker answered; with the cause, where the client knows it.
        """
        return sorted(self._metadata().topics)

    def _metadata(self) -> ClusterMetadata:
        try:
            return self._admin.list_topics(timeout=SOON_S)
        except KafkaException as error:
            refused = self._refuse(error)
            if self._problems.keys() & _CAUSES.keys():  # waiting mends none of them
                raise refused from None
        try:
            return self._admin.list_topics(timeout=TIMEOUT_S)
        except KafkaException as error:
            raise self._refuse(error) from None

    def facts(self, names: Sequence[str]) -> dict[str, TopicFacts]:
        """Describe those of *names* that exist."""
        metadata = self._metadata()
        existing = [name for name in names if name in metadata.topics]
        configs = self._configs(existing)
        found: dict[str, TopicFacts] = {}
        for name in existing:
            partitions = metadata.topics[name].partitions
            config = configs.get(name, {})
            found[name] = TopicFacts(
                name=name,
                partitions=len(partitions),
                replication=min((len(of.replicas) for of in partitions.values()), default=0),
                retention_ms=int(config.get("retention.ms", -1)),
                cleanup_policy=config.get("cleanup.policy", "delete"),
                max_message_bytes=int(config.get("max.message.bytes", 1_048_588)),
            )
        return found

    def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        configs: dict[str, dict[str, str]] = {}
        for resource, future in self._admin.describe_configs(resources, request_timeout=TIMEOUT_S).items():
            try:
                configs[resource.name] = {key: entry.value for key, entry in future.result().items()}
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise self._refuse(error) from None
        return configs

    def create(self, plans: Sequence[NewTopicPlan]) -> dict[str, str | None]:
        """Make topics.

        Returns:
            For each name None, or why it could not be made.
        """
        topics = [NewTopic(plan.name, plan.partitions, plan.replication, config=dict(plan.config)) for plan in plans]
        outcome: dict[str, str | None] = {}
        for name, future in (self._admin.create_topics(topics, request_timeout=TIMEOUT_S) if topics else {}).items():
            try:
                future.result()
                outcome[name] = None
            except KafkaException as error:
                outcome[name] = error.args[0].name()
        return outcome

    def lag_of_orphans(self, prefix: str, configured: Sequence[str]) -> dict[str, int]:
        """Return, for topics named like a tier that no tier reads, how many records the group has left on them."""
        orphans = [
            name for name in self.topic_names() if tier_delay_of(name, prefix) is not None and name not in configured
        ]
        return {name: self._lag(name) for name in orphans}

    def _lag(self, topic: str) -> int:
        consumer = Consumer({**self._conf, "group.id": self._group_id, "enable.auto.commit": False,
                             "enable.partition.eof": True, "auto.offset.reset": "earliest"})  # fmt: skip
        try:
            numbers = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions
            lag = 0
            for at in consumer.committed([TopicPartition(topic, number) for number in numbers], timeout=TIMEOUT_S):
                low, high = consumer.get_watermark_offsets(at, timeout=TIMEOUT_S, cached=False)
                start = max(low, at.offset)
                if start < high and _holds_record(consumer, TopicPartition(topic, at.partition, start)):
                    lag += high - start
        except KafkaException as error:
            raise self._refuse(error) from None
        else:
            return lag
        finally:
            consumer.close()

    def fetch(self, topic: str, partition: int, offset: int) -> Record:
        """Return one record.

        Raises:
            CheckFailedError: there is none at this place.
        """
        consumer = Consumer({**self._conf, "group.id": self._group_id, "enable.auto.commit": False,
                             "enable.partition.eof": True, "auto.offset.reset": "error"})  # fmt: skip
        place = f"{topic}/{partition}/{offset}"
        try:
            consumer.assign([TopicPartition(topic, partition, offset)])
            message = consumer.poll(TIMEOUT_S)
        except KafkaException as error:
            raise self._refuse(error) from None
        finally:
            consumer.close()
        if message is None:
            raise CheckFailedError(f"{place}: no answer within {TIMEOUT_S:.0f} s")
        if message.error() is not None or message.offset() != offset:
            raise CheckFailedError(f"{place}: there is no record (see kafka-get-offsets for what the topic holds)")
        return to_record(message)


def _holds_record(consumer: Consumer, at: TopicPartition) -> bool:
    """Say whether a record stands at *at* or behind it: the end of a transaction takes an offset and is none."""
    consumer.assign([at])
    message = consumer.poll(TIMEOUT_S)
    error = None if message is None else message.error()
    return error is None or error.code() != KafkaError._PARTITION_EOF  # noqa: SLF001 - the client's own name for it
