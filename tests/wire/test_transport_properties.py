"""However an answer is split by the network it is the same answer, and whatever comes there is exactly one."""

import socket
from itertools import pairwise

import pytest
from hypothesis import example, given, settings, strategies as st

from consumer.adapters.fast_connection import ANSWER_MAX_BYTES, BODY_MAX_BYTES, HEAD_MAX_BYTES, Connection
from consumer.core.outcome import Answer, Fault
from tests.support.rude_server import answer


class Pipe:
    """What a connection needs of an asyncio transport. The socket is real: the kernel is asked about it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def get_extra_info(self, _: str) -> socket.socket:
        return self._sock

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Owner:
    def __init__(self) -> None:
        self.freed_count = self.dropped_count = 0

    def freed(self, _: Connection) -> None:
        self.freed_count += 1

    def dropped(self, _: Connection) -> None:
        self.dropped_count += 1

    def gone(self, _: Connection) -> None: ...
    def watch(self, _: Connection) -> None: ...
    def has_news(self, _: Connection) -> bool:
        return False


def read(parts: list[bytes]) -> "tuple[list[Answer | Fault], Owner]":
    """Feed *parts* as the answer to one request, then the end of the connection."""
    owner = Owner()
    answers: list[Answer | Fault] = []
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        connection = Connection(owner, is_tls=False)
        connection.connection_made(Pipe(sock))
        connection.ask(b"POST", 1.0, answers.append)
        for part in parts:
            if connection.is_open:
                connection.data_received(part)
        if connection.is_open:
            connection.eof_received()
        connection.connection_lost(None)
    return answers, owner


def split(wire: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(wire) + 1) for cut in cuts} - {0}), len(wire)]
    return [wire[start:end] for start, end in pairwise(edges) if start < end]


def chunked(body: bytes, size: int) -> bytes:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x;e=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\nX-T: 1\r\n\r\n"


bodies = st.binary(max_size=200)
cuts = st.lists(st.integers(0, 10**7), max_size=12)
valid = st.one_of(
    st.builds(lambda body, status: answer(body, f"{status} X", "Retry-After: 3"), bodies, st.integers(200, 599)),
    st.builds(chunked, bodies, st.integers(1, 50)),
    st.builds(lambda body: b"HTTP/1.1 200 OK\r\n\r\n" + body, bodies),
    st.builds(lambda body: b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + answer(body, version="1.0"), bodies),
    st.builds(lambda body, extra: answer(body) + extra, bodies, st.binary(min_size=1, max_size=20)),
)
# around every cap, where what is read is cut
large = st.one_of(
    st.builds(lambda extra: answer(b"ok", "200 OK", "X: " + "x" * (HEAD_MAX_BYTES - 50 + extra)), st.integers(0, 60)),
    st.builds(lambda extra: answer(b"x" * (64 * 1024 - 5 + extra)), st.integers(0, 10)),
    st.builds(lambda lines: answer(b"", "200 OK", *["X: y"] * lines), st.integers(125, 130)),
    st.just(chunked(b"x" * (ANSWER_MAX_BYTES // 9), 1)),
)


@settings(deadline=None)
@given(wire=valid, cuts=cuts)
@example(wire=answer(b"x" * 30), cuts=list(range(200)))
def test_any_split_gives_the_same_answer(wire: bytes, cuts: list[int]) -> None:
    whole, _ = read([wire])
    parts, _ = read(split(wire, cuts))
    assert whole == parts
    assert isinstance(whole[0], Answer)


@settings(deadline=None, max_examples=60)
@given(wire=large, cuts=cuts)
def test_any_split_meets_the_caps_at_the_same_byte(wire: bytes, cuts: list[int]) -> None:
    whole, _ = read([wire])
    parts, _ = read(split(wire, cuts))
    assert whole == parts


@settings(deadline=None)
@given(extra=st.binary(min_size=1, max_size=50), missing_bytes=st.integers(0, 60))
@example(extra=answer(b"evil"), missing_bytes=0)
def test_a_connection_that_said_more_than_its_answer_is_not_asked_again(extra: bytes, missing_bytes: int) -> None:
    """Also where the answer ends at the cap of the head, at which what is read is fed in pieces."""
    frame_bytes = len(answer(b"x" * 60_000)) - 60_000
    body = b"x" * (HEAD_MAX_BYTES - frame_bytes - missing_bytes)
    answers, owner = read([answer(body) + extra.lstrip(b"\r\n") + b"x"])
    assert answers == [Answer(200, body)]
    assert owner.freed_count == 0


@pytest.mark.parametrize("status", ["103 Early", "199 Odd"])
@pytest.mark.parametrize("body_bytes", [2, BODY_MAX_BYTES + 1])
def test_an_interim_answer_with_a_body_is_not_http(status: str, body_bytes: int) -> None:
    """Found by the fuzzer: the body went before that of the real answer, or became an answer of status 0."""
    interim = answer(b"x" * body_bytes, status)
    assert read([interim + answer()])[0] == [Fault.PROTOCOL]
    assert read([interim, answer()])[0] == [Fault.PROTOCOL]


fragments = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n",
        b"Content-Length: 2\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Keep-Alive: timeout=99999999999999999999\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"2\r\nok\r\n",
        b"ffffffffffffffffff\r\n",
        b"0\r\n\r\n",
        b"ok",
    ]
)


@settings(deadline=None, max_examples=300)
@given(parts=st.lists(st.one_of(fragments, st.binary(min_size=1, max_size=30)), max_size=12))
def test_any_bytes_give_exactly_one_answer(parts: list[bytes]) -> None:
    answers, owner = read(parts)
    assert len(answers) == 1
    assert owner.freed_count <= 1
    assert owner.dropped_count == 1
