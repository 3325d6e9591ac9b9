"""Whatever bytes come as an answer, however split: exactly one `Answer` or `Fault`, the same for every split, within
the caps; and the connection is asked again only where the answer ended exactly there.

The caps are made small here, so that short inputs meet them. The second implementation is h11: where both find an
answer it is the same one, and we keep no connection that h11 would close.
"""  # fmt: skip

import socket
from itertools import pairwise

import h11

from consumer.adapters import fast_connection
from consumer.adapters.fast_connection import Connection
from consumer.core.outcome import Answer, Fault
from tests.fuzz.feed import Feed

MAX_BYTES = 2048
WORDS = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 S\r\n", b"\r\n\r\n", b"\r\n",
    b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Connection: Upgrade\r\nUpgrade: x\r\n", b"Keep-Alive: timeout=5\r\n", b"0\r\n\r\n",
    b"2\r\nok\r\n", b"Retry-After: 7\r\n", b" 204 ", b" 304 ", b"\n", b"ffffffffffffffff", b";x=y",
]  # fmt: skip

CAPS = {"HEAD_MAX_BYTES": 256, "HEADER_MAX_LINES": 8, "BODY_MAX_BYTES": 128, "ANSWER_MAX_BYTES": 1024}
REAL_CAPS = {name: getattr(fast_connection, name) for name in CAPS}


class _Pipe:
    """What a connection needs of an asyncio transport. The socket is real: the kernel is asked about it."""

    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    def get_extra_info(self, _: str) -> socket.socket:
        return self.sock

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class _Owner:
    def __init__(self) -> None:
        self.freed_count = self.dropped_count = self.gone_count = 0

    def freed(self, connection: Connection) -> None:
        assert not connection.is_busy
        self.freed_count += 1

    def dropped(self, _: Connection) -> None:
        self.dropped_count += 1

    def gone(self, _: Connection) -> None:
        self.gone_count += 1

    def watch(self, _: Connection) -> None: ...

    def has_news(self, _: Connection) -> bool:
        return False


def _read(parts: list[bytes]) -> tuple[Answer | Fault, bool]:
    """Feed *parts* as the answer to one request, then the end. Says whether the connection was kept behind the last."""
    owner = _Owner()
    answers: list[Answer | Fault] = []
    connection = Connection(owner, is_tls=False)
    connection.connection_made(_Pipe())
    connection.ask(b"POST", 1.0, answers.append)
    fed = 0
    for part in parts:
        if not connection.is_open:
            break
        connection.data_received(part)
        fed += len(part)
    is_kept = connection.is_open and owner.freed_count == 1 and bool(parts)
    if connection.is_open:
        connection.eof_received()
    connection.connection_lost(None)
    assert len(answers) == 1, "exactly one answer"
    assert owner.freed_count <= 1
    assert owner.dropped_count == owner.gone_count == 1
    (answer,) = answers
    if isinstance(answer, Answer):
        assert 200 <= answer.status < 1000
        assert len(answer.body) <= CAPS["BODY_MAX_BYTES"]
    return answer, is_kept


def check(data: bytes) -> None:
    vars(fast_connection).update(CAPS)
    try:
        _check(data)
    finally:
        vars(fast_connection).update(REAL_CAPS)


def _check(data: bytes) -> None:
    feed = Feed(data)
    places = [feed.number(2) for _ in range(feed.number() % 8)]
    wire = feed.rest()
    edges = [0, *sorted({place % (len(wire) + 1) for place in places}), len(wire)]
    parts = [wire[start:end] for start, end in pairwise(edges) if start < end]

    answer, is_kept = _read([wire] if wire else [])
    split_answer, split_kept = _read(parts)
    assert split_answer == answer, "the same answer, however the network split it"
    # a blank line behind an answer cannot become one: it passes with the answer, by itself it ends the connection
    assert split_kept == is_kept or (is_kept and wire.endswith((b"\r", b"\n")))
    if is_kept:
        assert len(wire) <= CAPS["ANSWER_MAX_BYTES"]
    _compare(wire, answer, is_kept=is_kept)


def _compare(wire: bytes, answer: Answer | Fault, *, is_kept: bool) -> None:
    theirs = _as_h11_reads(wire)
    if theirs is None:
        return
    status, body, rest, closes = theirs
    if is_kept:
        assert not rest.strip(b"\r\n"), "bytes behind the answer would become the next one"
        assert not closes
    if isinstance(answer, Answer):
        assert answer.status == status
        assert answer.body == body[: CAPS["BODY_MAX_BYTES"]]


def _as_h11_reads(wire: bytes) -> tuple[int, bytes, bytes, bool] | None:
    """Return status, body, what stands behind the answer, and whether the connection ends; None if it isn't one."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    request = h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")])
    client.send(request)
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    status, body, has_ended = 0, b"", False
    while True:
        try:
            event = client.next_event()
        except h11.RemoteProtocolError:
            return None
        match event:
            case h11.Response(status_code=status):
                pass
            case h11.Data(data=data):
                body += bytes(data)
            case h11.EndOfMessage():
                rest, _ = client.trailing_data
                closes = has_ended or client.their_state is not h11.DONE
                return status, body, bytes(rest), closes
            case h11.NEED_DATA if not has_ended:
                has_ended = True
                client.receive_data(b"")
            case h11.InformationalResponse():
                pass
            case _:
                return None


def _seed(wire: bytes, *cuts: int) -> bytes:
    return bytes([len(cuts)]) + b"".join(cut.to_bytes(2, "big") for cut in cuts) + wire


SEEDS = [
    _seed(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"success":"1"}', 5, 30),
    _seed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;e=1\r\nok\r\n1\r\n!\r\n0\r\nX: 1\r\n\r\n", 50, 60),
    _seed(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 20),
    _seed(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    _seed(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nKeep-Alive: timeout=5, max=9\r\nContent-Length: 0\r\n\r\n"),
    _seed(b"HTTP/1.1 204 None\r\nConnection: close\r\n\r\n"),
    _seed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
    _seed(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + b"x" * 200, 100),
    _seed(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9 + b"\r\n"),
    _seed(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
]
