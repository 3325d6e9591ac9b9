"""`make bench`: one consumer process on a real Apache Kafka and a sink that takes 20 ms, everything on.

Reports events/s, CPU per event (user and system, the whole process), and the peak of its memory, as medians of several
runs. Absolute rates move with the machine; compare runs of one evening.

    python -m tests.bench.throughput [--events 150000] [--runs 3] [--latency-ms 20] [--backlog 2000000]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Producer

from tests.support.kafka import ROOT, RealKafka, free_port
from tests.support.processes import Setup, events, wait_until

SINK = """
import asyncio, sys
import httptools, uvloop
ANSWER = b'HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 15\\r\\n\\r\\n{"success":"1"}'
DELAY_S = float(sys.argv[2]) / 1000
class Sink(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.parser = transport, httptools.HttpRequestParser(self)
    def data_received(self, data):
        self.parser.feed_data(data)
    def on_message_complete(self):
        if DELAY_S:
            asyncio.get_running_loop().call_later(DELAY_S, self.transport.write, ANSWER)
        else:
            self.transport.write(ANSWER)
async def main():
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()
uvloop.run(main())
"""


class Figures(NamedTuple):
    """One run."""

    rate: float
    cpu_us: float
    rss_mib: float


@contextmanager
def sink(latency_ms: float) -> Iterator[str]:
    """Run the leanest sink there is, so that it isn't what is measured."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SINK, str(port), str(latency_ms)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield f"http://127.0.0.1:{port}/track/json"
    finally:
        process.kill()
        process.wait()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(setup: Setup, count: int, name: str) -> Figures:
    """Let a new group read *count* events, and look at the middle of it."""
    setup.folder = setup.folder.parent / name
    environment = {
        "KOCHAVA_CONSUMER_DELIVERY__CONNECTIONS": "512",
        "KOCHAVA_CONSUMER_DELIVERY__MAX_IN_FLIGHT_RECORDS": "1024",
        "KOCHAVA_CONSUMER_LOG__LEVEL": "info",
        "KOCHAVA_CONSUMER_KAFKA__GROUP_ID": f"{setup.group}-{name}",
        "KOCHAVA_CONSUMER_KAFKA__STATISTICS_INTERVAL_MS": "10000",
    }
    with setup.consumer(name, **environment) as consumer:
        assert consumer.process is not None
        pid = consumer.process.pid

        def delivered() -> float:
            return consumer.metric("kochava_events_delivered_total")

        wait_until(lambda: delivered() > count * 0.15, "it has begun", 120)
        began, first, cpu = time.monotonic(), delivered(), cpu_s(pid)
        while (done := delivered()) < count * 0.85:
            time.sleep(1)  # a scrape costs the consumer 16 ms
        ended, spent = time.monotonic(), cpu_s(pid) - cpu
        figures = Figures((done - first) / (ended - began), spent / (done - first) * 1e6, peak_mib(pid))
        consumer.terminate()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=150_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--backlog", type=int, default=0, help="produce so many events, to see memory with a backlog")
    arguments = parser.parse_args()
    count = max(arguments.events, arguments.backlog)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, sink(arguments.latency_ms) as endpoint:
        folder = Path(name)
        kafka = RealKafka(folder / "kafka").start()
        try:
            setup = Setup(kafka, folder / "run", "bench", endpoint)
            setup.create_topics(partitions=6)
            print(f"producing {count:,} events", flush=True)
            values = [value for _, value in events(20_000)]
            producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 20,
                                 "queue.buffering.max.messages": 200_000})  # fmt: skip
            for index in range(count):
                while True:
                    try:
                        producer.produce(setup.topic, values[index % len(values)], partition=index % 6)
                        break
                    except BufferError:
                        producer.poll(0.1)
            producer.flush()
            runs = []
            for number in range(arguments.runs):
                figures = measure(setup, arguments.events, f"run{number}")
                runs.append(figures)
                print(_line(figures), flush=True)
        finally:
            kafka.kill()
    median = Figures(*(statistics.median(column) for column in zip(*runs, strict=True)))
    print(f"median of {len(runs)}, {arguments.latency_ms:g} ms sink, 512 connections, {os.cpu_count()} shared cores:")
    print(_line(median))


def _line(of: Figures) -> str:
    return f"  {of.rate:8,.0f} events/s  {of.cpu_us:5.1f} us CPU/event  {of.rss_mib:4.0f} MiB"


if __name__ == "__main__":
    main()
