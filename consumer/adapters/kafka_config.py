"""The librdkafka properties that we own, and why; people's own (`[kafka.client]`) lie beneath them."""

from typing import Any

from consumer.settings import Settings

PRODUCER_MAX_BYTES = 100 * 1024 * 1024
"""Above any record that a broker lets through: the default, 1,000,000, refuses locally what the broker took before."""


SOURCE_PREFETCH_KIB = 16_384
OUR_PREFETCH_KIB = 2_048
"""Of the retry and held topics: much is on them only when something is wrong, and then the speed isn't theirs."""


def consumer_conf(settings: Settings, client_id: str, *, prefetch_kib: int) -> dict[str, Any]:
    """Return the properties of the group member; it asks for nothing while it has *prefetch_kib* that wait for us."""
    kafka = settings.kafka
    conf: dict[str, Any] = {
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 10_000,
        "client.id": client_id,
        "check.crcs": True,
        # seen on three brokers: an answer that lacked a partition, believed for as long as this. Shorter than the time
        # in which the offsets of an assignment are looked for
        "topic.metadata.refresh.interval.ms": 10_000,
        "queued.min.messages": 2_000,
        "queued.max.messages.kbytes": prefetch_kib,
        # what is asked for counts as it is compressed, and our events shrink to a tenth: an answer may become ten times
        # this in memory, on top of the prefetch, and malloc keeps it
        "fetch.max.bytes": 1_048_576,
        "max.partition.fetch.bytes": 262_144,
        "fetch.queue.backoff.ms": 50,
        **_client(settings),
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": kafka.group_id,
        "group.protocol": kafka.group_protocol,
        "enable.auto.commit": True,  # commits what we store, and only while the partition is ours
        "auto.commit.interval.ms": kafka.auto_commit_interval_ms,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",  # never a silent jump
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
        "max.poll.interval.ms": kafka.max_poll_interval_ms,
        "statistics.interval.ms": kafka.statistics_interval_ms,
        "log.connection.close": False,
    }
    if kafka.group_protocol == "classic":
        conf["partition.assignment.strategy"] = "cooperative-sticky"
        conf["session.timeout.ms"] = kafka.session_timeout_ms
        conf["heartbeat.interval.ms"] = min(3_000, kafka.session_timeout_ms // 3)
    return conf


def producer_conf(settings: Settings, client_id: str) -> dict[str, Any]:
    """Return the properties of the producer to our own topics."""
    return {
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 10_000,
        "client.id": f"{client_id}-retry",
        "compression.type": "zstd",
        "linger.ms": 5,
        "delivery.timeout.ms": 60_000,
        "queue.buffering.max.kbytes": 262_144,
        "queue.buffering.max.messages": 20_000,
        **{key: value for key, value in _client(settings).items() if key not in _CONSUMER_ONLY},
        "bootstrap.servers": settings.kafka.bootstrap_servers,
        "enable.idempotence": True,
        "acks": "all",
        "message.max.bytes": PRODUCER_MAX_BYTES,
        "statistics.interval.ms": settings.kafka.statistics_interval_ms,
        "batch.size": 524_288,  # message.max.bytes must not become the size of a batch, which the broker would refuse
        "log.connection.close": False,
    }


def admin_conf(settings: Settings, client_id: str) -> dict[str, Any]:
    """Return the properties of an admin client, for the commands that look around."""
    return {
        "client.id": f"{client_id}-admin",
        **{key: value for key, value in _client(settings).items() if key not in _CONSUMER_ONLY},
        "bootstrap.servers": settings.kafka.bootstrap_servers,
        "log.connection.close": False,
    }


def reader_conf(settings: Settings, client_id: str) -> dict[str, Any]:
    """Return the properties of a consumer that reads a topic of ours once and joins no group."""
    return {
        "queued.max.messages.kbytes": SOURCE_PREFETCH_KIB,
        **_client(settings),
        "client.id": f"{client_id}-reader",
        "bootstrap.servers": settings.kafka.bootstrap_servers,
        "group.id": settings.kafka.group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",  # what retention takes while we read is gone, and that is well
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
        "log.connection.close": False,
        "log_level": 0,
    }


def redrive_conf(settings: Settings, client_id: str) -> dict[str, Any]:
    """Return the properties of the producer that redrives dead letters, in transactions."""
    conf = producer_conf(settings, f"{client_id}-redrive")
    conf.pop("message.timeout.ms", None)  # the other name of delivery.timeout.ms
    return {
        **conf,
        # one name for all who redrive for this group: whoever begins later fences who began earlier
        "transactional.id": f"{settings.kafka.group_id}-redrive",
        # readers of the retry topic wait behind an open transaction, so a killed redrive's must not stay open for long
        "transaction.timeout.ms": 15_000,
        "delivery.timeout.ms": 12_000,
        "log_level": 0,
    }


_CONSUMER_ONLY = frozenset({
    "session.timeout.ms", "heartbeat.interval.ms", "max.poll.interval.ms", "queued.min.messages",
    "queued.max.messages.kbytes", "fetch.wait.max.ms", "fetch.min.bytes", "fetch.max.bytes", "fetch.message.max.bytes",
    "max.partition.fetch.bytes", "fetch.queue.backoff.ms", "fetch.error.backoff.ms", "check.crcs", "group.instance.id",
    "group.remote.assignor", "coordinator.query.interval.ms",
})  # fmt: skip


def _client(settings: Settings) -> dict[str, Any]:
    return settings.kafka.client_properties()
