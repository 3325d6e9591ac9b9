"""Three real Apache Kafka nodes, each broker and controller: replication 3, and no write without two in sync."""

from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import ElectionType, KafkaException, TopicCollection, TopicPartition

from tests.support.kafka import RealKafka, free_port
from tests.support.kafka_client import KafkaClient

NODES = 3


def outer_listener(port: int, outer_port: int, controller_port: int, advertised_port: int) -> dict[str, object]:
    """Return the settings of a broker that sends those who come by *outer_port* to *advertised_port*: to a proxy."""
    return {
        "listeners": f"PLAINTEXT://127.0.0.1:{port},OUTER://127.0.0.1:{outer_port},"
        f"CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},OUTER://127.0.0.1:{advertised_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,OUTER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
    }


class KafkaCluster(KafkaClient):
    """`nodes` are hurt one by one. *advertised* are the ports that members are sent to, by default the real ones."""

    def __init__(self, folder: Path, outer_ports: Sequence[int], advertised: Sequence[int]) -> None:
        ports = [free_port() for _ in range(NODES)]
        controllers = [free_port() for _ in range(NODES)]
        voters = ",".join(f"{index + 1}@127.0.0.1:{port}" for index, port in enumerate(controllers))
        self.nodes = [
            RealKafka(
                folder / f"node-{index + 1}",
                ports[index],
                {
                    "node.id": index + 1,
                    "controller.quorum.voters": voters,
                    "offsets.topic.replication.factor": NODES,
                    "transaction.state.log.replication.factor": NODES,
                    "transaction.state.log.min.isr": 2,
                    "share.coordinator.state.topic.replication.factor": NODES,
                    "min.insync.replicas": 2,
                    "controller.quorum.election.timeout.ms": 500,
                    "controller.quorum.fetch.timeout.ms": 1000,
                    "replica.lag.time.max.ms": 3000,
                    **outer_listener(ports[index], outer_ports[index], controllers[index], advertised[index]),
                },
            )
            for index in range(NODES)
        ]
        super().__init__(",".join(node.bootstrap_servers for node in self.nodes), NODES)

    def start(self) -> "KafkaCluster":
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_until_up()
        return self

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def thaw(self) -> None:
        for node in self.nodes:
            node.thaw()

    def leader_of(self, topic: str, partition: int) -> int | None:
        """Return the index of the node that leads a partition now, None while nobody does."""
        try:
            found = self.admin.describe_topics(TopicCollection([topic]))[topic].result(10)
        except (KafkaException, TimeoutError):
            return None
        leader = next((one.leader for one in found.partitions if one.id == partition), None)
        return leader.id - 1 if leader is not None and leader.id > 0 else None

    def coordinator_of(self, group: str) -> int | None:
        """Return the index of the node that coordinates *group*."""
        try:
            found = self.admin.describe_consumer_groups([group])[group].result(10)
        except (KafkaException, TimeoutError):
            return None
        return found.coordinator.id - 1 if found.coordinator is not None and found.coordinator.id > 0 else None

    def elect_preferred_leaders(self) -> None:
        """Let each partition go back to the first of its replicas."""
        self.admin.elect_leaders(ElectionType.PREFERRED, _all_partitions(self)).result(10)


def _all_partitions(cluster: KafkaCluster) -> list[TopicPartition]:
    found = cluster.admin.list_topics(timeout=10).topics
    return [TopicPartition(name, number) for name, topic in found.items() for number in topic.partitions]
