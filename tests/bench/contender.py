"""Starting and ending what is measured: our consumer or one of contenders/."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.contenders.common import Orders
from tests.bench.load import own_topics
from tests.bench.scenarios import Scenario
from tests.support.kafka import ROOT, dying_with_us
from tests.support.processes import Setup

MODULES = {
    "floor": ("floor", ("httptools", "uvloop")),
    "httpx": ("naive_httpx", ("httpx",)),
    "aiohttp": ("naive_aiohttp", ("aiohttp",)),
    "mq-bridge": ("mq_bridge", ("mq_bridge",)),
    "faststream": ("naive_faststream", ("faststream", "aiohttp")),
}
"""Module and what it needs beyond the consumer's own dependencies."""
STOP_S = 40
OWN = ROOT / ".venv-bench" / "bin" / "python"


class FailedError(Exception):
    """A contender ended by itself. The text holds the end of what it said."""


class Contender:
    """A running one."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            raise FailedError(f"ended with {self._process.returncode}: {self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Let it commit and leave its group; one that hangs is killed."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)


def interpreter() -> str:
    """Return the Python that has the rivals' libraries, else our own."""
    return str(OWN) if OWN.exists() else sys.executable


def missing(contender: str) -> list[str]:
    """Return the libraries that *contender* lacks."""
    if contender == "consumer":
        return []
    needs = MODULES[contender][1]
    asked = "import importlib.util,sys;print(*[n for n in sys.argv[1:] if importlib.util.find_spec(n) is None])"
    done = subprocess.run([interpreter(), "-c", asked, *needs], capture_output=True, text=True, check=True)
    return done.stdout.split()


@contextmanager
def running(
    contender: str, scenario: Scenario, setup: Setup, group: str, ca_file: Path | None, name: str
) -> Iterator[Contender]:
    """Run *contender* in *group* until the block ends."""
    if contender == "consumer":
        with (
            own_topics(setup, name) as prefix,
            setup.consumer(name, **environment(scenario, group, ca_file, prefix)) as consumer,
        ):
            assert consumer.process is not None
            yield Contender(consumer.process, consumer.log_file)
        return
    orders = Orders(
        setup.kafka.bootstrap_servers, setup.topic, group, setup.endpoint, scenario.connections,
        scenario.in_flight_records, str(ca_file or ""),
    )  # fmt: skip
    setup.folder.mkdir(parents=True, exist_ok=True)
    log = setup.folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*dying_with_us(), interpreter(), "-m", f"tests.bench.contenders.{MODULES[contender][0]}",
             json.dumps(orders._asdict())],
            stdout=out, stderr=out, cwd=ROOT,
        )  # fmt: skip
    try:
        yield Contender(process, log)
    finally:
        process.kill()
        process.wait()


def environment(scenario: Scenario, group: str, ca_file: Path | None, prefix: str) -> dict[str, str]:
    """Everything on, as in production: what the tests' settings make quick is put back to its default."""
    found = {
        "KAFKA__GROUP_ID": group,
        "RETRY__TOPIC_PREFIX": prefix,
        "KAFKA__STATISTICS_INTERVAL_MS": "10000",
        "DELIVERY__CONNECTIONS": str(scenario.connections),
        "DELIVERY__MAX_IN_FLIGHT_RECORDS": str(scenario.in_flight_records),
        "DELIVERY__REQUEST_TIMEOUT_S": "8",
        "DELIVERY__CONNECT_TIMEOUT_S": "5",
        "DELIVERY__RETRY_BUDGET_S": "20",
        "DELIVERY__DRAIN_TIMEOUT_S": "25",
        "LOG__LEVEL": "info",
    }
    if ca_file is not None:
        found["KOCHAVA__CA_FILE"] = str(ca_file)
    return {f"KOCHAVA_CONSUMER_{key}": value for key, value in found.items()}
