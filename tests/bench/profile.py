"""`make profile`: where the consumer's time goes under load; a flame graph, and the ten functions that take most.

    python -m tests.bench.profile [--seconds 10] [--output flame.svg] [--latency-ms 20] [--connections 512]
                                  [--sampler py-spy|inside] [--native]

py-spy (of .venv-bench) looks in from outside and costs the consumer next to nothing. Where the machine forbids that,
a sampler inside of the process does it (`sampled.py` says what it cannot see).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.contender import OWN, environment
from tests.bench.flame import parse, self_time, svg
from tests.bench.load import filled_topic
from tests.bench.scenarios import Scenario
from tests.bench.sinks import our_sink
from tests.support.kafka import RealKafka
from tests.support.processes import ConsumerProcess, Setup, wait_until

RATE_PER_S = 200
PY_SPY = OWN.with_name("py-spy")
GUESS_PER_S = 25_000
"""More than the consumer does, so that the load lasts for as long as is looked at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--output", type=Path, default=Path("flame.svg"))
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--connections", type=int, default=512)
    parser.add_argument("--sampler", choices=("py-spy", "inside"), help="by default py-spy where it may look in")
    parser.add_argument("--native", action="store_true", help="with py-spy: the functions of C extensions, too")
    given = parser.parse_args()
    scenario = Scenario("profile", "", latency_ms=given.latency_ms, connections=given.connections)
    sampler = given.sampler or ("py-spy" if _may_look_in() else "inside")
    count = round(GUESS_PER_S * (given.seconds + 2))
    with tempfile.TemporaryDirectory(prefix="profile-") as name:
        folder = Path(name)
        kafka = RealKafka(folder / "kafka").start()
        try:
            with our_sink(folder / "sink", given.latency_ms) as sink:
                setup = Setup(kafka, folder / "setup", "profile", sink.endpoint)
                with filled_topic(setup, scenario, count):
                    samples = _sample(setup, scenario, given.seconds, sampler, native=given.native)
        finally:
            kafka.kill()
    found = parse(samples.splitlines())
    if not found:
        sys.exit(f"{sampler} saw nothing")
    given.output.write_text(svg(found, f"kochava-consumer under load, {found.total():,} samples by {sampler}"))
    table = Table("function, without what it calls", box=None)
    table.add_column("share", justify="right")
    for function, share in self_time(found)[:10]:
        table.add_row(function, f"{share:.1%}")
    Console(width=120).print(table)
    print(f"flame graph: {given.output}")


def _may_look_in() -> bool:
    """Say whether py-spy is there and may read another process of ours, and print why not."""
    if not PY_SPY.exists():
        print("py-spy is not installed (make profile installs it in .venv-bench): a sampler inside is used")
        return False
    victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        time.sleep(0.3)
        done = subprocess.run([PY_SPY, "dump", "--pid", str(victim.pid)], capture_output=True, text=True, check=False)
    finally:
        victim.kill()
        victim.wait()
    if done.returncode:
        print("py-spy may not look into a process here (ptrace is forbidden): a sampler inside is used")
    return done.returncode == 0


def _sample(setup: Setup, scenario: Scenario, seconds: float, sampler: str, *, native: bool) -> str:
    """Run the consumer, sample it for *seconds* of load, and return the stacks."""
    out = setup.folder / "stacks"
    setup.create_topics(source=False)
    consumer = ConsumerProcess(
        setup, "profiled", (), environment(scenario, setup.group, None, f"{setup.topic}.kochava")
    )
    if sampler == "inside":
        consumer.module = ("tests.bench.sampled", str(out))
    consumer.start()
    try:
        assert consumer.process is not None
        wait_until(lambda: consumer.metric("kochava_events_delivered_total") > 1000, "it has begun")
        if sampler == "py-spy":
            subprocess.run(
                [PY_SPY, "record", "--pid", str(consumer.process.pid), "--duration", str(round(seconds)), "--rate",
                 str(RATE_PER_S), "--format", "raw", "--function", "--output", out, *(["--native"] if native else [])],
                check=True, capture_output=True,
            )  # fmt: skip
        else:
            time.sleep(seconds)
        consumer.terminate()
    finally:
        consumer.kill()
    return out.read_text()


if __name__ == "__main__":
    main()
