"""The three worlds in which seeds are played: one real broker, three of them, and the client's own embedded cluster.

Real brokers stand behind TCP proxies, for members alone: the suite itself reads and produces past them. The embedded
cluster fails as it is told, per API; but it keeps no log of commits, refuses some while members join, and knows no
transactions: what it shows counts less, and reaches further.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from consumer.sandbox.mock_cluster import MockCluster
from tests.chaos.commit_log import Commit, CommitWatch, read_commits
from tests.support.kafka import RealKafka, free_port
from tests.support.kafka_client import KafkaClient
from tests.support.kafka_cluster import KafkaCluster, outer_listener
from tests.support.kafka_proxy import KafkaProxy


class World:
    """Brokers and what can be done to them. One world serves many seeds, one after the other."""

    name: str
    kafka: KafkaClient
    nodes: list[RealKafka]
    """Empty where the brokers are no processes."""
    proxies: list[KafkaProxy]
    """Before each broker; empty where there are none."""
    members_bootstrap: str
    member_options: tuple[str, ...] = ()
    """For `member.py`."""
    has_transactions = True
    has_commit_log = True
    """Each commit is told; else only what somebody sees who asks often."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def close(self) -> None:
        """End all processes and threads of it."""
        self._stack.close()

    def heal(self) -> None:
        """End what was done to the brokers."""
        for proxy in self.proxies:
            proxy.set_mode("pass")
        for node in self.nodes:
            node.thaw()

    def watch_commits(self, group: str, partitions: list[tuple[str, int]]) -> None:
        """Begin to look at commits, where there is no log to read them from afterwards."""

    def commits(self, group: str) -> list[Commit]:
        return read_commits(self.kafka, group)


class OneNode(World):
    name = "one"

    def __init__(self, folder: Path, settings: Mapping[str, object] | None = None) -> None:
        super().__init__()
        port, outer, controller = free_port(), free_port(), free_port()
        proxy = self._stack.enter_context(KafkaProxy(outer))
        node = RealKafka(
            folder / "kafka",
            port,
            {
                "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                **outer_listener(port, outer, controller, proxy.port),
                **(settings or {}),
            },
        )
        self._stack.callback(node.kill)
        self.nodes, self.proxies = [node.start()], [proxy]
        self.kafka = node
        self.members_bootstrap = f"127.0.0.1:{proxy.port}"


class ThreeNodes(World):
    name = "three"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        outer = [free_port() for _ in range(3)]
        self.proxies = [self._stack.enter_context(KafkaProxy(port)) for port in outer]
        self.cluster = KafkaCluster(folder / "kafka", outer, [proxy.port for proxy in self.proxies])
        self._stack.callback(self.cluster.kill)
        self.cluster.start()
        self.kafka, self.nodes = self.cluster, self.cluster.nodes
        self.members_bootstrap = ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies)


class Embedded(World):
    name = "embedded"
    # It takes a batch though the one before it was refused. A client that has several under way believes then that both
    # are there, and tells so (plain clients show it); a real broker would have refused the second as out of order.
    member_options = ("--producer-in-flight", "1")
    has_transactions = False
    has_commit_log = False

    def __init__(self, folder: Path) -> None:
        super().__init__()
        del folder
        self.cluster = self._stack.enter_context(MockCluster(3))
        self.kafka = EmbeddedClient(self.cluster)
        self.nodes, self.proxies = [], []
        self.members_bootstrap = self.cluster.bootstrap_servers
        self._watch: CommitWatch | None = None

    def heal(self) -> None:
        for broker in (1, 2, 3):
            self.cluster.set_broker_up(broker)
            self.cluster.set_rtt(broker, 0)
        for api_key in range(80):
            self.cluster.clear_errors(api_key)

    def watch_commits(self, group: str, partitions: list[tuple[str, int]]) -> None:
        self._watch = CommitWatch(self.kafka.bootstrap_servers, group, partitions)

    def commits(self, group: str) -> list[Commit]:
        assert self._watch is not None, f"nobody watched {group}"
        return self._watch.end()


class EmbeddedClient(KafkaClient):
    """The embedded cluster has no admin API."""

    def __init__(self, cluster: MockCluster) -> None:
        super().__init__(cluster.bootstrap_servers)
        self._cluster = cluster

    def create_topic(self, name: str, partitions: int, **config: str) -> None:
        del config  # it has none
        self._cluster.create_topic(name, partitions)


WORLDS: dict[str, type[World]] = {world.name: world for world in (OneNode, ThreeNodes, Embedded)}
