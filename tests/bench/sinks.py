"""Starting the sink: ours, or nginx where it is installed and nothing but an answer at once is asked for."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.bench.sink import Counters
from tests.support.kafka import ROOT, dying_with_us, free_port

NGINX = """
worker_processes 1; daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 8192; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; client_body_buffer_size 16k;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /track/json {{ default_type application/json; return 200 '{{"success":"1"}}'; }}
        location = /status {{ stub_status; }}
    }}
}}
"""


class Sink(Protocol):
    """A running one."""

    endpoint: str
    pid: int

    @property
    def answers(self) -> int: ...

    @property
    def connections(self) -> int: ...

    def ages_ms(self) -> list[float]:
        """Return the age of each stamped event when it was answered, in the order of the answers."""


class OurSink:
    def __init__(self, endpoint: str, pid: int, counters: Counters) -> None:
        self.endpoint = endpoint
        self.pid = pid
        self._counters = counters

    @property
    def answers(self) -> int:
        return self._counters.answers

    @property
    def connections(self) -> int:
        return self._counters.connections

    def ages_ms(self) -> list[float]:
        return self._counters.ages_ms()


class NginxSink:
    """nginx counts the requests for its numbers, too: they are taken off again."""

    def __init__(self, port: int, pid: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}/track/json"
        self._status = f"http://127.0.0.1:{port}/status"
        self.pid = pid
        self._asked = 0

    def _numbers(self) -> tuple[int, int]:
        """Return connections accepted and requests, without our own."""
        self._asked += 1
        with urllib.request.urlopen(self._status, timeout=10) as answer:
            found = re.search(r"^\s*(\d+) \d+ (\d+)\s*$", answer.read().decode(), re.MULTILINE)
        assert found is not None
        return int(found[1]) - self._asked - 1, int(found[2]) - self._asked  # one connection was to see if it listens

    @property
    def answers(self) -> int:
        return self._numbers()[1]

    @property
    def connections(self) -> int:
        return self._numbers()[0]

    def ages_ms(self) -> list[float]:
        return []


@contextmanager
def our_sink(
    folder: Path, latency_ms: float, *, tls_chain: Path | None = None, has_stamps: bool = False, neighbour: str = ""
) -> Iterator[Sink]:
    """Run our sink in a process of its own; *tls_chain* is key and certificate, PEM, of localhost."""
    folder.mkdir(parents=True, exist_ok=True)
    counters = Counters(folder / "counters", is_new=True)
    port = free_port()
    options = [*(["--tls", str(tls_chain)] if tls_chain else []), *(["--stamps"] if has_stamps else []),
               *(["--neighbour", neighbour] if neighbour else [])]  # fmt: skip
    process = subprocess.Popen(
        [*dying_with_us(), sys.executable, "-m", "tests.bench.sink", str(port), str(latency_ms),
         str(folder / "counters"), *options],
        stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n", "the sink did not start"
        host = "https://localhost" if tls_chain else "http://127.0.0.1"
        yield OurSink(f"{host}:{port}/track/json", process.pid, counters)
    finally:
        process.kill()
        process.wait()


@contextmanager
def nginx_sink(folder: Path) -> Iterator[Sink]:
    """Run nginx, one worker, answering at once."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    process = subprocess.Popen([*dying_with_us(), "nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "e")])
    try:
        sink = NginxSink(port, process.pid)
        deadline = time.monotonic() + 10
        while not _is_up(port):
            assert process.poll() is None, "nginx did not start"
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.02)
        yield sink
    finally:
        process.kill()
        process.wait()


def has_nginx() -> bool:
    return shutil.which("nginx") is not None


def _is_up(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
