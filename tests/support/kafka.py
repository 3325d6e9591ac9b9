"""A real Apache Kafka (KRaft, one node) for tests and for people: `python -m tests.support.kafka` runs one.

Needs a Java runtime, and Maven once, to fetch the jars into .cache/kafka. Listens on loopback only; sessions of KIP-848
members are short, so that a killed member's partitions move within seconds. A topic of COMPACTED is
compacted within seconds: the cleaner looks every 200 ms, but only at closed segments, and a segment is closed by a
record that comes `segment.ms` after its first one. The broker dies with the process that started it, however that ends.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.support.kafka_client import KafkaClient

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "kafka"
JAVA = ["java", "-Xms96m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN"]
START_S = 60.0
STOP_S = 15.0
CLUSTER_ID = "kochava-tests-00000000"
"""22 characters, the same for all: they never meet."""
COMPACTED = {
    "cleanup_policy": "compact",
    "segment_ms": "200",
    "min_cleanable_dirty_ratio": "0.01",
    "max_compaction_lag_ms": "200",
}

MISSING = (
    "the tests run against a real Apache Kafka, which needs a Java runtime (17 or newer) and Maven: "
    "install them (Debian: apt-get install default-jre-headless maven; macOS: brew install openjdk maven)"
)


def jars() -> Path:
    """Return the folder of the jars that pom.xml names, fetched once; another pom gets another folder."""
    pom = Path(__file__).with_name("pom.xml")
    folder = CACHE / hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    done = folder / ".complete"
    if shutil.which("java") is None or (not done.exists() and shutil.which("mvn") is None):
        raise RuntimeError(MISSING)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of one run may want them first
        _fetch(pom, folder, done)
    return folder


def _fetch(pom: Path, folder: Path, done: Path) -> None:
    if not done.exists():
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
        if fetched.returncode:
            raise RuntimeError(f"Maven could not fetch Apache Kafka:\n{fetched.stdout[-2000:]}{fetched.stderr[-2000:]}")
        done.touch()


def dying_with_us() -> list[str]:
    """Return what to put before a command so that the kernel ends it when the thread that started it ends."""
    return ["setpriv", "--pdeathsig", "KILL"] if sys.platform == "linux" and shutil.which("setpriv") else []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RealKafka(KafkaClient):
    """One broker that is its own controller. `kill`, `freeze` and `thaw` hurt it; `start` resumes on its data.

    *settings* are server properties that replace ours.
    """

    def __init__(self, folder: Path, port: int | None = None, settings: Mapping[str, object] | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        super().__init__(f"127.0.0.1:{self.port}")
        self._settings = settings or {}
        self.log = folder / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._classpath = f"{jars()}/*"
        self._config = folder / "server.properties"

    def start(self) -> Self:
        self.launch()
        return self.wait_until_up()

    def launch(self) -> None:
        """Start it without waiting for it."""
        assert self._process is None, "it runs already"
        if self.listens():
            raise RuntimeError(f"port {self.port} is taken: end what listens there, or choose another one")
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._config.exists():
            self._format()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*dying_with_us(), *JAVA, "-cp", self._classpath, "kafka.Kafka", str(self._config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_until_up(self) -> Self:
        assert self._process is not None, "it was launched"
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if self.listens():
                return self
            time.sleep(0.05)
        tail = self.log.read_text(errors="replace")[-2000:]
        self.kill()
        raise RuntimeError(f"Kafka did not start; the end of its log:\n{tail}")

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _format(self) -> None:
        controller = free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "group.consumer.session.timeout.ms": 6000,
            "group.consumer.min.session.timeout.ms": 1000,
            "group.consumer.heartbeat.interval.ms": 500,
            "group.consumer.min.heartbeat.interval.ms": 500,
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "log.cleaner.backoff.ms": 200,
            # a killed broker is let in again only when the session of its former life is over (9 s)
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            **self._settings,
        }
        self._config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        subprocess.run(
            [
                *JAVA,
                "-cp",
                self._classpath,
                "kafka.tools.StorageTool",
                "format",
                "-t",
                CLUSTER_ID,
                "-c",
                str(self._config),
            ],
            check=True,
            capture_output=True,
        )

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def stop(self) -> None:
        """End it as an operator does, so that it writes all it has."""
        self._signal(signal.SIGTERM)
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        self.kill()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_S)
            self._process = None

    def wipe(self) -> None:
        """Kill it and forget its data; `start` makes an empty one on the same port."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def tool(self, main: str, *arguments: str) -> str:
        """Run one of Kafka's own command-line tools, as people do, and return what it printed."""
        done = subprocess.run(
            [
                *JAVA,
                "-Dlog4j2.level=OFF",
                "-cp",
                self._classpath,
                main,
                "--bootstrap-server",
                self.bootstrap_servers,
                *arguments,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return done.stdout


def main() -> None:
    """Run a broker in the foreground until it is told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9092
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder:
        kafka = RealKafka(Path(folder), port)
        try:
            kafka.start()
            print(f"Apache Kafka listens on {kafka.bootstrap_servers}; Ctrl-C ends it and deletes its data", flush=True)
            signal.pause()
        except KeyboardInterrupt:
            pass
        finally:
            kafka.kill()


if __name__ == "__main__":
    main()
