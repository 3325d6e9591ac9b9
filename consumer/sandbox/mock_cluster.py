"""An embedded broker: librdkafka's mock cluster, which the client's wheel brings along. For the demo and fault tests.

It speaks produce, fetch, groups and offsets over real sockets, so ordinary clients in any process use it. It keeps
5 MiB a partition, and knows no compaction, ACLs or limits: what must be proven is proven on a real Apache Kafka.

    python -m consumer.sandbox.mock_cluster --topics a:6,b:3 --ready-file FILE
"""

import argparse
import ctypes
import json
import re
import signal
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import confluent_kafka

PRODUCER = 0
TEXT_BYTES = 512
MAX_PARTITIONS = 10_000
TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class MockCluster:
    """A cluster of *brokers* on loopback, alive until `close`.

    The library trusts its callers: a closed cluster or a strange number ends the process, without a trace. So what
    goes in is checked here.
    """

    def __init__(self, brokers: int = 1) -> None:
        if brokers < 1:
            raise ValueError(f"a cluster has at least one broker, not {brokers}")
        self._library = _load()
        text = ctypes.create_string_buffer(TEXT_BYTES)
        conf = self._library.rd_kafka_conf_new()
        self._library.rd_kafka_conf_set(conf, b"log_level", b"0", text, TEXT_BYTES)  # it has no brokers, and says so
        self._handle = self._library.rd_kafka_new(PRODUCER, conf, text, TEXT_BYTES)
        if not self._handle:
            raise RuntimeError(f"librdkafka gave no handle: {text.value.decode()}")
        self._address: int | None = self._library.rd_kafka_mock_cluster_new(self._handle, brokers)
        if not self._address:
            raise RuntimeError("librdkafka made no mock cluster")
        servers: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._address)
        self.bootstrap_servers = servers.decode()
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._address, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic; one that exists is refused. Admin clients can make none here: they get no answer."""
        if not TOPIC_NAME.fullmatch(name) or not 1 <= partitions <= MAX_PARTITIONS:
            raise ValueError(f"no topic can be {name!r} with {partitions} partitions")
        self._check(self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1))

    def set_broker_down(self, broker: int) -> None:
        """Refuse connections to *broker* (from 1) and drop those that are open."""
        self._check(self._library.rd_kafka_mock_broker_set_down(self._cluster, broker))

    def set_broker_up(self, broker: int) -> None:
        self._check(self._library.rd_kafka_mock_broker_set_up(self._cluster, broker))

    def set_rtt(self, broker: int, milliseconds: int) -> None:
        """Let *broker* answer later."""
        self._check(self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds))

    def push_errors(self, api_key: int, *codes: int) -> None:
        """Let the next requests of an API (its number in Kafka's protocol) fail with *codes*, one each."""
        array = (ctypes.c_int * len(codes))(*codes)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, len(codes), array)

    def clear_errors(self, api_key: int) -> None:
        """Forget those errors that no request has met."""
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, api_key)

    def set_coordinator(self, group: str, broker: int) -> None:
        """Let *broker* (from 1) coordinate *group* from now on."""
        self._check(self._library.rd_kafka_mock_coordinator_set(self._cluster, b"group", group.encode(), broker))

    def set_leader(self, topic: str, partition: int, broker: int) -> None:
        """Let *broker* (from 1) lead a partition.

        There is always one: the library ends the process at the first fetch or produce request without (2.16.1).
        """
        if broker < 1:
            raise ValueError(f"no broker {broker} can lead")
        self._check(self._library.rd_kafka_mock_partition_set_leader(self._cluster, topic.encode(), partition, broker))

    def set_topic_error(self, topic: str, code: int) -> None:
        """Let metadata say *code* of *topic*, and nothing of its partitions; 0 ends it."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), code)

    def close(self) -> None:
        if self._address is not None:
            self._library.rd_kafka_mock_cluster_destroy(self._address)
            self._library.rd_kafka_destroy(self._handle)
            self._address = None

    @property
    def _cluster(self) -> int:
        if self._address is None:
            raise RuntimeError("this mock cluster is closed")
        return self._address

    @staticmethod
    def _check(code: int) -> None:
        if code:
            raise RuntimeError(f"librdkafka's mock cluster refused: error {code}")


def _load() -> ctypes.CDLL:
    """Load the wheel's own library and declare what is used of it.

    Raises:
        RuntimeError: this build of the client has no mock cluster.
    """
    package = Path(confluent_kafka.__file__).parent
    found = sorted(package.parent.glob("confluent_kafka.libs/librdkafka*.so*"))
    found += sorted(package.glob(".dylibs/librdkafka*.dylib"))
    if not found:
        raise RuntimeError("no librdkafka beside the confluent-kafka package: install it from its wheel")
    library = ctypes.CDLL(str(found[0]))
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures: dict[str, tuple[object, list[object]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_down": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_up": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_rtt": (number, [pointer, ctypes.c_int32, number]),
        "rd_kafka_mock_clear_request_errors": (None, [pointer, ctypes.c_int16]),
        "rd_kafka_mock_coordinator_set": (number, [pointer, text, text, ctypes.c_int32]),
        "rd_kafka_mock_partition_set_leader": (number, [pointer, text, ctypes.c_int32, ctypes.c_int32]),
        "rd_kafka_mock_topic_set_error": (None, [pointer, text, number]),
        "rd_kafka_mock_push_request_errors_array": (
            None,
            [pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name, None)
        if function is None:
            raise RuntimeError(f"this librdkafka has no {name}; confluent-kafka 2.16.1 is known to")
        function.restype = result
        function.argtypes = arguments
    return library


def _topics(text: str) -> list[tuple[str, int]]:
    """Read `a:6,b:3`."""
    topics = []
    for each in filter(None, text.split(",")):
        name, _, count = each.rpartition(":")
        if not TOPIC_NAME.fullmatch(name) or not count.isdecimal() or not 1 <= int(count) <= MAX_PARTITIONS:
            raise argparse.ArgumentTypeError(f"{each!r} is not name:partitions, as in events:6")
        topics.append((name, int(count)))
    return topics


def main() -> None:
    """Run a cluster until SIGTERM."""
    parser = argparse.ArgumentParser(description="An embedded Kafka broker for rehearsals.")
    parser.add_argument("--topics", type=_topics, default=[], help="name:partitions, separated by commas")
    parser.add_argument("--ready-file", type=Path, help='written when it listens: {"bootstrap_servers": ...}')
    arguments = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with MockCluster() as cluster:
        for name, partitions in arguments.topics:
            cluster.create_topic(name, partitions)
        if arguments.ready_file:
            partial = arguments.ready_file.with_suffix(".partial")
            partial.write_text(json.dumps({"bootstrap_servers": cluster.bootstrap_servers}))
            partial.rename(arguments.ready_file)
        else:
            print(cluster.bootstrap_servers, flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
