"""The sink: the leanest HTTP server there is, so that it isn't what is measured. It counts, and may take its time.

    python -m tests.bench.sink PORT LATENCY_MS COUNTERS_FILE [--tls PEM] [--stamps] [--neighbour ID=HOW]

What it sees is in COUNTERS_FILE, which the harness reads without asking (`Counters`). With `--stamps` it also reads the
event id: `t<ns>-<n>` is an event produced at that wall-clock nanosecond, whose age at the answer is noted; `slow-<n>`
is answered after SLOW_S only; every other id is answered and not noted. With `--neighbour`, requests with ID in them
are answered as HOW says (`ok`, a status, `slow`: after NEIGHBOUR_S, `never`) and counted apart.
"""

import argparse
import asyncio
import mmap
import re
import ssl
import time
from pathlib import Path
from typing import cast

import httptools
import uvloop

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"success":"1"}'
SLOW_S = 7.0
NEIGHBOUR_S = 2.0
HEAD_NUMBERS = 4
MAX_STAMPS = 1_000_000
EVENT_ID = re.compile(rb'"event_id": ?"(t|slow-)(\d+)')
RECORD_EVENT_ID = re.compile(rb"\0.{4}.(t|slow-)(\d+)", re.DOTALL)
"""In a record that was posted as it is: after Confluent's head and a byte of length, the first field."""


def find_event_id(body: bytes) -> "re.Match[bytes] | None":
    return RECORD_EVENT_ID.match(body) if body[:1] == b"\0" else EVENT_ID.search(body)


class Counters:
    """Numbers shared through a file: answers, connections accepted, ages noted, the neighbour's; and the ages in ms."""

    def __init__(self, path: Path, *, is_new: bool = False) -> None:
        if is_new:
            with path.open("wb") as file:
                file.truncate((HEAD_NUMBERS + MAX_STAMPS) * 8)  # sparse: what isn't written takes no room
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        view = memoryview(self._map)
        self.numbers = view[: HEAD_NUMBERS * 8].cast("Q")
        self.ages = view[HEAD_NUMBERS * 8 :].cast("d")

    @property
    def answers(self) -> int:
        return self.numbers[0]

    @property
    def connections(self) -> int:
        return self.numbers[1]

    @property
    def of_neighbour(self) -> int:
        """Requests of the neighbour, answered or not."""
        return self.numbers[3]

    def ages_ms(self) -> list[float]:
        return [float(age) for age in self.ages[: self.numbers[2]]]


class Connection(asyncio.Protocol):
    """Answers each request after the same time."""

    def __init__(self, counters: Counters, delay_s: float) -> None:
        self._numbers = counters.numbers
        self._delay_s = delay_s
        self._parser = httptools.HttpRequestParser(self)
        self._call_later = asyncio.get_running_loop().call_later

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._numbers[1] += 1

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self._delay_s:
            self._call_later(self._delay_s, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        if not self._transport.is_closing():  # who asked may be gone
            self._numbers[0] += 1
            self._transport.write(ANSWER)


class StampedConnection(Connection):
    """Reads the id of each event, too."""

    def __init__(self, counters: Counters, delay_s: float) -> None:
        super().__init__(counters, delay_s)
        self._ages = counters.ages
        self._body = b""

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, chunk: bytes) -> None:
        self._body += chunk

    def on_message_complete(self) -> None:
        found = find_event_id(self._body)
        if found is not None and found[1] == b"slow-":
            self._call_later(SLOW_S, self._answer)
        else:
            self._call_later(self._delay_s, self._note, int(found[2]) if found is not None else 0)

    def _note(self, produced_ns: int) -> None:
        if produced_ns and self._numbers[2] < MAX_STAMPS:
            self._ages[self._numbers[2]] = (time.time_ns() - produced_ns) / 1e6
            self._numbers[2] += 1
        self._answer()


class NeighbourConnection(Connection):
    """Answers one app in a way of its own."""

    def __init__(self, counters: Counters, delay_s: float, name: bytes, how: str) -> None:
        super().__init__(counters, delay_s)
        self._name = name
        self._how = how
        self._body = b""

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._name not in self._body:
            super().on_message_complete()
            return
        self._numbers[3] += 1
        status = self._how if self._how.isdecimal() else "200"
        answer = ANSWER.replace(b"200 OK", f"{status} Told".encode())
        if self._how != "never":
            delay_s = NEIGHBOUR_S if self._how == "slow" else self._delay_s
            self._call_later(delay_s, self._transport.write, answer)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("latency_ms", type=float)
    parser.add_argument("counters", type=Path)
    parser.add_argument("--tls", type=Path)
    parser.add_argument("--stamps", action="store_true")
    parser.add_argument("--neighbour", metavar="ID=HOW")
    given = parser.parse_args()
    counters = Counters(given.counters)
    name, _, how = (given.neighbour or "").partition("=")

    def connection() -> Connection:
        if name:
            return NeighbourConnection(counters, given.latency_ms / 1000, name.encode(), how)
        return (StampedConnection if given.stamps else Connection)(counters, given.latency_ms / 1000)

    context = None
    if given.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given.tls)
    server = await asyncio.get_running_loop().create_server(
        connection, "127.0.0.1", given.port, backlog=4096, ssl=context
    )
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
